"""Density of the background by a normalising flow.

Shapes: B jets, D features, K components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float

from probes.anomaly.arrays import below
from probes.anomaly.flow import FittedFlow, Flow, fit_flow
from probes.anomaly.head import Progress, Sees, State, no_progress
from probes.anomaly.whitening import Whitened
from probes.tables import Features


@dataclass(frozen=True)
class FlowDensity:
    """Negative log-density of the leading whitened `components`; the other settings are those of `Flow`."""

    name: ClassVar[str] = "normalising flow"
    sees: ClassVar[Sees] = "features"
    components: int = 32
    shrink: float = 1e-2
    layers: int = 4
    steps: int = 2000

    def __post_init__(self) -> None:
        self._flow()

    def fit(self, x: Features, *, seed: int = 0, progress: Progress = no_progress) -> FlowDetector:
        """Fit a flow to the components; raises ValueError as `Whitened.of` and `fit_flow`."""
        whitened = Whitened.of(x, self.components, self.shrink)
        return FlowDetector(self, whitened, fit_flow(whitened(x), None, self._flow(), seed=seed, progress=progress))

    def restore(self, state: State) -> FlowDetector:
        """The detector whose `state()` this is; raises ValueError for arrays that do not fit together."""
        whitened, flow = Whitened.restored(state), FittedFlow.restored(below(state, "flow/"), self._flow())
        if len(flow.mean) != whitened.axes.shape[1] or len(flow.context_mean):
            raise ValueError(f"a flow of {len(flow.mean)} features does not fit {whitened.axes.shape[1]} components")
        return FlowDetector(self, whitened, flow)

    def _flow(self) -> Flow:
        return Flow(layers=self.layers, steps=self.steps)


@dataclass(frozen=True)
class FlowDetector:
    """Whitened background, and the density of its components."""

    head: FlowDensity
    whitened: Whitened
    flow: FittedFlow

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Minus log-density [nats]; raises ValueError for another number of features, NaN or infinity."""
        return -self.flow.log_density(self.whitened(x))

    def traced(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        """`score` as pure JAX."""
        return -self.flow.traced(self.whitened.traced(x))

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restore` takes."""
        return self.whitened.state() | {f"flow/{name}": x for name, x in self.flow.state().items()}
