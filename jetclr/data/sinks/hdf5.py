"""Columns as HDF5: a data set each, and the attributes those of the file."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jetclr.data.sinks.format import Columns, Described, Format


class _Disk(io.FileIO):
    """A file that HDF5 writes through; it remembers the first failure and swallows what comes after it.

    HDF5 itself does not survive a full disk: every later call fails again, and closing the file may crash.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        whole = len(left)
        try:
            while left and self.error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return whole

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self.error is None else 0
        except OSError as error:
            self.error = error
            return 0


class Hdf5Sink:
    """Data sets that grow along the first axis, in chunks of `batch` jets."""

    def __init__(self, path: Path, attributes: Mapping[str, str], batch: int) -> None:
        self._batch = batch
        self._disk = _Disk(path, "w+b")
        self._file = h5py.File(self._disk, "w")
        self._file.attrs.update(attributes)

    def __enter__(self) -> "Hdf5Sink":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._file.close()
        finally:
            self._disk.close()
        if exception[0] is None:
            self._check()

    def _check(self) -> None:
        if self._disk.error is not None:
            raise self._disk.error

    def append(self, columns: Columns) -> None:
        for name, values in columns.items():
            if name not in self._file:
                width = values.shape[1:]
                shape, limit, chunks = (0, *width), (None, *width), (self._batch, *width)
                self._file.create_dataset(name, shape, values.dtype, maxshape=limit, chunks=chunks)
            data = self._file[name]
            data.resize(data.shape[0] + len(values), axis=0)
            data[-len(values) :] = values
        self._check()


def _describe(path: Path) -> Described:
    with h5py.File(path, "r") as file:
        columns = {name: f"{data.dtype} {list(data.shape[1:])}" for name, data in file.items()}
        lengths = {len(data) for data in file.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns of {sorted(lengths)} jets")
        return Described({k: str(v) for k, v in file.attrs.items()}, columns, lengths.pop())


def _read(path: Path, names: Sequence[str], batch: int) -> Iterator[dict[str, np.ndarray]]:
    with h5py.File(path, "r") as file:
        for start in range(0, len(file[names[0]]), batch):
            yield {name: file[name][start : start + batch] for name in names}


HDF5 = Format(Hdf5Sink, _describe, _read)
