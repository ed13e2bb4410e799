"""ANODE: the density of the data over that of the background, interpolated from the sidebands (arXiv:2001.04990).

Shapes: E events, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from probes.anomaly.flow import FittedFlow, Flow, fit_flow
from probes.anomaly.head import Progress, no_progress
from probes.anomaly.search import background
from probes.anomaly.search.regions import Mass, Regions
from probes.anomaly.search.search import FOLDS, Events, FittedSearch
from probes.tables import Features


@dataclass(frozen=True)
class Anode:
    """Two flows of the features given the mass, one of the signal region and one of the sidebands.

    The score is the logarithm of their ratio, outside of the signal region that at its nearer limit: the first flow has
    seen nothing beyond. With both flows at an event's own mass, 4 to 5 % of the sidebands passed a cut that 1 % of the
    signal region's background passed; so it is 1.0 and 1.5 % (37,000 QCD dijets, jet mass and tau21 of both jets).
    """

    name: ClassVar[str] = "ANODE"
    data: Flow = background.DEFAULT
    background: Flow = background.DEFAULT
    folds: int = FOLDS

    def fit(
        self, features: Features, mass: Mass, regions: Regions, *, seed: int = 0, progress: Progress = no_progress
    ) -> FittedSearch:
        """As `Search.fit`; `progress` is told of each step of the flows, two and one for each fold."""
        events = Events.of(features, mass, regions, self.folds, seed)
        flows = background.background_flows(events, self.background, seed, progress)
        inside, models = regions.signal(events.mass), []
        for k, own_seed in enumerate(events.seeds):
            rows = events.others(k, inside)
            context = regions.scaled(events.mass[rows])
            data = fit_flow(events.features[rows], context, self.data, seed=own_seed, progress=progress)
            models.append(Ratio(data, flows[k], regions))
        return events.scored(models)


@dataclass(frozen=True)
class Ratio:
    """log p_data(features | mass) / p_background(features | mass), at the nearest mass of the signal region."""

    data: FittedFlow
    background: FittedFlow
    regions: Regions

    def __call__(self, features: Features, mass: Mass) -> Float[np.ndarray, " E"]:
        context = self.regions.scaled(np.clip(mass, self.regions.low, self.regions.high))
        return self.data.log_density(features, context) - self.background.log_density(features, context)
