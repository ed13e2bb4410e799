"""What all searches have in common: events with a resonant mass in, a score for each out that it had no part in.

A search is a frozen dataclass of settings. The events are dealt to folds; each fold is scored by models that were
fitted on all the others (arXiv:1902.02634).

Shapes: E events, D features, R rows of the events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.anomaly.head import Progress, no_progress
from probes.anomaly.search.regions import Mass, Regions
from probes.tables import Features, as_table, matching

Rows: TypeAlias = Int[np.ndarray, " R"]

FOLDS = 5
FEWEST_EVENTS = 10
"""Events that the signal region and each sideband must have for each fold."""


@runtime_checkable
class Model(Protocol):
    """What a fold's events were fitted to: features and masses in, larger numbers for what is more like signal."""

    def __call__(self, features: Features, mass: Mass) -> Float[np.ndarray, " E"]: ...


@dataclass(frozen=True)
class FittedSearch:
    """Scores of the events of the fit, each by a model that has not seen it, and the models for other events.

    `fold` says which model scored an event; `scores` are larger for what is more like signal.
    """

    scores: Float[np.ndarray, " E"]
    fold: Int[np.ndarray, " E"]
    models: tuple[Model, ...]
    width: int

    def score(self, features: Features, mass: Mass) -> Float[np.ndarray, " E"]:
        """Mean score of other events over the models; raises ValueError for features unlike those of the fit."""
        features, mass = checked(matching(features, self.width), mass)
        return np.mean([model(features, mass) for model in self.models], axis=0)

    def score_once(self, features: Features, mass: Mass, *, seed: int = 0) -> Float[np.ndarray, " E"]:
        """Score of other events, each by one model drawn at random: to be compared with `scores`, which are so too.

        The mean of several models is a better score than that of one. Raises ValueError as `score`.
        """
        features, mass = checked(matching(features, self.width), mass)
        return _each_by_its_own(self.models, dealt(len(mass), len(self.models), seed), features, mass)


@runtime_checkable
class Search(Protocol):
    """Settings of one way to find a resonance without labels."""

    name: ClassVar[str]

    def fit(
        self, features: Features, mass: Mass, regions: Regions, *, seed: int = 0, progress: Progress = no_progress
    ) -> FittedSearch:
        """Score events by their features, that vary smoothly with the mass; the same arguments give the same bits.

        Events outside of `regions` are scored, but not fitted. Raises ValueError for numbers that are not finite, and
        too few events in a region.
        """
        ...


def checked(features: Features, mass: Mass) -> tuple[Features, Mass]:
    """The events as arrays; raises ValueError unless there are features and a mass, all finite, for each."""
    features, mass = as_table(features), np.asarray(mass)
    if mass.shape != (len(features),):
        raise ValueError(f"{len(features)} events but masses of shape {mass.shape}: there must be one for each")
    bad = ~(np.isfinite(features).all(axis=1) & np.isfinite(mass))
    if bad.any():
        raise ValueError(f"the features or masses of {np.count_nonzero(bad)} events are NaN or infinite")
    return features, mass


def dealt(events: int, folds: int, seed: int) -> Int[np.ndarray, " E"]:
    """A fold for each event, at random, equally many of each."""
    return np.random.default_rng(seed).permutation(np.arange(events) % folds)


@dataclass(frozen=True)
class Events:
    """Events dealt to folds, with a seed for each fold."""

    features: Features
    mass: Mass
    regions: Regions
    fold: Int[np.ndarray, " E"]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, features: Features, mass: Mass, regions: Regions, folds: int, seed: int) -> Events:
        """Raises ValueError as `checked`, for fewer than two folds, and where a region has too few events for them."""
        features, mass = checked(features, mass)
        if folds < 2:
            raise ValueError(f"at least two folds are needed, or events would score themselves; got {folds}")
        for name, members in (
            ("lower sideband", regions.below(mass)),
            ("signal region", regions.signal(mass)),
            ("upper sideband", regions.above(mass)),
        ):
            found = int(np.count_nonzero(members))
            if found < FEWEST_EVENTS * folds:
                raise ValueError(f"the {name} has {found} events; {folds} folds need {FEWEST_EVENTS * folds} at least")
        seeds = np.random.SeedSequence(seed).generate_state(folds) >> 1
        return cls(features, mass, regions, dealt(len(mass), folds, seed), tuple(seeds.tolist()))

    def others(self, fold: int, members: Bool[np.ndarray, " E"]) -> Rows:
        """Those of the `members` that are in any other fold."""
        return np.flatnonzero(members & (self.fold != fold))

    def scored(self, models: Sequence[Model]) -> FittedSearch:
        """Every event by the model of its own fold, which was fitted on `others`."""
        scores = _each_by_its_own(models, self.fold, self.features, self.mass)
        return FittedSearch(scores, self.fold, tuple(models), self.features.shape[1])


def _each_by_its_own(
    models: Sequence[Model], fold: Int[np.ndarray, " E"], features: Features, mass: Mass
) -> Float[np.ndarray, " E"]:
    out = np.empty(len(mass))
    for k, model in enumerate(models):
        rows = np.flatnonzero(fold == k)
        if len(rows):
            out[rows] = model(features[rows], mass[rows])
    return out
