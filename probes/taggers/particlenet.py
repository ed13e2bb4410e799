"""ParticleNet-lite (arXiv:1902.08570): each constituent learns from its nearest neighbours, found anew in each block.

Shapes: B jets, C classes, N constituents, D features, K neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from probes.taggers import Constituents
from probes.taggers.network import Tagger, features, fraction, layers, norm

FAR = 1e9
"""Squared distance to padding, and of a constituent to itself: neither is a neighbour."""


@dataclass(frozen=True)
class ParticleNet(Tagger):
    """EdgeConv blocks (arXiv:1801.07829) on graphs of the `neighbours` nearest constituents, then means over the jet.

    The first graph is in (eta, phi), the next ones in what the block before has learned. `blocks` are the widths of
    the edges' networks. Unlike the published network it normalises layers, not batches, and a mean weighted by pT
    stands beside the plain one.
    """

    neighbours: int = 7
    blocks: tuple[tuple[int, ...], ...] = ((32, 32, 32), (64, 64, 64))
    per_jet: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours < 1 or min(map(len, self.blocks), default=0) < 2:
            raise ValueError(f"at least one neighbour, one block and two widths in each are needed, got {self}")

    @property
    def name(self) -> str:
        return "ParticleNet-lite"

    def logits(self, jets: Constituents) -> Float[Array, "B C"]:
        mask = jnp.asarray(jets.mask)
        h, points = features(jets), jnp.stack([jnp.asarray(jets.eta), jnp.asarray(jets.phi)], axis=-1)
        for i, widths in enumerate(self.blocks):
            h = points = edge_convolution(h, points, mask, self.neighbours, widths, f"block_{i}")
        real = jnp.asarray(mask, jnp.float32)
        weights = jnp.stack([fraction(jets), real / jnp.maximum(real.sum(axis=1, keepdims=True), 1)], axis=1)
        pooled = jnp.einsum("bpn,bnd->bpd", weights, h).reshape(len(real), -1)
        return hk.Linear(self.classes, name="logits")(layers([self.per_jet], "per_jet")(pooled))


def edge_convolution(
    h: Float[Array, "B N D"],
    points: Float[Array, "B N P"],
    mask: Bool[Array, "B N"],
    neighbours: int,
    widths: tuple[int, ...],
    name: str,
) -> Float[Array, "B N E"]:
    """Mean over the nearest neighbours of a network of (x_i, x_j - x_i), beside a direct path from x_i."""
    edges = nearest(points, mask, neighbours)
    # The first layer is linear in x_i and x_j, so it is applied to constituents instead of edges.
    own = hk.Linear(widths[0], name=f"{name}_own")(h)
    other = hk.Linear(widths[0], with_bias=False, name=f"{name}_other")(h)
    seen = jax.nn.relu(own[:, :, None, :] + jnp.einsum("bnkm,bmd->bnkd", edges, other))
    seen = layers(widths[1:], f"{name}_edge")(seen)
    found = edges.sum(axis=-1)
    mean = jnp.einsum("bnkd,bnk->bnd", seen, found / jnp.maximum(found.sum(axis=-1, keepdims=True), 1))
    direct = hk.Linear(widths[-1], name=f"{name}_direct")(h)
    return jax.nn.relu(norm(mean + direct, f"{name}_sum_norm"))


def nearest(points: Float[Array, "B N P"], mask: Bool[Array, "B N"], neighbours: int) -> Float[Array, "B N K M"]:
    """1 where m is the k-th nearest other constituent of n, else 0; all 0 where a jet has fewer than k others."""
    points = jax.lax.stop_gradient(points)
    squares = jnp.sum(points**2, axis=-1)
    # In full precision, which accelerators do not give by themselves: close neighbours are small differences.
    products = jnp.einsum("bnp,bmp->bnm", points, points, precision=jax.lax.Precision.HIGHEST)
    distance = squares[:, :, None] + squares[:, None, :] - 2 * products
    slots = jnp.arange(points.shape[1])
    distance = jnp.where(mask[:, None, :] & (slots[:, None] != slots), distance, FAR)
    closeness, index = jax.lax.top_k(-distance, min(neighbours, len(slots)))
    return jnp.where(closeness[..., None] > -FAR / 2, jax.nn.one_hot(index, len(slots)), 0.0)
