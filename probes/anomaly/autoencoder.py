"""Autoencoders: what a network that was trained to copy usual jets copies badly is strange.

Shapes: B jets, D numbers of an input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from probes.anomaly.codec import Codec, ImageCodec, TableCodec
from probes.anomaly.inputs import FeatureInputs, ImageInputs, PointInputs
from probes.anomaly.network_head import NetworkHead, Objective
from probes.anomaly.points import PointCodec, energy_distance
from probes.training import Params

Distance: TypeAlias = Callable[[Float[Array, "B D"], Float[Array, "B D"]], Float[Array, " B"]]
"""How far what was made of some inputs is from them."""


def mean_square(x: Float[Array, "B D"], made: Float[Array, "B D"]) -> Float[Array, " B"]:
    """Squared difference, averaged over the numbers of a jet."""
    return jnp.mean((made - x) ** 2, axis=1)


@dataclass(frozen=True)
class Reconstruction:
    """Distance between inputs and what a codec makes of them."""

    codec: Codec
    distance: Distance = mean_square

    def each(self, params: Params, x: Float[Array, "B D"], key: Key[Array, ""] | None) -> Float[Array, " B"]:
        latent = self.codec.encode(params, x)[:, : self.codec.latent]
        return self.distance(x, self.codec.decode(params, latent))


@dataclass(frozen=True)
class AutoEncoder(FeatureInputs, NetworkHead):
    """Mean squared error of whitened features that went through `latent` numbers.

    On 15,000 top-tagging jets of one class, of a JetCLR embedding of 1,152 features, AUC against the other class on
    3,000 jets of each: 0.954 fitted on QCD, 0.946 fitted on tops; with 64 components and 16 latent numbers 0.949 and
    0.943.
    """

    name: ClassVar[str] = "autoencoder"

    components: int = 128
    latent: int = 32
    hidden: tuple[int, ...] = (128, 64)

    @property
    def objective(self) -> Objective:
        return Reconstruction(TableCodec(self.latent, hidden=self.hidden))


@dataclass(frozen=True)
class ImageAutoEncoder(ImageInputs, NetworkHead):
    """Mean squared error of jet images (arXiv:1808.08979, arXiv:1808.08992).

    It finds jets that are more complex than those it was fitted on, and copies simpler ones without having seen any
    (arXiv:2104.09051): on 15,000 top-tagging jets of one class, AUC against the other class on 3,000 jets of each 0.948
    fitted on QCD and 0.293 fitted on tops.
    """

    name: ClassVar[str] = "image autoencoder"

    latent: int = 16
    hidden: tuple[int, ...] = (128, 64)

    @property
    def objective(self) -> Objective:
        return Reconstruction(ImageCodec(self.latent, hidden=self.hidden, pixels=self.pixels))


@dataclass(frozen=True)
class ConstituentAutoEncoder(PointInputs, NetworkHead):
    """Energy distance between a jet's flow of pT and what is made of it; see `probes.anomaly.points` for why.

    The published reference (arXiv:1808.08979) compares ordered constituents one by one, so that a change of order
    counts as much as a change of the jet. On 15,000 top-tagging jets of one class, AUC against the other class on 3,000
    jets of each: 0.958 fitted on QCD, 0.695 fitted on tops.
    """

    name: ClassVar[str] = "constituent autoencoder"

    steps: int = 800
    latent: int = 16
    hidden: tuple[int, ...] = (128, 128)

    @property
    def objective(self) -> Objective:
        return Reconstruction(PointCodec(self.latent, hidden=self.hidden), energy_distance)
