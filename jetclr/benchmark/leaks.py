"""What makes a benchmark worthless, found before it is fitted: the same jets twice, the label among the inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt64

from jetclr.benchmark.jets import Part
from jetclr.data.content import content_hash, shared
from jetclr.data.store import Store
from jetclr.errors import UserError
from probes import metrics

TELLING = 0.9999
"""AUC of one input alone above which it is the label, or made of it: no property of a jet comes near."""

FITTED = {"train", "validation"}
"""The splits by which something is fitted or chosen."""

FEWEST_JETS = 200
"""Jets of each class from which one input can be told from the label by chance alone."""


def hashes(store: Store) -> UInt64[np.ndarray, " jets"]:
    """A number for each jet made of its constituents, whatever their order."""
    return np.concatenate([content_hash(chunk) for chunk in store.chunks()])


def refuse_shared_jets(splits: Mapping[str, Sequence[str]], pretraining: Mapping[str, Sequence[str]]) -> list[str]:
    """Raise UserError if jets that are fitted or choose are among others, or a run was pretrained on test jets.

    `splits` are stores by split, all but "train" and "validation" being test jets, which may share jets; `pretraining`
    the stores of each run. Returns notes on what could not be checked.
    """
    found = {split: hashes(Store(*map(Path, paths))) for split, paths in splits.items()}
    names = list(found)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if FITTED & {a, b}:
                _refuse(shared(found[a], found[b]), f"{a} and {b} jets", splits[b])
    notes, seen = [], dict[str, np.ndarray]()
    for run, paths in pretraining.items():
        for path in paths:
            if not (Path(path) / "metadata.json").is_file():
                notes.append(f"{run} was pretrained on {path}, which is not here: whether it saw test jets is unknown")
                continue
            if path not in seen:
                seen[path] = hashes(Store(path))
            for split in names:
                if split not in FITTED:
                    _refuse(shared(seen[path], found[split]), f"the pretraining jets of {run} and {split} jets", [path])
    return notes


def _refuse(both: Any, what: str, paths: Sequence[str]) -> None:
    if both is not None:
        raise UserError(
            f"{both.jets:,} jets are both {what} ({', '.join(paths)}): what is measured on jets that were "
            "fitted is worth nothing; make the splits again, e.g. with jetclr convert --split"
        )


def refuse_label_columns(extras: Sequence[str], what: str) -> None:
    """Raise UserError if an input column is a label or truth by its name."""
    for name in extras:
        if name == "label" or name.startswith(("label_", "truth", "is_signal")):
            raise UserError(f"{what} takes the column {name!r} as an input: that is the label")


def refuse_telling_columns(
    name: str, part: Part, columns: Sequence[str], classes: Int32[np.ndarray, " B"], *, most: int = 20_000
) -> None:
    """Raise UserError if a column of constituents gives the class away: it is looked up at each jet's hardest one."""
    if columns:
        rows = np.random.default_rng(0).permutation(len(classes))[:most]
        values = part.store.gather(part.indices[rows], 1, columns)
        refuse_telling_inputs(name, {f"the column {column!r}": values[column] for column in columns}, classes[rows])


def refuse_telling_inputs(
    name: str, tables: Mapping[str, Any], classes: Int32[np.ndarray, " B"], *, most: int = 20_000
) -> None:
    """Raise UserError if a single number of a representation gives the class away.

    Looks at `most` jets at most; `classes` as everywhere, 0 for background. Every class is tried against the rest.
    """
    rows = np.random.default_rng(0).permutation(len(classes))[:most]
    for number in np.unique(classes)[1:] if len(np.unique(classes)) == 2 else np.unique(classes):
        is_class = classes[rows] == number
        if min(is_class.sum(), (~is_class).sum()) < FEWEST_JETS:
            continue
        for layer, table in tables.items():
            if not isinstance(table, np.ndarray):  # jets, as networks see them
                continue
            drawn = table[rows]
            for column in range(drawn.shape[1]):
                values = np.asarray(drawn[:, column], np.float64)
                if np.isfinite(values).all() and _separates(values, is_class):
                    raise UserError(
                        f"number {column} of {layer or 'the features'} of {name} alone tells the classes apart "
                        "(AUC above 0.9999): the label is among the inputs"
                    )


def _separates(values: np.ndarray, is_class: np.ndarray) -> bool:
    # Most inputs fail this at once: of classes that hardly overlap, one lies beyond nearly all of the other.
    low, high = np.quantile(values[~is_class], (0.001, 0.999))
    if low < np.median(values[is_class]) < high:
        return False
    area = metrics.auc(values, is_class.astype(np.int32))
    return max(area, 1 - area) > TELLING
