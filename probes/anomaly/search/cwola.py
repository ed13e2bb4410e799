"""CWoLa hunting: events of the signal region against those of the sidebands (arXiv:1708.02949, 1805.02664, 1902.02634).

Shapes: E events, D features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from probes.anomaly.head import Progress, no_progress
from probes.anomaly.search.classifier import Classified, Trees
from probes.anomaly.search.regions import Mass, Regions
from probes.anomaly.search.search import FOLDS, Events, FittedSearch
from probes.tables import Features


@dataclass(frozen=True)
class Cwola:
    """A classifier of the two mixtures, which is the best one of signal too if their backgrounds are alike.

    It sees the features alone. Both sidebands count the same in all, whatever their events, so that what rises or falls
    with the mass does not tell the signal region from them.
    """

    name: ClassVar[str] = "CWoLa"
    classifier: Trees = field(default_factory=Trees)
    folds: int = FOLDS

    def fit(
        self, features: Features, mass: Mass, regions: Regions, *, seed: int = 0, progress: Progress = no_progress
    ) -> FittedSearch:
        """As `Search.fit`; `progress` is told of each member of the `folds` classifiers."""
        events = Events.of(features, mass, regions, self.folds, seed)
        parts = [of(events.mass) for of in (regions.signal, regions.below, regions.above)]
        models = []
        for k, own_seed in enumerate(events.seeds):
            rows = events.others(k, np.logical_or.reduce(parts))
            counts = np.stack([part[rows] for part in parts])
            weights = (counts / counts.sum(axis=1, keepdims=True)).sum(axis=0)
            fitted = self.classifier.fit(
                events.features[rows], counts[0], weights=weights, seed=own_seed, progress=progress
            )
            models.append(Classified(fitted))
        return events.scored(models)
