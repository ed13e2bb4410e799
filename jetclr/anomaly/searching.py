"""The searches of an anomaly benchmark: signal mixed into dijets, looked for on features of every kind, and hunted."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jetclr.anomaly.events import Mixed, Sample, View, event_views, mix, open_sample
from jetclr.anomaly.measure import floats, joined, sic_curve
from jetclr.anomaly.results import Chance, Counted, Hunt, SearchScore
from jetclr.anomaly.suite import AnomalySuite, Events
from jetclr.benchmark.cache import Cache, Entry
from jetclr.benchmark.panel import fingerprint
from jetclr.benchmark.representations import Encoded
from jetclr.errors import UserError
from jetclr.progress import jet_progress
from probes import metrics
from probes.anomaly.bumphunt import BumpHunt, bump_hunt
from probes.anomaly.search import SEARCHES, Idealised, Regions, Supervised
from probes.dependence import distance_correlation

BIN = 100.0
"""Width of the bins of a bump hunt [GeV]."""

MOST_CORRELATED = 5_000
"""Events of the sidebands by which the dependence on the mass is measured."""


REFERENCES: dict[str, Any] = {kind.name: kind for kind in (Idealised, Supervised)}
"""What knows more than a search does."""


@dataclass(frozen=True)
class _Study:
    """All that the searches of a suite share."""

    suite: AnomalySuite
    events: Events
    regions: Regions
    background: Sample
    signal: Sample
    cache: Cache

    def mixed(self, fraction: float, seed: int) -> Mixed:
        return mix(self.events, self.regions, self.background.mass, self.signal.mass, fraction, seed)


def search_events(
    suite: AnomalySuite, events: Events, runs: Sequence[Encoded], cache: Cache
) -> tuple[list[SearchScore], list[Hunt]]:
    """Every search on every kind of features: at each fraction once, at the main one with all seeds; and bump hunts.

    Raises UserError for stores that hold no dijets, or too few.
    """
    regions = Regions(*events.signal_region, *events.sidebands)
    background, signal = open_sample(events.background, regions), open_sample(events.signal, regions)
    study = _Study(suite, events, regions, background, signal, cache)
    data = fingerprint({"background": events.background, "signal": events.signal})
    views = event_views(runs, suite.constituents, background, signal, regions, data, cache)
    scores: list[SearchScore] = []
    hunts: list[Hunt] = []
    fits = len(SEARCHES) * (len(events.fractions) + events.seeds) + len(REFERENCES) * events.seeds
    with jet_progress("searches", fits * len(views), unit="fits") as advance:
        for view in views:
            for name in SEARCHES:
                scores += [_measured(study, view, name, fraction, advance) for fraction in events.fractions]
                for fraction in (0.0, events.main):
                    hunts += _hunted(study, view, name, fraction, advance)
            scores += [_measured(study, view, name, events.main, advance) for name in REFERENCES]
    return scores, hunts


def _fit(study: _Study, view: View, name: str, fraction: float, seed: int) -> tuple[Mixed, Entry]:
    """Scores of the searched events, out of fold, and of the others; kept."""
    mixed = study.mixed(fraction, seed)
    task = {
        "what": "search scores",
        "held out": study.events.held_out,
        "features": dict(view.key),
        "search": name,
        "settings": asdict(_settings(name)),
        "fraction": fraction,
        "seed": [study.suite.seed, seed],
    }

    def compute() -> Entry:
        start = time.monotonic()
        x = np.concatenate([view.background[mixed.background], view.signal[mixed.signal]])
        mass = np.concatenate([study.background.mass[mixed.background], study.signal.mass[mixed.signal]])
        test = np.concatenate([view.background[mixed.test_background], view.signal[mixed.test_signal]])
        test_mass = np.concatenate([study.background.mass[mixed.test_background], study.signal.mass[mixed.test_signal]])
        known: dict[str, Any] = {}
        if name == Idealised.name:
            known["background"] = view.background[mixed.other_background]
        elif name == Supervised.name:
            known["truth"] = mixed.truth()
        try:
            fitted = _settings(name).fit(x, mass, study.regions, seed=study.suite.seed * 1000 + seed, **known)
            arrays = {"searched": fitted.scores, "test": fitted.score(test, test_mass)}
        except ValueError as error:
            raise UserError(f"{name} on {view.name} at S/B = {100 * fraction:g} %: {error}") from None
        return Entry({"seconds": time.monotonic() - start}, arrays)

    return mixed, study.cache.once(task, compute)


def _settings(name: str) -> Any:
    return (SEARCHES | REFERENCES)[name]()


def _measured(study: _Study, view: View, name: str, fraction: float, advance: Callable[[int], None]) -> SearchScore:
    seeds = study.events.seeds if fraction == study.events.main else 1
    maxima, signal_events, seconds = [], [], 0.0
    for seed in reversed(range(seeds)):  # the first one last, to be shown
        mixed, entry = _fit(study, view, name, fraction, seed)
        cut = len(mixed.test_background)
        background, signal = entry.arrays["test"][:cut], entry.arrays["test"][cut:]
        maxima.append(metrics.significance_improvement(*joined(background, signal)).maximum)
        signal_events.append(int(np.count_nonzero(study.regions.signal(study.signal.mass[mixed.signal]))))
        seconds += entry.values["seconds"]
        advance(1)
    mass = study.background.mass[mixed.background]
    return SearchScore(
        name,
        view.name,
        fraction,
        tuple(signal_events),
        int(np.count_nonzero(study.regions.signal(mass))),
        tuple(maxima),
        sic_curve(background, signal),
        _correlation(study, entry.arrays["searched"][: len(mass)], mass),
        seconds / seeds,
    )


def _correlation(study: _Study, scores: np.ndarray, mass: np.ndarray) -> float:
    """Distance correlation of score and dijet mass among background events of the sidebands."""
    rows = np.flatnonzero(study.regions.sidebands(mass))
    rows = np.random.default_rng(study.suite.seed).permutation(rows)[:MOST_CORRELATED]
    return float(distance_correlation(scores[rows], mass[rows]))


def _hunted(study: _Study, view: View, name: str, fraction: float, advance: Callable[[int], None]) -> list[Hunt]:
    """A bump hunt among the events of the highest scores, with every share that the suite says is kept."""
    mixed, entry = _fit(study, view, name, fraction, 0)
    if not fraction:
        advance(1)
    mass = np.concatenate([study.background.mass[mixed.background], study.signal.mass[mixed.signal]])
    scores = entry.arrays["searched"]
    low, high = study.events.sidebands
    edges = np.arange(low, high + BIN / 2, BIN)
    out = []
    for kept in study.events.kept:
        chosen = np.argsort(-scores, kind="stable")[: max(1, round(kept * len(scores)))]
        counts = np.histogram(mass[chosen], edges)[0]
        try:
            hunt = bump_hunt(counts, edges, region=study.events.signal_region, seed=study.suite.seed)
        except ValueError as error:
            raise UserError(f"bump hunt on {name}, {view.name}: {error}") from None
        out.append(_kept_hunt(name, view.name, fraction, kept, len(chosen), hunt))
    return out


def _kept_hunt(search: str, features: str, fraction: float, kept: float, events: int, hunt: BumpHunt) -> Hunt:
    assert hunt.region is not None
    assert hunt.region_p_value is not None
    return Hunt(
        search,
        features,
        fraction,
        kept,
        events,
        Counted(**asdict(hunt.best)),
        Chance(*hunt.global_p_value),
        Counted(**asdict(hunt.region)),
        Chance(*hunt.region_p_value),
        Chance(*hunt.fit_p_value),
        hunt.deviance,
        floats(hunt.edges),
        tuple(int(n) for n in hunt.counts),
        floats(hunt.background),
        floats(hunt.background_error),
    )
