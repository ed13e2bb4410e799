"""The error of an AUC, and of the difference of two on the same jets, without resampling (DeLong et al. 1988).

The AUC is a mean over signal jets of their placement: the share of background jets they outscore, ties counting half;
and as well a mean over background jets. The spread of the placements gives the variance, their covariance that of a
difference. Sorting finds all placements in O(B log B).

E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988) 837; X. Sun, W. Xu, IEEE Signal Processing
Letters 21 (2014) 1389.

Shapes: B jets, S signal jets, N background jets. Label 1 is signal, label 0 is background.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit, ndtr, ndtri

from probes.metrics import Estimate, Labels, Scores, check


@dataclass(frozen=True)
class DeLongTest:
    """AUC of tagger a minus that of tagger b on the same jets; the p-value is two-sided, for 'both are equally good'.

    z is the difference over its standard error, and 0 with a p-value of 1 where the two order all jets alike.
    """

    auc_a: float
    auc_b: float
    difference: float
    standard_error: float
    z: float
    p_value: float


@dataclass(frozen=True)
class _Placements:
    """Share of the other class on the right side of each jet."""

    signal: Float[np.ndarray, " S"]
    background: Float[np.ndarray, " N"]


def auc_variance(scores: Scores, labels: Labels) -> tuple[float, float]:
    """AUC and its variance for a finite number of signal and background jets.

    The variance is 0 where all jets of each class are placed alike: classes that do not overlap, or one score for all.

    Raises ValueError for scores or labels that cannot be scored, or fewer than two jets of a class.
    """
    placed = _placed(scores, labels)
    return float(placed.signal.mean()), _variance(placed.signal, placed.background)


def auc_interval(scores: Scores, labels: Labels, *, confidence: float = 0.95) -> Estimate:
    """AUC with an interval that is normal in log(AUC / (1 - AUC)), and so never leaves [0, 1].

    Where the classes do not overlap the variance is 0 and says nothing. The interval then ends where 1 - AUC is the
    share of the smaller class that could lie on the wrong side of all of the other, and that as many jets as these
    would miss with a chance of 1 - confidence.

    Raises ValueError for scores or labels that cannot be scored, fewer than two jets of a class, or `confidence`
    outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    placed = _placed(scores, labels)
    auc, variance = float(placed.signal.mean()), _variance(placed.signal, placed.background)
    if auc in (0.0, 1.0):
        bound = (1 - confidence) ** (1 / min(len(placed.signal), len(placed.background)))
        return Estimate(auc, bound, 1.0) if auc == 1 else Estimate(auc, 0.0, 1 - bound)
    half = float(ndtri((1 + confidence) / 2)) * math.sqrt(variance) / (auc * (1 - auc))
    return Estimate(auc, float(expit(logit(auc) - half)), float(expit(logit(auc) + half)))


def delong_test(scores_a: Scores, scores_b: Scores, labels: Labels) -> DeLongTest:
    """Do two taggers that scored the same jets differ in AUC?

    Raises ValueError for scores or labels that cannot be scored, fewer than two jets of a class, or AUCs that differ
    without any spread between jets, of which DeLong's method knows no error.
    """
    a, b = _placed(scores_a, labels), _placed(scores_b, labels)
    # The difference of the placements, and not of the means: what both taggers share cancels before it is rounded.
    by_signal, by_background = a.signal - b.signal, a.background - b.background
    difference, error = float(by_signal.mean()), math.sqrt(_variance(by_signal, by_background))
    auc_a, auc_b = float(a.signal.mean()), float(b.signal.mean())
    if error == 0 and difference != 0:
        raise ValueError(
            f"AUCs of {auc_a:g} and {auc_b:g} differ by the same amount for every jet, so DeLong's method has no error "
            f"for the difference: compare them on more jets"
        )
    z = difference / error if error > 0 else 0.0
    return DeLongTest(auc_a, auc_b, difference, error, z, 2 * float(ndtr(-abs(z))))


def _placed(scores: Scores, labels: Labels) -> _Placements:
    scores, is_signal = check(scores, labels)
    signal, background = scores[is_signal], scores[~is_signal]
    if min(len(signal), len(background)) < 2:
        raise ValueError(f"two jets of each class are needed, got {len(signal)} signal, {len(background)} background")
    return _Placements(_share_below(signal, background), 1 - _share_below(background, signal))


def _share_below(x: Float[np.ndarray, " X"], others: Float[np.ndarray, " Y"]) -> Float[np.ndarray, " X"]:
    """For each of `x` the share of `others` below it, those equal to it counting half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right")
    return np.asarray(below / (2 * len(others)))


def _variance(by_signal: Float[np.ndarray, " S"], by_background: Float[np.ndarray, " N"]) -> float:
    return float(by_signal.var(ddof=1) / len(by_signal) + by_background.var(ddof=1) / len(by_background))
