"""Layers of a normalising flow: couplings of monotonic rational-quadratic splines (arXiv:1906.04032).

Shapes: B jets, D features, C features of the context, H features a layer bends, K bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

SMALLEST_BIN = 1e-2
"""Of a spline, as a part of its range. With the smallest slope it bounds how steep a flow becomes, and so what single
precision loses when a flow is inverted."""

SMALLEST_SLOPE = 1e-2


@dataclass(frozen=True)
class Couplings:
    """A stack of layers; each bends one half of the features by splines that the other half and the context set.

    Outside of [-bound, bound] a layer changes nothing. With zeros for parameters of the last linear map, as they are
    at the start, it changes nothing anywhere.
    """

    layers: int
    bins: int
    width: int
    bound: float

    def forward(
        self, x: Float[Array, "B D"], context: Float[Array, "B C"]
    ) -> tuple[Float[Array, "B D"], Float[Array, " B"]]:
        """In Haiku: jets to points of the base distribution, and log |dz/dx|."""
        logs = jnp.zeros_like(x[:, 0])
        for layer in range(self.layers):
            x, bent = self._layer(layer, x, context, inverse=False)
            logs += bent
        return x, logs

    def inverse(
        self, z: Float[Array, "B D"], context: Float[Array, "B C"]
    ) -> tuple[Float[Array, "B D"], Float[Array, " B"]]:
        """In Haiku: what `forward` came from, and log |dx/dz|."""
        logs = jnp.zeros_like(z[:, 0])
        for layer in reversed(range(self.layers)):
            z, bent = self._layer(layer, z, context, inverse=True)
            logs += bent
        return z, logs

    def _layer(
        self, layer: int, x: Float[Array, "B D"], context: Float[Array, "B C"], inverse: bool
    ) -> tuple[Float[Array, "B D"], Float[Array, " B"]]:
        bent, kept = _halves(layer, x.shape[1])
        seen = jnp.concatenate([x[:, kept], context], axis=1)
        # A single feature without context still has a density; a linear map of nothing has no parameters.
        seen = seen if seen.shape[1] else jnp.ones_like(x[:, :1])
        for i in range(2):
            seen = jax.nn.gelu(hk.Linear(self.width, name=f"layer_{layer}_hidden_{i}")(seen))
        numbers = len(bent) * (3 * self.bins - 1)
        out = hk.Linear(numbers, w_init=jnp.zeros, name=f"layer_{layer}_spline")(seen)
        shapes = out.reshape(x.shape[0], len(bent), 3 * self.bins - 1)
        new, logs = spline(x[:, bent], shapes, self.bound, inverse=inverse)
        back = np.argsort(np.concatenate([bent, kept]))
        return jnp.concatenate([new, x[:, kept]], axis=1)[:, back], logs.sum(axis=1)


def spline(
    x: Float[Array, "B H"], shapes: Float[Array, "B H _"], bound: float, *, inverse: bool = False
) -> tuple[Float[Array, "B H"], Float[Array, "B H"]]:
    """A rising curve of K pieces from (-bound, -bound) to (bound, bound), the identity outside; and log |slope|.

    The 3 K - 1 `shapes` are any numbers: of the widths and heights of the bins (softmax) and of the slopes between them
    (softplus); all zero is the identity. Equations 4 to 8 of arXiv:1906.04032.
    """
    bins = (shapes.shape[-1] + 1) // 3
    inside = jnp.abs(x) < bound
    at = jnp.clip(x, -bound, bound)
    widths, heights = (_bins(part, bound) for part in (shapes[..., :bins], shapes[..., bins : 2 * bins]))
    # Such that a zero makes the slope one.
    shift = math.log(math.expm1(1 - SMALLEST_SLOPE))
    slopes = SMALLEST_SLOPE + jax.nn.softplus(shapes[..., 2 * bins :] + shift)
    edges_x, edges_y = (jnp.cumsum(part[..., :-1], axis=-1) - bound for part in (widths, heights))
    piece = (at[..., None] >= (edges_y if inverse else edges_x)).sum(axis=-1)
    chosen = jax.nn.one_hot(piece, bins)
    end = jnp.full((*x.shape, 1), 1.0)
    first = jnp.full((*x.shape, 1), -bound)

    def here(values: Float[Array, "B H K"]) -> Float[Array, "B H"]:
        # A sum over few bins is quicker than a gather, and so is its gradient.
        return (values * chosen).sum(axis=-1)

    left, low = (here(jnp.concatenate([first, edges], axis=-1)) for edges in (edges_x, edges_y))
    w, h = here(widths), here(heights)
    before, after = here(jnp.concatenate([end, slopes], axis=-1)), here(jnp.concatenate([slopes, end], axis=-1))
    mean = h / w
    bend = before + after - 2 * mean
    if inverse:
        up = at - low
        a, b, c = h * (mean - before) + up * bend, h * before - up * bend, -mean * up
        part = 2 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0)))
    else:
        part = (at - left) / w
    part = jnp.clip(part, 0, 1)
    both = part * (1 - part)
    below = mean + bend * both
    y = left + part * w if inverse else low + h * (mean * part**2 + before * both) / below
    slope = mean**2 * (after * part**2 + 2 * mean * both + before * (1 - part) ** 2) / below**2
    logs = jnp.log(slope) * (-1 if inverse else 1)
    return jnp.where(inside, y, x), jnp.where(inside, logs, 0.0)


def _bins(shapes: Float[Array, "B H K"], bound: float) -> Float[Array, "B H K"]:
    bins = shapes.shape[-1]
    return 2 * bound * (SMALLEST_BIN + (1 - SMALLEST_BIN * bins) * jax.nn.softmax(shapes, axis=-1))


def _halves(layer: int, features: int) -> tuple[Int[np.ndarray, " H"], Int[np.ndarray, " _"]]:
    """Features that a layer bends, and those it keeps: two layers in a row bend all, the next two in other halves."""
    order = np.arange(features) if layer < 2 else np.random.default_rng(layer // 2).permutation(features)
    parts = order[0::2], order[1::2]
    bent, kept = parts if layer % 2 == 0 or features == 1 else parts[::-1]
    return np.sort(bent), np.sort(kept)
