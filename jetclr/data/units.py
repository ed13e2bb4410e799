"""Long work in units: made by worker processes, kept in `OUT.partial` until all are there, and then put together.

A unit is a run of jets that depends on its arguments alone. What comes out is then the same for any number of workers,
and a call that was interrupted goes on with the units that are missing. Workers are processes of their own also when
there is only one: a library that crashes on a damaged file takes a worker with it, and not the program.
"""

import errno
import json
import multiprocessing
import os
import signal
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jetclr.data.chunk import COORDINATES, JetChunk
from jetclr.data.store import write_json
from jetclr.errors import UserError

SETTINGS = "settings.json"
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, TypeError, KeyError, EOFError, RuntimeError)


class WorkerDied(UserError):
    """A worker process ended without a word; `units` are those that were under way."""

    def __init__(self, message: str, units: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.units = list(units)


@dataclass(frozen=True)
class Task:
    """One unit: `make(*arguments)` gives its jets and what they cost, and `path` is where they wait.

    `size` is what the progress shows of it, in jets or rows.
    """

    make: Callable[..., tuple[JetChunk, Sequence[float]]]
    arguments: tuple[Any, ...]
    path: Path
    size: int


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (name, value), the names of one within another joined by a space."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield prefix + name, value


def first_difference(found: dict[str, Any], expected: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first setting that differs, by its name, as found and as expected; None if all agree."""
    mine, known = dict(_flat(found)), dict(_flat(expected))
    for name in [*known, *(mine.keys() - known.keys())]:
        if mine.get(name) != known.get(name):
            return name, mine.get(name), known.get(name)
    return None


def open_work_folder(out: Path, settings: dict[str, Any]) -> Path:
    """The folder of finished units beside `out`, made if it is not there; UserError if it holds something else."""
    folder = out.with_name(f"{out.name}.partial")
    file = folder / SETTINGS
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UserError(f"{folder} has no {SETTINGS}, so it was not begun by this command; move it away")
        write_json(file, settings)
        return folder
    try:
        difference = first_difference(json.loads(file.read_text()), settings)
    except (ValueError, AttributeError):
        raise UserError(f"{file} is damaged; delete {folder} to start afresh") from None
    if difference is not None:
        name, begun, asked = difference
        raise UserError(
            f"{folder} was begun with {name} = {begun}, not {asked}; repeat the former "
            "command to finish it, delete the folder to start afresh, or choose another name"
        )
    return folder


def unit_path(folder: Path, unit: int) -> Path:
    """Where a finished unit waits."""
    return folder / f"unit-{unit:05d}.npz"


def write_unit(path: Path, chunk: JetChunk, counts: Sequence[float]) -> None:
    """Keep a finished unit, so that `path` is either absent or whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    arrays = {"offsets": chunk.offsets, "counts": np.array(counts, np.float64)}
    arrays |= {f"constituents.{name}": values for name, values in chunk.constituents.items()}
    arrays |= {f"jets.{name}": values for name, values in chunk.jets.items()}
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_unit(path: Path) -> tuple[JetChunk, list[float]] | None:
    """A unit and what it cost, or None if the file is missing, torn or no unit."""
    try:
        with _archive(path) as archive:
            arrays = {name: archive[name] for name in archive.files}  # zip checks its sums here
        counts = arrays.pop("counts").tolist()
        offsets = arrays.pop("offsets")
    except (FileNotFoundError, *DAMAGED):
        return None
    constituents = {n.partition(".")[2]: v for n, v in arrays.items() if n.startswith("constituents.")}
    columns = {n.partition(".")[2]: v for n, v in arrays.items() if n.startswith("jets.")}
    lengths_agree = (
        offsets.ndim == 1
        and len(offsets) > 0
        and all(v.shape == (offsets[-1],) for v in constituents.values())
        and all(v.shape == (len(offsets) - 1,) for v in columns.values())
    )
    if not lengths_agree or any(name not in constituents for name in COORDINATES):
        return None
    return JetChunk(offsets, constituents, columns), counts


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The jet-level columns of a unit, without its constituents, and "multiplicity"; raises UserError if it is gone."""
    try:
        with _archive(path) as archive:
            columns = {n.partition(".")[2]: archive[n] for n in archive.files if n.startswith("jets.")}
            return columns | {"multiplicity": np.diff(archive["offsets"])}
    except (FileNotFoundError, *DAMAGED):
        raise UserError(changed(path)) from None


@contextmanager
def _archive(path: Path) -> Iterator[Any]:
    """The arrays of a unit; what zipfile makes of a damaged one is raised as one of DAMAGED."""
    # Opened here, because np.load leaves the file open when it is no archive.
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                yield archive
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise ValueError("it points before its own start") from None


def changed(path: Path) -> str:
    """The sentence for a unit that vanished after it had been there."""
    return f"{path} was changed while the store was written; repeat the same command"


def _work(task: Task) -> Sequence[float]:
    """One unit, in a worker: the jets go to the disk, only the counts go back."""
    chunk, counts = task.make(*task.arguments)
    write_unit(task.path, chunk, counts)
    return counts


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)  # FastJet's banner goes to stdout, past Python
    os.close(silent)


def _leave_with_parent() -> None:
    """A parent that was killed says no goodbye: without this its workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes; raises WorkerDied if one of them does."""
    # spawn: a fork of a process that has JAX's threads may hang
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
    others = set(multiprocessing.active_children())
    try:
        yield pool
    except (BrokenProcessPool, WorkerDied) as error:
        # One that was just being started when another died is overlooked by the pool, which would wait for it for ever.
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        if isinstance(error, WorkerDied):
            raise
        raise WorkerDied("a worker process died (killed, or out of memory?)") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, task: Task) -> Future[Sequence[float]]:
    try:
        return pool.submit(_work, task)
    except (ValueError, OSError):  # one died while another was being started: the pipes that it needs are closed
        raise BrokenProcessPool from None


def run_units(
    tasks: Mapping[int, Task], pool: ProcessPoolExecutor, workers: int, advance: Callable[[int], None]
) -> dict[int, Sequence[float]]:
    """Make units; returns what each cost. Raises the first error of a worker, or WorkerDied."""
    counts: dict[int, Sequence[float]] = {}
    waiting = iter(tasks)
    running: dict[Future[Sequence[float]], int] = {}
    try:
        while True:
            # Few are handed out ahead, so that Ctrl-C waits for the units under way and not for a long queue.
            while len(running) <= workers and (unit := next(waiting, None)) is not None:
                running[_submit(pool, tasks[unit])] = unit
            if not running:
                return counts
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                counts[running[future]] = future.result()
                advance(tasks[running.pop(future)].size)
    except BrokenProcessPool:
        raise WorkerDied("a worker process died (killed, or out of memory?)", sorted(running.values())) from None
    finally:
        for future in running:
            future.cancel()
        wait(running)  # nobody writes a unit any more


def finished(paths: Iterable[tuple[int, Path]]) -> dict[int, tuple[int, list[float]]]:
    """The units that are there and whole: number -> (jets, counts)."""
    found = {}
    for unit, path in paths:
        kept = read_unit(path)
        if kept is not None:
            found[unit] = (len(kept[0].offsets) - 1, kept[1])
    return found
