"""`jetclr bench embed --size`: the encoder on jets in memory, beside PyTorch's and beside jets that are padded in full.

Ours, PyTorch's and padded jets take turns. Ours stay in one process, which waits meanwhile; PyTorch gets a new one at
each turn, with as many threads as there are cores, and its best size of batch.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jetclr import embed, step
from jetclr.bench.jets import JETS, in_memory, open_jets
from jetclr.bench.machine import Row, fresh_processes, medians, refuse_settings, rounded, say
from jetclr.bench.peer import refuse_python, told
from jetclr.bench.start import start_here
from jetclr.config import Config
from jetclr.data.pipeline import Batch, sequential_batches
from jetclr.data.store import Store
from jetclr.data.units import cores
from jetclr.encoder import Params
from jetclr.errors import UserError
from jetclr.export import pytorch
from jetclr.export.graph import Frozen
from jetclr.export.tensors import save_tensors
from jetclr.export.verify import LIMIT, difference

LAYERS = ("embedding",)
MOST = 128
"""Constituents of the jets that are encoded in buckets and padded."""

TORCH_BATCHES = (40, 128, 256)
"""Sizes of batch that PyTorch may choose from, beside the one that is asked for."""

_PROGRAM = Path(__file__).with_name("torch_encoder.py")
_JETS, _OURS, _THEIRS = "jets.npz", "jax.npy", "torch.npy"


def bench_encoder(
    config: Config, size: str, stores: Sequence[Path] = (), *, python: str, batch: int, repeats: int, seconds: float
) -> Iterator[Row]:
    """Measure the untrained encoder of a size beside the same in PyTorch, run by `python`; and buckets beside padding.

    Each of `repeats` turns encodes for `seconds`. Yields a row of medians for jets of the config's constituents, all
    padded alike, with `ratio` of jets/s, ours over PyTorch's; and one for jets of up to `MOST`, with `bucket_ratio`,
    those in buckets of like multiplicity, as `jetclr embed` has them, over those padded to `MOST`. Raises UserError for
    settings that cannot be, without PyTorch, and if it gives other embeddings.
    """
    refuse_settings({"batch": (batch, 1), "repeats": (repeats, 1)}, seconds)
    refuse_python(python)
    turns: list[Row] = []
    batches = [str(one) for one in sorted({batch, *TORCH_BATCHES})]
    words = ["--threads", str(cores()), "--seconds", str(seconds / len(batches)), "--batches", *batches]
    with tempfile.TemporaryDirectory(prefix="jetclr-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        store = open_jets(stores, folder)
        with fresh_processes(1) as pool:
            pool.submit(_export, config, store.paths, folder).result()
            for number in range(1, repeats + 1):
                say(f"embed, {size}, run {number} of {repeats}")
                turn = {"padded": pool.submit(_turn, config, store.paths, batch, False, seconds).result()}
                torch = told(python, [str(_PROGRAM), str(folder), *words], ("jets_per_s", "batch"))
                turn |= {"torch": torch["jets_per_s"], "torch_batch": torch["batch"]}
                most = replace(config, data=replace(config.data, constituents=MOST, slots=MOST))
                for way, bucketed in (("long", False), ("buckets", True)):
                    turn[way] = pool.submit(_turn, most, store.paths, batch, bucketed, seconds).result()
                turns.append(turn)
        apart = difference(np.load(folder / _THEIRS), np.load(folder / _OURS))
    if not apart <= LIMIT:
        raise UserError(f"PyTorch's embeddings differ from ours by {apart:.2g}, more than {LIMIT:g}: no comparison")
    told_of = {"bench": "embed", "size": size, "torch": torch["torch"], "difference": rounded(apart)}
    for row in _rows(config, turns, batch):
        yield told_of | row | {"runs": repeats}


def _rows(config: Config, turns: Sequence[Row], batch: int) -> Iterator[Row]:
    median = medians(turns, ("padded", "torch", "long", "buckets"))
    yield {
        "what": "beside PyTorch",
        "constituents": config.data.constituents,
        "batch": batch,
        "jets_per_s": median["padded"],
        "torch_jets_per_s": median["torch"],
        "torch_batch": max(turns, key=lambda turn: turn["torch"])["torch_batch"],
        "threads": cores(),
        "ratio": rounded(median["padded"] / median["torch"]),
    }
    yield {
        "what": "in buckets",
        "constituents": MOST,
        "batch": batch,
        "jets_per_s": median["buckets"],
        "padded_jets_per_s": median["long"],
        "bucket_ratio": rounded(median["buckets"] / median["long"]),
    }


def _export(config: Config, stores: Sequence[Path], folder: Path) -> None:
    """In our process: the untrained encoder for PyTorch, jets, and what our encoder makes of them."""
    start_here()
    params = step.init_params(config)
    save_tensors(folder / "jetclr.safetensors", Frozen(config, params, LAYERS), {})
    shutil.copy(pytorch.__file__, folder / "jetclr_encoder.py")
    jets = in_memory(Store(*stores), JETS, config.data.constituents)
    np.savez(folder / _JETS, **jets)  # type: ignore[arg-type,unused-ignore]
    found = list(embed.encode_batches(config, params, [(jets, JETS)], LAYERS))
    np.save(folder / _OURS, np.concatenate([layers["embedding"] for layers in found]))


class _Ready(NamedTuple):
    """What is encoded, over and over."""

    params: Params
    batches: list[tuple[Batch, int]]
    lengths: tuple[int, ...]


def _turn(config: Config, stores: Sequence[Path], batch: int, bucketed: bool, seconds: float) -> float:
    """In our process: jets/s of going through batches in memory, over and over."""
    ready = _ready(config, tuple(stores), batch, bucketed)
    jets, start = 0, time.perf_counter()
    while jets == 0 or time.perf_counter() < start + seconds:
        jets += _encode(config, ready)
    return jets / (time.perf_counter() - start)


def _encode(config: Config, ready: _Ready) -> int:
    found = embed.encode_batches(config, ready.params, ready.batches, LAYERS, ready.lengths)
    return sum(len(layers["embedding"]) for layers in found)


@lru_cache
def _ready(config: Config, stores: tuple[Path, ...], batch: int, bucketed: bool) -> _Ready:
    """Parameters and batches of jets from all over the stores, encoded once."""
    store = Store(*stores)
    rows = np.linspace(0, len(store) - 1, min(JETS, len(store))).astype(np.int64)
    batches = list(sequential_batches(store, rows, batch, config.data.constituents))
    lengths = embed.lengths_for(config, store, np.arange(len(store))) if bucketed else ()
    ready = _Ready(jax.block_until_ready(step.init_params(config)), batches, lengths)
    _encode(config, ready)
    return ready
