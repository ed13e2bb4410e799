"""Distance from the nearest jets of the background.

Shapes: B jets, D features, K components, M jets of the bank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.neighbors import NearestNeighbors

from probes.anomaly.arrays import required
from probes.anomaly.head import Progress, Sees, State, no_progress
from probes.anomaly.traced import single, squares_apart
from probes.anomaly.whitening import Whitened
from probes.strength import drawn
from probes.tables import Features


@dataclass(frozen=True)
class Neighbours:
    """Mean distance from the `neighbours` nearest jets among `bank` of the background, in whitened `components`."""

    name: ClassVar[str] = "kNN"
    sees: ClassVar[Sees] = "features"
    components: int = 128
    shrink: float = 1e-2
    neighbours: int = 5
    bank: int = 20_000

    def __post_init__(self) -> None:
        if not 1 <= self.neighbours < self.bank:
            raise ValueError(f"neighbours must be positive and fewer than the bank, got {self}")

    def fit(self, x: Features, *, seed: int = 0, progress: Progress = no_progress) -> NeighboursDetector:
        """Keep a bank; of more jets, `seed` draws it. Raises ValueError as `Whitened.of`, and for too few jets."""
        whitened = Whitened.of(x, self.components, self.shrink)
        if len(x) < self.neighbours:
            raise ValueError(f"{self.neighbours} neighbours cannot be found among {len(x)} jets")
        rows = drawn(np.arange(len(x)), self.bank, np.random.default_rng(seed))
        return NeighboursDetector(self, whitened, whitened(x[rows]))

    def restore(self, state: State) -> NeighboursDetector:
        """The detector whose `state()` this is; raises ValueError for arrays that do not fit together."""
        whitened = Whitened.restored(state)
        bank = required(state, "bank", None, whitened.axes.shape[1])
        if len(bank) < self.neighbours:
            raise ValueError(f"{self.neighbours} neighbours cannot be found in a bank of {len(bank)} jets")
        return NeighboursDetector(self, whitened, bank)


@dataclass(frozen=True)
class NeighboursDetector:
    """Whitened background, and jets of it."""

    head: Neighbours
    whitened: Whitened
    bank: Float[np.ndarray, "M K"]

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Mean distance; raises ValueError for another number of features, NaN or infinity."""
        z = self.whitened(x)
        if not len(z):
            return np.zeros(0)
        search = NearestNeighbors(n_neighbors=self.head.neighbours, algorithm="brute").fit(self.bank)
        return search.kneighbors(z)[0].mean(axis=1)

    def traced(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        """`score` as pure JAX: neighbours found by products, their distances then taken by differences."""
        z = self.whitened.traced(x)
        _, nearest = jax.lax.top_k(-squares_apart(z, self.bank), self.head.neighbours)
        apart = z[:, None] - single(self.bank)[nearest]
        return jnp.mean(jnp.sqrt(jnp.sum(apart**2, axis=-1)), axis=1)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restore` takes."""
        return self.whitened.state() | {"bank": self.bank}
