"""Events whose densities are known: normal features that may drift with a falling mass, and a resonance in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm

from probes.anomaly.search import Regions

REGIONS = Regions(3300, 3700, 2900, 4300)
SIGNAL_MEAN, SIGNAL_SPREAD = 1.8, 0.5


@dataclass(frozen=True)
class Toy:
    """Two features: background is normal about `drift` (mass - 3500) / 200, signal narrow about SIGNAL_MEAN."""

    x: Float[np.ndarray, "E 2"]
    mass: Float[np.ndarray, " E"]
    signal: Int[np.ndarray, " E"]
    drift: float

    def log_ratio(self) -> Float[np.ndarray, " E"]:
        """log p(x | signal) / p(x | background, mass)."""
        centre = self.drift * (self.mass[:, None] - 3500) / 200
        return (norm.logpdf(self.x, SIGNAL_MEAN, SIGNAL_SPREAD) - norm.logpdf(self.x, centre)).sum(axis=1)


def toy(background: int, signal: int, *, seed: int = 0, drift: float = 0.0) -> Toy:
    """So many events in REGIONS, signal all in the signal region, shuffled."""
    rng = np.random.default_rng(seed)
    low, high = REGIONS.outer_low, REGIONS.outer_high
    # An exponential fall with 500 GeV, cut off at the outer limits.
    falling = low - 500 * np.log1p(rng.uniform(size=background) * np.expm1(-(high - low) / 500))
    mass = np.concatenate([falling, rng.uniform(REGIONS.low, REGIONS.high, signal)])
    label = np.repeat([0, 1], [background, signal])
    x = rng.normal(size=(len(mass), 2)) + drift * (mass[:, None] - 3500) / 200
    x[label == 1] = SIGNAL_MEAN + SIGNAL_SPREAD * rng.normal(size=(signal, 2))
    order = rng.permutation(len(mass))
    return Toy(x[order], mass[order], label[order], drift)
