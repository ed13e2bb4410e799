"""JetCLR's own loss geometry as a score: how far a jet lies from the background on the sphere of projections.

Shapes: B jets, D features, M jets of the bank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

from probes.anomaly.arrays import required
from probes.anomaly.head import Progress, Sees, State, no_progress
from probes.anomaly.traced import product
from probes.strength import drawn
from probes.tables import Features, Standardised, matching, refuse_faults, slices, threads


@dataclass(frozen=True)
class Contrastive:
    """-T log mean_j exp(cos(z, z_j) / T) over `bank` jets of the background, for projections z.

    The sum is the denominator of NT-Xent (arXiv:2002.05709, as in JetCLR, arXiv:2108.04253), with the background for
    negatives: a jet is strange where the encoder finds none like it. Meant for the projection layer.
    """

    name: ClassVar[str] = "contrastive"
    sees: ClassVar[Sees] = "features"
    temperature: float = 0.2
    bank: int = 5_000

    def __post_init__(self) -> None:
        if not self.temperature > 0 or self.bank < 1:
            raise ValueError(f"temperature and bank must be positive, got {self.temperature} and {self.bank}")

    def fit(self, x: Features, *, seed: int = 0, progress: Progress = no_progress) -> ContrastiveDetector:
        """Keep a bank; of more jets, `seed` draws it. Raises ValueError for features not finite or that do not vary."""
        x = Standardised.of(x).x
        rows = drawn(np.arange(len(x)), self.bank, np.random.default_rng(seed))
        return ContrastiveDetector(self, _directions(x[rows]))

    def restore(self, state: State) -> ContrastiveDetector:
        """The detector whose `state()` this is; raises ValueError for a bank that is missing or no table."""
        return ContrastiveDetector(self, required(state, "bank", None, None))


@dataclass(frozen=True)
class ContrastiveDetector:
    """Directions of background jets."""

    head: Contrastive
    bank: Float[np.ndarray, "M D"]

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Between -1 and 1; raises ValueError for another number of features, NaN or infinity."""
        z, t = _directions(matching(x, self.bank.shape[1])), self.head.temperature
        out = np.empty(len(z))
        with threads(*self.bank.shape):
            for rows in slices(len(z), len(self.bank)):
                out[rows] = t * (np.log(len(self.bank)) - logsumexp(z[rows] @ self.bank.T / t, axis=1))
        return out

    def traced(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        """`score` as pure JAX."""
        size, t = jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True)), self.head.temperature
        z = x / jnp.where(size > 0, size, 1)
        return t * (math.log(len(self.bank)) - jax.nn.logsumexp(product(z, self.bank.T) / t, axis=1))

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restore` takes."""
        return {"bank": self.bank}


def _directions(x: Features) -> Float[np.ndarray, "B D"]:
    """Unit vectors; a jet at the origin has no direction, and is as far from all others."""
    x = x.astype(np.float64)
    size = np.sqrt(np.einsum("bd,bd->b", x, x))
    refuse_faults(size)
    return x / np.where(size > 0, size, 1.0)[:, None]
