"""Distance from the background's mean in units of its own spread (Mahalanobis), alone or relative to groups of it.

Shapes: B jets, D features, K components, G groups.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

from probes.anomaly.arrays import required
from probes.anomaly.head import Progress, Sees, State, no_progress
from probes.anomaly.traced import single
from probes.anomaly.whitening import SMALLEST, Whitened
from probes.strength import drawn
from probes.tables import Features

GROUPED_JETS = 20_000
"""Jets by which groups are found; of more, this many are drawn."""

SMALLEST_GROUP = 20


@dataclass(frozen=True)
class Mahalanobis:
    """Mahalanobis distance over the `components` of largest variance, 0: all; `shrink` as in `Whitened`."""

    name: ClassVar[str] = "Mahalanobis"
    sees: ClassVar[Sees] = "features"
    components: int = 0
    shrink: float = 3e-2

    def fit(self, x: Features, *, seed: int = 0, progress: Progress = no_progress) -> MahalanobisDetector:
        """Mean and covariance of the background; raises ValueError as `Whitened.of`. Nothing is random."""
        return MahalanobisDetector(self, Whitened.of(x, self.components, self.shrink))

    def restore(self, state: State) -> MahalanobisDetector:
        """The detector whose `state()` this is; raises ValueError for arrays that do not fit together."""
        return MahalanobisDetector(self, Whitened.restored(state))


@dataclass(frozen=True)
class MahalanobisDetector:
    """Whitened background."""

    head: Mahalanobis
    whitened: Whitened

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Distance; raises ValueError for another number of features, NaN or infinity."""
        return np.sqrt((self.whitened(x) ** 2).sum(axis=1))

    def traced(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        """`score` as pure JAX."""
        return jnp.sqrt(jnp.sum(self.whitened.traced(x) ** 2, axis=1))

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restore` takes."""
        return self.whitened.state()


@dataclass(frozen=True)
class RelativeMahalanobis:
    """Squared distance from the nearest of `groups`, minus that from the whole background (arXiv:2106.09022).

    What all jets share then cancels. The paper takes the classes of labelled jets for groups; without labels they are
    those of k-means on the leading `grouped_by` components, with one covariance in common.
    """

    name: ClassVar[str] = "relative Mahalanobis"
    sees: ClassVar[Sees] = "features"
    groups: int = 10
    grouped_by: int = 32
    components: int = 0
    shrink: float = 3e-2

    def __post_init__(self) -> None:
        if self.groups < 2 or self.grouped_by < 1:
            raise ValueError(f"at least two groups by one component are needed, got {self.groups}, {self.grouped_by}")

    def fit(self, x: Features, *, seed: int = 0, progress: Progress = no_progress) -> RelativeDetector:
        """Groups and their common covariance; `seed` decides where k-means begins.

        Raises ValueError as `Whitened.of`, for fewer than 20 jets a group, and where groups do not vary.
        """
        whitened = Whitened.of(x, self.components, self.shrink)
        z = whitened(x)
        if len(z) < SMALLEST_GROUP * self.groups:
            raise ValueError(f"{self.groups} groups need {SMALLEST_GROUP * self.groups} jets at least, got {len(z)}")
        leading = z[:, : self.grouped_by]
        few = drawn(np.arange(len(z)), GROUPED_JETS, np.random.default_rng(seed))
        # With several threads k-means adds up in another order each time.
        with threadpool_limits(1), warnings.catch_warnings():
            # Of jets that are all equal to one of a few there are no more groups than these.
            warnings.simplefilter("ignore", ConvergenceWarning)
            group = KMeans(self.groups, n_init=3, random_state=seed).fit(leading[few]).predict(leading)
        found, member = np.unique(group, return_inverse=True)
        centres = np.stack([z[group == g].mean(axis=0) for g in found])
        within = z - centres[member]
        values, vectors = np.linalg.eigh(within.T @ within / len(z))
        variances = np.maximum(values, 0) + self.shrink * values.mean()
        if variances.min() < SMALLEST:
            raise ValueError("the jets of a group do not vary: take fewer groups or components, or a shrink above 0")
        return RelativeDetector(self, whitened, centres, vectors / np.sqrt(variances))

    def restore(self, state: State) -> RelativeDetector:
        """The detector whose `state()` this is; raises ValueError for arrays that do not fit together."""
        whitened = Whitened.restored(state)
        width = whitened.axes.shape[1]
        return RelativeDetector(
            self, whitened, required(state, "centres", None, width), required(state, "within", width, width)
        )


@dataclass(frozen=True)
class RelativeDetector:
    """Whitened background; centres of its groups, and what whitens a group."""

    head: RelativeMahalanobis
    whitened: Whitened
    centres: Float[np.ndarray, "G K"]
    within: Float[np.ndarray, "K K"]

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Difference of squared distances; raises ValueError for another number of features, NaN or infinity."""
        z = self.whitened(x)
        inner, centres = z @ self.within, self.centres @ self.within
        nearest = np.min([((inner - centre) ** 2).sum(axis=1) for centre in centres], axis=0)
        return nearest - (z**2).sum(axis=1)

    def traced(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        """`score` as pure JAX; along the axes in which groups are whitened one product serves both distances."""
        turned, stretch, _ = np.linalg.svd(self.within)
        y = Whitened(self.whitened.mean, self.whitened.axes @ turned).traced(x)
        squares = [
            jnp.sum((single(stretch) * (y - single(centre))) ** 2, axis=1, keepdims=True)
            for centre in self.centres @ turned
        ]
        return jnp.min(jnp.concatenate(squares, axis=1), axis=1) - jnp.sum(y**2, axis=1)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restore` takes."""
        return self.whitened.state() | {"centres": self.centres, "within": self.within}
