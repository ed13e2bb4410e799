"""The folder of a sweep: shared by the processes that work on it, and found again by the next ones.

A trial or a row with a seed has a run folder directly inside. What the sweep itself knows lies in `.sweep`: its
settings, and for each run a lock and, once it is done, its values.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jetclr import config as configs
from jetclr.data.lock import only_process
from jetclr.data.store import write_json
from jetclr.errors import UserError
from jetclr.sweep.judge import Values

OWN = ".sweep"
SETTINGS = "settings.json"
VALUES = "values.json"


class Folder:
    """A sweep's folder, made or found; raises UserError for one with other files, or of a sweep of other settings."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.own = path, path / OWN
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, not a folder")
        if path.exists() and any(path.iterdir()) and not self.own.is_dir():
            raise UserError(f"{path} holds other files and no sweep; give an empty or a new folder as --workdir")
        self.own.mkdir(parents=True, exist_ok=True)
        with self.turn():
            kept = self.own / SETTINGS
            if not kept.is_file():
                write_json(kept, settings)
            elif changes := configs.differences(_read(kept), json.loads(json.dumps(settings)), "sweep."):
                told = "; ".join(line.removeprefix("sweep.") for line in changes)
                raise UserError(f"{path} holds another sweep; use another --workdir, or undo: {told}")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Alone of all processes while inside; for moments."""
        with only_process(self.own, "", wait=True):
            yield

    def hold(self, name: str, held: ExitStack) -> bool:
        """Whether the run is this process's now, until `held` is closed; False if another works on it."""
        (self.own / name).mkdir(exist_ok=True)
        try:
            held.enter_context(only_process(self.own / name, "busy"))
        except UserError:
            return False
        return True

    def values(self, name: str) -> Values | None:
        """What was measured of a run that is done; None for any other."""
        kept = self.own / name / VALUES
        return _read(kept) if kept.is_file() else None

    def keep(self, name: str, values: Values) -> None:
        """Write what was measured of a run, which is done by that."""
        write_json(self.own / name / VALUES, values)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it holds no object")
    return found
