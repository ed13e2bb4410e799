"""What a sweep is asked for, beside the space file and the folder."""

from dataclasses import dataclass
from pathlib import Path

TRIALS = 20
"""Trials of a search, if no other number is asked for."""


@dataclass(frozen=True)
class Options:
    """How much of a sweep is done, and by which jets its runs are judged."""

    fit: tuple[Path, ...] = ()
    """Labelled stores on which linear probes are fitted; without them, the validation probe of training judges."""
    judge: tuple[Path, ...] = ()
    """Labelled stores on which they are measured. Validation jets: what is chosen by test jets is not tested by them.
    """
    labels: int | None = None
    """How many jets of --fit are used, drawn by the run's seed; all if not given."""
    trials: int | None = None
    """How many trials a search has, over all processes and calls; 20 if not given."""
    at_most: int | None = None
    """How many trials, or runs of a table, this process takes; all if not given."""
    seeds: tuple[int, ...] = ()
    """Seeds with which each row of a table is run; that of the config if not given."""
    only: tuple[str, ...] = ()
    """Only these rows of a table."""
    reference: str = ""
    """A row of a table from which the others' differences of AUC are told, seed by seed."""
    rungs: tuple[int, ...] = ()
    """Steps at which the worse half of a search's trials are stopped."""

    def __post_init__(self) -> None:
        if bool(self.fit) != bool(self.judge):
            raise ValueError("--fit and --judge go together: probes are fitted on the one and measured on the other")
        if self.labels is not None and not self.fit:
            raise ValueError("--labels says how many jets of --fit are used, and there is no --fit")
        for name, count in (("labels", self.labels), ("trials", self.trials), ("at-most", self.at_most)):
            if count is not None and count < 1:
                raise ValueError(f"--{name} is {count}; it must be positive")
        if list(self.rungs) != sorted({rung for rung in self.rungs if rung > 0}):
            raise ValueError(f"--rungs is {self.rungs}; they are steps, and must rise")
        if len({*self.seeds}) < len(self.seeds) or any(not 0 <= seed < 2**32 for seed in self.seeds):
            raise ValueError(f"--seeds is {self.seeds}; they must differ and lie in [0, 2^32)")
