"""`jetclr generate`: simulated jets of one process -> a store, on many cores, resumable and reproducible.

The work is cut into units of `UNIT_JETS` jets. A unit has a Pythia of its own with a seed of its own, so it is the
same wherever and whenever it is made: the number of workers changes nothing, a store of fewer jets of a seed holds
the first jets of a store of more, and an interrupted run goes on with the units that are missing. Finished units
wait in `OUT.partial` until all are there; then they become the store. A shard makes some of the units only, and keeps
what each of them cost, so that `jetclr join` can put the shards' stores together as if they had been made at once.
"""

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from jetclr import __version__
from jetclr.data import pythia
from jetclr.data.processes import LABELS, PROCESSES, Options, Recipe
from jetclr.data.processes import recipe as recipe_of
from jetclr.data.pythia import Counts
from jetclr.data.shard import Shard, jets_to_do
from jetclr.data.store import StoreWriter, refuse_existing
from jetclr.data.units import (
    Task,
    WorkerDied,
    changed,
    cores,
    finished,
    open_work_folder,
    read_unit,
    run_units,
    unit_path,
    worker_pool,
)
from jetclr.errors import UserError
from jetclr.progress import jet_progress

UNIT_JETS = 500
MAX_UNITS = 200_000
"""Of one seed, as each takes memory from the start to the end: 100 million jets."""
SEEDS = 2**32


def generate(
    process: str,
    out: Path,
    *,
    jets: int,
    options: Options | None = None,
    seed: int = 0,
    workers: int | None = None,
    unit_jets: int = UNIT_JETS,
    shard: Shard | None = None,
    command: str | None = None,
) -> int:
    """Simulate `jets` jets of a process into a new store at `out`; returns how many are in it.

    Processes and their options are in `jetclr.data.processes`; "dijet" gives two jets an event. The store depends on
    process, options, jets, seed, `unit_jets` and the versions of Pythia and FastJet only; `workers`
    (default: the cores this process may use) decides how long it takes. With `shard` only its share of the jets is
    made, in whole units. Repeat an interrupted call to go on. From a script, call it under
    `if __name__ == "__main__":`, because workers import the script. `command` is kept in the metadata.

    Raises UserError for arguments that make no sense, an existing `out`, a work folder of other settings, a missing
    Pythia or FastJet, a worker that died; OSError as it comes (a full disk); then nothing is at `out`.
    """
    recipe = recipe_of(process, options)
    _check_numbers(recipe, jets=jets, seed=seed, workers=workers, unit_jets=unit_jets)
    mine = jets_to_do(shard, jets, unit_jets)
    out = Path(out)
    refuse_existing(out)
    pythia.load_generators()
    settings = _settings(recipe, jets=jets, seed=seed, unit_jets=unit_jets, shard=shard)
    folder = open_work_folder(out, settings)
    sizes = {first // unit_jets: min(unit_jets, jets - first) for first in mine[::unit_jets]}
    there = finished((unit, unit_path(folder, unit)) for unit in sizes)
    counts = {unit: _counts(cost) for unit, (found, cost) in there.items() if found == sizes[unit]}
    tasks = {}
    for unit, size in sizes.items():
        if unit not in counts:
            arguments = (recipe, unit_seed(process, seed, unit), size, unit * unit_jets // 2)
            tasks[unit] = Task(pythia.generate_unit, arguments, unit_path(folder, unit), size)
    counts |= _run(process, tasks, workers or cores(), folder, len(mine), sum(sizes[unit] for unit in counts))
    metadata = _metadata(recipe, settings, {unit: counts[unit] for unit in sizes}, command)
    with StoreWriter(out, metadata) as writer:
        for unit in sizes:
            path = unit_path(folder, unit)
            kept = read_unit(path)
            if kept is None:
                raise UserError(changed(path))
            writer.append(kept[0], source=str(path), first_jet=0)
    shutil.rmtree(folder)
    return len(mine)


def unit_seed(process: str, seed: int, unit: int) -> int:
    """Pythia's seed (1 to 900,000,000) for a unit: a hash of process and seed, plus the unit's number.

    Adding, and not hashing, the number keeps the units of one run from ever sharing a seed.
    """
    base = np.random.SeedSequence([seed, *process.encode()]).generate_state(1, np.uint64)[0]
    return (int(base) + unit) % pythia.MAX_SEED + 1


def _run(process: str, tasks: dict[int, Task], workers: int, folder: Path, total: int, done: int) -> dict[int, Counts]:
    """Make the units that are missing; returns what each cost."""
    with jet_progress(f"generating {process}", total, done=done) as advance:
        if not tasks:
            return {}
        workers = min(workers, len(tasks))
        try:
            with worker_pool(workers) as pool:
                return {unit: _counts(cost) for unit, cost in run_units(tasks, pool, workers, advance).items()}
        except WorkerDied as error:
            raise UserError(
                f"{error}; the finished units are kept in {folder}: repeat the same command to go on, with fewer "
                "workers if memory was short"
            ) from None
        except UserError:
            if not any(folder.glob("unit-*.npz")):
                shutil.rmtree(folder)  # nothing to go on from, and in the way of a try with other options
            raise


def _check_numbers(recipe: Recipe, *, jets: int, seed: int, workers: int | None, unit_jets: int) -> None:
    for name, value in (("jets", jets), ("workers", workers), ("unit_jets", unit_jets)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
    for name, value in (("jets", jets), ("unit_jets", unit_jets)):
        if recipe.dijets and value % 2:
            raise UserError(f"{name} is {value}; {recipe.name} gives two jets an event, so it must be even")
    if jets > MAX_UNITS * unit_jets:
        raise UserError(
            f"jets is {jets}; one seed gives at most {MAX_UNITS * unit_jets}: share them among several seeds"
        )
    if not 0 <= seed < SEEDS:
        raise UserError(f"seed is {seed}; it must be from 0 to {SEEDS - 1}")


def _settings(recipe: Recipe, *, jets: int, seed: int, unit_jets: int, shard: Shard | None) -> dict[str, Any]:
    """Everything that decides which jets come out; `jets` are those of all shards."""
    return {
        "process": recipe.name,
        "jets": jets,
        "seed": seed,
        "unit_jets": unit_jets,
        **recipe.describe(),
        "versions": {"jetclr": __version__, "pythia8mc": version("pythia8mc"), "fastjet": version("fastjet")},
        **({"shard": str(shard)} if shard is not None else {}),
    }


def _counts(cost: Sequence[float]) -> Counts:
    """What a unit cost, from the numbers that were kept with it."""
    tried, events, found, sigma, error = cost
    return Counts(int(tried), int(events), int(found), sigma, error)


def _labels(recipe: Recipe) -> list[int]:
    """The labels that jets of a recipe can have."""
    return [recipe.label] if recipe.signal is None else [recipe.label, recipe.signal.label]


def _metadata(
    recipe: Recipe, settings: dict[str, Any], counts: dict[int, Counts], command: str | None
) -> dict[str, Any]:
    return {
        "made_by": f"jetclr {__version__} generate",
        **({"command": command} if command is not None else {}),
        "recipe": f"{PROCESSES[recipe.name].text}, {'particle level' if recipe.detector is None else 'a detector'}",
        **settings,
        "first_unit_seed": unit_seed(recipe.name, settings["seed"], min(counts)),
        "labels": {str(label): LABELS[label] for label in _labels(recipe)},
        **_totals(list(counts.values())),
        **({"unit_counts": _by_field(list(counts.values()))} if "shard" in settings else {}),
    }


def _totals(counts: Sequence[Counts]) -> dict[str, Any]:
    """What the units cost together; their order decides the last bit of the sums."""
    tried = np.array([c.tried for c in counts], np.float64)
    weight = tried / max(tried.sum(), 1)  # a mixture of nothing but signal counts none
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
