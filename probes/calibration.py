"""Are a tagger's probabilities true: of the jets given 0.8, is the share of signal 0.8?

Two classes: `scores` [B] are log-odds of signal (decision values), `probabilities` [B] those of signal. More classes:
`scores` [B, C] are logits, `probabilities` [B, C] sum to 1 for each jet, and a jet is judged by its likeliest class.

Shapes: B jets, C classes, K bins that hold jets, R draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import brentq
from scipy.special import softmax

from probes.metrics import Estimate

Scores: TypeAlias = Float[np.ndarray, " B"] | Float[np.ndarray, "B C"]
Labels: TypeAlias = Int[np.ndarray, " B"] | Bool[np.ndarray, " B"]

SHARPEST = 1e12
"""Largest 1/temperature tried, in units of one over the largest difference of logits."""


@dataclass(frozen=True)
class Reliability:
    """Mean probability and observed share in each bin that holds jets, and what lies between them.

    Two classes: probability and share of signal. More: probability of the likeliest class, and how often it is right.
    `expected_error` is the mean of |predicted - observed| over jets, `maximum_error` its largest value over bins.
    """

    predicted: Float[np.ndarray, " K"]
    observed: Float[np.ndarray, " K"]
    jets: Int[np.ndarray, " K"]
    expected_error: float
    maximum_error: float


def probabilities(scores: Scores, temperature: float = 1.0) -> Scores:
    """Probability of signal from log-odds [B], or of each class from logits [B, C], both over `temperature`.

    Raises ValueError for scores that are not finite, or a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature must be positive, got {temperature}")
    chance = softmax(_logits(scores) / temperature, axis=1)
    return np.asarray(chance[:, 1] if np.ndim(scores) == 1 else chance)


def negative_log_likelihood(scores: Scores, labels: Labels, temperature: float = 1.0) -> float:
    """Mean of -log(probability of the true class) [nats], from log-odds or logits over `temperature`.

    Raises ValueError for scores or labels that cannot be judged, or a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature must be positive, got {temperature}")
    logits = _logits(scores) / temperature
    behind = logits - _chosen(logits, _checked_labels(labels, logits.shape))[:, None]
    largest = behind.max(axis=1)
    return float(np.mean(largest + np.log(np.exp(behind - largest[:, None]).sum(axis=1))))


def brier_score(probabilities: Scores, labels: Labels) -> float:
    """Mean squared error of the probabilities: of signal for two classes, summed over the classes for more.

    Raises ValueError for probabilities or labels that cannot be judged.
    """
    chance = _checked_probabilities(probabilities)
    if chance.ndim == 1:
        return float(np.mean((chance - _checked_labels(labels, (len(chance), 2))) ** 2))
    true = _checked_labels(labels, chance.shape)
    return float(np.mean(np.sum(chance**2, axis=1) - 2 * _chosen(chance, true)) + 1)


def fit_temperature(scores: Scores, labels: Labels) -> float:
    """The temperature T for which the probabilities of scores / T have the largest likelihood (arXiv:1706.04599).

    Fit it on validation jets, never on test jets. The order of jets, and so every ROC curve, stays the same.

    Raises ValueError for scores or labels that cannot be judged; for scores that put the true class first for every
    jet (the likelihood then grows for ever as T falls); and for scores no better than chance (as T rises).
    """
    logits = _logits(scores)
    true = _checked_labels(labels, logits.shape)
    behind = logits - _chosen(logits, true)[:, None]
    scale = float(np.abs(behind).max())
    if scale == 0 or behind.mean() >= 0:
        raise ValueError("these scores are no better than chance for their labels: no temperature can be fitted")
    behind /= scale

    def slope(sharpness: float) -> float:
        """Derivative of the mean -log likelihood, which is convex in 1/T, by 1/T."""
        return float(np.mean(np.sum(softmax(sharpness * behind, axis=1) * behind, axis=1)))

    low, high = 0.0, 1.0
    while slope(high) <= 0:
        low, high = high, 2 * high
        if high > SHARPEST:
            raise ValueError(
                f"the true class has the highest score for all {len(logits)} jets, so that any smaller temperature is "
                f"better: fit it on more jets"
            )
    return scale / float(brentq(slope, low, high, xtol=1e-12 * high, rtol=1e-12))


def reliability(probabilities: Scores, labels: Labels, *, bins: int = 15, equal_mass: bool = False) -> Reliability:
    """Observed against predicted probability, in `bins` of equal width or of equally many jets (`equal_mass`).

    Equal width is what the literature quotes (arXiv:1706.04599); a tagger's probabilities crowd at 0 and 1, and there
    equal mass sees more. Bins without jets are left out. The error of finite samples is above 0 even for perfect
    probabilities: compare it with `expected_error_of_calibrated`.

    Raises ValueError for probabilities or labels that cannot be judged, or `bins` < 1.
    """
    chance = _checked_probabilities(probabilities)
    if chance.ndim == 1:
        right = _checked_labels(labels, (len(chance), 2)) == 1
    else:
        right = np.argmax(chance, axis=1) == _checked_labels(labels, chance.shape)
        chance = chance.max(axis=1)
    where = _bins(chance, bins, equal_mass)
    jets = np.bincount(where)
    held = jets > 0
    predicted = np.bincount(where, chance)[held] / jets[held]
    observed = np.bincount(where, right)[held] / jets[held]
    gap = np.abs(predicted - observed)
    return Reliability(predicted, observed, jets[held], float(np.average(gap, weights=jets[held])), float(gap.max()))


def expected_error_of_calibrated(
    probabilities: Scores, *, bins: int = 15, equal_mass: bool = False, draws: int = 200, seed: int = 0
) -> Estimate:
    """The expected calibration error that these probabilities would have were they all true: mean and central 95 %.

    Labels are drawn from the probabilities themselves (consistency resampling: Broecker & Smith, Weather and
    Forecasting 22 (2007) 651). A measured error inside the interval shows no miscalibration.

    Raises ValueError for probabilities that cannot be judged, or `bins` or `draws` < 1.
    """
    if draws < 1:
        raise ValueError(f"at least one draw is needed, got {draws}")
    chance = _checked_probabilities(probabilities)
    chance = chance if chance.ndim == 1 else chance.max(axis=1)
    where = _bins(chance, bins, equal_mass)
    predicted = np.bincount(where, chance)
    rng = np.random.default_rng(seed)
    errors = [
        np.abs(predicted - np.bincount(where, rng.random(len(chance)) < chance)).sum() / len(chance)
        for _ in range(draws)
    ]
    low, high = np.quantile(errors, [0.025, 0.975])
    return Estimate(float(np.mean(errors)), float(low), float(high))


def _bins(chance: Float[np.ndarray, " B"], bins: int, equal_mass: bool) -> Int[np.ndarray, " B"]:
    """The bin of each probability, its upper edge included."""
    if bins < 1:
        raise ValueError(f"at least one bin is needed, got {bins}")
    inner = np.arange(1, bins) / bins
    edges = np.quantile(chance, inner) if equal_mass else inner
    return np.asarray(np.searchsorted(edges, chance))


def _logits(scores: Scores) -> Float[np.ndarray, "B C"]:
    scores = np.asarray(scores, np.float64)
    if scores.ndim not in (1, 2) or len(scores) == 0 or (scores.ndim == 2 and scores.shape[1] < 2):
        raise ValueError(f"scores must be log-odds [jets] or logits [jets, classes >= 2], got shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} of {scores.size} scores are NaN or infinite")
    return scores if scores.ndim == 2 else np.stack([np.zeros(len(scores)), scores], axis=1)


def _checked_probabilities(chance: Scores) -> Scores:
    chance = np.asarray(chance, np.float64)
    if chance.ndim not in (1, 2) or len(chance) == 0:
        raise ValueError(f"probabilities must be those of signal [jets] or [jets, classes], got shape {chance.shape}")
    if not ((chance >= 0) & (chance <= 1)).all():
        raise ValueError("probabilities must lie between 0 and 1; from log-odds or logits make them first")
    if chance.ndim == 2 and np.abs(chance.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("the probabilities of a jet's classes must sum to 1")
    return chance


def _checked_labels(labels: Labels, shape: tuple[int, ...]) -> Int[np.ndarray, " B"]:
    jets, classes = shape
    labels = np.asarray(labels).astype(np.int64)
    if labels.shape != (jets,):
        raise ValueError(f"{jets} jets but labels of shape {labels.shape}: there must be one label for each jet")
    if not ((labels >= 0) & (labels < classes)).all():
        raise ValueError(f"labels must lie between 0 and {classes - 1}, found {np.unique(labels)[:5].tolist()}")
    return labels


def _chosen(table: Float[np.ndarray, "B C"], columns: Int[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
    return np.asarray(table[np.arange(len(table)), columns])
