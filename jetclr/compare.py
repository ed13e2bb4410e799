"""The columns of stores in numbers: quantiles by label, and how far two stores lie apart.

Counts and extremes are of all jets; quantiles, distances and histograms are of at most `MOST` jets and `MOST`
constituents, drawn at random over the store, and so of all jets up to a million.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import ks_2samp, wasserstein_distance

from jetclr.data.flags import classes
from jetclr.data.names import CONSTITUENT_COLUMNS, JET_COLUMNS
from jetclr.data.pieces import Piece, is_number
from jetclr.data.store import Store

MOST = 1_000_000
MOST_LABELS = 20
"""More different labels than this are taken for no classes: the quantiles are then of all jets together."""

FEWEST = 10
"""With fewer jets there is no p-value: the asymptotic formula does not hold."""

LARGEST = 1e150
"""Values of float64 beyond it count as infinite: their squares are."""

# Numbers that only name something, so that their sizes mean nothing.
NAMING_JETS = ("label", "split", "source", "row", "event", "jet_index")
NAMING_CONSTITUENTS = ("pdg", "type")
MULTIPLICITY = "multiplicity"


class Column(NamedTuple):
    """V finite values of a column, and for each the number of its jet in the sample, in order."""

    values: Float64[np.ndarray, " V"]
    jet: Int64[np.ndarray, " V"]
    of_jets: bool


class Quantiles(NamedTuple):
    """A column of the jets of one label; None where no value is finite."""

    jets: int
    low: float | None
    q16: float | None
    median: float | None
    q84: float | None
    high: float | None


class Distance(NamedTuple):
    """How far a column of two stores lies apart.

    `wasserstein` is in units of the column. `relative` is in spreads of the first store (half the range of its central
    68 %, or the standard deviation where that is zero), and so is `by_chance`: about what two stores of the same jets,
    as large as these, have. `ks_p_value` is of the two-sample Kolmogorov-Smirnov test; None for constituents, since
    those of one jet are not independent, and for few jets. It is too large for a column of few different values.
    """

    column: str
    unit: str
    medians: tuple[float, float]
    wasserstein: float
    relative: float | None
    by_chance: float | None
    ks_p_value: float | None


class Sample:
    """At most `most` jets of a store, and of these as many as have about `most` constituents: `add` all, then ask.

    `most` is `MOST` if not given.
    """

    def __init__(self, store: Store, most: int | None = None) -> None:
        most = MOST if most is None else most
        self._store = store
        constituents = sum(int(b.offsets[-1]) - int(b.offsets[0]) for b in store.blocks)
        self._jets = _drawn(len(store), most)
        share = min(1.0, most / max(constituents * len(self._jets) / max(len(store), 1), 1))
        self._few = self._jets[_drawn(len(self._jets), max(int(share * len(self._jets)), 1))]
        self._label: list[np.ndarray] = []
        self._number: list[np.ndarray] = []  # of the jet in the sample, for each constituent of it
        self._of_jets: dict[str, list[np.ndarray]] = {}
        self._of_constituents: dict[str, list[np.ndarray]] = {}
        self._extremes: dict[tuple[str, float], tuple[int, float, float]] = {}

    def add(self, piece: Piece) -> None:
        """Keep what belongs to the sample, and count the rest."""
        counts = np.diff(piece.chunk.offsets)
        jets = {n: v for n, v in piece.chunk.jets.items() if n not in NAMING_JETS and is_number(v)}
        jets[MULTIPLICITY] = counts
        label = classes(piece.chunk.jets.get("label", np.zeros(len(counts))))
        self._add_extremes(jets, label)
        rows = self._rows(self._jets, piece)
        self._label.append(label[rows])
        for name, values in jets.items():
            self._of_jets.setdefault(name, []).append(values[rows])
        each = np.zeros(len(counts), bool)
        each[self._rows(self._few, piece)] = True
        inside = each[piece.owner]
        self._number.append(np.searchsorted(self._jets, piece.first + piece.owner[inside]))
        for name, values in _constituents(piece).items():
            self._of_constituents.setdefault(name, []).append(values[inside])

    @property
    def jets(self) -> int:
        """How many jets the sample has."""
        return len(self._jets)

    @property
    def jets_of_constituents(self) -> int:
        """From how many jets the constituents of the sample are."""
        return len(self._few)

    def columns(self) -> dict[str, Column]:
        """The columns of the sample; values that are not finite are left out."""
        each, number = np.arange(len(self._jets)), np.concatenate(self._number)
        of_jets = {name: _finite(pieces, each, True) for name, pieces in self._of_jets.items()}
        return of_jets | {name: _finite(pieces, number, False) for name, pieces in self._of_constituents.items()}

    def labels(self) -> Float64[np.ndarray, " J"]:
        """The label of each jet of the sample: 0 without labels, `NO_CLASS` for what is no whole number."""
        return np.concatenate(self._label)

    def quantiles(self) -> dict[str, dict[float | None, Quantiles]]:
        """Column of jets -> label -> quantiles; the label is None for all jets, where there are too many labels."""
        label, columns = self.labels(), self.columns()
        values = sorted({value for _, value in self._extremes})
        groups: list[float | None] = [None] if len(values) > MOST_LABELS else [*values]
        found: dict[str, dict[float | None, Quantiles]] = {}
        for name, column in columns.items():
            if column.of_jets:
                for group in groups:
                    x = column.values if group is None else column.values[label[column.jet] == group]
                    found.setdefault(name, {})[group] = self._quantiles(name, group, x)
        return found

    def _quantiles(self, name: str, group: float | None, x: Float64[np.ndarray, " V"]) -> Quantiles:
        parts = [e for (column, value), e in self._extremes.items() if column == name and group in (None, value)]
        jets, low, high = sum(e[0] for e in parts), min(e[1] for e in parts), max(e[2] for e in parts)
        if not (len(x) and math.isfinite(low)):
            return Quantiles(jets, None, None, None, None, None)
        q16, median, q84 = np.quantile(x, (0.16, 0.5, 0.84)).tolist()
        return Quantiles(jets, low, q16, median, q84, high)

    def _add_extremes(self, jets: Mapping[str, np.ndarray], label: Float64[np.ndarray, " J"]) -> None:
        order = np.argsort(label, kind="stable")
        values, starts, numbers = np.unique(label[order], return_index=True, return_counts=True)
        for name, column in jets.items():
            x = column[order].astype(np.float64)
            finite = np.isfinite(x)
            lows = np.minimum.reduceat(np.where(finite, x, np.inf), starts)
            highs = np.maximum.reduceat(np.where(finite, x, -np.inf), starts)
            for value, count, low, high in zip(values, numbers, lows, highs, strict=True):
                jets_so_far, least, most = self._extremes.get((name, float(value)), (0, np.inf, -np.inf))
                new = (jets_so_far + int(count), min(least, float(low)), max(most, float(high)))
                self._extremes[name, float(value)] = new

    def _rows(self, chosen: Int64[np.ndarray, " K"], piece: Piece) -> Int64[np.ndarray, " k"]:
        low, high = np.searchsorted(chosen, [piece.first, piece.first + len(piece.chunk.offsets) - 1])
        return chosen[low:high] - piece.first


def distances(a: Mapping[str, Column], b: Mapping[str, Column]) -> list[Distance]:
    """How far the columns that both have lie apart, the farthest in units of its spread first."""
    found = []
    for name in a:
        if name in b and len(a[name].values) and len(b[name].values):
            found.append(distance(name, a[name], b[name]))
    return sorted(found, key=lambda d: -math.inf if d.relative is None else -d.relative)


def distance(name: str, a: Column, b: Column) -> Distance:
    """How far a column of two samples lies apart, beside what chance does: the two random halves of the first."""
    x, y = a.values, b.values
    apart = float(wasserstein_distance(x, y))
    low, high = np.quantile(x, (0.16, 0.84))
    spread = float((high - low) / 2 or x.std())
    by_chance = None
    jets, others = (1 + np.count_nonzero(np.diff(c.jet)) for c in (a, b))
    # Halves of jets, not of values: constituents of one jet come together.
    left = (np.random.default_rng(0).random(int(a.jet[-1]) + 1) < 0.5)[a.jet]
    if spread > 0 and left.any() and not left.all():
        scale = math.sqrt((1 / jets + 1 / others) / (4 / jets))
        by_chance = float(wasserstein_distance(x[left], x[~left])) * scale / spread
    return Distance(
        name,
        unit_of(name),
        (float(np.median(x)), float(np.median(y))),
        apart,
        apart / spread if spread > 0 else (0.0 if apart == 0 else None),
        by_chance,
        float(ks_2samp(x, y, method="asymp").pvalue) if a.of_jets and min(len(x), len(y)) >= FEWEST else None,
    )


def unit_of(name: str) -> str:
    """The unit of a column by its common name; empty where it has none or is not known."""
    known = CONSTITUENT_COLUMNS if name.startswith("constituent ") else JET_COLUMNS
    column = known.get(name.removeprefix("constituent ").removeprefix("Δ"))
    return "" if column is None or column.unit == "1" else column.unit


def _constituents(piece: Piece) -> dict[str, np.ndarray]:
    columns = {n: v for n, v in piece.chunk.constituents.items() if n not in NAMING_CONSTITUENTS and is_number(v)}
    columns |= {"Δeta": piece.eta, "Δphi": piece.phi}  # from the axis
    return {f"constituent {name}": values for name, values in columns.items() if name not in ("eta", "phi")}


def _finite(pieces: list[np.ndarray], jet: Int64[np.ndarray, " V"], of_jets: bool) -> Column:
    values = np.concatenate(pieces).astype(np.float64)
    finite = np.abs(values) < LARGEST
    return Column(values[finite], jet[finite], of_jets)


def _drawn(jets: int, most: int) -> Int64[np.ndarray, " K"]:
    """All of `jets`, or `most` of them at random, the same at every call, in order."""
    if jets <= most:
        return np.arange(jets)
    return np.sort(np.random.default_rng(0).choice(jets, most, replace=False, shuffle=False))
