"""The bootstrap behind `probes.metrics`: many resamples of the same jets at once, in bounded memory.

Scores are ranked once. A resample is then a number of copies of each jet, its ROC curve two cumulative sums over the
ranks, and every metric follows from those without sorting again.

Shapes: B jets, S signal jets, G distinct scores (rank 0 the highest), T taggers, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

CHUNK_ELEMENTS = 1_000_000
"""Resamples times jets held at once, 8 MB an array: memory stays flat however many jets or resamples there are."""


@dataclass(frozen=True)
class Ranking:
    """Jets at each distinct score, highest first, and how many pass a cut just below it; one row a resample."""

    signal: Int[np.ndarray, "R G"]
    background: Int[np.ndarray, "R G"]
    signal_passed: Int[np.ndarray, "R G"]
    background_passed: Int[np.ndarray, "R G"]

    @classmethod
    def of(cls, signal: Int[np.ndarray, "R G"], background: Int[np.ndarray, "R G"]) -> Ranking:
        return cls(signal, background, np.cumsum(signal, axis=1), np.cumsum(background, axis=1))

    def auc(self) -> Float[np.ndarray, " R"]:
        """Share of (signal, background) pairs in the right order, ties counting half."""
        right = np.einsum("rg,rg->r", self.background, self.signal_passed)
        tied = np.einsum("rg,rg->r", self.background, self.signal)
        return (right - tied / 2) / (self.signal_passed[:, -1] * self.background_passed[:, -1])

    def accuracy(self, above: int) -> Float[np.ndarray, " R"]:
        """Share of jets on the right side of a cut that keeps the `above` highest distinct scores."""
        signal, background = self.signal_passed, self.background_passed
        right = background[:, -1].copy()
        if above > 0:
            right += signal[:, above - 1] - background[:, above - 1]
        return right / (signal[:, -1] + background[:, -1])

    def background_left(self, eps_s: float) -> Float[np.ndarray, " R"]:
        """Background jets kept by the tightest cut of signal efficiency `eps_s`, linear inside a tied group."""
        rows = np.arange(len(self.signal))
        target = eps_s * self.signal_passed[:, -1]
        # 0.07 * 100 is a little above 7; without the slack the cut would slip to the next signal jet.
        slack = target * (1 - 1e-12)
        at = np.array([np.searchsorted(row, t) for row, t in zip(self.signal_passed, slack, strict=True)])
        group_signal, group_background = self.signal[rows, at], self.background[rows, at]
        share = (target - (self.signal_passed[rows, at] - group_signal)) / group_signal
        kept = self.background_passed[rows, at] - group_background + share * group_background
        return np.asarray(kept, np.float64)


@dataclass(frozen=True)
class Resampled:
    """Metrics of every tagger on every resample; `accuracy` is None where no cut was given."""

    auc: Float[np.ndarray, "T R"]
    eps_b: Float[np.ndarray, "T targets R"]
    accuracy: Float[np.ndarray, "T R"] | None


def bootstrap(
    ranks: Sequence[Int[np.ndarray, " B"]],
    is_signal: Bool[np.ndarray, " B"],
    resamples: int,
    seed: int,
    *,
    targets: Sequence[float],
    above: int | None = None,
) -> Resampled:
    """Metrics of taggers that scored the same jets, over `resamples` draws with replacement within each class.

    `ranks` holds for each tagger the rank of every jet's score; every tagger sees the same draws. `targets` are
    the signal efficiencies at which eps_B is wanted; `above` is how many ranks lie above the cut for the accuracy.

    Raises ValueError if `resamples` < 1.
    """
    if resamples < 1:
        raise ValueError(f"at least one resample is needed, got {resamples}")
    rng = np.random.default_rng(seed)
    classes = np.flatnonzero(is_signal), np.flatnonzero(~is_signal)
    by_class = [tuple(rank[members] for members in classes) for rank in ranks]
    sizes = [int(rank.max()) + 1 for rank in ranks]
    auc = np.empty((len(ranks), resamples))
    eps_b = np.empty((len(ranks), len(targets), resamples))
    accuracy = None if above is None else np.empty((len(ranks), resamples))
    step = max(1, CHUNK_ELEMENTS // len(is_signal))
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        rows = part.stop - start
        draws = [rng.integers(0, len(c), size=(rows, len(c)), dtype=np.int32) for c in classes]
        for t, size in enumerate(sizes):
            signal, background = (_tally(r, d, size) for r, d in zip(by_class[t], draws, strict=True))
            ranking = Ranking.of(signal, background)
            auc[t, part] = ranking.auc()
            for i, eps_s in enumerate(targets):
                eps_b[t, i, part] = ranking.background_left(eps_s) / len(classes[1])
            if accuracy is not None and above is not None:
                accuracy[t, part] = ranking.accuracy(above)
    return Resampled(auc, eps_b, accuracy)


def _tally(ranks: Int[np.ndarray, " C"], draws: Int[np.ndarray, "R C"], size: int) -> Int[np.ndarray, "R G"]:
    """Copies of each rank in every draw."""
    rows = len(draws)
    flat = ranks[draws]
    flat += np.arange(rows)[:, None] * size
    return np.bincount(flat.ravel(), minlength=rows * size).reshape(rows, size)
