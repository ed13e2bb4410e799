"""`jetclr generate`: simulated jets of one process -> a store, on many cores, resumable and reproducible.

The work is cut into units of `UNIT_JETS` jets. A unit has a Pythia of its own with a seed of its own, so it is the
same wherever and whenever it is made: the number of workers changes nothing, a store of fewer jets of a seed holds
the first jets of a store of more, and an interrupted run goes on with the units that are missing. Finished units
wait in `OUT.partial` until all are there; then they become the store. A shard makes some of the units only, and keeps
what each of them cost, so that `jetclr join` can put the shards' stores together as if they had been made at once.
"""

import json
import multiprocessing
import os
import shutil
import signal
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from jetclr import __version__
from jetclr.data import pythia
from jetclr.data.chunk import JetChunk
from jetclr.data.pythia import Counts, Recipe
from jetclr.data.shard import Shard, jets_to_do
from jetclr.data.store import StoreWriter, refuse_existing, write_json
from jetclr.errors import UserError
from jetclr.progress import jet_progress

UNIT_JETS = 500
SEEDS = 2**32
SETTINGS = "settings.json"
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, TypeError, KeyError, EOFError)


def generate(
    process: str,
    out: Path,
    *,
    jets: int,
    seed: int = 0,
    workers: int | None = None,
    unit_jets: int = UNIT_JETS,
    shard: Shard | None = None,
    command: str | None = None,
) -> int:
    """Simulate `jets` jets of a process ("top", "qcd") into a new store at `out`; returns how many are in it.

    The store depends on process, jets, seed, `unit_jets` and the versions of Pythia and FastJet only; `workers`
    (default: the cores this process may use) decides how long it takes. With `shard` only its share of the jets is
    made, in whole units. Repeat an interrupted call to go on. From a script, call it under
    `if __name__ == "__main__":`, because workers import the script. `command` is kept in the metadata.

    Raises UserError for arguments that make no sense, an existing `out`, a work folder of other settings, a missing
    Pythia or FastJet, a worker that died; OSError as it comes (a full disk); then nothing is at `out`.
    """
    recipe = _checked_recipe(process, jets=jets, seed=seed, workers=workers, unit_jets=unit_jets)
    mine = jets_to_do(shard, jets, unit_jets)
    out = Path(out)
    refuse_existing(out)
    pythia.load_generators()
    settings = _settings(recipe, jets=jets, seed=seed, unit_jets=unit_jets, shard=shard)
    folder = _open_work_folder(out, settings)
    sizes = {first // unit_jets: min(unit_jets, jets - first) for first in mine[::unit_jets]}
    counts: dict[int, Counts] = {}
    for unit, size in sizes.items():
        kept = read_unit(_unit_path(folder, unit), size)
        if kept is not None:
            counts[unit] = kept[1]
    tasks = {
        unit: (recipe, unit_seed(process, seed, unit), size, _unit_path(folder, unit))
        for unit, size in sizes.items()
        if unit not in counts
    }
    with jet_progress(f"generating {process}", len(mine), done=sum(sizes[unit] for unit in counts)) as advance:
        counts |= _run_units(tasks, workers or _cores(), folder, advance)
    metadata = _metadata(recipe, settings, {unit: counts[unit] for unit in sizes}, command)
    with StoreWriter(out, metadata) as writer:
        for unit, size in sizes.items():
            path = _unit_path(folder, unit)
            kept = read_unit(path, size)
            if kept is None:
                raise UserError(f"{path} was changed while the store was written; repeat the same command")
            writer.append(kept[0], source=str(path), first_jet=0)
    shutil.rmtree(folder)
    return len(mine)


def unit_seed(process: str, seed: int, unit: int) -> int:
    """Pythia's seed (1 to 900,000,000) for a unit: a hash of process and seed, plus the unit's number.

    Adding, and not hashing, the number keeps the units of one run from ever sharing a seed.
    """
    base = np.random.SeedSequence([seed, *process.encode()]).generate_state(1, np.uint64)[0]
    return (int(base) + unit) % pythia.MAX_SEED + 1


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _checked_recipe(process: str, *, jets: int, seed: int, workers: int | None, unit_jets: int) -> Recipe:
    if process not in pythia.RECIPES:
        raise UserError(f"unknown process {process!r}; known: {', '.join(sorted(pythia.RECIPES))}")
    for name, value in (("jets", jets), ("workers", workers), ("unit_jets", unit_jets)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
    if not 0 <= seed < SEEDS:
        raise UserError(f"seed is {seed}; it must be from 0 to {SEEDS - 1}")
    return pythia.RECIPES[process]


def _settings(recipe: Recipe, *, jets: int, seed: int, unit_jets: int, shard: Shard | None) -> dict[str, Any]:
    """Everything that decides which jets come out; `jets` are those of all shards."""
    return {
        "process": recipe.name,
        "jets": jets,
        "seed": seed,
        "unit_jets": unit_jets,
        "pythia": recipe.settings(),
        "algorithm": "anti-kT",
        "window": asdict(recipe.window),
        "match_top": recipe.match_top,
        "early_veto": pythia.VETO._asdict(),
        "versions": {"jetclr": __version__, "pythia8mc": version("pythia8mc"), "fastjet": version("fastjet")},
        **({"shard": str(shard)} if shard is not None else {}),
    }


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
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


def _open_work_folder(out: Path, settings: dict[str, Any]) -> Path:
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


def _unit_path(folder: Path, unit: int) -> Path:
    return folder / f"unit-{unit:05d}.npz"


def write_unit(path: Path, chunk: JetChunk, counts: Counts) -> None:
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


def read_unit(path: Path, jets: int) -> tuple[JetChunk, Counts] | None:
    """A unit of `jets` jets and what it cost, or None if the file is missing, torn or not such a unit."""
    try:
        # Opened here, because np.load leaves the file open when it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}  # zip checks its sums here
        tried, events, found, sigma, error = arrays.pop("counts").tolist()
        offsets = arrays.pop("offsets")
    except (FileNotFoundError, *DAMAGED):
        return None
    constituents = {n.partition(".")[2]: v for n, v in arrays.items() if n.startswith("constituents.")}
    columns = {n.partition(".")[2]: v for n, v in arrays.items() if n.startswith("jets.")}
    lengths_agree = (
        offsets.shape == (jets + 1,)
        and all(v.shape == (offsets[-1],) for v in constituents.values())
        and all(v.shape == (jets,) for v in columns.values())
    )
    if not lengths_agree or set(constituents) != {"pt", "eta", "phi"}:
        return None
    return JetChunk(offsets, constituents, columns), Counts(int(tried), int(events), int(found), sigma, error)


def _make_unit(recipe: Recipe, seed: int, jets: int, path: Path) -> Counts:
    """One unit, in a worker: the jets go to the disk, only the counts go back."""
    chunk, counts = pythia.generate_unit(recipe, seed, jets)
    write_unit(path, chunk, counts)
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
def _pool(workers: int, folder: Path) -> Iterator[ProcessPoolExecutor]:
    # spawn: a fork of a process that has JAX's threads may hang
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
    others = set(multiprocessing.active_children())
    try:
        yield pool
    except BrokenProcessPool:
        # One that was just being started when another died is overlooked by the pool, which would wait for it for ever.
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise UserError(
            "a worker process died (killed, or out of memory?); the finished units are kept in "
            f"{folder}: repeat the same command to go on, with fewer workers if memory was short"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _run_units(
    tasks: dict[int, tuple[Recipe, int, int, Path]], workers: int, folder: Path, advance: Callable[[int], None]
) -> dict[int, Counts]:
    """Make the units that are missing; returns what each cost. Raises the first error of a worker."""
    counts: dict[int, Counts] = {}
    if not tasks:
        return counts
    waiting = iter(tasks)
    running: dict[Future[Counts], int] = {}
    with _pool(min(workers, len(tasks)), folder) as pool:
        while True:
            # Few are handed out ahead, so that Ctrl-C waits for the units under way and not for a long queue.
            while len(running) <= workers and (unit := next(waiting, None)) is not None:
                running[pool.submit(_make_unit, *tasks[unit])] = unit
            if not running:
                return counts
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                unit = running.pop(future)
                counts[unit] = future.result()
                advance(tasks[unit][2])


def _metadata(
    recipe: Recipe, settings: dict[str, Any], counts: dict[int, Counts], command: str | None
) -> dict[str, Any]:
    return {
        "made_by": f"jetclr {__version__} generate",
        **({"command": command} if command is not None else {}),
        "recipe": "top-tagging reference (arXiv:1902.09914), particle level",
        **settings,
        "first_unit_seed": unit_seed(recipe.name, settings["seed"], min(counts)),
        "labels": {str(label): name for label, name in pythia.LABELS.items()},
        **_totals(list(counts.values())),
        **({"unit_counts": _by_field(list(counts.values()))} if "shard" in settings else {}),
    }


def _totals(counts: Sequence[Counts]) -> dict[str, Any]:
    """What the units cost together; their order decides the last bit of the sums."""
    tried = np.array([c.tried for c in counts], np.float64)
    weight = tried / tried.sum()
    events, found = sum(c.events for c in counts), sum(c.jets for c in counts)
    sigma = float(np.sum(weight * [c.sigma_mb for c in counts])) * pythia.MB_TO_PB
    error = float(np.sqrt(np.sum((weight * [c.sigma_error_mb for c in counts]) ** 2))) * pythia.MB_TO_PB
    return {
        "cross_section_pb": sigma,
        "cross_section_error_pb": error,
        "phase_space_points": int(tried.sum()),
        "events": events,
        "jets_found": found,
        "jets_per_event": found / events,
    }


def shared_settings(part: dict[str, Any]) -> dict[str, Any]:
    """What the metadata of all shards of one work have in common."""
    own = {"command", "shard", "first_unit_seed", "unit_counts", *_totals(_unit_counts(part))}
    return {name: value for name, value in part.items() if name not in own}


def joined_metadata(parts: Sequence[dict[str, Any]], out: Path) -> dict[str, Any]:
    """The metadata of all shards, in order -> those of the same jets made at once into `out`."""
    first = dict(parts[0])
    before, told, _ = first.get("command", "").partition(f" --shard {first.pop('shard')} ")
    if told:
        first["command"] = f"{before} {out.name}"
    del first["unit_counts"]
    return first | _totals([counts for part in parts for counts in _unit_counts(part)])


def _by_field(counts: Sequence[Counts]) -> dict[str, list[float]]:
    return {name: [getattr(unit, name) for unit in counts] for name in Counts._fields}


def _unit_counts(part: dict[str, Any]) -> list[Counts]:
    columns = (part["unit_counts"][name] for name in Counts._fields)
    return [Counts(*unit) for unit in zip(*columns, strict=True)]
