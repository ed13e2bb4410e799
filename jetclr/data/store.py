"""The jet store: a folder of memory-mapped Arrow IPC shards, jagged on disk, and one `metadata.json`.

A shard is an Arrow IPC file of *blocks* (record batches of up to `BLOCK_JETS` jets), so any Arrow reader
(awkward, pandas, polars, DuckDB) opens it. Columns:

- `constituents`: list<struct<pt, eta, phi[, extras]>>, float32; pt in GeV, phi in (-pi, pi], hardest first; extras of
  any number type: charge, type, impact parameters;
- one column a jet-level quantity: `jet_pt`, `jet_mass` [GeV], `jet_eta`, `jet_phi` (float32), `label` (int32).

Names and units of all are in `jetclr.data.names`.

A block is also the unit of locality: the pipeline shuffles among a window of blocks, so that a store
larger than memory is read from the disk in long stretches and not jet by jet.
"""

import contextlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from jetclr.data.chunk import COORDINATES, JetChunk, check_chunk, join_chunks, slice_chunk, sort_by_pt
from jetclr.data.names import described
from jetclr.errors import UserError

FORMAT = "jetclr jet store"
FORMAT_VERSION = 1
BLOCK_JETS = 16_384
SHARD_BLOCKS = 64


def _kinds(columns: Mapping[str, np.ndarray]) -> dict[str, np.dtype]:
    return {name: values.dtype for name, values in columns.items()}


def _record_batch(chunk: JetChunk) -> pa.RecordBatch:
    names = list(chunk.constituents)
    values = pa.StructArray.from_arrays(
        [pa.array(np.ascontiguousarray(chunk.constituents[name])) for name in names], names=names
    )
    constituents = pa.ListArray.from_arrays(pa.array(chunk.offsets.astype(np.int32)), values)
    columns = {"constituents": constituents} | {name: pa.array(v) for name, v in chunk.jets.items()}
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that `path` holds either the old content or all of the new."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write text so that `path` holds either the old content or all of the new."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it takes the place of `path` on a clean exit, and is removed otherwise."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class StoreWriter:
    """Writes a store as a context manager; the folder appears at `path`, whole, only on a clean exit.

    `metadata` (anything JSON can hold) is kept under "source" in `metadata.json`. Raises UserError if `path`
    exists or a chunk is not sound (`check_chunk`); on any error nothing is left behind.
    """

    def __init__(self, path: Path, metadata: dict[str, Any], *, block_jets: int = BLOCK_JETS) -> None:
        self.path = Path(path)
        self._metadata = metadata
        self._block_jets = block_jets
        self._waiting: list[JetChunk] = []
        self._waiting_jets = 0
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._shards: list[dict[str, Any]] = []
        self._schema: pa.Schema | None = None
        self._kinds: tuple[dict[str, np.dtype], dict[str, np.dtype]] | None = None  # of jets, of constituents

    def __enter__(self) -> "StoreWriter":
        refuse_existing(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=".partial", dir=self.path.parent))
        self._folder.chmod(0o755)  # mkdtemp makes it private; a store is for sharing
        return self

    @property
    def jets(self) -> int:
        """Jets appended so far."""
        return sum(shard["jets"] for shard in self._shards) + self._waiting_jets

    def append(self, chunk: JetChunk, source: str = "", first_jet: int | None = None) -> None:
        """Add jets; `source` and `first_jet` tell an error where a bad jet came from."""
        check_chunk(chunk, self.jets if first_jet is None else first_jet, source)
        self.append_sound(sort_by_pt(chunk), source)

    def append_sound(self, chunk: JetChunk, source: str = "") -> None:
        """Add jets that have been checked and sorted; raises UserError if their columns are not those of the first."""
        self._kinds = self._kinds or (_kinds(chunk.jets), _kinds(chunk.constituents))
        for known, columns in zip(self._kinds, (chunk.jets, chunk.constituents), strict=True):
            if (found := _kinds(columns)) != known:
                place = f" of {source}" if source else ""
                told = (
                    f"{name} is {found.get(name, 'missing')} and was {known.get(name, 'missing')}"
                    for name in known | found
                    if name not in known or name not in found or found[name] != known[name]  # None is float64 to NumPy
                )
                raise UserError(f"the columns{place} are not those of the jets before: {', '.join(told)}")
        jets, constituents = self._kinds  # in the order of the first
        self._waiting.append(
            JetChunk(chunk.offsets, {n: chunk.constituents[n] for n in constituents}, {n: chunk.jets[n] for n in jets})
        )
        self._waiting_jets += len(chunk.offsets) - 1
        if self._waiting_jets >= self._block_jets:
            self._write_blocks(whole_only=True)

    def _write_blocks(self, *, whole_only: bool) -> None:
        joined = join_chunks(self._waiting)
        jets = len(joined.offsets) - 1
        stop = jets - jets % self._block_jets if whole_only else jets
        for start in range(0, stop, self._block_jets):
            self._write_block(slice_chunk(joined, start, min(start + self._block_jets, stop)))
        self._waiting = [slice_chunk(joined, stop, jets)] if stop < jets else []
        self._waiting_jets = jets - stop

    def _write_block(self, block: JetChunk) -> None:
        batch = _record_batch(block)
        if self._schema is None:
            self._schema = batch.schema
            self._described = described(_kinds(block.jets), _kinds(block.constituents))
        if self._writer is None or self._shards[-1]["blocks"] == SHARD_BLOCKS:
            self._close_shard()
            name = f"shard-{len(self._shards):05d}.arrow"
            self._writer = pa.ipc.new_file(self._folder / name, self._schema)
            self._shards.append({"file": name, "blocks": 0, "jets": 0, "constituents": 0})
        self._writer.write_batch(batch)
        shard = self._shards[-1]
        shard["blocks"] += 1
        shard["jets"] += batch.num_rows
        shard["constituents"] += int(block.offsets[-1])

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._shards[-1]["bytes"] = (self._folder / self._shards[-1]["file"]).stat().st_size

    def __exit__(self, exception_type: Any, *_: Any) -> None:
        try:
            if exception_type is None:
                self._finish()
        finally:
            if self._writer is not None:
                with contextlib.suppress(OSError):  # the disk is full: the folder goes anyway
                    self._writer.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        if self._waiting:
            self._write_blocks(whole_only=False)
        if self._schema is None:
            raise UserError(f"nothing to write to {self.path}: there are no jets")
        self._close_shard()
        write_json(
            self._folder / "metadata.json",
            {
                "format": FORMAT,
                "version": FORMAT_VERSION,
                "jets": sum(shard["jets"] for shard in self._shards),
                "constituents": sum(shard["constituents"] for shard in self._shards),
                "columns": self._described,
                "source": self._metadata,
                "shards": self._shards,
            },
        )
        for file in self._folder.iterdir():  # on the disk before the name: a crash leaves no whole-looking store
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        refuse_existing(self.path)
        os.rename(self._folder, self.path)


def make_parent(path: Path) -> None:
    """Make the folder that `path` will lie in; raises UserError where that cannot be, before any work is done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror} ({error.filename})") from None
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")


def refuse_existing(path: Path) -> None:
    """Raise UserError if there is anything at `path`: outputs are never overwritten; or if the name is no text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!r} is not a name in UTF-8; choose another") from None
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} already exists; remove it or choose another name")


class Block(NamedTuple):
    """Views into one memory-mapped record batch of J jets with M constituents in all."""

    offsets: np.ndarray  # int32 [J+1]
    constituents: dict[str, np.ndarray]  # [M] each
    jets: dict[str, np.ndarray]  # [J] each
    path: Path
    file: mmap.mmap
    span: tuple[int, int]  # first byte and length in the file

    def check(self) -> None:
        """Raise UserError if the file has lost pages: to touch them would kill the process without a word."""
        if self.file.size() < len(self.file):
            raise UserError(f"{self.path} was truncated while it was read; make the store again")


class Store:
    """One or several stores opened for reading, as one sequence of jets; nothing is read until it is asked for.

    Raises UserError when a folder is missing or is no store, or when a shard is missing or truncated, naming it.
    """

    def __init__(self, *paths: str | Path) -> None:
        if not paths:
            raise UserError("no store was named")
        self.paths = [Path(path) for path in paths]
        self.metadata = [_read_metadata(path) for path in self.paths]
        self.blocks: list[Block] = []
        for path, metadata in zip(self.paths, self.metadata, strict=True):
            for shard in metadata["shards"]:
                self.blocks.extend(_open_shard(path / shard["file"], shard))
        self.starts: Int64[np.ndarray, " blocks+1"] = np.cumsum(
            [0] + [len(b.offsets) - 1 for b in self.blocks], dtype=np.int64
        )
        # Names of the columns, of jets and of constituents, that all stores have.
        self.columns: list[str] = [n for n in self.blocks[0].jets if all(n in b.jets for b in self.blocks)]
        self.constituents: list[str] = [
            n for n in self.blocks[0].constituents if all(n in b.constituents for b in self.blocks)
        ]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __repr__(self) -> str:
        return f"Store({', '.join(map(str, self.paths))}: {len(self):,} jets)"

    def column(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """A jet-level column of jets start:stop [jets], or "multiplicity": constituents a jet."""
        if name not in (*self.columns, "multiplicity"):
            raise UserError(f"{self.paths[0]} has no column {name!r}; it has {self.columns}")
        stop = len(self) if stop is None else stop
        pieces: list[np.ndarray] = []
        for block in range(int(np.searchsorted(self.starts, start, side="right")) - 1, len(self.blocks)):
            first, b = int(self.starts[block]), self.blocks[block]
            if pieces and first >= stop:
                break
            b.check()
            mine = slice(max(start - first, 0), max(stop - first, 0))
            pieces.append(np.diff(b.offsets)[mine] if name == "multiplicity" else b.jets[name][mine])
        return np.concatenate(pieces)

    @property
    def label_names(self) -> dict[int, str]:
        """What the numbers in column `label` mean, as far as the stores say."""
        names: dict[int, str] = {}
        for metadata in self.metadata:
            names |= {int(k): str(v) for k, v in metadata["source"].get("labels", {}).items()}
        return names

    def by_label(self) -> tuple[np.ndarray, dict[int, str]]:
        """Each jet's label [jets], and a name for every label there is; without labels, one for all jets."""
        if "label" not in self.columns:
            return np.zeros(len(self), np.int32), {0: "all jets"}
        label, known = self.column("label"), self.label_names
        return label, {int(v): known.get(int(v), f"label {v}") for v in np.unique(label)}

    def chunks(self) -> Iterator[JetChunk]:
        """The jets in order, a block at a time."""
        for b in self.blocks:
            b.check()
            yield JetChunk(
                b.offsets.astype(np.int64),
                {name: b.constituents[name] for name in self.constituents},
                {name: b.jets[name] for name in self.columns},
            )

    def will_need(self, block: int) -> None:
        """Ask the kernel to start reading a block; returns at once."""
        b = self.blocks[block]
        start = b.span[0] - b.span[0] % mmap.PAGESIZE
        if hasattr(b.file, "madvise"):  # not on every platform
            b.file.madvise(mmap.MADV_WILLNEED, start, b.span[0] + b.span[1] - start)

    def gather(
        self, indices: Int64[np.ndarray, " B"], constituents: int, extras: Sequence[str] = ()
    ) -> dict[str, Float32[np.ndarray, "B N"]]:
        """The `constituents` hardest constituents of the jets `indices`, zero-padded: name -> float32 [B, N].

        Names are pt, eta, phi and those of `extras`. Vectorised over the jets of a block, so it costs least when a
        batch touches few blocks. Raises UserError for extras that not all stores have.
        """
        names = [*COORDINATES, *extras]
        if missing := [name for name in names if name not in self.constituents]:
            raise UserError(f"{self} has no constituent column {missing[0]!r}; it has {self.constituents}")
        out = {name: np.zeros((len(indices), constituents), np.float32) for name in names}
        block_of = np.searchsorted(self.starts, indices, side="right") - 1
        order = np.argsort(block_of, kind="stable")
        cuts = np.flatnonzero(np.diff(block_of[order])) + 1
        slots = np.arange(constituents)
        for rows in np.split(order, cuts):
            if len(rows) == 0:
                continue
            b = self.blocks[block_of[rows[0]]]
            b.check()
            local = indices[rows] - self.starts[block_of[rows[0]]]
            first = b.offsets[local]
            filled = slots < (b.offsets[local + 1] - first)[:, None]
            at = np.where(filled, first[:, None] + slots, 0)
            for name in names:
                try:
                    out[name][rows] = np.where(filled, b.constituents[name][at], np.float32(0))
                except IndexError:
                    raise UserError(
                        f"{self} is damaged: a jet points outside its block; make the store again"
                    ) from None
        return out


def _read_metadata(path: Path) -> dict[str, Any]:
    file = path / "metadata.json"
    if not path.exists():
        raise UserError(f"there is no store at {path}")
    if not file.is_file():
        raise UserError(f"{path} is not a jet store: it has no metadata.json")
    try:
        metadata = json.loads(file.read_text())
        if metadata["format"] != FORMAT or metadata["version"] != FORMAT_VERSION:
            raise UserError(f"{file} says {metadata['format']!r} version {metadata['version']}; "
                            f"this program reads {FORMAT!r} version {FORMAT_VERSION}")  # fmt: skip
        if not metadata["shards"]:
            raise UserError(f"{path} holds no jets")
        for shard in metadata["shards"]:
            if Path(shard["file"]).name != shard["file"]:  # a stranger's metadata points only into its own folder
                raise UserError(f"{file} names a shard outside the store: {shard['file']!r}")
            _ = int(shard["bytes"]), int(shard["blocks"]), int(shard["jets"])
        _ = {int(value): str(name) for value, name in metadata["source"].get("labels", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error!r}); make the store again") from None
    return metadata


def _open_shard(path: Path, expected: dict[str, Any]) -> Iterator[Block]:
    try:
        size = path.stat().st_size
    except OSError:
        raise UserError(f"{path} is missing from its store; make the store again") from None
    if size != expected["bytes"]:
        raise UserError(f"{path} has {size:,} bytes where {expected['bytes']:,} were written; make the store again")
    try:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole = pa.py_buffer(mapped)
        reader = pa.ipc.open_file(pa.BufferReader(whole))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        blocks = [_as_block(batch, path, mapped, whole.address) for batch in batches]
    except (pa.ArrowException, OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); make the store again") from None
    if sum(len(b.offsets) - 1 for b in blocks) != expected["jets"]:
        raise UserError(f"{path} does not hold the {expected['jets']:,} jets its store tells of; make the store again")
    yield from blocks


def _as_block(batch: pa.RecordBatch, path: Path, mapped: mmap.mmap, base: int) -> Block:
    batch.validate()
    nested = batch.column("constituents")
    values = nested.values
    names = [field.name for field in values.type]
    addresses = [(b.address, b.address + b.size) for column in batch.columns for b in column.buffers() if b is not None]
    low, high = min(a for a, _ in addresses), max(z for _, z in addresses)
    return Block(
        nested.offsets.to_numpy(),
        {name: values.field(name).to_numpy() for name in names},
        {name: batch.column(name).to_numpy() for name in batch.schema.names if name != "constituents"},
        path,
        mapped,
        (low - base, high - low),
    )
