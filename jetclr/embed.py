"""Frozen embeddings: any layer of a run for any jets, streamed batch by batch to memory or to a file.

Reading and padding, encoding, and writing go on at the same time: each is a thread of its own, a few batches ahead.
"""

import hashlib
import json
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, Float32, Int64

from jetclr import __version__, encoder, sharding, step
from jetclr import config as configs
from jetclr.checkpoint import Which
from jetclr.config import Config
from jetclr.data.ahead import ahead
from jetclr.data.chunk import COORDINATES
from jetclr.data.columns import SHARD, WHOLE, new_file, refuse_output, settings_of
from jetclr.data.keys import Passed
from jetclr.data.parts import Parts, work_folder
from jetclr.data.pipeline import Batch, sequential_batches
from jetclr.data.shard import Shard, jets_to_do
from jetclr.data.sinks.format import Sink
from jetclr.data.store import Store, make_parent
from jetclr.errors import UserError
from jetclr.progress import jet_progress
from jetclr.run import Run, open_run, parameters_sha256, refuse_unknown_layers

BATCH = 512
"""Jets encoded at once, split over this process's devices; see `batch_jets`.

The last batch is filled up with empty jets, so one compilation serves all.
"""

AHEAD = 4
"""Batches that may be read, and as many that may be encoded, before they are asked for."""

Layers = dict[str, Float32[np.ndarray, "B _"]]
Stream = Generator[dict[str, Float[np.ndarray, "B _"]], None, None]
Precision = Literal["f32", "f16"]


def batch_jets() -> int:
    """BATCH, rounded up to a multiple of this process's devices."""
    devices = sharding.local_mesh().size
    return -(-BATCH // devices) * devices


def encode_batches(
    config: Config, params: encoder.Params, batches: Iterable[tuple[Batch, int]], layers: Sequence[str]
) -> Iterator[Layers]:
    """The asked-for layers of padded batches, each of `batch_jets()` rows of which the first so many are jets.

    Without dropout or augmentation.
    """
    one = Encoding("", config, params, tuple(layers))
    return _encode([one], (((batch,), jets) for batch, jets in batches))


def embed_jets(
    config: Config, params: encoder.Params, store: Store, indices: Int64[np.ndarray, " jets"], layers: Sequence[str]
) -> Layers:
    """The asked-for layers of the jets `indices`, in order, in memory: name -> [jets, width]."""
    pieces = list(stream_encodings([Encoding("", config, params, tuple(layers))], store, indices))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in layers}


@dataclass(frozen=True)
class Encoding:
    """Layers of one encoder, and what their names begin with where there are several encoders."""

    prefix: str
    config: Config
    params: encoder.Params
    layers: tuple[str, ...]

    def sees(self, batch: Batch) -> Batch:
        """What this encoder takes of a batch that was read for several."""
        data = self.config.data
        return {name: batch[name][:, : data.constituents] for name in (*COORDINATES, *data.extras)}


def stream_encodings(encodings: Sequence[Encoding], store: Store, indices: Int64[np.ndarray, " jets"]) -> Stream:
    """Layers of one or several encoders for the jets `indices`, which are read once, in order, a batch at a time."""
    slots = max(one.config.data.constituents for one in encodings)
    extras = tuple(dict.fromkeys(name for one in encodings for name in one.config.data.extras))
    batches = sequential_batches(store, indices, batch_jets(), slots, extras)
    shown = ((tuple(one.sees(batch) for one in encodings), jets) for batch, jets in batches)
    with ahead(shown, AHEAD) as read, ahead(_encode(encodings, read), AHEAD) as encoded:
        yield from encoded


def _encode(
    encodings: Sequence[Encoding], batches: Iterable[tuple[tuple[Batch, ...], int]]
) -> Iterator[dict[str, Float32[np.ndarray, "B _"]]]:
    """Layers of batches, one for each encoding; the next batch is computed while the one before is fetched."""
    mesh = sharding.local_mesh()
    split = sharding.split(mesh)
    embeds = [step.make_embed(one.config, one.layers, mesh) for one in encodings]
    waiting: deque[tuple[dict[str, jax.Array], int]] = deque()

    def fetched() -> dict[str, np.ndarray]:
        found, jets = waiting.popleft()
        return {name: np.asarray(x)[:jets] for name, x in found.items()}

    for batch, jets in batches:
        found: dict[str, jax.Array] = {}
        for one, embed, mine in zip(encodings, embeds, batch, strict=True):
            layers = embed(one.params, jax.device_put(mine, split))
            found |= {one.prefix + name: layers[name] for name in one.layers}  # in this order, which jax does not keep
        for array in found.values():
            array.copy_to_host_async()
        waiting.append((found, jets))
        if len(waiting) > 1:
            yield fetched()
    while waiting:
        yield fetched()


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
    encodings = [_encoding(name if also else "", run, layers) for name, run in runs.items()]
    names = [one.prefix + layer for one in encodings for layer in one.layers] + list(passed.names)
    if doubled := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{doubled[0]!r} would name a layer and a column of the jets; leave it out with --columns")
    jets = jets_to_do(shard, len(store), batch_jets())
    attributes = _attributes(runs, store)
    whole = _whole(runs, store, names)
    told = attributes if shard is None else attributes | {SHARD: str(shard), WHOLE: json.dumps(whole)}
    own = {"format": out.suffix, "dtype": dtype, "shard": str(shard), "jetclr": __version__}
    make_parent(out)
    with (
        work_folder(out, settings_of(attributes) | whole | own) as folder,
        new_file(out, told, batch_jets(), folder=folder) as sink,
    ):
        parts = Parts(folder, jets, batch_jets())

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


def _encoding(name: str, run: Run, layers: Sequence[str]) -> Encoding:
    refuse_unknown_layers(run, layers)
    return Encoding(f"{name}_" if name else "", run.config, run.params, tuple(dict.fromkeys(layers)))


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
        "unit_jets": batch_jets(),
        "columns": list(names),
        "parameters_sha256": parameters if len(runs) > 1 else next(iter(parameters.values())),
        "stores_sha256": hashlib.sha256(json.dumps(store.metadata).encode()).hexdigest(),
    }
