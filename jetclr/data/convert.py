"""Public jet files -> a store: in units of rows, by worker processes, in bounded memory, resumable.

A unit is a range of rows of one source: read, selected, checked and sorted by a worker, and kept until all are there.
So the store is the same for any number of workers, and an interrupted call goes on where it stopped. Units take as much
room on the disk as the store itself, until it is whole.
"""

import hashlib
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jetclr import __version__
from jetclr.data.chunk import JetChunk, check_chunk, join_chunks, sort_by_pt
from jetclr.data.names import SPLITS
from jetclr.data.readers import FORMATS, reader
from jetclr.data.readers.checks import existing_file
from jetclr.data.readers.recognise import recognise
from jetclr.data.selection import EVERYTHING, Selection
from jetclr.data.store import StoreWriter, refuse_existing
from jetclr.data.units import (
    Task,
    WorkerDied,
    changed,
    cores,
    finished,
    open_work_folder,
    read_columns,
    read_unit,
    run_units,
    unit_path,
    worker_pool,
)
from jetclr.data.weighting import Weighting, classes_of
from jetclr.errors import UserError
from jetclr.progress import jet_progress

UNIT_ROWS = 20_480
HASHED_BYTES = 1 << 20
WEIGHTED_JETS = 4_000_000
"""Jets from which weights are found, spread over the whole: more would only cost memory."""


@dataclass(frozen=True)
class _Source:
    """A file: rows in it, and what tells whether it was changed since a unit of it was made."""

    path: Path
    rows: int
    bytes: int
    modified: float

    @classmethod
    def of(cls, path: Path, rows: int) -> "_Source":
        stat = path.stat()
        return cls(path, rows, stat.st_size, float(stat.st_mtime_ns))

    @property
    def identity(self) -> list[float]:
        return [float(self.rows), float(self.bytes), self.modified]


def convert(
    format: str,
    sources: Sequence[Path],
    out: Path,
    *,
    selection: Selection = EVERYTHING,
    balance: str = "",
    flat: str = "",
    workers: int | None = None,
    unit_rows: int = UNIT_ROWS,
    command: str | None = None,
) -> int:
    """Read `sources`, in order, into a new store at `out`; returns the number of jets in it.

    `format` is one of `FORMATS`, or "auto" to recognise it from the content. With `balance` or `flat` a column
    `weight`, one on average, makes values of column `balance` equally frequent and the spectrum of column `flat` flat.
    Repeat an interrupted call to go on. From a script, call it under `if __name__ == "__main__":`, because workers
    import the script. Raises UserError for an unknown format, an existing `out`, a source that is not what it should
    be (naming it), or a selection without jets; then nothing is at `out`.
    """
    out, workers = Path(out), cores() if workers is None else workers
    if format not in (*FORMATS, "auto"):
        raise UserError(f"unknown format {format!r}; known: auto, {', '.join(FORMATS)}")
    if workers < 1 or unit_rows < 1:
        raise UserError(f"workers is {workers} and unit_rows {unit_rows}; both must be at least 1")
    refuse_existing(out)
    sources = [existing_file(Path(path)) for path in sources]
    weighted_by = tuple(name for name in (balance, flat) if name)
    with _checksums(sources) as checksums, worker_pool(workers) as pool:
        files, format = _look(format, sources, pool)
        settings = _settings(format, files, selection, unit_rows)
        folder = open_work_folder(out, settings)
        units = _units(files, unit_rows)
        with _keeping(folder):
            counts = _make_units(format, files, units, selection, weighted_by, folder, pool, workers)
        sha256 = checksums.result()
    for file in files:
        if _Source.of(file.path, file.rows) != file:
            raise UserError(f"{file.path} was changed while it was read; repeat the same command")
    read, kept = (sum(int(cost[place]) for cost in counts.values()) for place in (-2, -1))
    if kept == 0:
        shutil.rmtree(folder)
        raise UserError(f"of {read:,} jets none is selected")
    metadata = {
        "made_by": f"jetclr {__version__} convert",
        **({"command": command} if command is not None else {}),
        **settings,
        "sources": [
            {"file": file.path.name, "bytes": file.bytes, "sha256": checksum, "rows": file.rows}
            for file, checksum in zip(files, sha256, strict=True)
        ],
        **({"balance": balance, "flat": flat} if weighted_by else {}),
        "jets_read": read,
        "labels": {str(value): name for value, name in reader(format).LABELS.items()},
        "splits": {str(value): name for value, name in SPLITS.items()},
    }
    with _keeping(folder):
        paths = {unit_path(folder, unit): str(files[units[unit][0]].path) for unit in counts}
        weighting = _weighting(list(paths), kept, balance, flat) if weighted_by else None
        with StoreWriter(out, metadata) as writer:
            for path, source in paths.items():
                writer.append_sound(_weighted(_kept_unit(path), weighting), source)
    shutil.rmtree(folder)
    return kept


def _look(format: str, sources: Sequence[Path], pool: ProcessPoolExecutor) -> tuple[list[_Source], str]:
    """All sources, checked to be of one format; workers open them, for a library may crash on a damaged file."""
    with _naming(sources):
        if format == "auto":
            found = list(pool.map(recognise, sources))
            for path, one in zip(sources, found, strict=True):
                if one != found[0]:
                    raise UserError(f"{sources[0]} is {found[0]} and {path} is {one}; convert one format at a time")
            format = found[0]
        rows = list(pool.map(_rows, [format] * len(sources), sources))
    for path, count in zip(sources, rows, strict=True):
        if count == 0:
            raise UserError(f"{path} holds no jets")
    return [_Source.of(path, count) for path, count in zip(sources, rows, strict=True)], format


def _rows(format: str, path: Path) -> int:
    return reader(format).rows(path)


@contextmanager
def _naming(sources: Sequence[Path]) -> Iterator[None]:
    """While inside, the death of a worker becomes a sentence that names what was being read."""
    try:
        yield
    except BrokenProcessPool:
        names = ", ".join(str(path) for path in sources[:3]) + (", ..." if len(sources) > 3 else "")
        raise WorkerDied(f"a worker process died while it read {names}: a damaged file, or too little memory") from None


def _settings(format: str, files: Sequence[_Source], selection: Selection, unit_rows: int) -> dict[str, Any]:
    """Everything that decides which jets come out, but for the content of the files, which each unit keeps."""
    return {
        "format": format,
        "sources": [file.path.name for file in files],
        "selection": asdict(selection) | {"derive": list(selection.derive), "split": _as_list(selection.split)},
        "unit_rows": unit_rows,
        "versions": {"jetclr": __version__},
    }


def _as_list(shares: tuple[float, ...] | None) -> list[float] | None:
    return None if shares is None else list(shares)


def _units(files: Sequence[_Source], unit_rows: int) -> list[tuple[int, int, int]]:
    """(source, first row, row behind the last) of each unit, in order."""
    return [
        (number, start, min(start + unit_rows, file.rows))
        for number, file in enumerate(files)
        for start in range(0, file.rows, unit_rows)
    ]


def _make_units(
    format: str,
    files: Sequence[_Source],
    units: Sequence[tuple[int, int, int]],
    selection: Selection,
    weighted_by: tuple[str, ...],
    folder: Path,
    pool: ProcessPoolExecutor,
    workers: int,
) -> dict[int, Sequence[float]]:
    """Make the units that are missing, or whose source was changed; returns the counts of all, in order."""
    there = finished((unit, unit_path(folder, unit)) for unit in range(len(units)))
    counts: dict[int, Sequence[float]] = {}
    for unit, (jets, cost) in there.items():
        if cost[:3] == files[units[unit][0]].identity and len(cost) == 5 and cost[-1] == jets:
            counts[unit] = cost
    tasks = {
        unit: Task(
            _make_unit,
            (format, files[n], n, start, stop, selection, weighted_by),
            unit_path(folder, unit),
            stop - start,
        )
        for unit, (n, start, stop) in enumerate(units)
        if unit not in counts
    }
    done = sum(stop - start for unit, (_, start, stop) in enumerate(units) if unit in counts)
    with jet_progress("converting", sum(file.rows for file in files), unit="rows", done=done) as advance:
        try:
            counts |= run_units(tasks, pool, workers, advance)
        except WorkerDied as error:
            names = sorted({str(files[units[unit][0]].path) for unit in error.units})
            raise UserError(
                f"a worker process died while it read {', '.join(names)}: a damaged file, or too little memory"
            ) from None
    return dict(sorted(counts.items()))


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """While inside, an error tells where finished units are kept; without any the folder goes."""
    try:
        yield
    except BaseException as error:
        if not any(folder.glob("unit-*.npz")):
            shutil.rmtree(folder, ignore_errors=True)  # nothing that is worth going on from
        elif isinstance(error, UserError):
            raise UserError(f"{error}; what was finished is kept in {folder} for the next try") from None
        raise


def _make_unit(
    format: str, file: _Source, number: int, start: int, stop: int, selection: Selection, weighted_by: tuple[str, ...]
) -> tuple[JetChunk, list[float]]:
    """In a worker: the selected jets of rows start:stop, sound and sorted; the file's identity, jets read and kept.

    Columns to weight by are only looked for, so that a wrong name is told before all is read.
    """
    pieces: list[JetChunk] = []
    read = 0
    for chunk in reader(format).read(file.path, start, stop):
        read += len(chunk.offsets) - 1
        chosen = selection(chunk, number)
        _refuse_missing(weighted_by, chosen.jets)
        check_chunk(chosen, source=str(file.path))
        pieces.append(sort_by_pt(chosen))
    if not pieces:
        raise UserError(f"{file.path} gave nothing for rows {start:,} to {stop - 1:,}; was it changed meanwhile?")
    joined = join_chunks(pieces)
    return joined, [*file.identity, float(read), float(len(joined.offsets) - 1)]


def _kept_unit(path: Path) -> JetChunk:
    kept = read_unit(path)
    if kept is None:
        raise UserError(changed(path))
    return kept[0]


def _refuse_missing(names: Sequence[str], columns: Mapping[str, Any]) -> None:
    for name in names:
        if name not in columns and name != "multiplicity":
            known = ", ".join(dict.fromkeys([*columns, "multiplicity"]))
            raise UserError(f"there is no column {name!r} to weight by; there is {known}")


def _weighting(paths: Sequence[Path], jets: int, balance: str, flat: str) -> Weighting:
    """Weights that balance and flatten, found from a sample: of each class in a unit its first jet and every n-th."""
    names = [name for name in (balance, flat) if name]
    step = -(-jets // WEIGHTED_JETS)
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in names}
    stands_for: list[np.ndarray] = []  # how many jets of its class in its unit
    for path in paths:
        columns = read_columns(path)
        _refuse_missing(names, columns)
        of = np.zeros(len(columns["multiplicity"]), np.int64)
        if balance:
            _, of = classes_of(columns[balance], balance)
        totals = np.bincount(of)
        place = np.arange(len(of)) - np.repeat(np.cumsum(totals) - totals, totals)  # within its class
        rows = np.argsort(of, kind="stable")[place % step == 0]
        stands_for.append((totals / -(-totals // step))[of[rows]])
        for name in names:
            pieces[name].append(columns[name][rows])
    sample = {name: np.concatenate(found) for name, found in pieces.items()}
    weight = np.concatenate(stands_for)
    return Weighting.fit(sample, balance=balance, flat=flat, weight=weight * (len(weight) / weight.sum()))


def _weighted(chunk: JetChunk, weighting: Weighting | None) -> JetChunk:
    if weighting is None:
        return chunk
    known = chunk.jets | {"multiplicity": np.diff(chunk.offsets)}
    return chunk._replace(jets=chunk.jets | {"weight": weighting(known).astype(np.float32)})


@contextmanager
def _checksums(paths: Sequence[Path]) -> Iterator[Future[list[str]]]:
    """The SHA-256 of files, made beside other work, and not to the end if that fails or is interrupted."""
    stopped = threading.Event()
    with ThreadPoolExecutor(1) as aside:
        try:
            yield aside.submit(lambda: [_sha256(path, stopped) for path in paths])
        finally:
            stopped.set()


def _sha256(path: Path, stopped: threading.Event) -> str:
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while not stopped.is_set() and (piece := file.read(HASHED_BYTES)):
            found.update(piece)
    return found.hexdigest()
