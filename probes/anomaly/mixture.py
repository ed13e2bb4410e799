"""Density of the background as a sum of Gaussians, fitted by scikit-learn.

Shapes: B jets, D features, K components of the features, M Gaussians.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

from probes.anomaly.arrays import required
from probes.anomaly.head import Progress, Sees, State, no_progress
from probes.anomaly.traced import product, single
from probes.anomaly.whitening import Whitened
from probes.strength import drawn
from probes.tables import Features

MOST_JETS = 20_000
"""Jets a mixture is fitted to; of more, this many are drawn."""

HELD_OUT = 0.2
ITERATIONS = 100
FLOOR = 1e-3
"""Added to the variances of each Gaussian, in units of those of the whitened background."""


@dataclass(frozen=True)
class Mixture:
    """Negative log-density of a Gaussian mixture in whitened `components`, with full covariances.

    The number of Gaussians is the one among `gaussians` of highest likelihood on a fifth of the jets.
    """

    name: ClassVar[str] = "Gaussian mixture"
    sees: ClassVar[Sees] = "features"
    components: int = 32
    shrink: float = 1e-2
    gaussians: tuple[int, ...] = (1, 4, 8, 16)

    def __post_init__(self) -> None:
        if not self.gaussians or min(self.gaussians) < 1:
            raise ValueError(f"gaussians must be positive numbers of them, got {self.gaussians}")

    def fit(self, x: Features, *, seed: int = 0, progress: Progress = no_progress) -> MixtureDetector:
        """Choose the number of Gaussians and fit so many to all jets; `seed` decides where the fits begin.

        Raises ValueError as `Whitened.of`, and for fewer jets than two a component and Gaussian.
        """
        whitened = Whitened.of(x, self.components, self.shrink)
        rng = np.random.default_rng(seed)
        z = rng.permutation(whitened(x[drawn(np.arange(len(x)), MOST_JETS, rng)]))
        needed = 2 * z.shape[1] * max(self.gaussians)
        if len(z) < needed:
            raise ValueError(f"{max(self.gaussians)} Gaussians in {z.shape[1]} components need {needed} jets at least")
        held, learned = np.split(z, [round(HELD_OUT * len(z))])
        reached = [_fitted(learned, n, seed).score(held) for n in self.gaussians] if len(self.gaussians) > 1 else [0.0]
        best = _fitted(z, self.gaussians[int(np.argmax(reached))], seed)
        return MixtureDetector(self, whitened, best.weights_, best.means_, best.precisions_cholesky_)

    def restore(self, state: State) -> MixtureDetector:
        """The detector whose `state()` this is; raises ValueError for arrays that do not fit together."""
        whitened = Whitened.restored(state)
        weights, width = required(state, "weights", None), whitened.axes.shape[1]
        factors = required(state, "factors", len(weights), width, width)
        if not (weights > 0).all() or not (np.diagonal(factors, axis1=1, axis2=2) > 0).all():
            raise ValueError("the weights and widths of a Gaussian mixture must be positive")
        return MixtureDetector(self, whitened, weights, required(state, "means", len(weights), width), factors)


@dataclass(frozen=True)
class MixtureDetector:
    """Whitened background; share and mean of each Gaussian, and the Cholesky factor of its inverse covariance."""

    head: Mixture
    whitened: Whitened
    weights: Float[np.ndarray, " M"]
    means: Float[np.ndarray, "M K"]
    factors: Float[np.ndarray, "M K K"]

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Minus log-density of the whitened components [nats].

        Raises ValueError for another number of features, NaN or infinity.
        """
        z = self.whitened(x)
        each = [
            log - 0.5 * ((z @ factor - mean @ factor) ** 2).sum(axis=1)
            for log, mean, factor in zip(self._peaks(), self.means, self.factors, strict=True)
        ]
        return 0.5 * z.shape[1] * math.log(2 * math.pi) - logsumexp(each, axis=0)

    def traced(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        """`score` as pure JAX."""
        z = self.whitened.traced(x)
        squares = [
            jnp.sum(product(z - single(mean), factor) ** 2, axis=1, keepdims=True)
            for mean, factor in zip(self.means, self.factors, strict=True)
        ]
        each = single(self._peaks()) - 0.5 * jnp.concatenate(squares, axis=1)
        return 0.5 * z.shape[1] * math.log(2 * math.pi) - jax.nn.logsumexp(each, axis=1)

    def _peaks(self) -> Float[np.ndarray, " M"]:
        """Logarithm of each Gaussian's share and height, but for the powers of 2 pi."""
        return np.log(self.weights) + np.log(np.diagonal(self.factors, axis1=1, axis2=2)).sum(axis=1)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restore` takes."""
        own = {"weights": self.weights, "means": self.means, "factors": self.factors}
        return self.whitened.state() | own


def _fitted(z: Float[np.ndarray, "_ K"], gaussians: int, seed: int) -> GaussianMixture:
    mixture = GaussianMixture(gaussians, reg_covar=FLOOR, max_iter=ITERATIONS, random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(1):
        # Where it stands after so many steps is as good a density as a little further on.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(z)
