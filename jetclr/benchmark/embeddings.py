"""Embeddings from anybody's software: an HDF5 file with a row for every jet of a suite."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from jetclr.benchmark.leaks import refuse_label_columns
from jetclr.benchmark.representations import FromFile
from jetclr.data.readers.checks import reading
from jetclr.data.readers.hdf5 import dataset, find, opened
from jetclr.data.store import Store
from jetclr.errors import UserError

MAIN = "embedding"
CHUNK = 1 << 24

TELLING_VALUES = 10
"""Different values from which on a column tells in which order jets stand: labels may be sorted, and say nothing."""


def open_embeddings(path: Path, splits: Mapping[str, Store], name: str) -> FromFile:
    """The layers of `path`: its two-dimensional data sets, "embedding" first if there is one of that name.

    Rows are the jets of `splits`, one store after the other. Raises UserError if there are other than so many, if no
    column proves that they are these jets in this order, or if a column or a name says that they are not.
    """
    lengths = {split: len(store) for split, store in splits.items()}
    jets = sum(lengths.values())
    with opened(path) as file:
        sets = {key: item for key in file if (item := find(file, path, key)) is not None}
        layers = [key for key, item in sets.items() if item.ndim == 2 and item.dtype.kind == "f"]
        if not layers:
            raise UserError(f"{path} holds no embeddings; a data set of floats [jets, width] is needed, e.g. {MAIN!r}")
        refuse_label_columns(layers, str(path))
        for layer in layers:
            dataset(file, path, layer, "embeddings")  # all of whose rows are in the file, and in no other
            if len(sets[layer]) != jets:
                told = " + ".join(f"{n:,} {split}" for split, n in lengths.items())
                raise UserError(f"{layer} of {path} has {len(sets[layer]):,} rows; the suite has {told} jets")
        known = set.intersection(*(set(store.columns) for store in splits.values()))
        shared = [key for key, item in sets.items() if key in known and item.ndim == 1 and item.dtype.kind in "fiub"]
        _refuse_other_jets(path, {key: dataset(file, path, key, "embeddings") for key in shared}, splits)
    starts = np.cumsum([0, *lengths.values()])
    rows = {split: range(int(a), int(b)) for split, a, b in zip(lengths, starts[:-1], starts[1:], strict=True)}
    main = MAIN if MAIN in layers else layers[0]
    return FromFile(name, path, tuple(layers), main, rows, _sha256(path))


def _refuse_other_jets(path: Path, columns: Mapping[str, h5py.Dataset], splits: Mapping[str, Store]) -> None:
    """UserError unless the columns that file and stores share tell jets apart and are equal to float32 rounding."""
    values = [len(np.unique(store.column(c))) for store in splits.values() for c in columns]
    if max(values, default=0) < TELLING_VALUES:
        known = next(iter(splits.values())).columns
        few = f" ({', '.join(columns)} alone cannot: too few values)" if columns else ""
        raise UserError(
            f"nothing in {path} proves which jets its rows are{few}; add columns of the jets, of {', '.join(known)}"
        )
    for column in columns:
        start, jets = 0, sum(map(len, splits.values()))
        if len(columns[column]) != jets:
            raise UserError(f"{column} of {path} has {len(columns[column]):,} rows; the suite has {jets:,} jets")
        for split, store in splits.items():
            ours = store.column(column)
            with reading(path, "HDF5"):
                theirs = columns[column][start : start + len(ours)]
            start += len(ours)
            same = np.isclose(theirs.astype(np.float64), ours.astype(np.float64), rtol=1e-5, atol=1e-6, equal_nan=True)
            if not same.all():
                jet = int(np.argmin(same))
                raise UserError(
                    f"row {start - len(ours) + jet} of {path} has {column} {theirs[jet]:g}, but {split} jet {jet} has "
                    f"{ours[jet]:g}: rows must be the {', '.join(splits)} jets in the order of the stores"
                )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()
