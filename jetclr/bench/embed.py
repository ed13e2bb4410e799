"""`jetclr bench embed`: how near embedding whole stores comes to the encoder alone, which has its batches in memory."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jetclr import embed
from jetclr.bench.machine import Row, refuse_settings, say
from jetclr.checkpoint import Which
from jetclr.data.pipeline import sequential_batches
from jetclr.data.store import Store
from jetclr.errors import UserError
from jetclr.run import Run, open_run

LAYERS = ("embedding",)
ALONE = "encoder alone"


def bench_embed(
    run_path: Path, stores: Sequence[Path], formats: Sequence[str], *, repeats: int, which: Which = "latest"
) -> Iterator[Row]:
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
            say(f"turn {number} of {repeats}")
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


def _encoder(run: Run, store: Store) -> Callable[[], None]:
    """A function that encodes all jets, whose batches lie in memory, and keeps nothing."""
    data, rows = run.config.data, np.arange(len(store))
    batches = list(sequential_batches(store, rows, embed.BATCH, data.constituents, data.extras))
    lengths = embed.lengths_for(run.config, store, rows)

    def encode() -> None:
        for _ in embed.encode_batches(run.config, run.params, batches, LAYERS, lengths):
            pass

    return encode
