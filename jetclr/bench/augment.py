"""`jetclr bench augment`: making both views on the device, beside NumPy on the host and beside a training step."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from augmentations import batched
from jetclr import step
from jetclr.bench import numpy_views
from jetclr.bench.jets import in_memory, open_jets
from jetclr.bench.machine import Row, fresh_processes, refuse_settings, rounded, say
from jetclr.bench.start import start_here
from jetclr.bench.train import train_turn
from jetclr.config import Config
from jetclr.data.store import Store

_LEAST_SECONDS = 0.2
"""A turn goes on for so long, as calls may be short."""


def bench_augment(
    config: Config, size: str, stores: Sequence[Path] = (), *, batch: int, steps: int, repeats: int
) -> Iterator[Row]:
    """Measure both views of the config's batch and of `batch` jets, jitted and in NumPy, in turns, in one process.

    Yields a row for each batch: medians over `repeats` turns of `jets_per_s` (a jet counts once, for two views),
    `ms`, and `ratio`, how many times faster a jet is than in NumPy; and, of the config's batch, the `step_share`, what
    the views cost of a training step, of which `steps` are timed in another process. Raises UserError for settings that
    cannot be.
    """
    refuse_settings({"batch": (batch, 1), "steps": (steps, 1), "repeats": (repeats, 1)})
    with tempfile.TemporaryDirectory(prefix="jetclr-bench-", ignore_cleanup_errors=True) as name:
        paths = open_jets(stores, Path(name)).paths
        say(f"train, {size}, {steps} steps")
        step_ms = train_turn(config, paths, steps, None)["ms_per_step"]
        for jets in dict.fromkeys((config.batch, batch)):
            say(f"augment, batches of {jets}, {repeats} turns")
            with fresh_processes(1) as pool:
                row = pool.submit(_turns, config, tuple(paths), jets, repeats).result()
            if jets == config.batch:
                row |= {"step_ms": step_ms, "step_share": rounded(row["ms"] / step_ms)}
            yield {"bench": "augment", "size": size} | row | {"runs": repeats}


def _turns(config: Config, stores: tuple[Path, ...], jets: int, repeats: int) -> Row:
    """In a process of its own: medians of the milliseconds of a batch, of both ways in turns."""
    start_here()
    batch = in_memory(Store(*stores), jets, config.data.constituents)
    ways = {"ms": _jitted(config, batch), "numpy_ms": _numpy(batch)}
    took: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        for way, call in ways.items():
            ms = 1e3 * _seconds(call)
            took[way] += [ms] if turn else []  # the first warms up
    medians = {way: statistics.median(ms) for way, ms in took.items()}
    return {
        "batch": jets,
        **{way: rounded(ms) for way, ms in medians.items()},
        "jets_per_s": round(1e3 * jets / medians["ms"]),
        "numpy_jets_per_s": round(1e3 * jets / medians["numpy_ms"]),
        "ratio": rounded(medians["numpy_ms"] / medians["ms"]),
    }


def _seconds(call: Callable[[int], Any]) -> float:
    """The median of a call's, each with another number, over a while."""
    took: list[float] = []
    end = time.perf_counter() + _LEAST_SECONDS
    while time.perf_counter() < end or len(took) < 3:
        start = time.perf_counter()
        call(len(took))
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def _jitted(config: Config, batch: step.Batch) -> Callable[[int], Any]:
    """All views of a batch on the device, as the training step draws them, for the step of a number."""
    drawn = list(zip(config.views, step.view_roles(config), strict=True))

    @jax.jit
    def views(number: jax.Array, batch: step.Batch) -> Any:
        jets = step.to_jets(batch)
        return [batched(view)(step.stream(config.seed, number, role), jets) for view, role in drawn]

    placed = jax.device_put(dict(batch))
    return lambda number: jax.block_until_ready(views(np.int32(number), placed))


def _numpy(batch: step.Batch) -> Callable[[int], Any]:
    """Both views of a batch in NumPy, in double precision as it comes."""
    jets = numpy_views.HostJets(*(np.asarray(batch[name], np.float64) for name in numpy_views.HostJets._fields))

    def views(number: int) -> Any:
        rng = np.random.default_rng(number)
        return numpy_views.first_view(rng, jets), numpy_views.second_view(rng, jets)

    return views
