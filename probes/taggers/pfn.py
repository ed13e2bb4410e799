"""Particle Flow Network (arXiv:1810.05165): one network sees each constituent, another the sum over the jet.

Shapes: B jets, C classes, N constituents, L latent numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array, Float

from probes.taggers import Constituents
from probes.taggers.network import Tagger, features, layers, norm


@dataclass(frozen=True)
class ParticleFlow(Tagger):
    """F(sum over constituents of Phi(pT, eta, phi)), which is any function of a set if Phi is wide enough.

    `per_constituent` are the widths of Phi, the last one that of the sum; `per_jet` those of F.
    """

    per_constituent: tuple[int, ...] = (100, 100, 128)
    per_jet: tuple[int, ...] = (100, 100)

    @property
    def name(self) -> str:
        return "PFN"

    def logits(self, jets: Constituents) -> Float[Array, "B C"]:
        seen = layers(self.per_constituent, "per_constituent")(features(jets))
        # Padded rows are not zero (biases), so their weight must be.
        latent = jnp.einsum("bnl,bn->bl", seen, jnp.asarray(jets.mask, jnp.float32))
        return hk.Linear(self.classes, name="logits")(layers(self.per_jet, "per_jet")(norm(latent, "norm")))
