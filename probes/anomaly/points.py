"""Autoencoding of constituents as what they are, a set: no order goes in, and none is asked of what comes out.

Shapes: B jets, N constituents, D = 3 N: (z, along, across) of each, L latent numbers, M = L x `moments`.
"""

from __future__ import annotations

from dataclasses import dataclass

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probes.anomaly.codec import OUTPUT, NetworkCodec
from probes.taggers.network import FLOOR, layers

SOFT = 0.02
"""Distance below which two points count as one, in the unit of angles; keeps the slope of a distance finite."""


@dataclass(frozen=True)
class PointCodec(NetworkCodec):
    """Points pooled as in a Particle Flow Network (arXiv:1810.05165), and points made by a multilayer perceptron.

    `hidden` are the widths of each network; what is decoded has fractions that sum to one.
    """

    hidden: tuple[int, ...] = (128, 128)

    def encoder(self, x: Float[Array, "B D"]) -> Float[Array, "B M"]:
        points = _split(x)
        z, real = points[..., 0], jnp.asarray(points[..., 0] > 0, jnp.float32)
        logarithm = (jnp.log(jnp.maximum(z, FLOOR)) + 5) / 2
        r = jnp.sqrt(jnp.sum(points[..., 1:] ** 2, axis=-1) + SOFT**2)
        seen = layers(self.hidden, "constituent")(jnp.concatenate([points, jnp.stack([logarithm, r], axis=-1)], -1))
        weights = jnp.stack([z, real / jnp.maximum(real.sum(axis=1, keepdims=True), 1)], axis=1)
        pooled = jnp.einsum("bpn,bnd->bpd", weights, seen).reshape(x.shape[0], 2 * seen.shape[-1])
        return hk.Linear(self.latent * self.moments, name="latent")(layers(self.hidden, "jet")(pooled))

    def decoder(self, z: Float[Array, "B L"], width: int) -> Float[Array, "B D"]:
        made = _split(hk.Linear(width, name=OUTPUT)(layers(self.hidden, "decoder")(z)))
        fractions = jax.nn.softmax(made[..., :1], axis=1)
        return jnp.concatenate([fractions, made[..., 1:]], axis=-1).reshape(z.shape[0], width)


def energy_distance(x: Float[Array, "B D"], made: Float[Array, "B D"]) -> Float[Array, " B"]:
    """Székely's distance between the flows of pT of two jets: 2 E|p - q| - E|p - p'| - E|q - q'|, each weighted by z.

    Zero only where both flows agree; blind to the order of points, to points without pT and to collinear splittings,
    and it needs no matching of points, as the energy mover's distance (arXiv:1902.02346) does.
    """
    p, q = _split(x), _split(made)
    return 2 * _apart(p, q) - _apart(p, p) - _apart(q, q)


def _apart(p: Float[Array, "B N 3"], q: Float[Array, "B N 3"]) -> Float[Array, " B"]:
    square = jnp.sum((p[:, :, None, 1:] - q[:, None, :, 1:]) ** 2, axis=-1)
    return jnp.einsum("bn,bnm,bm->b", p[..., 0], jnp.sqrt(square + SOFT**2), q[..., 0])


def _split(x: Float[Array, "B D"]) -> Float[Array, "B N 3"]:
    return x.reshape(x.shape[0], x.shape[1] // 3, 3)
