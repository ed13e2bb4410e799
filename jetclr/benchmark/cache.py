"""Results kept by what they depend on: a benchmark that is repeated, or widened by a run, computes only what is new.

A key is the hash of a task: plain JSON values that say everything a result depends on. An entry is one .npz file of
arrays, with its other values as JSON among them; nothing in it is ever executed.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jetclr import __version__
from jetclr.data.store import replacing
from jetclr.errors import UserError

REVISION = 1
"""To be raised when a method changes what it gives, so that nothing old is taken for new."""

_VALUES = "values.json"


class Entry(NamedTuple):
    """A result: JSON values and arrays."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray]


def key_of(task: Mapping[str, Any]) -> str:
    """The name under which the result of a task is kept: equal for equal tasks, of this version."""
    text = json.dumps({"revision": REVISION, "version": __version__, "task": task}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Cache:
    """A folder of results; made where it is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be made: {error.strerror}") from None

    def __contains__(self, task: Mapping[str, Any]) -> bool:
        return self._read(task) is not None

    def once(self, task: Mapping[str, Any], compute: Callable[[], Entry]) -> Entry:
        """The result of `task`: as kept, or computed and kept now. A damaged entry is computed again."""
        found = self._read(task)
        if found is None:
            found = compute()
            self.keep(task, found)
        return found

    def predictors(self) -> int:
        """How many predictors have been measured on test jets with this folder."""
        return len(list(self.folder.glob("predictor-*.npz")))

    def _path(self, task: Mapping[str, Any]) -> Path:
        return self.folder / f"{task['what'].replace(' ', '-')}-{key_of(task)}.npz"

    def _read(self, task: Mapping[str, Any]) -> Entry | None:
        try:
            with self._path(task).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                values = json.loads(file[_VALUES].tobytes())
                return Entry(values, {name: file[name] for name in file.files if name != _VALUES})
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
            return None  # RuntimeError: a damaged header may ask for a password or an unknown compression

    def keep(self, task: Mapping[str, Any], entry: Entry) -> None:
        """Keep a result, whole or not at all."""
        path = self._path(task)
        values = np.frombuffer(json.dumps(entry.values).encode(), np.uint8)
        with replacing(path) as partial, partial.open("wb") as file:
            arrays: dict[str, Any] = {_VALUES: values, **entry.arrays}
            np.savez(file, **arrays)
