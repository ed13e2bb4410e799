"""Objectives that spread projections by their statistics over the batch: nothing is compared from jet to jet.

Shape glossary: B jets, V views of each, P projection width.
"""

from dataclasses import dataclass
from itertools import combinations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jetclr.objectives.monitors import watch
from jetclr.objectives.protocol import Loss, Memory, Objective, Seen, Whole, alone, check_positive

VARIANCE_FLOOR = 1e-4
"""Added to variances before the root, which has no gradient at zero."""

NORM_FLOOR = 1e-5
"""The same, of batch normalisation."""


@dataclass(frozen=True)
class VICReg(Objective):
    """Variance-invariance-covariance regularisation (arXiv:2105.04906), of projections as they are.

    `invariance` times the mean squared difference of two views; `variance` times the mean over numbers of how far the
    standard deviation over the batch stays below 1; `covariance` times the sum over both views of the squared
    covariances of different numbers, divided by P. The first two are means over numbers and views, as in the authors'
    program, to which their weights belong; the paper writes sums. With more views, the mean over pairs.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, "invariance", "variance", "covariance")

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        z = seen.rows["projection"]
        views = z.shape[1]
        spread = jnp.sqrt(jnp.var(z, axis=0, ddof=1) + VARIANCE_FLOOR)
        short = jnp.mean(jax.nn.relu(1 - spread))
        centred = z - jnp.mean(z, axis=0)
        alike = [_off_diagonal(_products(centred[:, v], centred[:, v]) / (len(z) - 1)) for v in range(views)]
        apart = jnp.mean(jnp.stack([jnp.mean((z[:, v] - z[:, w]) ** 2) for v, w in combinations(range(views), 2)]))
        redundant = 2 * sum(alike) / (views * z.shape[2])
        loss = self.invariance * apart + self.variance * short + self.covariance * redundant
        return Loss(loss, watch(seen, whole, logged), memory)


@dataclass(frozen=True)
class BarlowTwins(Objective):
    """Redundancy reduction (arXiv:2103.03230): the cross-correlation of two views is to be the identity.

    The sum of (1 - c_ii)^2 and, times `redundancy`, of c_ij^2 for i != j, where c is the correlation over the batch of
    number i of one view with number j of the other. With more views, the mean over pairs.
    """

    redundancy: float = 0.005

    def __post_init__(self) -> None:
        check_positive(self, "redundancy")

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        z = seen.rows["projection"]
        z = (z - jnp.mean(z, axis=0)) * jax.lax.rsqrt(jnp.var(z, axis=0) + NORM_FLOOR)
        losses = []
        for v, w in combinations(range(z.shape[1]), 2):
            correlation = _products(z[:, v], z[:, w]) / len(z)
            losses.append(jnp.sum((1 - jnp.diagonal(correlation)) ** 2) + self.redundancy * _off_diagonal(correlation))
        return Loss(jnp.mean(jnp.stack(losses)), watch(seen, whole, logged), memory)


def _products(a: Float[Array, "B P"], b: Float[Array, "B P"]) -> Float[Array, "P P"]:
    """Sums over the batch, which each device takes of its own rows before they meet."""
    return jnp.matmul(a.T, b, precision=jax.lax.Precision.HIGHEST)


def _off_diagonal(x: Float[Array, "P P"]) -> Float[Array, ""]:
    """The sum of squares beside the diagonal."""
    return jnp.sum(jnp.where(jnp.eye(len(x), dtype=bool), 0, x) ** 2)
