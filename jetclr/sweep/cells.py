"""Columns of a sweep's tables, by the value of a run that each shows."""

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from jetclr.sweep.judge import Judge, Values
from probes.report import Number

SHOWN = {
    "auc": ("AUC", ".4f"),
    "auc_difference": ("difference", "+.4f"),
    "r50": ("R50", ".0f"),
    "lda_auc": ("LDA AUC", ".4f"),
    "untrained_auc": ("untrained AUC", ".4f"),
    "loss": ("loss", ".3f"),
    "effective_rank": ("effective rank", ".1f"),
    "seconds": ("seconds", ".0f"),
}
"""Heading and format of each value; R50 is 1/eps_B of the logistic regression at eps_S = 0.5, the difference is
AUC less that of the reference row with the same seed."""

WITH_PROBES = ("r50", "lda_auc")


def shown(judge: Judge, *, controls: bool, reference: str = "") -> dict[str, str]:
    """Values that a sweep has, with the headings of their columns; differences if there is a `reference` row."""
    found = {name: heading for name, (heading, _) in SHOWN.items() if judge.fit or name not in WITH_PROBES}
    if not (controls and judge.fit):
        del found["untrained_auc"]
    if not reference:
        del found["auc_difference"]
    return found if judge.fit else found | {"auc": "validation AUC"}


def spread(name: str, runs: Sequence[Values]) -> dict[str, Any] | None:
    """Mean, sample standard deviation (None of a single run) and number of runs that have the value; None of none.

    The mean is a lower bound if any of the values is.
    """
    found = [run[name] for run in runs if run.get(name) is not None]
    if not found:
        return None
    bound = name == "r50" and any(run.get("r50_is_bound") for run in runs)
    std = stdev(found) if len(found) > 1 else None
    return {"mean": mean(found), "std": std, "runs": len(found), "is_bound": bound}


def cell(name: str, found: dict[str, Any] | None) -> Number | None:
    """Mean ± standard deviation, as `spread` found them, in the format of the value."""
    if found is None:
        return None
    form = SHOWN[name][1]
    value = found["mean"]
    if found["is_bound"]:
        # Rounded down: rounding a bound up would claim more than was shown.
        return Number(f"> {math.floor(value)}")
    std = "" if found["std"] is None else f" ± {format(found['std'], form.removeprefix('+'))}"
    return Number(format(value, form) + std)
