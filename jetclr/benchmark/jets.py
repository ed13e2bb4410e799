"""The labelled jets of a suite: what may be fitted on, and the test jets under seal.

`Development` holds everything that fitting and choosing may see. `Sealed` holds the test jets and gives scores of
predictors that are already fitted; the modules that fit and choose cannot import it (tests/test_architecture.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from jetclr.data.store import Store
from jetclr.errors import UserError


@dataclass(frozen=True)
class Classes:
    """Which class a label stands for: class 0 is background."""

    names: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]  # of each class

    @classmethod
    def of(cls, stores: Sequence[Store], many: bool) -> "Classes":
        """The lowest label against all others, or with `many` each label by itself; UserError for fewer than two."""
        found = sorted({int(v) for store in stores for v in np.unique(label_column(store))})
        known = {label: name for store in stores for label, name in store.label_names.items()}
        names = [known.get(label, f"label {label}") for label in found]
        if len(found) < 2:
            raise UserError(f"all jets of {stores[0]} have the label {found[0]}; a benchmark needs two classes")
        if many:
            if len(found) < 3:
                raise UserError(f"{stores[0]} has {len(found)} labels; leave `many` out of a suite with two classes")
            return cls(tuple(names), tuple((label,) for label in found))
        signal = names[1] if len(found) == 2 else "signal"
        return cls((names[0], signal), ((found[0],), tuple(found[1:])))

    def __call__(self, store: Store) -> Int32[np.ndarray, " jets"]:
        """The class of each jet; UserError for a label that belongs to none."""
        label = label_column(store)
        out = np.full(len(label), -1, np.int32)
        for number, members in enumerate(self.labels):
            out[np.isin(label, members)] = number
        if (out < 0).any():
            raise UserError(f"{store} has the label {label[out < 0][0]:g}, which no training jet has")
        return out


def label_column(store: Store) -> np.ndarray:
    """Column `label` of every jet; UserError if there is none, or one that is not a number."""
    if "label" not in store.columns:
        raise UserError(f"{store} has no labels; a benchmark needs a column 'label'")
    label = store.column("label")
    if not np.isfinite(label).all():
        raise UserError(f"jet {np.argmin(np.isfinite(label))} of {store} has a label that is NaN or infinite")
    return label


class Part(NamedTuple):
    """Jets of one split: `split` is train, validation, test, or the name of a shifted store."""

    split: str
    store: Store
    indices: Int64[np.ndarray, " B"]

    def column(self, name: str) -> np.ndarray:
        """A jet-level column of these jets."""
        return self.store.column(name)[self.indices]

    @property
    def columns(self) -> Sequence[str]:
        """The columns that all these jets have."""
        return [*self.store.columns, "multiplicity"]


@dataclass(frozen=True)
class Development:
    """What fitting and choosing may see: training and validation jets with the class of each."""

    classes: Classes
    train: Part
    validation: Part
    train_class: Int32[np.ndarray, " train"]
    validation_class: Int32[np.ndarray, " validation"]

    @property
    def many(self) -> bool:
        """Whether there are more than two classes."""
        return len(self.classes.names) > 2


def open_development(
    train: Sequence[str], validation: Sequence[str], *, many: bool, most: int, seed: int
) -> Development:
    """The training and validation jets; at most `most` training jets of each class (0: all), drawn by `seed`."""
    stores = [Store(*map(Path, paths)) for paths in (train, validation)]
    classes = Classes.of(stores, many)
    found = [classes(store) for store in stores]
    for store, numbers in zip(stores, found, strict=True):
        counts = np.bincount(numbers, minlength=len(classes.names))
        if counts.min() < 10:
            short = classes.names[int(counts.argmin())]
            raise UserError(f"{store} has {counts.min()} jets of class {short!r}; a benchmark needs at least 10")
    kept = np.arange(len(stores[0]))
    if most:
        rng = np.random.default_rng(seed)
        members = (np.flatnonzero(found[0] == number) for number in range(len(classes.names)))
        kept = np.sort(np.concatenate([rng.permutation(m)[:most] for m in members]))
    return Development(
        classes,
        Part("train", stores[0], kept),
        Part("validation", stores[1], np.arange(len(stores[1]))),
        found[0][kept],
        found[1],
    )
