"""What carries out a sweep asks of a plan, which says what is run next: a search or a table."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jetclr.config import Config
from jetclr.sweep.folder import Folder
from jetclr.sweep.judge import Judge, Values
from probes.report import Row


@dataclass(frozen=True)
class Job:
    """One run to train and to judge; `told` is what the terminal calls it."""

    name: str
    told: str
    config: Config


@dataclass(frozen=True)
class Results:
    """A sweep so far: one table, the same as JSON values, and the run of the best trial, if there is a best one."""

    columns: tuple[str, ...]
    rows: list[Row]
    caption: str
    as_json: dict[str, Any]
    left: int
    best: str | None = None


@runtime_checkable
class Plan(Protocol):
    """Which runs there are, shared with all processes that work in `folder`."""

    folder: Folder
    judge: Judge
    rungs: tuple[int, ...]
    controls: bool
    """Whether the untrained encoder of each run is judged too."""
    forgiving: bool
    """Whether settings that cannot be trained are a failed trial, and not the user's mistake."""

    def take(self, held: ExitStack) -> Job | None:
        """A run that is not done and nobody works on, this process's until `held` is closed; None if there is none."""
        ...

    def goes_on(self, job: Job, rung: int, value: float) -> bool:
        """Whether the run, of AUC `value` after `rung` steps, is trained further."""
        ...

    def finish(self, job: Job, values: Values) -> None:
        """Keep what was measured of the run, or why it failed."""
        ...

    def results(self) -> Results:
        """All that is known by now."""
        ...
