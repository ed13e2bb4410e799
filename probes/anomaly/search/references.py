"""What a search could reach with the same classifier if more were known: the upper rows of tables (arXiv:2109.00546).

Shapes: E events, D features, N other events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.anomaly.head import Progress, no_progress
from probes.anomaly.search.classifier import Classified, Trees
from probes.anomaly.search.regions import Mass, Regions
from probes.anomaly.search.search import FOLDS, Events, FittedSearch, checked
from probes.tables import Features, matching


@dataclass(frozen=True)
class Idealised:
    """The signal region's data against true background of the signal region: CATHODE with a perfect flow."""

    name: ClassVar[str] = "idealised"
    classifier: Trees = field(default_factory=Trees)
    folds: int = FOLDS

    def fit(
        self,
        features: Features,
        mass: Mass,
        regions: Regions,
        *,
        background: Float[np.ndarray, "N D"],
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FittedSearch:
        """As `Search.fit`, with the features of other events of the signal region that are known to be background."""
        events = Events.of(features, mass, regions, self.folds, seed)
        others = matching(background, events.features.shape[1]).astype(events.features.dtype)
        checked(others, np.zeros(len(others)))
        inside, models = regions.signal(events.mass), []
        for k, own_seed in enumerate(events.seeds):
            rows = events.others(k, inside)
            x = np.concatenate([events.features[rows], others])
            fitted = self.classifier.fit(x, np.arange(len(x)) < len(rows), seed=own_seed, progress=progress)
            models.append(Classified(fitted))
        return events.scored(models)


@dataclass(frozen=True)
class Supervised:
    """Signal against background in the signal region, by their true labels."""

    name: ClassVar[str] = "supervised"
    classifier: Trees = field(default_factory=Trees)
    folds: int = FOLDS

    def fit(
        self,
        features: Features,
        mass: Mass,
        regions: Regions,
        *,
        truth: Bool[np.ndarray, " E"] | Int[np.ndarray, " E"],
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FittedSearch:
        """As `Search.fit`, with what each event is: 1 signal, 0 background; events of both kinds are needed."""
        events = Events.of(features, mass, regions, self.folds, seed)
        truth = np.asarray(truth)
        if truth.shape != events.mass.shape or not np.isin(truth, (0, 1)).all():
            raise ValueError(f"truth must be 0 or 1 for each of the {len(events.mass)} events")
        inside, models = regions.signal(events.mass), []
        for k, own_seed in enumerate(events.seeds):
            rows = events.others(k, inside)
            fitted = self.classifier.fit(events.features[rows], truth[rows] == 1, seed=own_seed, progress=progress)
            models.append(Classified(fitted))
        return events.scored(models)
