"""Products and distances in single precision, for scores that become part of an exported graph.

`Detector.traced` is `Detector.score` in pure JAX, for any number of jets: no float64, which graphs for inference do
without. So that little is lost, what can be multiplied out beforehand is, in double precision; features are centred
before they are multiplied; and large numbers whose difference counts are not subtracted.

Shapes: B jets, K components, M other jets.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def product(x: Float[Array, "B K"], matrix: Float[np.ndarray, "K N"]) -> Float[Array, "B N"]:
    """x @ matrix in single precision, also on accelerators that would rather round more."""
    return jnp.matmul(x, single(matrix), precision=jax.lax.Precision.HIGHEST)


def squares_apart(x: Float[Array, "B K"], others: Float[np.ndarray, "M K"]) -> Float[Array, "B M"]:
    """Squared distances, exact to rounding of the squared lengths: good where both lie about the origin."""
    lengths = single((others.astype(np.float64) ** 2).sum(axis=1))
    return jnp.maximum(jnp.sum(x**2, axis=1, keepdims=True) + lengths - 2 * product(x, others.T), 0)


def single(x: Float[np.ndarray, "*D"]) -> Float[Array, "*D"]:
    """A constant of the graph, rounded only here."""
    return jnp.asarray(np.asarray(x, np.float32))
