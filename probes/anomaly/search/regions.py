"""Signal region and sidebands in the resonant variable.

Shapes: E events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

Mass: TypeAlias = Float[np.ndarray, " E"]
"""The resonant variable of each event, such as the dijet mass [GeV]."""


@dataclass(frozen=True)
class Regions:
    """The signal region [low, high) and a sideband on either side of it, out to `outer_low` and `outer_high` [GeV].

    Raises ValueError where the four limits do not rise.
    """

    low: float
    high: float
    outer_low: float
    outer_high: float

    def __post_init__(self) -> None:
        limits = (self.outer_low, self.low, self.high, self.outer_high)
        if not all(math.isfinite(x) for x in limits) or not limits[0] < limits[1] < limits[2] < limits[3]:
            raise ValueError(f"outer_low < low < high < outer_high are needed, got {self}")

    def signal(self, mass: Mass) -> Bool[np.ndarray, " E"]:
        """Events of the signal region."""
        return (mass >= self.low) & (mass < self.high)

    def below(self, mass: Mass) -> Bool[np.ndarray, " E"]:
        """Events of the lower sideband."""
        return (mass >= self.outer_low) & (mass < self.low)

    def above(self, mass: Mass) -> Bool[np.ndarray, " E"]:
        """Events of the upper sideband."""
        return (mass >= self.high) & (mass < self.outer_high)

    def sidebands(self, mass: Mass) -> Bool[np.ndarray, " E"]:
        """Events of either sideband."""
        return self.below(mass) | self.above(mass)

    def scaled(self, mass: Mass) -> Float[np.ndarray, "E 1"]:
        """The mass as a context of flows: 0 in the middle of the signal region, -1 and 1 at its limits."""
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return ((np.asarray(mass, np.float64) - middle) / half)[:, None]
