"""Frozen embeddings: any layer of a run for any jets, streamed batch by batch to memory or to a file."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float32, Int64

from jetclr import config as configs
from jetclr import encoder, sharding, step
from jetclr.checkpoint import Which
from jetclr.config import Config
from jetclr.data.columns import SHARD, WHOLE, Sink, new_file, refuse_output
from jetclr.data.pipeline import Batch, sequential_batches
from jetclr.data.shard import Shard, jets_to_do
from jetclr.data.store import Store
from jetclr.errors import UserError
from jetclr.progress import jet_progress
from jetclr.run import Run, open_run, parameters_sha256

BATCH = 512
"""Jets encoded at once, split over this process's devices; see `batch_jets`.

The last batch is filled up with empty jets, so one compilation serves all.
"""

Layers = dict[str, Float32[np.ndarray, "B _"]]


def batch_jets() -> int:
    """BATCH, rounded up to a multiple of this process's devices."""
    devices = sharding.local_mesh().size
    return -(-BATCH // devices) * devices


def stream_layers(
    config: Config, params: encoder.Params, store: Store, indices: Int64[np.ndarray, " jets"], layers: Sequence[str]
) -> Iterator[Layers]:
    """The asked-for layers of the jets `indices`, in order, a batch at a time, without dropout or augmentation."""
    batches = sequential_batches(store, indices, batch_jets(), config.data.constituents, config.data.extras)
    return encode_batches(config, params, batches, layers)


def encode_batches(
    config: Config, params: encoder.Params, batches: Iterable[tuple[Batch, int]], layers: Sequence[str]
) -> Iterator[Layers]:
    """The asked-for layers of padded batches, each of `batch_jets()` rows of which the first so many are jets."""
    mesh = sharding.local_mesh()
    embed, split = step.make_embed(config, tuple(layers), mesh), sharding.split(mesh)
    for batch, jets in batches:
        yield {name: np.asarray(x)[:jets] for name, x in embed(params, jax.device_put(batch, split)).items()}


def embed_jets(
    config: Config, params: encoder.Params, store: Store, indices: Int64[np.ndarray, " jets"], layers: Sequence[str]
) -> Layers:
    """All of `stream_layers` in memory: name -> [jets, width]."""
    pieces = list(stream_layers(config, params, store, indices, layers))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in layers}


def embed_store(
    run_path: Path,
    stores: Sequence[Path],
    out: Path,
    layers: Sequence[str],
    *,
    shard: Shard | None = None,
    which: Which = "latest",
) -> tuple[int, dict[str, int]]:
    """Write layers of every jet of `stores`, beside all jet-level columns, to OUT.h5 or OUT.parquet.

    HDF5: one float32 data set [jets, width] a layer and one [jets] a column; Parquet: a fixed-size list column a
    layer. Both carry the run's config and step as attributes. With `shard` only its share of the jets is read and
    written, in the batches that there are without shards. Returns the number of jets and each layer's width.
    Raises UserError if `out` exists, has another ending, a layer is not one of the run's, or the shard has no jets;
    nothing is left then.
    """
    refuse_output(out)
    run, store = open_run(run_path, which), Store(*stores)
    known = encoder.layer_names(run.config.encoder, run.config.head)
    for name in layers:
        if name not in known:
            raise UserError(f"{run_path} has no layer {name!r}; it has {', '.join(known)}")
    jets = jets_to_do(shard, len(store), batch_jets())
    attributes = _attributes(run, store) | ({} if shard is None else _shard_attributes(run, store, layers, shard))
    with new_file(out, attributes, batch_jets()) as sink:
        widths = _fill(sink, run, store, layers, jets)
    return len(jets), widths


def _fill(sink: Sink, run: Run, store: Store, layers: Sequence[str], jets: range) -> dict[str, int]:
    start, widths = jets.start, {}
    with jet_progress("embedding", total=len(jets)) as advance:
        for piece in stream_layers(run.config, run.params, store, np.arange(jets.start, jets.stop), layers):
            stop = start + len(next(iter(piece.values())))
            for name, values in piece.items():
                if not np.isfinite(values).all():
                    row = start + int(np.argmin(np.isfinite(values).all(axis=1)))
                    raise UserError(f"layer {name!r} of jet {row} of {store} is not finite")
            asked = {name: piece[name] for name in layers}  # in this order, which jax does not keep
            sink.append(asked | {name: store.column(name, start, stop) for name in store.columns})
            widths = {name: x.shape[1] for name, x in asked.items()}
            advance(stop - start)
            start = stop
    return widths


def _attributes(run: Run, store: Store) -> dict[str, str]:
    return {
        "jetclr_config": configs.to_json(run.config),
        "jetclr_step": str(run.step),
        "jetclr_stores": ", ".join(path.name for path in store.paths),
    }


def _shard_attributes(run: Run, store: Store, layers: Sequence[str], shard: Shard) -> dict[str, str]:
    """Which part this is, and what the parts must share that the other attributes do not tell."""
    whole = {
        "jets": len(store),
        "unit_jets": batch_jets(),
        "columns": list(dict.fromkeys([*layers, *store.columns])),
        "parameters_sha256": parameters_sha256(run.params),
        "stores_sha256": hashlib.sha256(json.dumps(store.metadata).encode()).hexdigest(),
    }
    return {SHARD: str(shard), WHOLE: json.dumps(whole)}
