"""What all anomaly heads have in common: usual jets in, a detector out, whose score is larger the stranger a jet is.

A head is a frozen dataclass of settings. A detector is a head with what was fitted, held as plain arrays, so that it
can be kept in a file that nothing in executes (`probes.anomaly.files`).

Shapes: B jets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Array, Float

Inputs: TypeAlias = Any
"""A table of features [B, D], or `probes.taggers.Constituents`: what the head `sees`."""

Sees: TypeAlias = Literal["features", "constituents"]
State: TypeAlias = Mapping[str, np.ndarray]
"""All that was fitted, by name: numeric arrays only."""

Progress: TypeAlias = Callable[[int], None]


def no_progress(steps: int) -> None:
    """The default: nobody watches."""


@runtime_checkable
class Detector(Protocol):
    """A fitted head."""

    @property
    def head(self) -> Head: ...

    def score(self, x: Inputs) -> Float[np.ndarray, " B"]:
        """Larger for stranger jets, finite; raises ValueError for inputs unlike those of the fit."""
        ...

    def traced(self, x: Inputs) -> Float[Array, " B"]:
        """`score` as pure JAX in single precision, for graphs that are exported; refuses nothing."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """What `head.restore` makes an equal detector of: its scores are the same to the bit."""
        ...


@runtime_checkable
class Head(Protocol):
    """Settings of one way to tell strange jets; `sees` says what it is fitted on."""

    name: ClassVar[str]
    sees: ClassVar[Sees]

    def fit(self, x: Inputs, *, seed: int = 0, progress: Progress = no_progress) -> Detector:
        """A detector of what is unlike `x`, which is mostly background; the same arguments give the same bits.

        Raises ValueError for inputs that are not finite or too few.
        """
        ...

    def restore(self, state: State) -> Detector:
        """The detector whose `state()` this is; raises ValueError where arrays are missing or do not fit together."""
        ...
