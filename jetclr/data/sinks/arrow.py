"""Columns as Parquet or as Arrow IPC (Feather): a table whose layers are lists of fixed size, attributes in its schema.

Rows lie in groups of a few thousand, whole batches. Arrow IPC is not compressed: it is mapped into memory as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jetclr.data.sinks.format import ROWS, Columns, Described, Format


class TableSink:
    """Collects batches and hands them to a writer of Arrow tables."""

    ROWS = ROWS

    def __init__(self, path: Path, attributes: Mapping[str, str], batch: int) -> None:
        self._path, self._attributes = path, dict(attributes)
        self._writer: Any = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> "TableSink":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if exception[0] is None:
                self._flush()
        finally:
            if self._writer is not None:
                self._writer.close()

    def append(self, columns: Columns) -> None:
        arrays = [_as_arrow(values) for values in columns.values()]
        fields = [pa.field(name, x.type, nullable=False) for name, x in zip(columns, arrays, strict=True)]
        self._waiting.append(pa.table(arrays, schema=pa.schema(fields)))
        if sum(table.num_rows for table in self._waiting) >= self.ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks().replace_schema_metadata(self._attributes)
        if self._writer is None:
            self._writer = self._open(table.schema)
        self._writer.write_table(table)
        self._waiting = []

    def _open(self, schema: pa.Schema) -> Any:
        raise NotImplementedError


class ParquetSink(TableSink):
    """Row groups of a few thousand jets."""

    def _open(self, schema: pa.Schema) -> pq.ParquetWriter:
        single = [field.name for field in schema if not pa.types.is_fixed_size_list(field.type)]
        return pq.ParquetWriter(self._path, schema, use_dictionary=single)  # no number of a layer comes twice


class IpcSink(TableSink):
    """Record batches of a few thousand jets."""

    def _open(self, schema: pa.Schema) -> pa.ipc.RecordBatchFileWriter:
        return pa.ipc.new_file(self._path, schema)


def _described(schema: pa.Schema, jets: int) -> Described:
    attributes = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
    return Described(attributes, {field.name: str(field.type) for field in schema}, jets)


def _describe_parquet(path: Path) -> Described:
    with pq.ParquetFile(path) as file:
        return _described(file.schema_arrow, file.metadata.num_rows)


def _describe_ipc(path: Path) -> Described:
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
        return _described(file.schema, sum(file.get_batch(i).num_rows for i in range(file.num_record_batches)))


def _read_parquet(path: Path, names: Sequence[str], batch: int) -> Iterator[dict[str, np.ndarray]]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            columns = {n: _as_array(file.read_row_group(group, [n]).column(n).combine_chunks()) for n in names}
            yield from _cut(columns, rows, batch)


def _read_ipc(path: Path, names: Sequence[str], batch: int) -> Iterator[dict[str, np.ndarray]]:
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
        for group in range(file.num_record_batches):
            rows = file.get_batch(group)
            rows.validate()
            yield from _cut({name: _as_array(rows.column(name)) for name in names}, rows.num_rows, batch)


def _cut(columns: Columns, rows: int, batch: int) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, rows, batch):
        yield {name: x[start : start + batch] for name, x in columns.items()}


def _as_arrow(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    numbers = pa.array(values.ravel())
    kind = pa.list_(pa.field("item", numbers.type, nullable=False), values.shape[1])
    return pa.FixedSizeListArray.from_arrays(numbers, type=kind)


def _as_array(column: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return column.to_numpy(zero_copy_only=False)


PARQUET = Format(ParquetSink, _describe_parquet, _read_parquet)
IPC = Format(IpcSink, _describe_ipc, _read_ipc)
