"""Frozen embeddings: any layer of a run for any jets, streamed batch by batch to memory or to a file.

Reading and padding, encoding, and writing go on at the same time: each is a thread of its own, a few batches ahead.
"""

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Int64

from jetclr import __version__, encoder, sharding, step
from jetclr import config as configs
from jetclr.checkpoint import Which
from jetclr.config import Config
from jetclr.data.ahead import ahead
from jetclr.data.buckets import Piece, choose_lengths, cut, filled, multiplicities
from jetclr.data.chunk import COORDINATES
from jetclr.data.columns import SHARD, WHOLE, new_file, refuse_output, settings_of
from jetclr.data.keys import Passed
from jetclr.data.parts import Parts, work_folder
from jetclr.data.pipeline import Batch, sequential_batches
from jetclr.data.shard import Shard, jets_to_do
from jetclr.data.sinks.format import Sink
from jetclr.data.store import Store, make_parent
from jetclr.data.units import cores
from jetclr.errors import UserError
from jetclr.progress import jet_progress
from jetclr.run import Run, open_run, parameters_sha256, refuse_unknown_layers

BATCH = 2048
"""Jets that are read, encoded and written at once; parts of the work (`Shard`, `Parts`) are whole batches.

A batch is cut into pieces by multiplicity (`buckets.cut`), alone, so that jets of a batch get the same numbers wherever
the work is begun.
"""

SLOTS = {"cpu": 2048}
"""Slots of a piece on each device: on a processor those whose arrays stay in its caches, which is twice as fast."""

MANY_SLOTS = 16384
"""`SLOTS` of an accelerator."""

SAMPLE = 16
"""Stretches of 1,024 jets, all over those to be encoded, by whose multiplicities padded lengths are chosen."""

AHEAD = 2
"""Batches that may be read, and as many that may be encoded, before they are asked for."""

Layers = dict[str, Float32[np.ndarray, "B _"]]
Stream = Generator[dict[str, Float[np.ndarray, "B _"]], None, None]
Precision = Literal["f32", "f16"]


def encode_batches(
    config: Config,
    params: encoder.Params,
    batches: Iterable[tuple[Batch, int]],
    layers: Sequence[str],
    lengths: tuple[int, ...] = (),
) -> Iterator[Layers]:
    """The asked-for layers of padded batches, of which the first so many rows are jets.

    Without dropout or augmentation. With `lengths` (`lengths_for`) no jet is padded further than to the next of them.
    """
    one = Encoding("", config, params, tuple(layers), lengths)
    return _encode([one], (([one.pieces(batch, jets)], jets) for batch, jets in batches))


def embed_jets(
    config: Config, params: encoder.Params, store: Store, indices: Int64[np.ndarray, " jets"], layers: Sequence[str]
) -> Layers:
    """The asked-for layers of the jets `indices`, in order, in memory: name -> [jets, width]."""
    one = Encoding("", config, params, tuple(layers), lengths_for(config, store, indices))
    pieces = list(stream_encodings([one], store, indices))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in layers}


def lengths_for(config: Config, store: Store, indices: Int64[np.ndarray, " jets"]) -> tuple[int, ...]:
    """Padded lengths by which the jets `indices` are encoded soonest, with the time to load each program counted in."""
    most = config.data.constituents
    starts = np.unique(np.linspace(0, max(len(indices) - 1024, 0), SAMPLE).astype(np.int64))
    sample = np.unique(np.concatenate([np.arange(start, min(start + 1024, len(indices))) for start in starts]))
    return choose_lengths(multiplicities(store, indices[sample], most), most, len(indices))


class _Filled(NamedTuple):
    """Jets of a batch by their `rows`, padded, with empty jets to fill up the piece."""

    rows: Int64[np.ndarray, " jets"]
    columns: Batch


@dataclass(frozen=True)
class Encoding:
    """Layers of one encoder, what their names begin with where there are several, and the lengths it pads jets to.

    Without `lengths` all are padded to `data.constituents`. Another number of slots rounds otherwise: layers differ by
    a few parts in a million at most.
    """

    prefix: str
    config: Config
    params: encoder.Params
    layers: tuple[str, ...]
    lengths: tuple[int, ...] = ()

    def pieces(self, batch: Batch, jets: int) -> list[_Filled]:
        """What this encoder takes of the first `jets` of a batch that was read for several."""
        data, devices = self.config.data, jax.local_device_count()
        slots = SLOTS.get(jax.default_backend(), MANY_SLOTS) * devices
        seen = {name: batch[name][:jets, : data.constituents] for name in (*COORDINATES, *data.extras)}
        pieces = cut(filled(seen["pt"]), self.lengths or (data.constituents,), slots, math.lcm(8, devices))
        return [_Filled(piece.rows, {name: _taken(x, piece) for name, x in seen.items()}) for piece in pieces]

    def call(self, mesh: Mesh) -> Callable[[_Filled], Layers]:
        """What gives the layers of a piece, with the parameters on the devices of the mesh."""
        embed, split = step.make_embed(self.config, self.layers, mesh), sharding.split(mesh)
        params = jax.device_put(self.params, sharding.everywhere(mesh))

        def layers(piece: _Filled) -> Layers:
            found = embed(params, jax.device_put(piece.columns, split))
            # In the order that was asked for, which jax does not keep.
            return {self.prefix + name: np.asarray(found[name])[: len(piece.rows)] for name in self.layers}

        return layers


def _taken(values: Float32[np.ndarray, "B N"], piece: Piece) -> Float32[np.ndarray, "S L"]:
    out = np.zeros((piece.size, piece.length), np.float32)
    there = values[piece.rows, : piece.length]
    out[: len(there), : there.shape[1]] = there
    return out


def stream_encodings(encodings: Sequence[Encoding], store: Store, indices: Int64[np.ndarray, " jets"]) -> Stream:
    """Layers of one or several encoders for the jets `indices`, which are read once, in order, a batch at a time."""
    slots = max(one.config.data.constituents for one in encodings)
    extras = tuple(dict.fromkeys(name for one in encodings for name in one.config.data.extras))
    batches = sequential_batches(store, indices, BATCH, slots, extras)
    shown = (([one.pieces(batch, jets) for one in encodings], jets) for batch, jets in batches)
    with ahead(shown, AHEAD) as read, ahead(_encode(encodings, read), AHEAD) as encoded:
        yield from encoded


class _Piece(NamedTuple):
    """A piece on its way: its layers, the rows of the batch's `table` that they belong in, and if it is the last."""

    layers: Future[Layers]
    rows: Int64[np.ndarray, " jets"]
    table: Layers
    jets: int
    last: bool

    def finish(self) -> Iterator[Layers]:
        """Wait for the layers; the batch's table, where it is whole with them."""
        for name, values in self.layers.result().items():
            if name not in self.table:
                self.table[name] = np.empty((self.jets, values.shape[1]), values.dtype)
            self.table[name][self.rows] = values
        if self.last:
            yield self.table


def _streams() -> int:
    """Pieces that are encoded at the same time, each in a thread.

    On a processor one a core: XLA shares out the work of a single one, but small products hardly gain by it. Elsewhere
    the second is sent to the device while the first is fetched.
    """
    return max(cores() // jax.local_device_count(), 1) if jax.default_backend() == "cpu" else 2


def _encode(encodings: Sequence[Encoding], batches: Iterable[tuple[list[list[_Filled]], int]]) -> Iterator[Layers]:
    """Layers of batches, whose pieces are given for each encoding."""
    streams = _streams()
    waiting: deque[_Piece] = deque()
    with ThreadPoolExecutor(streams) as pool:
        for begun in _begun(pool, encodings, batches):
            waiting.append(begun)
            if len(waiting) > 2 * streams:  # none is idle while this one waits
                yield from waiting.popleft().finish()
        while waiting:
            yield from waiting.popleft().finish()


def _begun(
    pool: ThreadPoolExecutor, encodings: Sequence[Encoding], batches: Iterable[tuple[list[list[_Filled]], int]]
) -> Iterator[_Piece]:
    mesh = sharding.local_mesh()
    calls = [one.call(mesh) for one in encodings]
    for batch, jets in batches:
        table: Layers = {}
        for number, (call, pieces) in enumerate(zip(calls, batch, strict=True), 1):
            for piece in pieces:
                last = number == len(calls) and piece is pieces[-1]
                yield _Piece(pool.submit(call, piece), piece.rows, table, jets, last)


def embed_store(
    run_path: Path,
    stores: Sequence[Path],
    out: Path,
    layers: Sequence[str] = ("embedding",),
    *,
    also: Sequence[Path] = (),
    columns: Sequence[str] = ("all",),
    dtype: Precision = "f32",
    shard: Shard | None = None,
    which: Which = "latest",
) -> tuple[int, dict[str, int]]:
    """Write layers of every jet of `stores`, beside jet-level columns, to `out`, in the format of its ending.

    One row a jet, in order: each layer [width] as float32, or float16 with `dtype` "f16", and `columns` of the jets,
    "all", "none" or names, and always those that are a key (`Passed`). With `also`, the same layers of more runs, whose
    constituents and extras may differ, in one pass over the jets; layers are then named RUN_LAYER. The file carries
    configs and steps of the runs as attributes. With `shard` only its share of the jets is read and written, in the
    batches that there are without shards.

    Finished parts are kept in `OUT.partial` until all is written, so that the same call goes on after any end. Returns
    the number of jets and each layer's width. Raises UserError if `out` exists, has another ending or cannot hold what
    is asked for, if no layer is named, a layer or column is not there, is not finite or too large for float16, if the
    shard has no jets, or if `OUT.partial` is of another call.
    """
    refuse_output(out, half=dtype == "f16")
    if not layers:
        raise UserError("no layer was named; embedding is what most want")
    paths, store = [run_path, *also], Store(*stores)
    passed = Passed.of(store, columns)
    if len({path.resolve().name for path in paths}) < len(paths):
        raise UserError(f"runs of one pass need folders of different names, got {', '.join(map(str, paths))}")
    runs = {path.resolve().name: open_run(path, which) for path in paths}
    encodings = [_encoding(name if also else "", run, store, layers) for name, run in runs.items()]
    names = [one.prefix + layer for one in encodings for layer in one.layers] + list(passed.names)
    if doubled := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{doubled[0]!r} would name a layer and a column of the jets; leave it out with --columns")
    jets = jets_to_do(shard, len(store), BATCH)
    attributes = _attributes(runs, store)
    whole = _whole(runs, store, names)
    told = attributes if shard is None else attributes | {SHARD: str(shard), WHOLE: json.dumps(whole)}
    own = {"format": out.suffix, "dtype": dtype, "shard": str(shard), "jetclr": __version__}
    make_parent(out)
    with (
        work_folder(out, settings_of(attributes) | whole | own) as folder,
        new_file(out, told, BATCH, folder=folder) as sink,
    ):
        parts = Parts(folder, jets, BATCH)

        def make(rest: range) -> Stream:
            pieces = stream_encodings(encodings, store, np.arange(rest.start, rest.stop))
            return _checked(pieces, rest.start, dtype, str(store))

        with closing(parts.batches(make)) as pieces:
            widths = _write(sink, pieces, passed, jets, parts.done)
    return len(jets), widths


def _write(sink: Sink, pieces: Stream, passed: Passed, jets: range, done: int) -> dict[str, int]:
    """All pieces beside their columns, the first `done` of `jets` from an earlier call; returns the layers' widths."""
    start, widths = jets.start, {}
    with jet_progress("embedding", total=len(jets), done=done) as advance:
        for piece in pieces:
            stop = start + len(next(iter(piece.values())))
            sink.append(dict(piece) | passed.rows(start, stop))
            widths = {name: x.shape[1] for name, x in piece.items()}
            advance(stop - start if start >= jets.start + done else 0)
            start = stop
    return widths


def _encoding(name: str, run: Run, store: Store, layers: Sequence[str]) -> Encoding:
    refuse_unknown_layers(run, layers)
    # By all jets, also where only a shard or what is left of them is encoded, so that all get the same numbers.
    lengths = lengths_for(run.config, store, np.arange(len(store)))
    return Encoding(f"{name}_" if name else "", run.config, run.params, tuple(dict.fromkeys(layers)), lengths)


def _checked(pieces: Stream, start: int, dtype: Precision, told: str) -> Stream:
    """Finite layers as they are written; raises UserError naming the jet, counted from `start`, of one that is not."""
    with closing(pieces):  # its threads end with it
        for piece in pieces:
            for name, values in piece.items():
                _refuse(~np.isfinite(values), name, start, told, "is not finite")
            jets = len(next(iter(piece.values())))
            if dtype == "f16":
                with np.errstate(over="ignore"):
                    piece = {name: values.astype(np.float16) for name, values in piece.items()}
                for name, values in piece.items():
                    _refuse(np.isinf(values), name, start, told, "is too large for float16; leave out --dtype f16")
            yield piece
            start += jets


def _refuse(bad: np.ndarray, name: str, start: int, told: str, says: str) -> None:
    if bad.any():
        raise UserError(f"layer {name!r} of jet {start + int(np.argmax(bad.any(axis=1)))} of {told} {says}")


def _attributes(runs: Mapping[str, Run], store: Store) -> dict[str, str]:
    """Config and step of the run, or of each of several by its name; what the stores are called."""
    found = {}
    for name, run in runs.items():
        ending = f"_{name}" if len(runs) > 1 else ""
        found[f"jetclr_config{ending}"] = configs.to_json(run.config)
        found[f"jetclr_step{ending}"] = str(run.step)
    return found | {"jetclr_stores": ", ".join(path.name for path in store.paths)}


def _whole(runs: Mapping[str, Run], store: Store, names: Sequence[str]) -> dict[str, Any]:
    """What parts must share that the attributes do not tell."""
    parameters = {name: parameters_sha256(run.params) for name, run in runs.items()}
    return {
        "jets": len(store),
        "unit_jets": BATCH,
        "columns": list(names),
        "parameters_sha256": parameters if len(runs) > 1 else next(iter(parameters.values())),
        "stores_sha256": hashlib.sha256(json.dumps(store.metadata).encode()).hexdigest(),
    }
