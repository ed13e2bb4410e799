"""`jetclr bench embed`: how near embedding whole stores comes to the encoder alone, which has its batches in memory."""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jetclr import embed, sharding, step
from jetclr.bench import refuse_settings
from jetclr.checkpoint import Which
from jetclr.data.pipeline import sequential_batches
from jetclr.data.store import Store
from jetclr.errors import UserError
from jetclr.run import Run, open_run

LAYERS = ("embedding",)
ALONE = "encoder alone"


def bench_embed(
    run_path: Path, stores: Sequence[Path], formats: Sequence[str], *, repeats: int, which: Which = "latest"
) -> Iterator[dict[str, Any]]:
    """Measure the encoder on batches in memory, and `jetclr embed` of the same jets to a file of each ending.

    All take turns in this process, compiled before; `jetclr embed` opens the run and the stores each time. Yields a row
    for each: the median over `repeats` turns of `jets_per_s`, and that as a share of the encoder's. Raises UserError
    for a run, a store or an ending that will not do.
    """
    if not stores:
        raise UserError("bench embed reads real jets: name stores with --data")
    refuse_settings({"repeats": (repeats, 1)})
    run, store = open_run(run_path, which), Store(*stores)
    took: dict[str, list[float]] = {ALONE: [], **{f"to {ending}": [] for ending in formats}}
    encode = _encoder(run, store)
    with tempfile.TemporaryDirectory(prefix="jetclr-bench-") as folder:
        for number in range(repeats + 1):  # the first warms up
            print(f"turn {number} of {repeats}", file=sys.stderr, flush=True)
            for what, seconds in took.items():
                start = time.perf_counter()
                if what == ALONE:
                    encode()
                else:
                    out = Path(folder) / f"{number}{what.removeprefix('to ')}"
                    embed.embed_store(run_path, stores, out, LAYERS, which=which)
                    out.unlink()
                seconds.append(time.perf_counter() - start)
    medians = {what: statistics.median(seconds[1:]) for what, seconds in took.items()}
    for what, median in medians.items():
        yield {
            "bench": "embed",
            "what": what,
            "jets": len(store),
            "jets_per_s": round(len(store) / median),
            "of_encoder": round(medians[ALONE] / median, 3),
            "runs": repeats,
        }


def _encoder(run: Run, store: Store) -> Any:
    """A function that encodes all jets, whose batches lie on the devices, and keeps nothing."""
    mesh, data = sharding.local_mesh(), run.config.data
    call, split = step.make_embed(run.config, LAYERS, mesh), sharding.split(mesh)
    read = sequential_batches(store, np.arange(len(store)), embed.batch_jets(), data.constituents, data.extras)
    batches = [jax.device_put(batch, split) for batch, _ in read]

    def encode() -> None:
        for batch in batches:
            jax.block_until_ready(call(run.params, batch))

    return encode
