"""A plain transformer over constituents: self-attention without positions and without pairwise features.

Shapes: B jets, C classes, N constituents, D model width, H heads, K head width = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probes.taggers import Constituents
from probes.taggers.network import Tagger, features, fraction, norm

# Not -inf: a jet without constituents must give finite numbers.
MASKED_SCORE = -1e9


@dataclass(frozen=True)
class Transformer(Tagger):
    """Pre-norm blocks (arXiv:1706.03762, arXiv:2002.04745), pooled over constituents by pT and by number.

    A layer of `per_jet` units turns the pooled numbers into logits.
    """

    width: int = 64
    blocks: int = 2
    heads: int = 4
    feedforward: int = 128
    per_jet: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.width, self.blocks, self.heads, self.feedforward, self.per_jet) < 1 or self.width % self.heads:
            raise ValueError(f"widths must be positive and width a multiple of heads, got {self}")

    @property
    def name(self) -> str:
        return "transformer"

    def logits(self, jets: Constituents) -> Float[Array, "B C"]:
        mask = jnp.asarray(jets.mask, jnp.float32)
        h = hk.Linear(self.width, name="embed")(features(jets))
        for i in range(self.blocks):
            h = h + self._attend(norm(h, f"attention_norm_{i}"), mask, f"block_{i}")
            hidden = jax.nn.gelu(hk.Linear(self.feedforward, name=f"block_{i}_up")(norm(h, f"feedforward_norm_{i}")))
            h = h + hk.Linear(self.width, name=f"block_{i}_down")(hidden)
        weights = jnp.stack([fraction(jets), mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)], axis=1)
        pooled = jnp.einsum("bpn,bnd->bpd", weights, norm(h, "final_norm")).reshape(len(mask), -1)
        hidden = jax.nn.gelu(hk.Linear(self.per_jet, name="per_jet")(norm(pooled, "pooled_norm")))
        return hk.Linear(self.classes, name="logits")(hidden)

    def _attend(self, h: Float[Array, "B N D"], mask: Float[Array, "B N"], name: str) -> Float[Array, "B N D"]:
        split = (*h.shape[:2], 3, self.heads, self.width // self.heads)
        query, key, value = jnp.moveaxis(hk.Linear(3 * self.width, name=f"{name}_qkv")(h).reshape(split), 2, 0)
        scores = jnp.einsum("bqhk,bnhk->bhqn", query, key) / jnp.sqrt(query.shape[-1])
        chance = jax.nn.softmax(jnp.where(mask[:, None, None, :] > 0, scores, MASKED_SCORE))
        mixed = jnp.einsum("bhqn,bnhk->bqhk", chance, value).reshape(h.shape)
        return hk.Linear(self.width, name=f"{name}_out")(mixed)
