"""Scores of background and signal jets as numbers with intervals."""

from typing import Any

import numpy as np
from jaxtyping import Float

from jetclr.anomaly.results import SicCurve
from probes import metrics
from probes.metrics import Estimate

CURVE_POINTS = 200
METRICS = ("auc", "r30", "r50", "max_sic")

Scores = Float[np.ndarray, " _"]


def measured(background: Scores, signal: Scores, seed: int) -> dict[str, Estimate]:
    """AUC, R30, R50 and maximum SIC with 95 % bootstrap intervals."""
    scores, labels = joined(background, signal)
    found = metrics.evaluate_scores(scores, labels, threshold=float(np.median(background)), seed=seed)
    found["max_sic"] = metrics.max_significance_improvement(scores, labels, seed=seed)
    return {name: found[name] for name in METRICS}


def sic_curve(background: Scores, signal: Scores) -> SicCurve:
    """The SIC curve, thinned evenly in eps_S."""
    found = metrics.significance_improvement(*joined(background, signal))
    at = np.unique(np.searchsorted(found.eps_s, np.linspace(found.eps_s[0], found.eps_s[-1], CURVE_POINTS)))
    return SicCurve(floats(found.eps_s[at]), floats(found.sic[at]), tuple(bool(k) for k in found.known[at]))


def joined(background: Scores, signal: Scores) -> tuple[Scores, Any]:
    """All scores, and which are of signal."""
    return np.concatenate([background, signal]), np.repeat([0, 1], [len(background), len(signal)]).astype(np.int32)


def floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
