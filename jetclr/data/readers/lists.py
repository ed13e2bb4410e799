"""Jets in Parquet files and Arrow IPC files (Feather version 2): a row a jet, constituents in list columns.

Constituents are list columns pt, eta, phi, alone or with one common prefix (`part_pt`, ...), or ONE list<struct> column
with these fields, as awkward writes records and as a jet store does. Beside them in the struct, or with the same
prefix, other numbers are extra constituent columns. Columns of numbers are columns of jets; anything else is left out.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64, Shaped

from jetclr.data.chunk import COORDINATES, JetChunk
from jetclr.data.kinematics import jet_columns
from jetclr.data.names import CONSTITUENT_COLUMNS, JET_COLUMNS
from jetclr.data.readers.checks import (
    MAX_PHI,
    existing_file,
    printable,
    reading,
    refuse,
    refuse_unsound,
    whole_numbers,
)
from jetclr.data.readers.momenta import jet_sums, massless, wrapped
from jetclr.errors import UserError

PARQUET, ARROW = b"PAR1", b"ARROW1"
MAGICS = (PARQUET, ARROW)
ROWS = 4096
CONSTITUENTS = 1 << 20  # about as many a chunk at most
BUFFER_BYTES = 1 << 20
INFLATED_ROWS = 1 << 17  # of a compressed record batch; Arrow's own writers make them of 65,536
SAMPLE = 16  # jets of a Parquet file that tell how large they are
LABEL_NAMES = ("label", "labels", "y")
WHOLE: dict[str, type[np.signedinteger]] = {"charge": np.int8, "type": np.int8, "pdg": np.int32}
WHOLE_OF_JETS: dict[str, type[np.signedinteger]] = {
    "label": np.int32, "split": np.int8, "jet_index": np.int8,
    "event": np.int64, "run": np.int64, "luminosity_block": np.int64,
}  # fmt: skip


class Layout(NamedTuple):
    """Where the columns are: names in the store -> names in the file."""

    struct: str | None  # the list<struct> column; None where each constituent column is a list
    constituents: dict[str, str]
    jets: dict[str, str]

    @property
    def columns(self) -> list[str]:
        """The columns of the file that are needed."""
        return [*self.jets.values(), *(self.constituents.values() if self.struct is None else [self.struct])]


class File(NamedTuple):
    """A file that has been opened and not been read."""

    layout: Layout
    lengths: list[int]  # rows of each row group or record batch
    read: Callable[[int, int], Iterator[tuple[int, pa.RecordBatch]]]  # start, stop -> first row and rows from there


def rows(path: Path) -> int:
    """Jets in a file. Raises UserError for a file of another layout."""
    with _open(path) as file:
        return sum(file.lengths)


def read(path: Path, start: int, stop: int) -> Iterator[JetChunk]:
    """Jets start:stop; jet_pt, jet_eta, jet_phi, jet_mass are those of the massless sum where the file has none.

    A column label, labels or y is `label`. Raises UserError for a file of another layout, for missing values, and for
    numbers that are no particle's.
    """
    with _open(path) as file:
        stop = min(stop, sum(file.lengths))
        at = start
        for first, batch in file.read(start, stop):
            low, high = max(start - first, 0), min(stop - first, batch.num_rows)
            if low < high:
                yield from _chunks(batch.slice(low, high - low), file.layout, path, first + low)
                at = first + high
        if at < stop:
            raise UserError(f"{path} is damaged: it ends at row {at} of {sum(file.lengths)}")


@contextmanager
def _open(path: Path) -> Iterator[File]:
    with ExitStack() as stack:
        with reading(existing_file(path), "Parquet or Arrow"):
            with path.open("rb") as start:
                parquet = start.read(len(PARQUET)) == PARQUET
            found = (_open_parquet if parquet else _open_arrow)(path, stack)
            if any(length < 0 for length in found.lengths):
                raise ValueError(f"it claims pieces of {found.lengths} rows")
        yield found


def _open_parquet(path: Path, stack: ExitStack) -> File:
    # With a buffer the pages of a row group come one by one; without it each of its columns is read whole.
    file = stack.enter_context(pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False))
    layout = layout_of(file.schema_arrow, path)
    # Of columns nothing is asked here: on some damaged files pyarrow ends the process in `row_group(i).column(j)`.
    lengths = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    # awkward calls a column "" that has no name; it cannot be asked for
    columns = None if "" in layout.columns else layout.columns

    def batches(size: int, groups: list[int]) -> Iterator[pa.RecordBatch]:
        with reading(path, "Parquet"):
            found = file.iter_batches(size, row_groups=groups, columns=columns, use_threads=False)
        while True:
            with reading(path, "Parquet"):
                batch = next(found, None)
            if batch is None:
                return
            yield batch

    def read(start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        starts = np.cumsum([0, *lengths]).tolist()
        wanted = [i for i in range(len(lengths)) if starts[i] < stop and starts[i + 1] > start]
        sample = next(batches(SAMPLE, wanted[:1]), None) if wanted else None
        if sample is None:
            return
        first = starts[wanted[0]]
        for batch in batches(_batch_size(sample, layout, path), wanted):
            yield first, batch
            first += batch.num_rows

    return File(layout, lengths, read)


def _batch_size(sample: pa.RecordBatch, layout: Layout, path: Path) -> int:
    """Rows to read at once, so that of jets like those of the sample about `CONSTITUENTS` are in memory at most."""
    with reading(path, "Parquet"):
        sample.validate(full=True)
        constituents = int(_list(sample, layout.columns[-1], path)[0][-1])
    return max(min(ROWS, CONSTITUENTS * sample.num_rows // max(constituents, 1)), 1)


def _open_arrow(path: Path, stack: ExitStack) -> File:
    content = stack.enter_context(pa.memory_map(str(path))).read_buffer()
    whole = pa.ipc.open_file(content)
    layout = layout_of(whole.schema, path)

    def only(columns: Sequence[str]) -> pa.ipc.RecordBatchFileReader:
        fields = [whole.schema.names.index(name) for name in columns]
        return pa.ipc.open_file(content, options=pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False))

    # A batch of all columns costs nothing if it only points into the file; if it is inflated, few columns cost less.
    count = whole.num_record_batches
    mapped = all(_points_into(content, whole.get_batch(i)) for i in range(min(count, 1)))
    narrow, wide = (whole, whole) if mapped else (only(layout.columns[:1]), only(layout.columns))
    lengths = [narrow.get_batch(i).num_rows for i in range(count)]
    if not mapped and max(lengths, default=0) > INFLATED_ROWS:
        raise UserError(
            f"{path} is compressed in pieces of {max(lengths):,} rows, which are inflated as a whole; "
            f"write it again in pieces of at most {INFLATED_ROWS:,}, or uncompressed"
        )

    def read(start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        first = 0
        for i, length in enumerate(lengths):
            if first < stop and first + length > start:
                with reading(path, "Arrow"):
                    batch = wide.get_batch(i)
                for low in range(0, length, ROWS):
                    yield first + low, batch.slice(low, ROWS)
                del batch  # before the next is inflated
            first += length

    return File(layout, lengths, read)


def _points_into(content: pa.Buffer, batch: pa.RecordBatch) -> bool:
    buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer is not None and buffer.size]
    return all(content.address <= b.address < content.address + content.size for b in buffers)


def layout_of(schema: pa.Schema, path: Path) -> Layout:
    """What the columns of a file are; raises UserError where that is not clear, telling what there is."""
    kinds = {name: _storage(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
    told = printable(", ".join(f"{name}: {kind}" for name, kind in kinds.items())) or "no columns"
    if len(kinds) < len(schema.names):
        raise UserError(f"{path} has two columns of one name; it has {told}")
    items = {name: _storage(kind.value_type) for name, kind in kinds.items() if _is_list(kind)}
    listed = [name for name, kind in items.items() if _is_number(kind)]
    structs = {name: _fields(kind) for name, kind in items.items() if pa.types.is_struct(kind)}
    structs = {name: fields for name, fields in structs.items() if set(COORDINATES) <= set(fields)}
    prefixes = [name.removesuffix("pt") for name in listed if name.endswith("pt")]
    prefixes = [prefix for prefix in prefixes if all(prefix + x in listed for x in COORDINATES)]
    if len(structs) + len(prefixes) != 1:
        found = [*structs, *(f"{prefix}pt, {prefix}eta, {prefix}phi" for prefix in prefixes)]
        raise UserError(
            f"{path} must have one list of pt, eta, phi a jet, as three columns or one of structs; it has "
            + (f"several: {printable('; '.join(found))}" if found else told)
        )
    if structs:
        struct, fields = next(iter(structs.items()))
        constituents = {field: field for field in fields}
    else:
        struct = None
        constituents = {
            n.removeprefix(prefixes[0]): n for n in listed if n.startswith(prefixes[0]) and n != prefixes[0]
        }
    jets = {name: name for name, kind in kinds.items() if _is_number(kind) and name != "row"}  # `row` is this file's
    label = next((name for name in LABEL_NAMES if name in jets), None)
    if label is not None:
        jets["label"] = jets.pop(label)
    _refuse_names([*constituents, *jets], path)
    return Layout(struct, constituents, jets)


def _refuse_names(names: Sequence[str], path: Path) -> None:
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise UserError(f"{path} has a column named {name!r}; rename it with letters, digits and _ only")
        if name == "constituents":
            raise UserError(
                f"{path} has a column of numbers named 'constituents', which stores keep for lists; rename it"
            )


def _storage(kind: pa.DataType) -> pa.DataType:
    """The type below extension types: awkward's, once it has been imported."""
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind


def _plain(array: pa.Array) -> pa.Array:
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _fields(kind: pa.StructType) -> list[str]:
    return [field.name for field in kind if _is_number(_storage(field.type))]


def _chunks(batch: pa.RecordBatch, layout: Layout, path: Path, first: int) -> Iterator[JetChunk]:
    """A batch in pieces of about `CONSTITUENTS` at most."""
    with reading(path, "Parquet or Arrow"):
        batch.validate(full=True)  # offsets of a damaged file may point anywhere
        offsets, _ = _list(batch, layout.columns[-1], path)
    for low, high in _pieces(offsets):
        yield _chunk(batch.slice(low, high - low), layout, path, first + low)


def _pieces(offsets: Int64[np.ndarray, " edges"]) -> Iterator[tuple[int, int]]:
    low, jets = 0, len(offsets) - 1
    while low < jets:
        high = int(np.searchsorted(offsets, offsets[low] + CONSTITUENTS, side="right")) - 1
        high = min(max(high, low + 1), jets)
        yield low, high
        low = high


@np.errstate(over="ignore", invalid="ignore")  # what becomes infinite or NaN is refused
def _chunk(batch: pa.RecordBatch, layout: Layout, path: Path, first: int) -> JetChunk:
    offsets, particles = _particles(batch, layout, path, first)
    coordinates = {name: particles[name].astype(np.float64) for name in COORDINATES}
    momenta = massless(**coordinates)
    refuse_unsound(coordinates, momenta[3], offsets, first, path)
    constituents = {"pt": coordinates["pt"].astype(np.float32), "eta": coordinates["eta"].astype(np.float32)}
    constituents["phi"] = wrapped(coordinates["phi"])
    for name, values in particles.items():
        if name in WHOLE:
            constituents[name] = whole_numbers(values, WHOLE[name], name, path, first, offsets)
        elif name not in COORDINATES:
            constituents[name] = _narrow(values, name in CONSTITUENT_COLUMNS)
    jets: dict[str, np.ndarray] = {**jet_columns(jet_sums(momenta, offsets))}
    for name, source in layout.jets.items():
        values = _numbers(batch.column(source), path, source)
        if name in WHOLE_OF_JETS:
            jets[name] = whole_numbers(values, WHOLE_OF_JETS[name], name, path, first)
        elif name == "jet_phi":
            refuse(~(np.abs(values) <= MAX_PHI), first, path, "has a jet_phi that is no azimuth in radians")
            jets[name] = wrapped(values.astype(np.float64))
        else:
            measured = name in JET_COLUMNS or values.dtype == np.float16
            jets[name] = values.astype(np.float32) if measured else _as_kept(values)
    return JetChunk(offsets, constituents, jets | {"row": np.arange(first, first + batch.num_rows)})


def _as_kept(values: Shaped[np.ndarray, " M"]) -> Shaped[np.ndarray, " M"]:
    return values.astype(np.int8) if values.dtype == bool else values


def _narrow(values: Shaped[np.ndarray, " M"], measured: bool) -> Shaped[np.ndarray, " M"]:
    """A constituent's number as it is kept: reals, and all that are `measured`, in float32."""
    return values.astype(np.float32) if measured or values.dtype.kind == "f" else _as_kept(values)


def _particles(
    batch: pa.RecordBatch, layout: Layout, path: Path, first: int
) -> tuple[Int64[np.ndarray, " edges"], dict[str, np.ndarray]]:
    if layout.struct is not None:
        offsets, structs = _list(batch, layout.struct, path)
        _refuse_missing(structs, path, layout.struct)
        return offsets, {
            name: _numbers(structs.field(field), path, field) for name, field in layout.constituents.items()
        }
    found = {name: _list(batch, column, path) for name, column in layout.constituents.items()}
    offsets = found["pt"][0]
    for name, (others, _) in found.items():
        if not np.array_equal(offsets, others):
            jet = int(np.argmax(np.diff(offsets) != np.diff(others)))
            raise UserError(
                f"jet {first + jet} of {path} has {np.diff(others)[jet]} values in {layout.constituents[name]!r} "
                f"where {layout.constituents['pt']!r} has {np.diff(offsets)[jet]}"
            )
    return offsets, {name: _numbers(values, path, layout.constituents[name]) for name, (_, values) in found.items()}


def _list(batch: pa.RecordBatch, name: str, path: Path) -> tuple[Int64[np.ndarray, " edges"], pa.Array]:
    """Offsets from 0, and the values that they point into."""
    array = _plain(batch.column(name))
    _refuse_missing(array, path, name)
    if pa.types.is_fixed_size_list(array.type):
        offsets = (array.offset + np.arange(len(array) + 1)) * array.type.list_size
    else:
        offsets = array.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], _plain(array.values.slice(offsets[0], offsets[-1] - offsets[0]))


def _numbers(array: pa.Array, path: Path, name: str) -> Shaped[np.ndarray, " M"]:
    array = _plain(array)
    _refuse_missing(array, path, name)
    return array.to_numpy(zero_copy_only=False)


def _refuse_missing(array: pa.Array, path: Path, name: str) -> None:
    if array.null_count:
        raise UserError(f"{path} has missing values in column {name!r}; drop these jets or fill them")
