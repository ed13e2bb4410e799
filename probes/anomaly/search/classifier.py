"""The classifier of the searches: an ensemble of boosted trees.

With few signal events among many background ones, trees lose less to features that tell nothing than networks do
(arXiv:2309.13111).

Shapes: E events, D features.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

from probes.anomaly.head import Progress, no_progress
from probes.anomaly.search.regions import Mass
from probes.tables import Features, matching


@dataclass(frozen=True)
class Trees:
    """Settings: `members` ensembles of boosted trees, each stopped on another random part of the events."""

    members: int = 4
    trees: int = 100
    learning_rate: float = 0.1
    leaves: int = 16
    fewest_in_leaf: int = 20
    l2: float = 0.0
    patience: int = 10
    held_out: float = 0.2

    def __post_init__(self) -> None:
        if min(self.members, self.trees, self.fewest_in_leaf, self.patience) < 1 or self.leaves < 2:
            raise ValueError(f"members, trees, fewest_in_leaf, patience >= 1 and leaves >= 2 are needed, got {self}")
        if not self.learning_rate > 0 or self.l2 < 0 or not 0 < self.held_out < 1:
            raise ValueError(f"learning_rate > 0, l2 >= 0 and 0 < held_out < 1 are needed, got {self}")

    def fit(
        self,
        x: Features,
        y: Bool[np.ndarray, " E"],
        *,
        weights: Float[np.ndarray, " E"] | None = None,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> FittedTrees:
        """Tell the events with `y` from the others; both count the same in all, whatever their number.

        `weights` say how much an event counts among those of its kind. `progress` is told of each member.
        Raises ValueError where there are no events of either kind.
        """
        weights = np.ones(len(y)) if weights is None else weights
        sums = [weights[kind].sum() for kind in (y, ~y)]
        if not min(sums) > 0:
            raise ValueError(f"a classifier needs events of both kinds, got {y.sum()} of one and {(~y).sum()} others")
        weights = weights * np.where(y, 1 / sums[0], 1 / sums[1]) * len(y) / 2

        def member(number: int) -> HistGradientBoostingClassifier:
            # A thread for each member keeps the cores busier than all of them on one small histogram.
            with threadpool_limits(1, user_api="openmp"):
                fitted = self._member(number).fit(x, y, sample_weight=weights)
            progress(1)
            return fitted

        numbers = np.random.SeedSequence(seed).generate_state(self.members) >> 1
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return FittedTrees(tuple(pool.map(member, numbers.tolist())), x.shape[1])

    def _member(self, seed: int) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(
            learning_rate=self.learning_rate,
            max_iter=self.trees,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=self.fewest_in_leaf,
            l2_regularization=self.l2,
            early_stopping=True,
            validation_fraction=self.held_out,
            n_iter_no_change=self.patience,
            random_state=seed,
        )


@dataclass(frozen=True)
class FittedTrees:
    """Members of a fitted ensemble."""

    members: tuple[HistGradientBoostingClassifier, ...]
    width: int

    def log_odds(self, x: Features) -> Float[np.ndarray, " E"]:
        """Mean logarithm of the odds that an event is of the kind `y`, where both kinds are equally frequent.

        Raises ValueError for another number of features than in the fit.
        """
        x = matching(x, self.width)

        def one(member: HistGradientBoostingClassifier) -> Float[np.ndarray, " E"]:
            with threadpool_limits(1, user_api="openmp"):
                return np.asarray(member.decision_function(x), np.float64)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.mean(list(pool.map(one, self.members)), axis=0)


@dataclass(frozen=True)
class Classified:
    """A classifier as the model of a fold: it does not look at the mass."""

    classifier: FittedTrees

    def __call__(self, features: Features, mass: Mass) -> Float[np.ndarray, " E"]:
        return self.classifier.log_odds(features)
