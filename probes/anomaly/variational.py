"""Variational autoencoders (arXiv:1312.6114): latent numbers are kept near a normal distribution, at a price.

Shapes: B jets, D numbers of an input, L latent numbers.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from probes.anomaly.autoencoder import Distance, Reconstruction, mean_square
from probes.anomaly.codec import Codec, ImageCodec, TableCodec
from probes.anomaly.inputs import FeatureInputs, ImageInputs, PointInputs
from probes.anomaly.network_head import NetworkHead, Objective
from probes.anomaly.points import PointCodec, energy_distance
from probes.training import Params

Score: TypeAlias = Literal["bound", "reconstruction", "divergence"]
"""The whole bound, or one of its two terms alone."""

LARGEST_LOG_VARIANCE = 10.0
"""Beyond it, either way, an exponential would tell nothing but grow."""


def moments(codec: Codec, params: Params, x: Float[Array, "B D"]) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
    """Means and log-variances of the latent numbers; of a codec with two `moments`."""
    mean, log_variance = jnp.split(codec.encode(params, x), 2, axis=1)
    return mean, jnp.clip(log_variance, -LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)


@dataclass(frozen=True)
class Divergence:
    """Kullback-Leibler divergence of the latent normal distribution from the standard one [nats]."""

    codec: Codec

    def each(self, params: Params, x: Float[Array, "B D"], key: Key[Array, ""] | None) -> Float[Array, " B"]:
        mean, log_variance = moments(self.codec, params, x)
        return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - log_variance - 1, axis=1)


@dataclass(frozen=True)
class Bound:
    """Distance of what is made of drawn latent numbers, plus `beta` times the divergence (arXiv:1312.6114).

    Of the mean square of D numbers and with beta = 2 / D it is, times D / 2 and up to a constant, the negative evidence
    lower bound of normal distributions of unit variance. Without a key the latent means are decoded.
    """

    codec: Codec
    beta: float
    distance: Distance = mean_square

    def each(self, params: Params, x: Float[Array, "B D"], key: Key[Array, ""] | None) -> Float[Array, " B"]:
        latent, log_variance = moments(self.codec, params, x)
        if key is not None:
            latent = latent + jnp.exp(0.5 * log_variance) * jax.random.normal(key, latent.shape)
        error = self.distance(x, self.codec.decode(params, latent))
        return error + self.beta * Divergence(self.codec).each(params, x, None)


@dataclass(frozen=True)
class VariationalHead(NetworkHead):
    """What the variational heads share: `beta` weighs the divergence, `scored` says which number is the score."""

    latent: int = 16
    beta: float = 0.01
    scored: str = "bound"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < float("inf") or self.scored not in get_args(Score):
            raise ValueError(f"beta must be positive and scored one of {', '.join(get_args(Score))}, got {self}")

    @property
    @abstractmethod
    def codec(self) -> Codec:
        """Of two moments."""

    @property
    def distance(self) -> Distance:
        """Between inputs and what is made of them."""
        return mean_square

    @property
    def objective(self) -> Objective:
        return Bound(self.codec, self.beta, self.distance)

    @property
    def strangeness(self) -> Objective:
        if self.scored == "divergence":
            return Divergence(self.codec)
        return self.objective if self.scored == "bound" else Reconstruction(self.codec, self.distance)


@dataclass(frozen=True)
class Variational(FeatureInputs, VariationalHead):
    """Bound on the density of features, by normal distributions around what is decoded.

    On 15,000 top-tagging jets of one class, of a JetCLR embedding of 1,152 features, AUC against the other class on
    3,000 jets of each, fitted on QCD and on tops: bound 0.947 and 0.950, reconstruction 0.946 and 0.939, divergence
    0.908 and 0.958.
    """

    name: ClassVar[str] = "VAE"

    hidden: tuple[int, ...] = (128, 64)

    @property
    def codec(self) -> Codec:
        return TableCodec(self.latent, 2, self.hidden)


@dataclass(frozen=True)
class ImageVariational(ImageInputs, VariationalHead):
    """The same of jet images.

    As for features: bound 0.940 and 0.462, reconstruction 0.935 and 0.320, divergence 0.788 and 0.768.
    """

    name: ClassVar[str] = "image VAE"

    hidden: tuple[int, ...] = (128, 64)

    @property
    def codec(self) -> Codec:
        return ImageCodec(self.latent, 2, self.hidden, self.pixels)


@dataclass(frozen=True)
class ConstituentVariational(PointInputs, VariationalHead):
    """The same of constituents, by their energy distance: no density, since that is no normal distribution's."""

    name: ClassVar[str] = "constituent VAE"

    steps: int = 800
    beta: float = 0.001
    hidden: tuple[int, ...] = (128, 128)

    @property
    def codec(self) -> Codec:
        return PointCodec(self.latent, 2, self.hidden)

    @property
    def distance(self) -> Distance:
        return energy_distance
