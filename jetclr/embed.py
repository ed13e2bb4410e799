"""Frozen embeddings: any layer of a run for any jets, streamed batch by batch to memory or to a file."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py
import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64

from jetclr import config as configs
from jetclr import encoder, step
from jetclr.checkpoint import Run, open_run
from jetclr.config import Config
from jetclr.data.pipeline import Slice, sequential_batches
from jetclr.data.store import Store, make_parent, refuse_existing
from jetclr.errors import UserError
from jetclr.progress import jet_progress

BATCH = 512
"""Jets encoded at once; the last batch is filled up with empty jets, so one compilation serves all."""

Layers = dict[str, Float32[np.ndarray, "B _"]]


def stream_layers(
    config: Config, params: encoder.Params, store: Store, indices: Int64[np.ndarray, " jets"], layers: Sequence[str]
) -> Iterator[Layers]:
    """The asked-for layers of the jets `indices`, in order, a batch at a time, without dropout or augmentation."""
    embed = step.make_embed(config, tuple(layers))
    for batch, jets in sequential_batches(store, indices, BATCH, config.data.constituents):
        yield {name: np.asarray(x)[:jets] for name, x in embed(params, jax.device_put(batch)).items()}


def embed_jets(
    config: Config, params: encoder.Params, store: Store, indices: Int64[np.ndarray, " jets"], layers: Sequence[str]
) -> Layers:
    """All of `stream_layers` in memory: name -> [jets, width]."""
    pieces = list(stream_layers(config, params, store, indices, layers))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in layers}


def embed_store(run_path: Path, stores: Sequence[Path], out: Path, layers: Sequence[str]) -> tuple[int, dict[str, int]]:
    """Write layers of every jet of `stores`, beside all jet-level columns, to OUT.h5 or OUT.parquet.

    HDF5: one float32 data set [jets, width] a layer and one [jets] a column; Parquet: a fixed-size list column a
    layer. Both carry the run's config and step as attributes. Returns the number of jets and each layer's width.
    Raises UserError if `out` exists, has another ending, or a layer is not one of the run's; nothing is left then.
    """
    sinks: dict[str, type[_Hdf5Sink] | type[_ParquetSink]] = {
        ".h5": _Hdf5Sink,
        ".hdf5": _Hdf5Sink,
        ".parquet": _ParquetSink,
    }
    if out.suffix not in sinks:
        raise UserError(f"cannot tell the format of {out}: its name must end in {', '.join(sinks)}")
    refuse_existing(out)
    run, store = open_run(run_path), Store(*stores)
    known = encoder.layer_names(run.config.encoder, run.config.head)
    for name in layers:
        if name not in known:
            raise UserError(f"{run_path} has no layer {name!r}; it has {', '.join(known)}")
    make_parent(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with sinks[out.suffix](partial, _attributes(run, store)) as sink:
            widths = _fill(sink, run, store, layers)
        refuse_existing(out)
        os.replace(partial, out)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return len(store), widths


@runtime_checkable
class _Sink(Protocol):
    def __enter__(self) -> "_Sink": ...
    def __exit__(self, *_: object) -> None: ...
    def append(self, columns: Mapping[str, np.ndarray]) -> None: ...


def _fill(sink: _Sink, run: Run, store: Store, layers: Sequence[str]) -> dict[str, int]:
    indices = Slice().indices(store)
    columns = {name: store.column(name) for name in store.columns}
    done, widths = 0, {}
    with jet_progress("embedding", total=len(indices)) as advance:
        for piece in stream_layers(run.config, run.params, store, indices, layers):
            jets = len(next(iter(piece.values())))
            for name, values in piece.items():
                if not np.isfinite(values).all():
                    row = done + int(np.argmin(np.isfinite(values).all(axis=1)))
                    raise UserError(f"layer {name!r} of jet {row} of {store} is not finite")
            sink.append(piece | {name: x[done : done + jets] for name, x in columns.items()})
            done += jets
            widths = {name: x.shape[1] for name, x in piece.items()}
            advance(jets)
    return widths


def _attributes(run: Run, store: Store) -> dict[str, str]:
    return {
        "jetclr_config": configs.to_json(run.config),
        "jetclr_step": str(run.step),
        "jetclr_stores": ", ".join(path.name for path in store.paths),
    }


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


class _Hdf5Sink:
    """Data sets that grow along the first axis."""

    def __init__(self, path: Path, attributes: dict[str, str]) -> None:
        self._disk = _Disk(path, "w+b")
        self._file = h5py.File(self._disk, "w")
        self._file.attrs.update(attributes)

    def __enter__(self) -> "_Hdf5Sink":
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
                shape = (0, *values.shape[1:])
                limit = (None, *values.shape[1:])
                self._file.create_dataset(name, shape, values.dtype, maxshape=limit, chunks=(BATCH, *values.shape[1:]))
            data = self._file[name]
            data.resize(data.shape[0] + len(values), axis=0)
            data[-len(values) :] = values
        self._check()


class _ParquetSink:
    """Row groups of a few thousand jets."""

    ROWS = 8192

    def __init__(self, path: Path, attributes: dict[str, str]) -> None:
        self._path, self._attributes = path, attributes
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> "_ParquetSink":
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
