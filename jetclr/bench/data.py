"""`jetclr bench data`: converting files to a store, and reading shuffled batches, with the memory it takes."""

import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jetclr.bench.machine import Row, core_seconds, fresh_processes, peak_mib, refuse_settings, say
from jetclr.data.convert import convert
from jetclr.data.pipeline import BatchSource, training_batches
from jetclr.data.readers import reader
from jetclr.data.readers.recognise import recognise
from jetclr.data.shard import Shard
from jetclr.data.store import Store
from jetclr.data.units import cores
from jetclr.errors import UserError


def bench_data(
    paths: Sequence[Path],
    *,
    format: str = "auto",
    jets: int,
    batch: int,
    constituents: int,
    repeats: int,
    seconds: float,
) -> Iterator[Row]:
    """Convert files, repeated until there are `jets` rows, and read shuffled batches; or only read, given stores.

    Reading lasts for `seconds`. Yields a row of numbers for each measurement: medians over `repeats` runs of
    `jets_per_s` and `jets_per_s_per_core`, of the time that cores worked for it (starting up too); and `peak_mib`, an
    upper bound: the largest memory of the parent and, for each worker, that of the largest one. Raises UserError for
    files that will not do.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"there is nothing at {path}")
    least = {"jets": (jets, 1), "batch": (batch, 2), "constituents": (constituents, 1), "repeats": (repeats, 1)}
    refuse_settings(least, seconds)
    # Where a run is cut short, its workers may still write while the folder goes.
    with tempfile.TemporaryDirectory(prefix="jetclr-bench-", ignore_cleanup_errors=True) as folder:
        stores = list(paths)
        if not paths[0].is_dir():
            stores = [Path(folder) / "store"]
            for workers in sorted({1, cores()}):
                yield _median("convert", workers, repeats, _convert, (list(paths), format, jets, stores[0], workers))
        for processes in (1, 2):
            yield _median("read", processes, repeats, _read, (stores, batch, constituents, seconds, processes))


class _Run(NamedTuple):
    """One run of a measurement."""

    jets: int
    start: float  # on a clock that all processes share
    end: float
    core_seconds: float
    peak_mib: float


def _median(what: str, processes: int, repeats: int, run: Callable[..., _Run], arguments: tuple[Any, ...]) -> Row:
    found: list[_Run] = []
    for number in range(1, repeats + 1):
        say(f"{what}, {processes} process(es), run {number} of {repeats}")
        found.append(run(*arguments))
    return {
        "bench": "data",
        "what": what,
        "processes": processes,
        "jets": found[0].jets,
        "jets_per_s": round(statistics.median(one.jets / (one.end - one.start) for one in found)),
        "jets_per_s_per_core": round(statistics.median(one.jets / one.core_seconds for one in found)),
        "peak_mib": round(max(one.peak_mib for one in found)),
        "runs": repeats,
    }


def _convert(paths: list[Path], format: str, jets: int, out: Path, workers: int) -> _Run:
    shutil.rmtree(out, ignore_errors=True)
    with fresh_processes(1) as pool:
        return pool.submit(_converted, paths, format, jets, out, workers).result()


def _converted(paths: list[Path], format: str, jets: int, out: Path, workers: int) -> _Run:
    """In a process of its own: the files over and over, until there are enough rows."""
    format = recognise(paths[0]) if format == "auto" else format
    once = sum(reader(format).rows(path) for path in paths)
    if once == 0:
        raise UserError(f"{', '.join(map(str, paths))}: there are no jets")
    start, worked = time.monotonic(), core_seconds()
    made = convert(format, paths * -(-jets // once), out, workers=workers)
    peak = peak_mib(resource.RUSAGE_SELF) + workers * peak_mib(resource.RUSAGE_CHILDREN)
    return _Run(made, start, time.monotonic(), core_seconds() - worked, peak)


def _read(stores: list[Path], batch: int, constituents: int, seconds: float, processes: int) -> _Run:
    with fresh_processes(processes) as pool:
        runs = [pool.submit(_read_part, stores, batch, constituents, seconds, i, processes) for i in range(processes)]
        parts = [run.result() for run in runs]
    # Not all begin at once: together they took from the first start to the last end.
    jets, core_seconds, peak = (
        sum(x) for x in zip(*((p.jets, p.core_seconds, p.peak_mib) for p in parts), strict=True)
    )
    return _Run(int(jets), min(p.start for p in parts), max(p.end for p in parts), core_seconds, peak)


def _read_part(stores: list[Path], batch: int, constituents: int, seconds: float, part: int, parts: int) -> _Run:
    """In a process of its own: this process's rows of shuffled batches, for a while."""
    mine = Shard(part, parts)

    def rows(jets: int) -> np.ndarray:
        return np.asarray(mine.part(jets), np.int64)

    source = BatchSource(Store(*stores), batch=batch, constituents=constituents, seed=1, steps=10**9, rows=rows)
    batches = training_batches(source)
    for _ in range(8):  # the threads are up, the first window is shuffled
        next(batches)
    start, worked, jets = time.monotonic(), core_seconds(), 0
    while time.monotonic() - start < seconds:
        next(batches)
        jets += len(mine.part(batch))
    return _Run(jets, start, time.monotonic(), core_seconds() - worked, peak_mib(resource.RUSAGE_SELF))
