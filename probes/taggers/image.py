"""A convolutional network on jet images (arXiv:1511.05190, arXiv:1707.08966).

Shapes: B jets, C classes, N constituents, P pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probes.taggers import Constituents
from probes.taggers.network import Tagger, fraction, layers


@dataclass(frozen=True)
class JetImage(Tagger):
    """Small convolutions on the jet's pT in pixels of (eta, phi): centred, principal axis upright, flipped.

    The image spans `extent` on either side of the centroid; what lies outside is lost. `channels` are the widths of
    the 3 x 3 convolutions, each followed by a pooling of 2 x 2. The alignment leaves nothing for `turned` to do.
    """

    turned: bool = False
    pixels: int = 32
    extent: float = 0.8
    channels: tuple[int, ...] = (16, 32, 64)
    per_jet: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixels % 2 ** len(self.channels) or not self.extent > 0:
            raise ValueError(f"pixels must be a multiple of 2 for each convolution and extent positive, got {self}")

    @property
    def name(self) -> str:
        return "jet-image CNN"

    def logits(self, jets: Constituents) -> Float[Array, "B C"]:
        pixels = image(jets, self.pixels, self.extent)
        h = jnp.stack([pixels, jnp.log1p(1000 * pixels)], axis=-1)
        for i, width in enumerate(self.channels):
            h = jax.nn.relu(hk.Conv2D(width, 3, name=f"convolution_{i}")(h))
            h = hk.max_pool(h, (2, 2, 1), (2, 2, 1), "VALID")
        return hk.Linear(self.classes, name="logits")(layers([self.per_jet], "per_jet")(h.reshape(len(h), -1)))


def image(jets: Constituents, pixels: int, extent: float) -> Float[Array, "B P P"]:
    """pT fraction in each pixel; a constituent is shared linearly between the pixels around it."""
    z, (along, across) = fraction(jets), aligned(jets)
    centres = (jnp.arange(pixels) + 0.5) * (2 * extent / pixels) - extent

    def shares(x: Float[Array, "B N"]) -> Float[Array, "B N P"]:
        return jnp.maximum(0.0, 1 - jnp.abs(x[..., None] - centres) * (pixels / (2 * extent)))

    return jnp.einsum("bnx,bny->bxy", z[..., None] * shares(along), shares(across))


def aligned(jets: Constituents) -> tuple[Float[Array, "B N"], Float[Array, "B N"]]:
    """Coordinates along and across the principal axis of the jet's pT, the harder half at positive values of both."""
    z, eta, phi = fraction(jets), jnp.asarray(jets.eta), jnp.asarray(jets.phi)
    ee, pp, ep = (jnp.sum(z * a * b, axis=1, keepdims=True) for a, b in ((eta, eta), (phi, phi), (eta, phi)))
    # arctan2(0, 0) of a round jet is 0: any axis is as good.
    angle = 0.5 * jnp.arctan2(2 * ep, ee - pp)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    along, across = cos * eta + sin * phi, cos * phi - sin * eta

    def flipped(x: Float[Array, "B N"]) -> Float[Array, "B N"]:
        return x * jnp.where(jnp.sum(z * jnp.sign(x), axis=1, keepdims=True) < 0, -1.0, 1.0)

    return flipped(along), flipped(across)
