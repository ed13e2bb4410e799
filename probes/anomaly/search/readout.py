"""Features of an event from its two jets: what is read off the many features of each by straight lines.

A search with few signal events needs few features, in which signal is narrow. Principal components of an embedding are
not such; linear predictions of what is measured of every jet, its mass first of all, are. No labels are needed.

Shapes: E events, D features of a jet, Q quantities measured of a jet, F = 2 Q.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probes.anomaly.search.regions import Mass, Regions
from probes.ridge import RidgeProbe, fit_ridge

MOST_EVENTS = 20_000
"""Events a readout is fitted to, at most."""


@dataclass(frozen=True)
class Readout:
    """A linear function of a jet's features for each quantity."""

    probe: RidgeProbe

    @classmethod
    def of(
        cls,
        jets: Float[np.ndarray, "E 2 D"],
        quantities: Float[np.ndarray, "E 2 Q"],
        mass: Mass,
        regions: Regions,
        *,
        seed: int = 0,
    ) -> Readout:
        """Ridge regression of `quantities`, such as the logarithm of the jet's mass, on the jets of the sidebands.

        No event of the signal region has a part in it. Raises ValueError for shapes that do not match, sidebands
        without events, and numbers that are not finite.
        """
        if not len(jets) == len(quantities) == len(mass):
            raise ValueError(f"{len(jets)} events, {len(quantities)} with quantities, {len(mass)} masses: not the same")
        rows = np.flatnonzero(regions.sidebands(mass))
        if not len(rows):
            raise ValueError("no event lies in the sidebands: there is nothing to fit a readout to")
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MOST_EVENTS])
        x, targets = (part[rows].reshape(2 * len(rows), -1) for part in (jets, quantities))
        return cls(fit_ridge(x, targets))

    def __call__(self, jets: Float[np.ndarray, "E 2 D"]) -> Float[np.ndarray, "E F"]:
        """The quantities of both jets, first those of the jet with the larger first quantity.

        Raises ValueError for another number of features than in the fit, NaN or infinity.
        """
        found = self.probe.predict(jets.reshape(2 * len(jets), -1)).reshape(len(jets), 2, -1)
        return larger_first(found)


def larger_first(jets: Float[np.ndarray, "E 2 Q"]) -> Float[np.ndarray, "E 2*Q"]:
    """One row an event, first the jet whose first quantity is larger: the order of jets of equal pT means nothing."""
    order = np.argsort(-jets[:, :, 0], axis=1, kind="stable")
    return np.take_along_axis(jets, order[:, :, None], axis=1).reshape(len(jets), -1)
