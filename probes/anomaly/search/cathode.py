"""CATHODE: the signal region against background drawn from a flow of the sidebands (arXiv:2109.00546).

Shapes: E events, D features, N events drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from probes.anomaly.flow import FittedFlow, Flow
from probes.anomaly.head import Progress, no_progress
from probes.anomaly.search import background
from probes.anomaly.search.classifier import Classified, Trees
from probes.anomaly.search.regions import Mass, Regions
from probes.anomaly.search.search import FOLDS, Events, FittedSearch
from probes.tables import Features


@dataclass(frozen=True)
class Cathode:
    """A classifier of the data in the signal region and of background that a flow draws at the masses found there.

    Features may change with the mass, if they do so smoothly. `oversampling` events are drawn for each of the data.
    """

    name: ClassVar[str] = "CATHODE"
    background: Flow = background.DEFAULT
    classifier: Trees = field(default_factory=Trees)
    oversampling: int = 4
    folds: int = FOLDS

    def __post_init__(self) -> None:
        if self.oversampling < 1:
            raise ValueError(f"oversampling must be 1 at least, got {self.oversampling}")

    def fit(
        self, features: Features, mass: Mass, regions: Regions, *, seed: int = 0, progress: Progress = no_progress
    ) -> FittedSearch:
        """As `Search.fit`; `progress` is told of each step of two flows and each member of the `folds` classifiers."""
        events = Events.of(features, mass, regions, self.folds, seed)
        flows = background.background_flows(events, self.background, seed, progress)
        inside, models = regions.signal(events.mass), []
        for k, own_seed in enumerate(events.seeds):
            rows = events.others(k, inside)
            drawn = interpolated(flows[k], regions, events.mass[rows], self.oversampling * len(rows), own_seed)
            x = np.concatenate([events.features[rows], drawn.astype(events.features.dtype)])
            fitted = self.classifier.fit(x, np.arange(len(x)) < len(rows), seed=own_seed, progress=progress)
            models.append(Classified(fitted))
        return events.scored(models)


def interpolated(
    flow: FittedFlow, regions: Regions, mass: Mass, events: int, seed: int = 0
) -> Float[np.ndarray, "N D"]:
    """Features of so many background events, whose masses are drawn from those given."""
    rng = np.random.default_rng(seed)
    # The flow begins a generator of its own: with the same seed its numbers would follow those of the masses.
    return flow.sample(regions.scaled(rng.choice(mass, events)), int(rng.integers(2**31)))
