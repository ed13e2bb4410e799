"""Columns of jets as HDF5 or Parquet, a batch at a time: how embeddings are written, and read again to be joined."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jetclr.data.store import make_parent, refuse_existing
from jetclr.errors import UserError

SHARD, WHOLE = "jetclr_shard", "jetclr_whole"
"""Attributes of a shard's file: which part it is, and as JSON what it is a part of."""

# All that h5py and Arrow raise on files that are damaged or something else.
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError, pa.ArrowException)


@runtime_checkable
class Sink(Protocol):
    """Takes the columns of some more jets: name -> [jets] or [jets, width]."""

    def __enter__(self) -> "Sink": ...
    def __exit__(self, *_: object) -> None: ...
    def append(self, columns: Mapping[str, np.ndarray]) -> None: ...


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
        self._file.close()
        self._disk.close()
        if exception[0] is None:
            self._check()

    def _check(self) -> None:
        if self._disk.error is not None:
            raise self._disk.error

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        for name, values in columns.items():
            if name not in self._file:
                width = values.shape[1:]
                shape, limit, chunks = (0, *width), (None, *width), (self._batch, *width)
                self._file.create_dataset(name, shape, values.dtype, maxshape=limit, chunks=chunks)
            data = self._file[name]
            data.resize(data.shape[0] + len(values), axis=0)
            data[-len(values) :] = values
        self._check()


class ParquetSink:
    """Row groups of a few thousand jets, whole batches."""

    ROWS = 8192

    def __init__(self, path: Path, attributes: Mapping[str, str], batch: int) -> None:
        self._path, self._attributes = path, dict(attributes)
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> "ParquetSink":
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        arrays = {
            name: pa.array(x) if x.ndim == 1 else pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
            for name, x in columns.items()
        }
        self._waiting.append(pa.table(arrays))
        if sum(table.num_rows for table in self._waiting) >= self.ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        if self._writer is None:
            schema = table.schema.with_metadata(self._attributes)
            self._writer = pq.ParquetWriter(self._path, schema)
        self._writer.write_table(table.replace_schema_metadata(self._attributes))
        self._waiting = []


SINKS: dict[str, type[Hdf5Sink] | type[ParquetSink]] = {".h5": Hdf5Sink, ".hdf5": Hdf5Sink, ".parquet": ParquetSink}


def refuse_output(out: Path) -> None:
    """Raise UserError if there is something at `out`, or if its name does not end as one of `SINKS`."""
    if out.suffix not in SINKS:
        raise UserError(f"cannot tell the format of {out}: its name must end in {', '.join(SINKS)}")
    refuse_existing(out)


@contextmanager
def new_file(out: Path, attributes: Mapping[str, str], batch: int) -> Iterator[Sink]:
    """A sink for batches of `batch` jets; the file appears at `out`, whole, only on a clean exit.

    Raises UserError where `refuse_output` does; on any error nothing is left behind.
    """
    refuse_output(out)
    make_parent(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with SINKS[out.suffix](partial, attributes, batch) as sink:
            yield sink
        refuse_existing(out)
        os.replace(partial, out)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class Described(NamedTuple):
    """What is in a file of columns."""

    attributes: dict[str, str]
    columns: dict[str, str]  # name -> type and width
    jets: int


def describe(path: Path) -> Described:
    """Attributes, columns and jets of a file that a sink wrote; raises UserError for one that cannot be read."""
    with _reading(path):
        if SINKS[path.suffix] is Hdf5Sink:
            with h5py.File(path, "r") as file:
                columns = {name: f"{data.dtype} {list(data.shape[1:])}" for name, data in file.items()}
                lengths = {len(data) for data in file.values()}
                if len(lengths) != 1:
                    raise ValueError(f"columns of {sorted(lengths)} jets")
                return Described({k: str(v) for k, v in file.attrs.items()}, columns, lengths.pop())
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            attributes = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
            return Described(attributes, {f.name: str(f.type) for f in schema}, file.metadata.num_rows)


def read_batches(path: Path, names: Sequence[str], batch: int) -> Iterator[dict[str, np.ndarray]]:
    """The named columns of a file that a sink of batches of `batch` jets wrote, a batch at a time, as they went in.

    Raises UserError for a file that cannot be read.
    """
    with _reading(path):
        if SINKS[path.suffix] is Hdf5Sink:
            with h5py.File(path, "r") as file:
                for start in range(0, len(file[names[0]]), batch):
                    yield {name: file[name][start : start + batch] for name in names}
            return
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                columns = {name: _as_array(file.read_row_group(group, [name]).column(name)) for name in names}
                for start in range(0, file.metadata.row_group(group).num_rows, batch):
                    yield {name: x[start : start + batch] for name, x in columns.items()}


def _as_array(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_fixed_size_list(column.type):
        return column.combine_chunks().flatten().to_numpy().reshape(-1, column.type.list_size)
    return column.to_numpy()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's own, such as a missing permission
            raise
        raise UserError(f"{path} cannot be read; it is truncated, damaged or another format ({error})") from None
