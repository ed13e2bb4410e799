"""Columns as a ROOT file: tree "jetclr" with a branch each, made to be a friend; attributes are TObjStrings beside."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jetclr.data.sinks.format import ROWS, Columns, Described, Format

TREE = "jetclr"


def _hindrance(half: bool) -> str:
    try:
        import uproot  # noqa: F401
    except ImportError as error:
        return f"writing ROOT files needs uproot: pip install 'jetclr[root]' ({error})"
    return "ROOT trees hold no half precision; leave out --dtype f16, or take another format" if half else ""


class RootSink:
    """Baskets of a few thousand jets, whole batches, not compressed: embeddings hardly shrink.

    Columns in half precision, which ROOT has not, are widened.
    """

    def __init__(self, path: Path, attributes: Mapping[str, str], batch: int) -> None:
        import uproot

        self._file: Any = uproot.recreate(path, compression=None)
        self._tree: Any = None
        self._waiting: list[Columns] = []
        for name, text in attributes.items():
            self._file[name] = text

    def __enter__(self) -> "RootSink":
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            try:
                self._flush()
            finally:
                self._file.close()
            return
        with contextlib.suppress(Exception):  # the disk is full: the file goes anyway
            self._file.close()

    def append(self, columns: Columns) -> None:
        self._waiting.append(columns)
        if sum(len(next(iter(one.values()))) for one in self._waiting) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = {name: _writable(np.concatenate([one[name] for one in self._waiting])) for name in self._waiting[0]}
        if self._tree is None:
            kinds = {name: np.dtype((x.dtype, x.shape[1:])) for name, x in rows.items()}
            self._tree = self._file.mktree(TREE, kinds, title="Frozen embeddings, one entry a jet")
        self._tree.extend(rows)
        self._waiting = []


def _writable(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype == np.float16 else values


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import uproot

    # Mapped, not read by threads: nothing is allocated by what a damaged file claims.
    with uproot.open(path, handler=uproot.source.file.MemmapSource) as file:
        if path.stat().st_size < file.file.fEND:
            raise ValueError(f"{file.file.fEND:,} bytes belong to it")
        yield file


def _kind(branch: Any) -> np.dtype:
    return branch.interpretation.to_dtype


def _describe(path: Path) -> Described:
    with _opened(path) as file:
        kinds = file.classnames(recursive=False, cycle=False)
        tree = file[TREE]
        # str() makes of uproot's string, a subclass, one that compares and is written as any other.
        attributes = {name: str(file[name]) for name, kind in kinds.items() if kind == "TObjString"}
        columns = {b.name: f"{_kind(b).base} {list(_kind(b).shape)}" for b in tree.branches}
        return Described(attributes, columns, int(tree.num_entries))


def _read(path: Path, names: Sequence[str], batch: int) -> Iterator[dict[str, np.ndarray]]:
    rows = batch * -(-ROWS // batch)  # as they lie in the baskets
    with _opened(path) as file:
        tree = file[TREE]
        for start in range(0, tree.num_entries, rows):
            found = tree.arrays(list(names), entry_start=start, entry_stop=start + rows, library="np")
            for first in range(0, len(found[names[0]]), batch):
                yield {name: found[name][first : first + batch] for name in names}


ROOT = Format(RootSink, _describe, _read, _hindrance)
