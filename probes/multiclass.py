"""Metrics of a tagger of many classes, from logits: accuracy, macro AUC, rejection of one class against another.

Logarithms of probabilities are logits too. Nothing is turned into probabilities on the way: those next to 1 round to
the same number, and jets that differ would tie.

Shapes: B jets, C classes, N jets of one class. Labels are the numbers of columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp, ndtri

from probes import metrics
from probes.metrics import Estimate, Rejection

Logits: TypeAlias = Float[np.ndarray, "B C"]
Labels: TypeAlias = Int[np.ndarray, " B"]


def accuracy(logits: Logits, labels: Labels) -> float:
    """Share of jets whose highest logit is that of their class; of equal logits the first counts.

    Raises ValueError for logits or labels that cannot be judged.
    """
    logits, labels = _checked(logits, labels)
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def confusion_matrix(logits: Logits, labels: Labels) -> Int[np.ndarray, "C C"]:
    """Jets of each class (row) by the class of their highest logit (column).

    Raises ValueError for logits or labels that cannot be judged.
    """
    logits, labels = _checked(logits, labels)
    classes = logits.shape[1]
    cells = np.bincount(labels * classes + np.argmax(logits, axis=1), minlength=classes**2)
    return np.asarray(cells.reshape(classes, classes))


def macro_auc(logits: Logits, labels: Labels) -> float:
    """Mean AUC over ordered pairs of classes (a, b): jets of a against jets of b by the probability of a.

    Hand & Till, Machine Learning 45 (2001) 171; what scikit-learn calls one-vs-one, macro, and ParT quotes on JetClass
    (arXiv:2202.03772). In O(C B log B + C^2 B).

    Raises ValueError for logits or labels that cannot be judged, or a class without jets.
    """
    return _macro_auc(*_checked(logits, labels))[0]


def macro_auc_interval(logits: Logits, labels: Labels, *, confidence: float = 0.95) -> Estimate:
    """`macro_auc` with an interval for finite jets: DeLong's variance, for this mean of many AUCs.

    Each AUC is a mean of placements (see `probes.delong`), so their mean is too; its variance is the sum over classes
    of the variance of a jet's total placement over the class's jets. Normal, and cut at 0 and 1; where no classes
    overlap, it ends as that of `probes.delong.auc_interval` for the smallest class.

    Raises ValueError for logits or labels that cannot be judged, a class with fewer than two jets, or `confidence`
    outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    logits, labels = _checked(logits, labels)
    value, total = _macro_auc(logits, labels)
    if value == 1:
        return Estimate(1.0, (1 - confidence) ** (1 / int(np.bincount(labels).min())), 1.0)
    variance = 0.0
    for a in range(logits.shape[1]):
        own = total[labels == a]
        if len(own) < 2:
            raise ValueError(f"class {a} has {len(own)} jet: an error needs two of each class")
        variance += float(own.var(ddof=1)) / len(own)
    half = float(ndtri((1 + confidence) / 2)) * math.sqrt(variance)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def class_rejection(logits: Logits, labels: Labels, signal: int, background: int, eps_s: float = 0.5) -> Rejection:
    """1/eps_B of class `background` at efficiency `eps_s` for class `signal`, by a cut on p_s / (p_s + p_b).

    A lower bound where too little background is left (see `probes.metrics.Rejection`).

    Raises ValueError for logits or labels that cannot be judged, or classes that are equal, unknown or without jets.
    """
    return metrics.background_rejection(*_pair(*_checked(logits, labels), signal, background), eps_s)


def evaluate_logits(
    logits: Logits,
    labels: Labels,
    classes: Sequence[str],
    *,
    background: int = 0,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """Macro AUC, accuracy, and 1/eps_B at eps_S = 0.5 of each class against class `background`.

    Keys: `auc`, `accuracy`, and `r50 NAME` for each other class. Intervals are for the finite number of test jets,
    that of each class fixed: DeLong's for the AUC, percentiles of a bootstrap within each class for the others.

    Raises ValueError for logits or labels that cannot be judged, names that are not one a class, `resamples` < 1 or
    `confidence` outside (0, 1).
    """
    logits, labels = _checked(logits, labels)
    if len(classes) != logits.shape[1] or len(set(classes)) != len(classes):
        raise ValueError(f"{logits.shape[1]} classes need as many different names, got {list(classes)}")
    if resamples < 1:
        raise ValueError(f"at least one resample is needed, got {resamples}")
    out = {"auc": macro_auc_interval(logits, labels, confidence=confidence)}
    jets, right = np.bincount(labels), np.diag(confusion_matrix(logits, labels))
    # A resample within a class keeps a binomial number of right answers: no jet needs to be drawn.
    drawn = np.random.default_rng(seed).binomial(jets, right / jets, (resamples, len(jets))).sum(axis=1) / len(labels)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = float(right.sum() / len(labels))
    out["accuracy"] = Estimate(value, min(float(low), value), max(float(high), value))
    for signal, name in enumerate(classes):
        if signal != background:
            scores, is_signal = _pair(logits, labels, signal, background)
            found = metrics.evaluate_scores(
                scores, is_signal, threshold=0.0, resamples=resamples, seed=seed, confidence=confidence
            )
            out[f"r50 {name}"] = found["r50"]
    return out


def _macro_auc(logits: Logits, labels: Labels) -> tuple[float, Float[np.ndarray, " B"]]:
    """Macro AUC, and for each jet the sum of its placements in all AUCs that it takes part in, over their number."""
    classes = logits.shape[1]
    members = [np.flatnonzero(labels == a) for a in range(classes)]
    missing = [a for a, jets in enumerate(members) if len(jets) == 0]
    if missing:
        raise ValueError(f"no jets of class {missing}: an AUC against a class needs its jets")
    share = 1 / (classes * (classes - 1))
    total = np.zeros(len(labels))
    aucs = []
    for a in range(classes):
        score = _log_odds(logits, a)
        orders = [jets[np.argsort(score[jets])] for jets in members]
        ordered = [score[jets] for jets in orders]
        for b in range(classes):
            if b != a:
                above, below = _shares_below(ordered[a], ordered[b]), _shares_below(ordered[b], ordered[a])
                total[orders[a]] += share * above
                total[orders[b]] += share * (1 - below)
                aucs.append(above.mean())
    return float(np.mean(aucs)), total


def _log_odds(logits: Logits, column: int) -> Float[np.ndarray, " B"]:
    """log(p / (1 - p)) of one class: in the order of its probability, without ties by rounding."""
    return np.asarray(logits[:, column] - logsumexp(np.delete(logits, column, axis=1), axis=1))


def _shares_below(ordered: Float[np.ndarray, " N"], others: Float[np.ndarray, " M"]) -> Float[np.ndarray, " N"]:
    """For each of `ordered` the share of the sorted `others` below it, those equal to it counting half."""
    below = np.searchsorted(others, ordered, "left") + np.searchsorted(others, ordered, "right")
    return np.asarray(below / (2 * len(others)))


def _pair(
    logits: Logits, labels: Labels, signal: int, background: int
) -> tuple[Float[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Scores and labels of the jets of two classes."""
    classes = logits.shape[1]
    if signal == background or not (0 <= signal < classes and 0 <= background < classes):
        raise ValueError(f"signal and background must be two of the {classes} classes, got {signal} and {background}")
    jets = np.flatnonzero((labels == signal) | (labels == background))
    if len(jets) == 0:
        raise ValueError(f"no jets of classes {signal} and {background}")
    return logits[jets, signal] - logits[jets, background], (labels[jets] == signal).astype(np.int64)


def _checked(logits: Logits, labels: Labels) -> tuple[Logits, Labels]:
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels).astype(np.int64)
    if logits.ndim != 2 or logits.shape[0] == 0 or logits.shape[1] < 2:
        raise ValueError(f"logits must be a table [jets, classes >= 2], got shape {logits.shape}")
    if labels.shape != (len(logits),):
        raise ValueError(f"{len(logits)} jets but labels of shape {labels.shape}: there must be one label for each jet")
    if not np.isfinite(logits).all():
        bad = np.count_nonzero(~np.isfinite(logits).all(axis=1))
        raise ValueError(f"the logits of {bad} jets are NaN or infinite")
    if not ((labels >= 0) & (labels < logits.shape[1])).all():
        raise ValueError(f"labels must be the number of a column, found {np.unique(labels)[:5].tolist()}")
    return logits, labels
