"""Draw from a density exp(-U) / Z by Langevin steps, and estimate log Z: what energy-based models need.

Each step is corrected by acceptance or rejection (Metropolis-adjusted; Besag 1994, Roberts & Tweedie 1996), so that
the chain keeps exp(-U) exactly at any step size: one that is too large stands still, it does not run away.

Shapes: B chains, D numbers of a point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

Energy: TypeAlias = Callable[[Float[Array, "B D"]], Float[Array, " B"]]
"""U of each point, minus the logarithm of its density but for a constant."""


class Chains(NamedTuple):
    """Where the chains ended, U there, and the share of proposals that were accepted."""

    x: Float[Array, "B D"]
    energy: Float[Array, " B"]
    accepted: Float[Array, ""]


def langevin(
    energy: Energy, x: Float[Array, "B D"], key: Key[Array, ""], steps: int, step: float | Float[Array, ""]
) -> Chains:
    """Chains from `x`: each of `steps` proposes x - step/2 grad U + sqrt(step) * normal. May be traced by jax.

    Raises ValueError for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"chains need at least one step, got {steps}")

    def both(x: Float[Array, "B D"]) -> tuple[Float[Array, " B"], Float[Array, "B D"]]:
        energies, back = jax.vjp(energy, x)
        return energies, back(jnp.ones_like(energies))[0]

    def one(at: tuple[Array, Array, Array], key: Key[Array, ""]) -> tuple[tuple[Array, Array, Array], Array]:
        x, u, slope = at
        move, decide = jax.random.split(key)
        there = x - step / 2 * slope + jnp.sqrt(step) * jax.random.normal(move, x.shape)
        u_there, slope_there = both(there)

        def path(a: Array, b: Array, slope: Array) -> Array:
            return jnp.sum((b - a + step / 2 * slope) ** 2, axis=1) / (2 * step)

        gain = u - u_there + path(x, there, slope) - path(there, x, slope_there)
        # A proposal of no finite energy compares as False and stays behind.
        taken = jnp.log(jax.random.uniform(decide, u.shape, minval=1e-12)) < gain
        x, slope = (jnp.where(taken[:, None], new, old) for new, old in ((there, x), (slope_there, slope)))
        return (x, jnp.where(taken, u_there, u), slope), jnp.mean(taken)

    (x, u, _), accepted = jax.lax.scan(one, (x, *both(x)), jax.random.split(key, steps))
    return Chains(x, u, accepted.mean())


class Partition(NamedTuple):
    """An estimate of log Z, its standard error, and how many of the chains count (of weights far apart: few)."""

    log: float
    error: float
    effective: float


def log_partition(
    energy: Energy,
    x: Float[np.ndarray, "B D"],
    *,
    seed: int = 0,
    chains: int = 1000,
    levels: int = 200,
    step: float = 0.1,
) -> Partition:
    """log of the integral of exp(-U), by annealed importance sampling (physics/9803008).

    Chains begin at a normal distribution with the mean and the covariance of `x`, widened by a half, and go in
    `levels` Langevin steps of size `step` (in units of its variances) to exp(-U). The estimate of Z is unbiased
    whatever the step; of log Z it lies too low where few chains count.

    Raises ValueError for fewer points than dimensions, for settings out of range, and where U is not finite.
    """
    if x.ndim != 2 or len(x) <= x.shape[1]:
        raise ValueError(f"more points than dimensions are needed to begin from, got shape {x.shape}")
    if min(chains, levels) < 2 or not step > 0:
        raise ValueError(f"chains, levels > 1 and step > 0 are needed, got {chains}, {levels}, {step}")
    width = x.shape[1]
    mean = jnp.asarray(x.mean(axis=0), jnp.float32)
    covariance = np.atleast_2d(np.cov(x, rowvar=False)) * 1.5**2
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError("the points to begin from lie in fewer dimensions than they have") from None
    spread = jnp.asarray(root, jnp.float32)

    # In these coordinates the beginning is a standard normal, and one step size fits all directions.
    def bent(share: Array) -> Energy:
        return lambda v: share * energy(mean + v @ spread.T) + (1 - share) * 0.5 * jnp.sum(v**2, axis=1)

    def level(v: Array, at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        before, share, key = at
        weight = bent(before)(v) - bent(share)(v)
        return langevin(bent(share), v, key, 1, step).x, weight

    @jax.jit
    def all_levels(key: Key[Array, ""]) -> Float[Array, " B"]:
        first, rest = jax.random.split(key)
        shares = jnp.linspace(0.0, 1.0, levels + 1)
        v = jax.random.normal(first, (chains, width))
        return jax.lax.scan(level, v, (shares[:-1], shares[1:], jax.random.split(rest, levels)))[1].sum(axis=0)

    weights = np.asarray(all_levels(jax.random.key(seed)), np.float64)
    if not np.isfinite(weights).all():
        raise ValueError(f"the energy is NaN or infinite along {np.count_nonzero(~np.isfinite(weights))} chains")
    top = weights.max()
    shares = np.exp(weights - top)
    log_normal = 0.5 * width * math.log(2 * math.pi) + float(np.log(np.diag(root)).sum())
    error = float(shares.std() / shares.mean() / math.sqrt(chains))
    return Partition(
        float(top + np.log(shares.mean())) + log_normal, error, float(shares.sum() ** 2 / (shares**2).sum())
    )
