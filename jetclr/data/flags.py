"""What a reader should know of a store before use: broken jets, copies, classes that are rare, splits that overlap.

A store is read once, in pieces of a few thousand jets. Kept of it are the hash of each jet (8 bytes) and its split
(one byte, where there is one); looking for copies takes another 16 bytes a jet for a moment. Jets are counted from 0.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, UInt64

from jetclr.data.content import Copies, content_hash, copies, shared
from jetclr.data.names import SPLITS
from jetclr.data.pieces import Piece, is_number
from jetclr.data.store import Store

AXIS_RANGE = 1.5
"""Distance from the jet axis that is too far: this, or this many radii where the metadata tells the radius."""

SHARE_BEYOND = 0.01
"""A jet is flagged with more of its pT than this beyond the range. Single soft constituents lie there in sound jets:
clustering goes by rapidity, and the pseudorapidity of a soft massive particle is another."""

RARE = 0.2
"""A class is rare with less than this part of the jets it had if all classes had as many: 10 % of two classes."""

SMALL_SPLIT = 0.02
"""A split is small with less than this part of the jets."""

CUT_SHARE = 1e-4
"""With less than this part of the jets at the largest multiplicity nothing was cut off that matters."""

MOST_SPLITS = 8
NO_CLASS = math.inf

Shares = Counter[tuple[float, float]]
"""How many jets there are of each (label, split)."""


@dataclass(frozen=True)
class Flag:
    """One sentence on what was found; how many jets it is about, and the first of them, where it is about jets."""

    name: str
    text: str
    jets: int | None = None
    first: int | None = None


@dataclass
class _Tally:
    """A fault in words that follow "5 jets have", and the jets that have it so far."""

    name: str
    text: str
    jets: int = 0
    first: int = 0

    def flag(self) -> Flag:
        text = f"{_have(self.jets)} {self.text}; the first is jet {self.first:,}."
        return Flag(self.name, text, self.jets, self.first)


class Faults:
    """Takes the pieces of one store, and tells what is wrong with it: `add` each, then `flags`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shares: Shares = Counter()
        self.multiplicities: Counter[int] = Counter()
        self._hashes: list[np.ndarray] = []
        self._splits: list[np.ndarray] = []
        self._tallies: dict[str, _Tally] = {}
        self.range = _range(store)

    @property
    def hashes(self) -> UInt64[np.ndarray, " J"]:
        """The content hash of each jet added."""
        self._hashes = [np.concatenate(self._hashes)] if self._hashes else [np.zeros(0, np.uint64)]
        return self._hashes[0]

    def add(self, piece: Piece) -> None:
        """Look at some more jets, of which one is never looked at twice."""
        jets = piece.chunk.jets
        counts = np.diff(piece.chunk.offsets)
        self._hashes.append(content_hash(piece.chunk))
        self.multiplicities.update(dict(zip(*(x.tolist() for x in np.unique(counts, return_counts=True)), strict=True)))
        none = np.zeros(len(counts))
        pairs = np.stack([classes(jets.get(name, none)) for name in ("label", "split")])
        values, numbers = np.unique(pairs, axis=1, return_counts=True)
        self.shares.update({(float(a), float(b)): int(n) for (a, b), n in zip(values.T, numbers, strict=True)})
        if "split" in jets:
            self._splits.append(np.clip(classes(jets["split"]), -1, MOST_SPLITS).astype(np.int8))
        self._tally(piece, "empty", "no constituents", counts == 0)
        self._add_columns(piece)
        self._add_order(piece)
        self._add_range(piece)

    def _tally(self, piece: Piece, name: str, text: str, bad: Bool[np.ndarray, " J"]) -> None:
        if bad.any():
            tally = self._tallies.setdefault(name, _Tally(name, text, first=piece.first + int(np.argmax(bad))))
            tally.jets += int(np.count_nonzero(bad))

    def _tally_constituents(self, piece: Piece, name: str, text: str, bad: Bool[np.ndarray, " M"]) -> None:
        if bad.any():
            jets = np.zeros(len(piece.chunk.offsets) - 1, bool)
            jets[piece.owner[bad]] = True
            self._tally(piece, name, text, jets)

    def _add_columns(self, piece: Piece) -> None:
        for name, values in piece.chunk.jets.items():
            if np.issubdtype(values.dtype, np.floating):
                self._tally(piece, f"not finite: {name}", f"a {name} that is NaN or infinite",
                            ~np.isfinite(values))  # fmt: skip
        for name, values in piece.chunk.constituents.items():
            if np.issubdtype(values.dtype, np.floating):
                self._tally_constituents(piece, f"not finite: constituent {name}",
                    f"constituents whose {name} is NaN or infinite", ~np.isfinite(values))  # fmt: skip
        phi, jet_phi = piece.chunk.constituents["phi"], piece.chunk.jets.get("jet_phi")
        outside = "outside [-pi, pi]"
        self._tally_constituents(piece, "phi", f"constituents with phi {outside}", _unwrapped(phi))
        if jet_phi is not None and is_number(jet_phi):
            self._tally(piece, "jet_phi", f"a jet_phi {outside}", _unwrapped(jet_phi))

    def _add_order(self, piece: Piece) -> None:
        pt, owner = piece.chunk.constituents["pt"], piece.owner
        text = "constituents whose pT is not positive (padding that was kept?)"
        self._tally_constituents(piece, "pT not positive", text, pt <= 0)
        text = "constituents that are not sorted by pT, hardest first, so that cutting a jet off loses hard ones"
        rising = np.zeros(len(pt), bool)
        rising[1:] = (pt[1:] > pt[:-1]) & (owner[1:] == owner[:-1])
        self._tally_constituents(piece, "unsorted", text, rising)

    def _add_range(self, piece: Piece) -> None:
        beyond = np.hypot(piece.eta, piece.phi) > self.range
        if not beyond.any():
            return
        pt, jets = piece.chunk.constituents["pt"].astype(np.float64), len(piece.chunk.offsets) - 1
        pt = np.where(np.isfinite(pt), pt, 0)
        whole, there = (np.bincount(piece.owner, np.where(m, pt, 0), jets) for m in (True, beyond))
        text = f"more than {SHARE_BEYOND:.0%} of the pT further than {self.range:.2g} from the jet axis"
        self._tally(piece, "beyond the axis range", text, there > SHARE_BEYOND * whole)

    def flags(self) -> list[Flag]:
        """All that was found, broken jets first."""
        found = [tally.flag() for tally in self._tallies.values()]
        if twice := copies(self.hashes):
            where = "a copy of an earlier one" if twice.jets == 1 else "copies of earlier ones"
            found.append(_copied("duplicates", twice, "", where))
        found += cut_at(self.multiplicities)
        if "label" in self.store.columns:
            found += label_flags(self.by("label"), self.store.label_names)
        if "split" in self.store.columns:
            found += split_flags(self.shares, self.store.label_names) + self._overlaps()
        return found

    def by(self, column: str) -> dict[float, int]:
        """How many jets there are of each "label" or "split", smallest number first."""
        return dict(sorted(_total(self.shares, 0 if column == "label" else 1).items()))

    def _overlaps(self) -> list[Flag]:
        found, splits = [], np.concatenate(self._splits)
        for a, b in combinations(np.unique(splits).tolist(), 2):
            mine, others = np.flatnonzero(splits == a), np.flatnonzero(splits == b)
            if both := shared(self.hashes[mine], self.hashes[others]):
                both = both._replace(first=int(mine[both.first]), like=int(others[both.like]))
                where = f"in split {split_name(b)} too"
                found.append(_copied("split overlap", both, f" of split {split_name(a)}", where))
        return found


def cut_at(multiplicities: Mapping[int, int]) -> list[Flag]:
    """A flag if more jets have the largest number of constituents than have a few less: they were cut off there."""
    total, most = sum(multiplicities.values()), max(multiplicities, default=0)
    there, below = multiplicities.get(most, 0), max(multiplicities.get(most - i, 0) for i in (1, 2, 3))
    # A spectrum falls towards its end; by five standard errors, so that a small store does not rise by chance.
    if most == 0 or there < CUT_SHARE * total or there < 1.5 * below or there - below < 5 * math.sqrt(there + below):
        return []
    text = (
        f"{there:,} of {total:,} jets have exactly {most} constituents and none has more: were they cut off or padded?"
    )
    return [Flag("cut off", text, there)]


def label_flags(labels: Mapping[float, int], names: Mapping[int, str]) -> list[Flag]:
    """Flags for classes that are rare, that have no name where others have one, or no jet where several have some."""
    found = []
    if NO_CLASS in labels:
        text = f"{_have(labels[NO_CLASS])} a label that is not a whole number."
        found.append(Flag("labels not whole", text, labels[NO_CLASS]))
    labels = {value: jets for value, jets in labels.items() if value != NO_CLASS}
    total = sum(labels.values())
    if len(labels) > 1:
        rarest = min(labels, key=lambda value: labels[value])
        if labels[rarest] < RARE * total / len(labels):
            text = (
                f"Label {label_name(rarest, names)} has {labels[rarest] / total:.2g} of all jets ({labels[rarest]:,})"
            )
            found.append(Flag("label imbalance", f"{text}, the fewest of {len(labels)} labels.", labels[rarest]))
        if absent := [label_name(value, names) for value in sorted(names) if value not in labels]:
            found.append(Flag("labels without jets", f"No jet has the label {_joined(absent)}.", 0))
    if nameless := [value for value in labels if value not in names]:
        jets = sum(labels[value] for value in nameless)
        if names:
            text = f"{_have(jets)} labels that the metadata does not name: {_listed(nameless)}."
            found.append(Flag("labels without a name", text, jets))
    return found


def split_flags(shares: Shares, names: Mapping[int, str]) -> list[Flag]:
    """Flags for splits that are small, unknown or as good as jet numbers, and for classes split unevenly."""
    splits: dict[float, Shares] = {}
    for (label, split), jets in sorted(shares.items()):
        splits.setdefault(split, Counter())[label, 0.0] += jets
    total, found = shares.total(), []
    for split, mine in splits.items():
        if len(splits) > 1 and mine.total() < SMALL_SPLIT * total:
            text = f"Split {split_name(split)} has {mine.total() / total:.2g} of all jets ({mine.total():,})."
            found.append(Flag("split imbalance", text, mine.total()))
    if unknown := [split for split in splits if split not in SPLITS]:
        jets = sum(splits[split].total() for split in unknown)
        text = f"{_have(jets)} splits that are not {_listed(SPLITS)}: {_listed(unknown)}."
        found.append(Flag("unknown splits", text, jets))
    for (a, mine), (b, other) in combinations(list(splits.items())[:MOST_SPLITS], 2):
        if told := uneven(mine, other, names):
            text = f"Shares of labels differ between split {split_name(a)} and {split_name(b)}: {_joined(told)}."
            found.append(Flag("label shares of splits", text))
    return found


def uneven(a: Shares, b: Shares, names: Mapping[int, str]) -> list[str]:
    """Labels with another share in `a` than in `b`, by more than 1 % of all jets and five standard errors.

    Each with its two shares, in words.
    """
    found, n, m = [], a.total(), b.total()
    mine, others = _total(a, 0), _total(b, 0)
    for label in sorted({*mine, *others}):
        p, q = mine[label] / max(n, 1), others[label] / max(m, 1)
        mean = (p * n + q * m) / max(n + m, 1)
        error = math.sqrt(mean * (1 - mean) * (1 / max(n, 1) + 1 / max(m, 1)))
        if abs(p - q) > max(0.01, 5 * error):
            found.append(f"{label_name(label, names)} {p:.1%} and {q:.1%}")
    return found


def _total(shares: Shares, part: int) -> Counter[float]:
    """Jets of each label, for part 0 of a pair, or of each split, for part 1."""
    found: Counter[float] = Counter()
    for pair, jets in shares.items():
        found[pair[part]] += jets
    return found


def flags_between(a: Faults, b: Faults) -> list[Flag]:
    """What does not fit between two stores: jets in both, columns, labels, their names and shares."""
    found: list[Flag] = []
    here, there = a.store, b.store
    if both := shared(a.hashes, b.hashes):
        found.append(_copied("overlap", both, " of the first store", "in the second too", " there"))
    return found + _column_differences(here, there) + _label_differences(a, b)


def _column_differences(a: Store, b: Store) -> list[Flag]:
    found = []
    for kind, ours, theirs in (
        ("Columns", a.columns, b.columns),
        ("Constituent columns", a.constituents, b.constituents),
    ):
        for only, these, those in (("first", ours, theirs), ("second", theirs, ours)):
            if missing := [name for name in these if name not in those]:
                found.append(Flag("missing columns", f"{kind} only in the {only} store: {_joined(missing, 30)}."))
    return found


def _label_differences(a: Faults, b: Faults) -> list[Flag]:
    names, others = a.store.label_names, b.store.label_names
    both, found = {**others, **names}, []
    for value in sorted(set(names) & set(others)):
        if names[value] != others[value]:
            text = f"Label {value} means {names[value]} in the first store and {others[value]} in the second."
            found.append(Flag("label names", text))
    if "label" not in a.store.columns or "label" not in b.store.columns:
        return found  # a column that is missing has been told of
    labels, other_labels = a.by("label"), b.by("label")
    for only, these, those in (("first", labels, other_labels), ("second", other_labels, labels)):
        if absent := [value for value in these if value != NO_CLASS and value not in those]:
            told = [label_name(value, both) for value in absent]
            text = f"Only the {only} store has jets of label {_joined(told)}."
            found.append(Flag("missing label", text, sum(these[value] for value in absent)))
    if told := uneven(a.shares, b.shares, both):
        text = f"Shares of labels differ between the first and the second store: {_joined(told)}"
        found.append(Flag("label shares", f"{text}; columns may differ for this reason alone."))
    return found


def label_name(value: float, names: Mapping[int, str]) -> str:
    """ "1 (top)", or the number alone where it has no name."""
    name = names.get(int(value)) if math.isfinite(value) and value == int(value) else None
    return f"{value:g}" if name is None else f"{value:g} ({name})"


def split_name(value: float) -> str:
    """ "train", "validation", "test", or the number."""
    name = SPLITS.get(int(value)) if math.isfinite(value) else None
    return f"{value:g}" if name is None else name


def _range(store: Store) -> float:
    """How far constituents may be from the axis, by the radius in the metadata if all parts of the store tell one."""
    radii = [radius for metadata in store.metadata for radius in _radii(metadata["source"])]
    return AXIS_RANGE * max(radii) if radii and min(radii) > 0 else AXIS_RANGE


def _radii(source: Any) -> list[float]:
    """The jet radius that metadata tells, 0 where it does not; a joined store has several."""
    source = source if isinstance(source, dict) else {}
    if isinstance(joined := source.get("joined"), list) and joined:
        return [r for part in joined for r in _radii(part.get("source") if isinstance(part, dict) else None)]
    window = source.get("window")
    radius = window.get("radius") if isinstance(window, dict) else None
    return [float(radius) if isinstance(radius, int | float) and math.isfinite(radius) else 0.0]


def _unwrapped(phi: np.ndarray) -> Bool[np.ndarray, " _"]:
    return np.abs(phi) > np.float32(np.pi)


def classes(values: np.ndarray) -> Float64[np.ndarray, " J"]:
    """Whole numbers as they are, and one value for all others: there may be as many of these as there are jets."""
    if not is_number(values):
        return np.full(len(values), NO_CLASS)
    x = values.astype(np.float64)
    return np.where(np.isfinite(x) & (x == np.rint(x)), x, NO_CLASS)


def _have(count: int) -> str:
    return f"{count:,} jet has" if count == 1 else f"{count:,} jets have"


def _copied(name: str, found: Copies, whose: str, where: str, there: str = "") -> Flag:
    jets = f"1 jet{whose} is" if found.jets == 1 else f"{found.jets:,} jets{whose} are"
    text = f"{jets} {where}; the first is jet {found.first:,}, the same as jet {found.like:,}{there}."
    return Flag(name, text, found.jets, found.first)


def _listed(values: Iterable[float]) -> str:
    return _joined([f"{value:g}" for value in values])


def _joined(told: list[str], most: int = 8) -> str:
    return ", ".join(told[:most]) + (f" and {len(told) - most} more" if len(told) > most else "")
