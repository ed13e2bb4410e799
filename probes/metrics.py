"""Metrics of a binary tagger, with honest intervals.

Shapes: B jets, S signal jets, G distinct scores. Label 1 is signal, label 0 is background; a larger
score means "more like signal". eps_S and eps_B are the fractions of signal and background jets kept by a cut.

Nothing here returns infinity or replaces a fault by a number: a rejection that too few background jets
support is reported as a lower bound, and an input that cannot be scored is refused with a `ValueError`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.resampling import Ranking, bootstrap

Scores: TypeAlias = Float[np.ndarray, " B"]
Labels: TypeAlias = Int[np.ndarray, " B"] | Bool[np.ndarray, " B"]

FEWEST_BACKGROUND_JETS = 10
"""With fewer background jets left, a rejection is reported as a lower bound."""

BOUND_CONFIDENCE = 0.95
"""One-sided confidence of that bound."""


@dataclass(frozen=True)
class Rejection:
    """Background rejection 1/eps_B at one signal efficiency.

    `background_jets_left` is eps_B times the number of background jets (fractional inside a group of tied
    scores). With fewer than 10 left, `value` is a lower bound: one over the 95 % CL upper limit on eps_B,
    the exact binomial one of Clopper and Pearson (Biometrika 26 (1934) 404), at the threshold of these jets.
    """

    value: float
    background_jets_left: float
    is_lower_bound: bool


@dataclass(frozen=True)
class Estimate:
    """A measured value with its interval.

    `high` is None where the jets set no upper limit: always for a lower bound, and for a rejection whose
    resamples run out of background. For a lower bound `low` equals `value`.

    >>> print(Estimate(0.97832, 0.97614, 0.98031), Estimate(412.9, 412.9, None, is_lower_bound=True))
    0.9783 [0.9761, 0.9803] >412
    """

    value: float
    low: float
    high: float | None
    is_lower_bound: bool = False

    def __str__(self) -> str:
        return format(self, "")

    def __format__(self, spec: str) -> str:
        """Text of value and interval; `spec` is that of a float and holds for every number in it."""
        if self.is_lower_bound:
            # Rounded down: rounding a bound up would claim more than was shown.
            return ">" + (format(self.value, spec) if spec else f"{math.floor(self.value)}")
        if not spec:
            spec = ".4f" if abs(self.value) < 2 else ".1f" if abs(self.value) < 100 else ".0f"
        high = "-" if self.high is None else format(self.high, spec)
        return f"{format(self.value, spec)} [{format(self.low, spec)}, {high}]"


@dataclass(frozen=True)
class SignificanceImprovement:
    """SIC = eps_S / sqrt(eps_B) along the ROC curve, from the first cut that keeps a background jet.

    `maximum` and `eps_s_at_maximum` look only at cuts whose eps_B is known well enough (see `known`).
    """

    eps_s: Float[np.ndarray, " P"]
    sic: Float[np.ndarray, " P"]
    known: Bool[np.ndarray, " P"]
    maximum: float
    eps_s_at_maximum: float


@dataclass(frozen=True)
class PairedComparison:
    """Tagger a minus tagger b on the same jets; p-values are one-sided, for 'a is not better than b'.

    The differences in log(1/eps_B) at eps_S = 0.5 are None where either tagger leaves fewer than 10 background jets.
    """

    auc: Estimate
    auc_p_value: float
    log_r50: Estimate | None
    log_r50_p_value: float | None


def roc_curve(scores: Scores, labels: Labels) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Signal and background efficiency after each distinct score, from (0, 0) to (1, 1).

    Jets with equal scores pass a cut together, so ties give one slanted segment.

    Returns eps_S and eps_B, both rising. Raises ValueError for scores or labels that cannot be scored.
    """
    ranking = _ranking(scores, labels)
    return _efficiency(ranking.signal_passed), _efficiency(ranking.background_passed)


def auc(scores: Scores, labels: Labels) -> float:
    """Area under the ROC curve: the chance that a signal jet outscores a background jet, ties counting half.

    Raises ValueError for scores or labels that cannot be scored.
    """
    return float(_ranking(scores, labels).auc()[0])


def accuracy(scores: Scores, labels: Labels, threshold: float) -> float:
    """Fraction of jets on the right side of `threshold`; a score above it, not at it, is called signal.

    Raises ValueError for scores or labels that cannot be scored, or a threshold that is not a number.
    """
    scores, signal = check(scores, labels)
    return float(np.mean((scores > _checked_threshold(threshold)) == signal))


def background_rejection(scores: Scores, labels: Labels, eps_s: float) -> Rejection:
    """1/eps_B of the tightest cut with signal efficiency `eps_s`, interpolated linearly in the ROC curve.

    With fewer than 10 background jets left the value is a lower bound (see `Rejection`).

    Raises ValueError for scores or labels that cannot be scored, or `eps_s` outside (0, 1].
    """
    return _rejection(_ranking(scores, labels), eps_s)


def significance_improvement(scores: Scores, labels: Labels, *, relative_error: float = 0.2) -> SignificanceImprovement:
    """SIC = eps_S / sqrt(eps_B) as a curve, and its maximum where eps_B is known to `relative_error`.

    The error on eps_B is the binomial one, sqrt((1 - eps_B) / (eps_B B_background)). The cut that keeps
    everything has SIC 1 and no error, so a maximum always exists.

    Raises ValueError for scores or labels that cannot be scored.
    """
    eps_s, eps_b = roc_curve(scores, labels)
    kept = eps_b > 0
    eps_s, eps_b = eps_s[kept], eps_b[kept]
    sic = eps_s / np.sqrt(eps_b)
    known = np.sqrt((1 - eps_b) / (eps_b * np.count_nonzero(np.asarray(labels) == 0))) <= relative_error
    best = int(np.flatnonzero(known)[np.argmax(sic[known])])
    return SignificanceImprovement(eps_s, sic, known, float(sic[best]), float(eps_s[best]))


def max_significance_improvement(
    scores: Scores, labels: Labels, *, resamples: int = 200, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """Maximum of eps_S / sqrt(eps_B) over cuts whose eps_B is known to 20 %, with its bootstrap interval.

    A maximum over cuts leans to the high side, and those of the resamples more so; the interval is of the basic
    bootstrap (Davison & Hinkley 1997, sec. 5.2), which turns their excess around.

    Raises ValueError for scores or labels that cannot be scored, `resamples` < 1 or `confidence` outside (0, 1).
    """
    scores, is_signal = check(scores, labels)
    tail = _tail(confidence)
    value = significance_improvement(scores, is_signal).maximum
    if resamples < 1:
        raise ValueError(f"at least one resample is needed, got {resamples}")
    rng = np.random.default_rng(seed)
    classes = np.flatnonzero(is_signal), np.flatnonzero(~is_signal)
    drawn = np.empty(resamples)
    for i in range(resamples):
        rows = np.concatenate([rng.choice(members, len(members)) for members in classes])
        drawn[i] = significance_improvement(scores[rows], is_signal[rows]).maximum
    low, high = _interval(drawn, tail)
    return Estimate(value, min(value, 2 * value - high), max(value, 2 * value - low))


def evaluate_scores(
    scores: Scores,
    labels: Labels,
    *,
    threshold: float,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """AUC, accuracy at `threshold`, and 1/eps_B at eps_S = 0.3 and 0.5: `auc`, `accuracy`, `r30`, `r50`.

    Intervals are percentile intervals of a bootstrap that draws signal and background jets separately: a
    benchmark fixes how many of each there are, so their ratio is no uncertainty of the tagger, and no
    resample can lose a class. They cover the finite number of test jets only, not training seeds.

    Raises ValueError for scores or labels that cannot be scored, `resamples` < 1 or `confidence` outside (0, 1).
    """
    scores, is_signal = check(scores, labels)
    tail = _tail(confidence)
    ranks = _ranks(scores)
    ranking = _tallied(ranks, is_signal)
    above = int(np.count_nonzero(np.unique(scores) > _checked_threshold(threshold)))
    drawn = bootstrap([ranks], is_signal, resamples, seed, targets=(0.3, 0.5), above=above)
    assert drawn.accuracy is not None
    out = {
        "auc": Estimate(float(ranking.auc()[0]), *_interval(drawn.auc[0], tail)),
        "accuracy": Estimate(float(ranking.accuracy(above)[0]), *_interval(drawn.accuracy[0], tail)),
    }
    for key, eps_s, eps_b in (("r30", 0.3, drawn.eps_b[0, 0]), ("r50", 0.5, drawn.eps_b[0, 1])):
        point = _rejection(ranking, eps_s)
        if point.is_lower_bound:
            out[key] = Estimate(point.value, point.value, None, is_lower_bound=True)
        else:
            fewest, most = _interval(eps_b, tail)
            out[key] = Estimate(point.value, 1 / most, 1 / fewest if fewest > 0 else None)
    return out


def paired_bootstrap(
    scores_a: Scores,
    scores_b: Scores,
    labels: Labels,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> PairedComparison:
    """Is tagger a better than tagger b? Differences in AUC and log R50 over the same resampled jets.

    Sharing the jets removes the noise both taggers have in common. The p-value of 'a is not better than b' is
    (1 + number of resamples with difference <= 0) / (1 + resamples) (Davison & Hinkley 1997, sec. 4.2).

    Raises ValueError for scores or labels that cannot be scored, `resamples` < 1 or `confidence` outside (0, 1).
    """
    scores_a, is_signal = check(scores_a, labels)
    scores_b, _ = check(scores_b, labels)
    ranks = [_ranks(scores_a), _ranks(scores_b)]
    a, b = (_tallied(r, is_signal) for r in ranks)
    tail = _tail(confidence)
    drawn = bootstrap(ranks, is_signal, resamples, seed, targets=(0.5,))
    difference = drawn.auc[0] - drawn.auc[1]
    auc_estimate = Estimate(float(a.auc()[0] - b.auc()[0]), *_interval(difference, tail))
    auc_p_value = _p_value(difference)
    rejection_a, rejection_b = _rejection(a, 0.5), _rejection(b, 0.5)
    if rejection_a.is_lower_bound or rejection_b.is_lower_bound:
        return PairedComparison(auc_estimate, auc_p_value, None, None)
    logs = _log_ratio(drawn.eps_b[1, 0], drawn.eps_b[0, 0])
    low, high = _interval(logs, tail)
    if not math.isfinite(low):
        return PairedComparison(auc_estimate, auc_p_value, None, None)
    value = math.log(rejection_a.value / rejection_b.value)
    log_r50 = Estimate(value, low, high if math.isfinite(high) else None)
    return PairedComparison(auc_estimate, auc_p_value, log_r50, _p_value(logs))


def check(scores: Scores, labels: Labels) -> tuple[Float[np.ndarray, " B"], Bool[np.ndarray, " B"]]:
    """The scores, and which jets are signal; raises ValueError in plain English if they cannot be scored."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 1 or labels.ndim != 1:
        raise ValueError(f"scores and labels must be one-dimensional, got shapes {scores.shape} and {labels.shape}")
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores but {len(labels)} labels: there must be one label for each score")
    if len(scores) == 0:
        raise ValueError("no jets to score: scores and labels are empty")
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} of {len(scores)} scores are NaN or infinite")
    is_signal = labels == 1
    if not np.all(is_signal | (labels == 0)):
        raise ValueError(f"labels must be 0 (background) or 1 (signal), found {np.unique(labels)[:5].tolist()}")
    if is_signal.all() or not is_signal.any():
        only = "signal" if is_signal.all() else "background"
        raise ValueError(f"all {len(scores)} jets are {only}: a tagger is judged on jets of both classes")
    return scores, is_signal


def _checked_threshold(threshold: float) -> float:
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN")
    return threshold


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return (1 - confidence) / 2


def _ranks(scores: Scores) -> Int[np.ndarray, " B"]:
    """For each jet the rank of its score among the distinct scores, 0 the highest."""
    distinct, from_lowest = np.unique(scores, return_inverse=True)
    return np.asarray(len(distinct) - 1 - from_lowest)


def _tallied(ranks: Int[np.ndarray, " B"], is_signal: Bool[np.ndarray, " B"]) -> Ranking:
    size = int(ranks.max()) + 1
    signal, background = (np.bincount(ranks[members], minlength=size) for members in (is_signal, ~is_signal))
    return Ranking.of(signal[None], background[None])


def _ranking(scores: Scores, labels: Labels) -> Ranking:
    scores, is_signal = check(scores, labels)
    return _tallied(_ranks(scores), is_signal)


def _efficiency(passed: Int[np.ndarray, "1 G"]) -> Float[np.ndarray, " P"]:
    return np.concatenate([[0.0], passed[0] / passed[0, -1]])


def _rejection(ranking: Ranking, eps_s: float) -> Rejection:
    if not 0 < eps_s <= 1:
        raise ValueError(f"the signal efficiency must lie in (0, 1], got {eps_s}")
    total = int(ranking.background_passed[0, -1])
    left = float(ranking.background_left(eps_s)[0])
    if left >= FEWEST_BACKGROUND_JETS:
        return Rejection(total / left, left, is_lower_bound=False)
    return Rejection(1 / _upper_limit(math.ceil(left), total), left, is_lower_bound=True)


def _upper_limit(passed: int, total: int) -> float:
    """Clopper-Pearson upper limit on a fraction of which `passed` of `total` were seen (passed < ~10)."""
    if passed >= total:
        return 1.0

    def at_most(p: float) -> float:
        return math.fsum(
            math.comb(total, k) * math.exp(k * math.log(p) + (total - k) * math.log1p(-p)) for k in range(passed + 1)
        )

    low, high = passed / total, 1.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if at_most(middle) > 1 - BOUND_CONFIDENCE else (low, middle)
    return high


def _interval(drawn: Float[np.ndarray, " R"], tail: float) -> tuple[float, float]:
    """Percentiles rounded outwards to a value that was drawn, so that infinities are never averaged."""
    ordered = np.sort(drawn)
    last = len(ordered) - 1
    return float(ordered[math.floor(tail * last)]), float(ordered[math.ceil((1 - tail) * last)])


def _p_value(difference: Float[np.ndarray, " R"]) -> float:
    return (1 + int(np.count_nonzero(difference <= 0))) / (1 + len(difference))


def _log_ratio(upper: Float[np.ndarray, " R"], lower: Float[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
    """log(upper / lower); a resample without background left counts as infinitely better, two as equal."""
    out = np.where(upper == lower, 0.0, np.where(lower == 0, np.inf, -np.inf))
    both = (upper > 0) & (lower > 0)
    out[both] = np.log(upper[both] / lower[both])
    return out
