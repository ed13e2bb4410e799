"""Long work on one output that goes on where it was: finished parts wait in `OUT.partial` until OUT is whole."""

import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jetclr.data.columns import describe, new_file, read_batches
from jetclr.data.lock import only_process
from jetclr.data.units import SETTINGS, open_work_folder
from jetclr.errors import UserError

PART_BATCHES = 16
"""Batches in a part: what a kill costs at most."""

Batches = Generator[dict[str, np.ndarray], None, None]


@contextmanager
def work_folder(out: Path, settings: dict[str, Any]) -> Iterator[Path]:
    """The folder beside `out` for finished parts of the work that `settings` (JSON) decide; gone on a clean exit.

    It stays where something stops the work after a part is finished, and a sentence tells so. Raises UserError if it
    holds parts of other work, or if another process works in it.
    """
    folder = open_work_folder(out, settings)
    with only_process(folder, f"another process is writing {out}; wait for it, or choose another name") as held:
        if held:
            for path in folder.glob(".*.partial"):
                if not path.name.startswith(f".{SETTINGS}"):  # which is written before there is a lock
                    path.unlink(missing_ok=True)  # of a process that was killed
        try:
            yield folder
        except BaseException as error:
            if not any(folder.glob("part-*")):
                shutil.rmtree(folder, ignore_errors=True)  # nothing that is worth going on from
                raise
            says = f"what was finished is kept in {folder}, and the same command goes on from there"
            if isinstance(error, UserError):
                raise UserError(f"{error}; {says}; delete it before another command") from None
            print(f"jetclr: {says}", file=sys.stderr)
            raise
    # After the lock is closed: a network disk keeps files that are open, and with them the folder.
    shutil.rmtree(folder, ignore_errors=True)


class Parts:
    """Jets in batches of `batch`, made once: finished parts of them are kept in `folder`, and read from there."""

    def __init__(self, folder: Path, jets: range, batch: int) -> None:
        self._jets, self._batch = jets, batch
        self._size = PART_BATCHES * batch
        count = -(-len(jets) // self._size)
        # The last one is not kept: when it is finished, everything is.
        self._paths = [folder / f"part-{number:05d}.arrow" for number in range(count - 1)]
        self._found: list[list[str]] = []  # of each part that is there, its columns
        for path in self._paths:
            if not (names := _columns(path, self._size)):
                break
            self._found.append(names)

    @property
    def done(self) -> int:
        """How many jets need not be made again."""
        return len(self._found) * self._size

    def batches(self, make: Callable[[range], Batches]) -> Batches:
        """All batches, in order: those that are kept, and what the generator `make` gives for the other jets."""
        for path, names in zip(self._paths, self._found, strict=False):
            yield from read_batches(path, names, self._batch)
        with closing(make(self._jets[self.done :])) as made:
            for path in self._paths[len(self._found) :]:
                path.unlink(missing_ok=True)  # it could not be read
                with new_file(path, {}, self._batch) as part:
                    for columns in islice(made, PART_BATCHES):
                        part.append(columns)
                        yield columns
            yield from made


def _columns(path: Path, jets: int) -> list[str]:
    """Names of the columns of a part, none if it is not there, torn, or not of so many jets."""
    if not path.exists():
        return []
    try:
        found = describe(path)
    except UserError:
        return []
    return list(found.columns) if found.jets == jets else []
