"""The user's file that says what is swept: run as a config file is, and its mistakes told in a sentence with a line."""

import hashlib
import runpy
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jetclr.config import Config, nearest_field
from jetclr.errors import UserError


@dataclass(frozen=True)
class Program:
    """What a space file defines."""

    path: Path
    kind: Literal["space", "rows"]
    defined: Callable[..., Any]

    def settings(self, trial: Any, config: Config) -> Config:
        """The config of a trial, from the numbers that it suggests; UserError for whatever the file does wrong."""
        with _told(self.path):
            made = self.defined(trial, config)
        if not isinstance(made, Config):
            raise UserError(f"{self.path}: space(trial, config) must return a Config; it returns {_kind(made)}")
        return made

    def rows(self, config: Config) -> dict[str, Config]:
        """Name and config of each row of a table; UserError for whatever the file does wrong."""
        with _told(self.path):
            made = self.defined(config)
        if not isinstance(made, dict) or not made:
            raise UserError(f"{self.path}: rows(config) must return a dict of name: Config; it returns {_kind(made)}")
        for name, row in made.items():
            if not isinstance(name, str) or not isinstance(row, Config):
                raise UserError(f"{self.path}: row {name!r} of rows(config) is {_kind(row)}; it must be a Config")
        return made

    @property
    def sha256(self) -> str:
        """What tells the file from any other."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def load_program(path: Path) -> Program:
    """Run a space file; raises UserError if it is missing, fails, or defines not one of `space` and `rows`."""
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"there is no Python file {path}")
    with _told(path):
        defined = runpy.run_path(str(path))
    found = [kind for kind in ("space", "rows") if callable(defined.get(kind))]
    if len(found) != 1:
        raise UserError(
            f"{path} must define `def space(trial, config)`, a search, or `def rows(config)`, a table; "
            f"it defines {'both' if found else 'neither'}"
        )
    return Program(path, "space" if found == ["space"] else "rows", defined[found[0]])


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """While inside, whatever the user's file raises becomes a UserError that says where: it is theirs to mend."""
    try:
        yield
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        near = nearest_field(str(error)) if isinstance(error, TypeError) else None
        raise UserError(f"{place}: {near or f'{type(error).__name__}: {error}'}") from None


def _kind(value: Any) -> str:
    return "an empty dict" if value == {} else type(value).__name__
