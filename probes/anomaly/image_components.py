"""Jet images in their leading principal components, each of unit variance on the background.

In pixels an error counts as much as the jet is bright there, so that jets more concentrated than the background, or
less, are strange whatever their shape. In units of the background's own spread all directions count alike.

Shapes: B jets, D components, P pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float
from sklearn.decomposition import PCA

from probes.anomaly.arrays import required
from probes.anomaly.head import State
from probes.anomaly.inputs import ImageInputs, Prepared
from probes.anomaly.whitening import Whitened
from probes.tables import one_thread
from probes.taggers import Constituents


@dataclass(frozen=True)
class ImageComponentInputs(ImageInputs):
    """The `components` of largest variance among the background's images (not standardised pixels)."""

    components: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.components <= self.pixels**2:
            raise ValueError(f"between 1 and pixels^2 components are needed, got {self}")

    def prepare(self, x: Constituents) -> Prepared:
        images = self.images(x)
        if len(images) <= self.components:
            raise ValueError(f"{self.components} components need more jets than {len(images)}")
        if not np.ptp(images, axis=0).any():
            raise ValueError("the images of the training jets do not vary")
        with one_thread():
            # In single precision the small variances drown in the rounding of the large means.
            fitted = PCA(self.components, svd_solver="covariance_eigh").fit(images.astype(np.float64))
        spread = np.sqrt(fitted.explained_variance_)
        if not spread[-1] > 1e-6 * spread[0]:
            raise ValueError(f"the images of the training jets do not vary in {self.components} components")
        return _ImageComponents(self, Whitened(fitted.mean_, fitted.components_.T / spread))

    def prepared(self, state: State) -> Prepared:
        required(state, "mean", self.pixels**2)
        required(state, "axes", self.pixels**2, self.components)
        return _ImageComponents(self, Whitened.restored(state))


@dataclass(frozen=True)
class _ImageComponents:
    settings: ImageInputs
    whitened: Whitened

    @property
    def width(self) -> int:
        return self.whitened.axes.shape[1]

    def __call__(self, x: Constituents) -> Float[np.ndarray, "B D"]:
        return self.whitened(self.settings.images(x)).astype(np.float32)

    def traced(self, x: Constituents) -> Float[Array, "B D"]:
        return self.whitened.traced(self.settings.traced(x))

    def state(self) -> dict[str, np.ndarray]:
        return self.whitened.state()
