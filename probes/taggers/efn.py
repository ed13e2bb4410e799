"""Energy Flow Network (arXiv:1810.05165): like a Particle Flow Network, but infrared- and collinear-safe.

Shapes: B jets, C classes, N constituents, L latent numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array, Float

from probes.taggers import Constituents
from probes.taggers.network import Tagger, angles, fraction, layers, norm


@dataclass(frozen=True)
class EnergyFlow(Tagger):
    """F(sum over constituents of z Phi(eta, phi)), z the pT fraction.

    Linear in z, so that a soft emission or a collinear splitting changes nothing. `per_constituent` are the widths of
    Phi, the last one that of the sum; `per_jet` those of F.
    """

    per_constituent: tuple[int, ...] = (100, 100, 128)
    per_jet: tuple[int, ...] = (100, 100)

    @property
    def name(self) -> str:
        return "EFN"

    def logits(self, jets: Constituents) -> Float[Array, "B C"]:
        seen = layers(self.per_constituent, "per_constituent")(angles(jets))
        latent = jnp.einsum("bnl,bn->bl", seen, fraction(jets))
        return hk.Linear(self.classes, name="logits")(layers(self.per_jet, "per_jet")(norm(latent, "norm")))
