"""What an objective is: settings, and pure functions that say what the network's views of a batch are worth.

Shape glossary: B jets, V views of each, M = B V views, N constituents, D model width, E embedding width, P projection
width. Views of a jet lie one after the other, so that they stay on its device.

An objective acts in two places. `rows` works on the views of some jets alone, where they were encoded: a device at a
time, and a chunk at a time. Everything that compares jets comes after it, in `__call__`, which sees the rows of the
whole batch. Gradients go back through both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from jaxtyping import Array, Bool, Float

from jetclr.features import Inputs

Metrics: TypeAlias = dict[str, Float[Array, ""]]
Rows: TypeAlias = dict[str, Float[Array, "_ *_"]]
"""By name; one row a view, and those of pieces of a batch differ in number. "projection" is the student's own."""
Memory: TypeAlias = Any
"""A pytree of arrays that an objective carries from step to step, as a queue or running means; () for none."""

Whole: TypeAlias = Callable[[Array], Array]
"""Puts a copy of an array, whose rows are spread over devices, on each. What is called on z once, and then works row
by row, costs one gather of the projections and no more, forwards and backwards."""


def alone(x: Array) -> Array:
    """The `Whole` of one device: there is nothing to gather."""
    return x


class Sizes(NamedTuple):
    """What networks and memories are made for."""

    width: int
    """Of the model, and so of a constituent's output."""
    projection: int
    features: int


class Own(NamedTuple):
    """A network of the objective's own, trained with the encoder: an MLP on vectors of `inputs` numbers.

    Of `hidden` layers with GELU, then `width` outputs.
    """

    inputs: int
    hidden: tuple[int, ...]
    width: int


class Outputs(NamedTuple):
    """What the encoder makes of M views."""

    layers: Mapping[str, Float[Array, "M _"]]
    """By name; "embedding" and "projection" among them."""
    constituents: Float[Array, "M N D"] | None
    """Outputs of the constituents, of objectives that hide some."""
    apply: Callable[[str, Float[Array, "*any _"]], Float[Array, "*any _"]]
    """Applies the objective's own network of a name, with the weights that made these outputs."""


class Views(NamedTuple):
    """M views as the network saw them: its inputs, before anything was hidden, and what was."""

    inputs: Inputs
    hidden: Bool[Array, "M N"] | None


class Seen(NamedTuple):
    """What `rows` gave for the whole batch."""

    rows: dict[str, Float[Array, "B V *_"]]
    anomalous: dict[str, Float[Array, "B *_"]] | None
    """Of each jet's anomalous view, where a run has such."""
    label: Float[Array, " B"] | None
    """Of objectives that ask for it."""


class Loss(NamedTuple):
    """The loss, what is logged beside it, and the memory for the next step."""

    value: Float[Array, ""]
    metrics: Metrics
    memory: Memory = ()


@dataclass(frozen=True)
class Objective:
    """The base of all objectives; one that compares nothing but projections leaves all of this as it is."""

    @property
    def teacher(self) -> bool:
        """Whether `rows` is given the outputs of the running mean of all weights (`Config.average`) too."""
        return False

    @property
    def labels(self) -> bool:
        """Whether labels of the jets are read and seen: then it is no longer self-supervised."""
        return False

    @property
    def takes_anomalies(self) -> bool:
        """Whether it does anything with anomalous views."""
        return False

    @property
    def anomalies(self) -> bool:
        """Whether it cannot do without anomalous views."""
        return False

    @property
    def hides(self) -> float:
        """The share of the constituents of each view that the network is not shown."""
        return 0.0

    def networks(self, sizes: Sizes) -> dict[str, Own]:
        """The objective's own networks, by name."""
        return {}

    def begin(self, sizes: Sizes) -> Memory:
        """The memory before the first step."""
        return ()

    def rows(self, student: Outputs, teacher: Outputs | None, views: Views, memory: Memory) -> Rows:
        """What is needed of some views, row by row, without looking from one jet to another."""
        return {"projection": student.layers["projection"]}

    def compared(self, views: int) -> int:
        """How many of the `views` of a jet, anomalous ones included, are compared to all of all jets: for costs."""
        return 0

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        """The loss over the global batch. Monitors that cost much are NaN in steps that are not `logged`."""
        raise NotImplementedError


def check_positive(objective: Objective, *names: str) -> None:
    """Raise ValueError for a setting that is not positive."""
    for name in names:
        if not getattr(objective, name) > 0:
            raise ValueError(f"{type(objective).__name__}.{name} is {getattr(objective, name)}; it must be positive")


def check_share(objective: Objective, *names: str) -> None:
    """Raise ValueError for a setting that does not lie in [0, 1)."""
    for name in names:
        if not 0 <= getattr(objective, name) < 1:
            raise ValueError(f"{type(objective).__name__}.{name} is {getattr(objective, name)}; it must lie in [0, 1)")


def check_widths(objective: Objective, *names: str) -> None:
    """Raise ValueError for a list of layers' widths that are not all positive."""
    for name in names:
        if not all(width > 0 for width in getattr(objective, name)):
            raise ValueError(f"{type(objective).__name__}.{name} is {getattr(objective, name)}; all must be positive")
