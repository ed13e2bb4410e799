"""Encoders and decoders between flat inputs and few latent numbers: what all autoencoders here are made of.

A codec is a frozen dataclass of settings with pure functions; hashable, for a program is compiled once a codec.

Shapes: B jets, D numbers of an input, L latent numbers, M = L x `moments`.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from probes.training import Params

OUTPUT = "output"
"""The decoder's last layer; its offsets tell how many numbers an input has."""


@runtime_checkable
class Codec(Protocol):
    """Flat inputs of order one to `latent` numbers and back."""

    @property
    def latent(self) -> int: ...

    def __hash__(self) -> int: ...

    def init(self, key: Key[Array, ""], x: Float[Array, "B D"] | Float[np.ndarray, "B D"]) -> Params:
        """Random parameters for inputs as wide as `x`, of which the values do not matter."""
        ...

    def encode(self, params: Params, x: Float[Array, "B D"]) -> Float[Array, "B M"]:
        """Latent numbers: `latent` of them, or of a variational one their means and then their log-variances."""
        ...

    def decode(self, params: Params, z: Float[Array, "B L"]) -> Float[Array, "B D"]:
        """Inputs that the latent numbers stand for."""
        ...


@dataclass(frozen=True)
class NetworkCodec(ABC):
    """A codec of two Haiku networks; a subclass adds its settings, `encoder` and `decoder`.

    `moments` is 1, or 2 for a variational autoencoder: means and log-variances.
    """

    latent: int
    moments: int = 1

    def __post_init__(self) -> None:
        if self.latent < 1 or self.moments not in (1, 2):
            raise ValueError(f"at least one latent number and one or two moments of each are needed, got {self}")

    @abstractmethod
    def encoder(self, x: Float[Array, "B D"]) -> Float[Array, "B M"]:
        """In Haiku; inputs to latent numbers."""

    @abstractmethod
    def decoder(self, z: Float[Array, "B L"], width: int) -> Float[Array, "B D"]:
        """In Haiku; latent numbers to inputs of `width` numbers, the last layer named `OUTPUT`."""

    def init(self, key: Key[Array, ""], x: Float[Array, "B D"] | Float[np.ndarray, "B D"]) -> Params:
        return _initial(self, x.shape[1])(key)

    def encode(self, params: Params, x: Float[Array, "B D"]) -> Float[Array, "B M"]:
        return _applied(self.encoder, params, x)

    def decode(self, params: Params, z: Float[Array, "B L"]) -> Float[Array, "B D"]:
        return _applied(lambda z: self.decoder(z, len(params[OUTPUT]["b"])), params, z)


@dataclass(frozen=True)
class TableCodec(NetworkCodec):
    """Two multilayer perceptrons for whitened features; `hidden` are the encoder's widths, the decoder's backwards.

    Without hidden layers both are linear, and the best they can do is principal components.
    """

    hidden: tuple[int, ...] = (128, 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.hidden, default=1) < 1:
            raise ValueError(f"hidden layers need positive widths, got {self.hidden}")

    def encoder(self, x: Float[Array, "B D"]) -> Float[Array, "B M"]:
        return hk.Linear(self.latent * self.moments, name="latent")(_layers(x, self.hidden, "encoder"))

    def decoder(self, z: Float[Array, "B L"], width: int) -> Float[Array, "B D"]:
        return hk.Linear(width, name=OUTPUT)(_layers(z, self.hidden[::-1], "decoder"))


@dataclass(frozen=True)
class ImageCodec(TableCodec):
    """The same for images of `pixels` x `pixels` numbers that are not negative: neither is what the decoder gives."""

    pixels: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixels < 1:
            raise ValueError(f"an image needs pixels, got {self.pixels}")

    def encoder(self, x: Float[Array, "B D"]) -> Float[Array, "B M"]:
        if x.shape[1] != self.pixels**2:
            raise ValueError(f"images of {self.pixels} x {self.pixels} pixels are needed, got {x.shape[1]} pixels")
        return super().encoder(x)

    def decoder(self, z: Float[Array, "B L"], width: int) -> Float[Array, "B D"]:
        return jax.nn.softplus(super().decoder(z, width))


@functools.lru_cache(maxsize=32)
def _initial(codec: NetworkCodec, width: int) -> Callable[[Key[Array, ""]], Params]:
    """Compiled: random parameters for inputs of `width` numbers."""

    def both(x: Float[Array, "_ D"]) -> Float[Array, "_ D"]:
        return codec.decoder(codec.encoder(x)[:, : codec.latent], width)

    return jax.jit(lambda key: hk.transform(both).init(key, jnp.zeros((1, width))))


def _layers(x: Float[Array, "B D"], widths: tuple[int, ...], name: str) -> Float[Array, "B W"]:
    for i, width in enumerate(widths):
        x = jax.nn.gelu(hk.Linear(width, name=f"{name}_{i}")(x))
    return x


def _applied(
    network: Callable[[Float[Array, "B N"]], Float[Array, "B K"]], params: Params, x: Float[Array, "B N"]
) -> Float[Array, "B K"]:
    return hk.transform(network).apply(params, None, x)
