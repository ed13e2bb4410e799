"""A boundary around the background: the one-class support vector machine of scikit-learn (Schölkopf et al. 2001).

Shapes: B jets, D features, K components, V support vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import OneClassSVM

from probes.anomaly.arrays import required
from probes.anomaly.head import Progress, Sees, State, no_progress
from probes.anomaly.traced import product, squares_apart
from probes.anomaly.whitening import Whitened
from probes.strength import drawn
from probes.tables import Features, slices


@dataclass(frozen=True)
class SupportVectors:
    """Depth outside of the region that holds all but a part `outside` of the background, in whitened `components`.

    The kernel is exp(-`inverse_width` |z - z'|^2 / K). Of more than `most_jets` the fit sees so many, drawn at random:
    its time grows with their square.
    """

    name: ClassVar[str] = "one-class SVM"
    sees: ClassVar[Sees] = "features"
    components: int = 128
    shrink: float = 1e-2
    outside: float = 0.1
    inverse_width: float = 0.25
    most_jets: int = 5_000

    def __post_init__(self) -> None:
        if not 0 < self.outside <= 1 or not self.inverse_width > 0 or self.most_jets < 1:
            raise ValueError(f"0 < outside <= 1 and inverse_width, most_jets > 0 are needed, got {self}")

    def fit(self, x: Features, *, seed: int = 0, progress: Progress = no_progress) -> SupportDetector:
        """Find the boundary; `seed` draws the jets. Raises ValueError as `Whitened.of`."""
        whitened = Whitened.of(x, self.components, self.shrink)
        z = whitened(x[drawn(np.arange(len(x)), self.most_jets, np.random.default_rng(seed))])
        machine = OneClassSVM(nu=self.outside, gamma=self._gamma(whitened)).fit(z)
        return SupportDetector(self, whitened, machine.support_vectors_, machine.dual_coef_[0], machine.intercept_)

    def restore(self, state: State) -> SupportDetector:
        """The detector whose `state()` this is; raises ValueError for arrays that do not fit together."""
        whitened = Whitened.restored(state)
        vectors = required(state, "vectors", None, whitened.axes.shape[1])
        weights, offset = required(state, "weights", len(vectors)), required(state, "offset", 1)
        return SupportDetector(self, whitened, vectors, weights, offset)

    def _gamma(self, whitened: Whitened) -> float:
        return self.inverse_width / whitened.axes.shape[1]


@dataclass(frozen=True)
class SupportDetector:
    """Whitened background; the jets at and outside the boundary, and their weights."""

    head: SupportVectors
    whitened: Whitened
    vectors: Float[np.ndarray, "V K"]
    weights: Float[np.ndarray, " V"]
    offset: Float[np.ndarray, " 1"]

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Positive outside; raises ValueError for another number of features, NaN or infinity."""
        z = self.whitened(x)
        out = np.empty(len(z))
        for rows in slices(len(z), len(self.vectors)):
            out[rows] = rbf_kernel(z[rows], self.vectors, gamma=self.head._gamma(self.whitened)) @ self.weights
        return -(out + self.offset)

    def traced(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        """`score` as pure JAX; the offset is shared out among the vectors, or most digits would cancel at the end."""
        near = jnp.exp(-self.head._gamma(self.whitened) * squares_apart(self.whitened.traced(x), self.vectors))
        level = -float(self.offset[0]) / float(self.weights.sum())
        return -product(near - level, self.weights[:, None])[:, 0]

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restore` takes."""
        return self.whitened.state() | {"vectors": self.vectors, "weights": self.weights, "offset": self.offset}
