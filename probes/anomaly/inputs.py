"""What networks are fitted on: whitened features, jet images or points, as flat float32 numbers of order one.

Settings of a head inherit from one of these; `prepare` measures the background's units, the `Prepared` that it gives
turns any jets into such numbers.

Shapes: B jets, D numbers of an input, K components, N constituents.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probes.anomaly.arrays import required
from probes.anomaly.head import Inputs, Sees, State
from probes.anomaly.images import jet_images, traced_images
from probes.anomaly.pieces import in_pieces
from probes.anomaly.whitening import Whitened
from probes.constituents import checked
from probes.tables import Features
from probes.taggers import Constituents
from probes.taggers.image import aligned
from probes.taggers.network import FLOOR, fraction


@runtime_checkable
class Prepared(Protocol):
    """Jets to numbers in the background's units."""

    @property
    def width(self) -> int:
        """Numbers a jet."""
        ...

    def __call__(self, x: Inputs) -> Float[np.ndarray, "B D"]:
        """Flat float32 numbers; raises ValueError for jets that are not finite or unlike those of the fit."""
        ...

    def traced(self, x: Any) -> Float[Array, "B D"]:
        """The same as pure JAX; refuses nothing."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that the settings' `prepared` takes."""
        ...


@dataclass(frozen=True)
class Preparing(ABC):
    """Settings by which inputs are prepared."""

    sees: ClassVar[Sees]

    def __post_init__(self) -> None:  # noqa: B027
        """Where the checks of all that inherits end."""

    @abstractmethod
    def prepare(self, x: Inputs) -> Prepared:
        """Units of the background `x`; raises ValueError for jets that are not finite, or do not vary."""

    @abstractmethod
    def prepared(self, state: State) -> Prepared:
        """What `prepare` gave, from its arrays; raises ValueError where they are missing or do not fit."""


@dataclass(frozen=True)
class FeatureInputs(Preparing):
    """The `components` of largest variance, each of unit variance; 0: all."""

    sees: ClassVar[Sees] = "features"

    components: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components < 0:
            raise ValueError(f"components must be positive, or 0 for all of them, got {self.components}")

    def prepare(self, x: Features) -> Prepared:
        return _Features(Whitened.of(x, self.components))

    def prepared(self, state: State) -> Prepared:
        required(state, "axes", len(required(state, "mean", None)), None)
        return _Features(Whitened.restored(state))


@dataclass(frozen=True)
class ImageInputs(Preparing):
    """Images as `probes.anomaly.images.jet_images` makes them, scaled so that a pixel has unit variance on average."""

    sees: ClassVar[Sees] = "constituents"

    pixels: int = 32
    extent: float = 0.8
    power: float = 1.0
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixels < 1 or not self.extent > 0 or not self.power > 0 or not self.smoothing >= 0:
            raise ValueError(f"an image needs pixels, extent and power > 0 and smoothing >= 0, got {self}")

    def prepare(self, x: Constituents) -> Prepared:
        spread = float(np.sqrt(self.images(x).var(axis=0, dtype=np.float64).mean()))
        if not spread > 0:
            raise ValueError("no pixel varies between the training jets")
        return _Images(self, np.float32(1 / spread))

    def prepared(self, state: State) -> Prepared:
        scale = np.float32(required(state, "scale"))
        if not scale > 0:
            raise ValueError(f"the scale of images must be positive, got {scale}")
        return _Images(self, scale)

    def images(self, x: Constituents) -> Float[np.ndarray, "B D"]:
        """In units of pT fractions, each summing to one; raises ValueError for jets that are not finite."""
        return jet_images(x, self.pixels, self.extent, self.power, self.smoothing)

    def traced(self, x: Constituents) -> Float[Array, "B D"]:
        """The same as pure JAX; refuses nothing."""
        return traced_images(x, self.pixels, self.extent, self.power, self.smoothing)


@dataclass(frozen=True)
class PointInputs(Preparing):
    """The `hardest` constituents: pT fraction among them, coordinates along and across the jet's principal axis.

    Flattened as (z, along / unit, across / unit) of each, hardest first, padded by zeros. Nothing is measured on the
    background.
    """

    sees: ClassVar[Sees] = "constituents"

    hardest: int = 40
    unit: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hardest < 1 or not self.unit > 0:
            raise ValueError(f"at least one constituent and a unit > 0 are needed, got {self}")

    def prepare(self, x: Constituents) -> Prepared:
        return _Points(self)

    def prepared(self, state: State) -> Prepared:
        return _Points(self)


@dataclass(frozen=True)
class _Features:
    whitened: Whitened

    @property
    def width(self) -> int:
        return self.whitened.axes.shape[1]

    def __call__(self, x: Features) -> Float[np.ndarray, "B K"]:
        return self.whitened(x).astype(np.float32)

    def traced(self, x: Float[Array, "B D"]) -> Float[Array, "B K"]:
        return self.whitened.traced(x)

    def state(self) -> dict[str, np.ndarray]:
        return self.whitened.state()


@dataclass(frozen=True)
class _Images:
    settings: ImageInputs
    scale: np.float32

    @property
    def width(self) -> int:
        return self.settings.pixels**2

    def __call__(self, x: Constituents) -> Float[np.ndarray, "B D"]:
        return self.settings.images(x) * self.scale

    def traced(self, x: Constituents) -> Float[Array, "B D"]:
        return self.settings.traced(x) * self.scale

    def state(self) -> dict[str, np.ndarray]:
        return {"scale": np.asarray(self.scale)}


@dataclass(frozen=True)
class _Points:
    settings: PointInputs

    @property
    def width(self) -> int:
        return 3 * self.settings.hardest

    def __call__(self, x: Constituents) -> Float[np.ndarray, "B D"]:
        """Raises ValueError also for jets without pT: between nothing and some points there is no distance."""
        jets = Constituents(*checked(*map(np.asarray, x)))
        return in_pieces(functools.partial(_points, settings=self.settings), jets)

    def traced(self, x: Constituents) -> Float[Array, "B D"]:
        return _points(x, self.settings)

    def state(self) -> dict[str, np.ndarray]:
        return {}


@functools.partial(jax.jit, static_argnames="settings")
def _points(jets: Constituents, settings: PointInputs) -> Float[Array, "B D"]:
    z, (along, across) = fraction(jets), aligned(jets)
    # As many more as are taken: there may be fewer.
    empty = jnp.zeros((z.shape[0], settings.hardest))
    z, along, across = (jnp.concatenate([x, empty], axis=1) for x in (z, along, across))
    z, kept = jax.lax.top_k(z, settings.hardest)
    z = z / jnp.maximum(z.sum(axis=1, keepdims=True), FLOOR)
    angles = [jnp.take_along_axis(x, kept, axis=1) / settings.unit for x in (along, across)]
    # The angles of what has no pT mean nothing.
    points = jnp.where(z[..., None] == 0, 0.0, jnp.stack([z, *angles], axis=-1))
    return points.reshape(z.shape[0], 3 * settings.hardest)
