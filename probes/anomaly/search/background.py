"""The density of background features given the mass, learned in the sidebands and interpolated into the signal region.

Shapes: E events, D features.
"""

from __future__ import annotations

import numpy as np

from probes.anomaly.flow import FittedFlow, Flow, fit_flow
from probes.anomaly.head import Progress
from probes.anomaly.search.search import Events

DEFAULT = Flow(layers=4, bins=8, width=48, steps=1000, batch=512)


def background_flows(events: Events, flow: Flow, seed: int, progress: Progress) -> list[FittedFlow]:
    """For each fold a flow of p(features | mass) of the sidebands that has not seen that fold.

    There are two, for flows are dear: the even folds are left to the flow of the odd ones, and the other way round.
    """
    outside = events.regions.sidebands(events.mass)
    flows = []
    for half in (0, 1):
        rows = np.flatnonzero(outside & (events.fold % 2 != half))
        context = events.regions.scaled(events.mass[rows])
        flows.append(fit_flow(events.features[rows], context, flow, seed=seed + half, progress=progress))
    return [flows[k % 2] for k in range(len(events.seeds))]
