"""What runs are called in tables and figures."""

from collections.abc import Sequence
from pathlib import Path

from jetclr.benchmark.finetune import FINE_TUNED, FROM_SCRATCH
from jetclr.errors import UserError


def short_names(runs: Sequence[Path], taken: set[str]) -> list[str]:
    """Short names of runs: their folder, with as much of the path before it as tells them from all others."""
    for depth in range(1, 9):
        names = ["/".join(path.resolve().parts[-depth:]) for path in runs]
        shown = [shown for name in names for shown in called(name)]
        if len({*shown, *taken}) == len(shown) + len(taken):
            return names
    raise UserError("a run was named twice; name each once")


def called(run: str) -> tuple[str, ...]:
    """All that is shown of a run."""
    return run, *(f"{run} {what}" for what in ("untrained", FINE_TUNED, FROM_SCRATCH))
