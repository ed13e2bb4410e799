"""What all probes have in common: frozen features in, a score or one logit a class out.

Shapes: B jets, D features, C classes.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from probes.tables import Features


@runtime_checkable
class Probe(Protocol):
    """Tells signal from background; `parameters` counts the numbers that were fitted."""

    @property
    def name(self) -> str: ...

    @property
    def parameters(self) -> int: ...

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Larger for signal; log-odds where the probe models chances."""
        ...


@runtime_checkable
class ManyClassProbe(Protocol):
    """Tells C classes apart."""

    @property
    def name(self) -> str: ...

    @property
    def parameters(self) -> int: ...

    def logits(self, x: Features) -> Float[np.ndarray, "B C"]:
        """Logarithm of each class's chance, up to a constant of the jet."""
        ...
