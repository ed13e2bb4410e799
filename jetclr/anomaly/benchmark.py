"""The anomaly benchmark from beginning to end: heads on every representation in every direction, then searches.

No head has settings that are chosen here, and none sees a jet of the kinds it is to find, but for the shares that the
suite mixes in on purpose.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jetclr import __version__
from jetclr.anomaly.detect import as_inputs, fit_head, head_called, layer_for
from jetclr.anomaly.measure import floats, measured, sic_curve
from jetclr.anomaly.results import AnomalyBenchmark, Facts, HeadScore, HeadSculpting, Kind
from jetclr.anomaly.saved import scores_of
from jetclr.anomaly.searching import search_events
from jetclr.anomaly.suite import AnomalySuite
from jetclr.benchmark import leaks
from jetclr.benchmark.baselines import observables
from jetclr.benchmark.cache import Cache, Entry
from jetclr.benchmark.jets import Part
from jetclr.benchmark.names import short_names
from jetclr.benchmark.panel import fingerprint
from jetclr.benchmark.representations import Encoded, OnConstituents, Representation, open_pair
from jetclr.checkpoint import Which
from jetclr.data.store import Store
from jetclr.progress import jet_progress
from probes.anomaly.head import Head
from probes.anomaly.heads import HEADS
from probes.dependence import mass_sculpting
from probes.metrics import Estimate

SCULPTING_EPS_B = (0.5, 0.1, 0.01)
CONSTITUENTS = "constituents"


@dataclass
class Jets:
    """The jets of a suite: what is fitted of each background, drawn by the seed, and what is measured."""

    suite: AnomalySuite
    train: dict[str, Part] = field(default_factory=dict)
    test: dict[str, Part] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)  # what tells the jets of each kind from any others

    @classmethod
    def of(cls, suite: AnomalySuite) -> "Jets":
        """Raises UserError for stores that are not there, and for jets that are fitted and measured."""
        fitted = {f"train {name}": stores for name, stores in suite.background.items()}
        everything = {"train": tuple(p for stores in fitted.values() for p in stores)} | dict(suite.test)
        leaks.refuse_shared_jets(everything, {})
        jets = cls(suite)
        for name, paths in suite.background.items():
            store = Store(*map(Path, paths))
            drawn = np.random.default_rng(suite.seed).permutation(len(store))[: suite.train_jets]
            jets.train[name] = Part(f"train {name}", store, np.sort(drawn))
        for name, paths in suite.test.items():
            store = Store(*map(Path, paths))
            jets.test[name] = Part(f"test {name}", store, np.arange(len(store)))
        jets.keys = {part: fingerprint({part: paths}) for part, paths in (fitted | dict(suite.test)).items()}
        return jets


@dataclass(frozen=True)
class Subject:
    """A representation with its numbers for all jets, computed once they are asked for."""

    representation: Representation
    kind: Kind
    heads: tuple[Head, ...]
    jets: Jets
    _tables: dict[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.representation.name

    def layer(self, head: Head) -> str:
        return layer_for(head, self.representation.layers, self.representation.main)

    def table(self, part: Part, layer: str) -> Any:
        """The layer of these jets; all layers that heads read are computed together and kept."""
        if (part.split, layer) not in self._tables:
            layers = tuple(dict.fromkeys(self.layer(head) for head in self.heads))
            for name, values in self.representation.tables(part, layers).items():
                self._tables[part.split, name] = values
        return self._tables[part.split, layer]


def run_anomaly_benchmark(
    suite: AnomalySuite, runs: Sequence[Path], workdir: Path, *, which: Which = "latest"
) -> AnomalyBenchmark:
    """Fit and measure every head and search of the suite; what is in `workdir` is not done again.

    Raises UserError if jets are fitted and measured, a run is not what it should be, or a number is not finite.
    """
    start = time.monotonic()
    cache = Cache(workdir / "cache")
    jets = Jets.of(suite)
    subjects = _subjects(suite, runs, jets, which)
    heads: list[HeadScore] = []
    sculpting: list[HeadSculpting] = []
    for subject in subjects:
        todo = [(head, background) for head in subject.heads for background in suite.background]
        with jet_progress(f"heads on {subject.name}", len(todo), unit="fits") as advance:
            for head, background in todo:
                scores = _scored(cache, subject, head, background, 0.0)
                heads += _head_scores(cache, subject, head, background, 0.0, scores)
                sculpting += _sculpting(subject, head, background, scores.arrays[background])
                advance(1)
        heads += _contaminated(cache, subject)
        subject._tables.clear()
    runs_seen = [s.representation for s in subjects if s.kind == "run" and isinstance(s.representation, Encoded)]
    searches, hunts = ([], []) if suite.events is None else search_events(suite, suite.events, runs_seen, cache)
    return AnomalyBenchmark(_facts(jets, runs_seen, start), heads, sculpting, searches, hunts)


def _subjects(suite: AnomalySuite, runs: Sequence[Path], jets: Jets, which: Which) -> list[Subject]:
    chosen = [head_called(name) for name in (suite.heads or HEADS)]
    on_features = tuple(head for head in chosen if head.sees == "features")
    few = tuple(head for head in on_features if head.name in suite.control_heads)
    by_hand = observables(suite.constituents)
    out, controls = [], dict[str, Subject]()
    for path, name in zip(runs, short_names(runs, {by_hand.name, CONSTITUENTS}), strict=True):
        trained, untrained = open_pair(path, which, name)
        out.append(Subject(trained, "run", on_features, jets))
        controls.setdefault(repr(sorted(untrained.identity.items())), Subject(untrained, "untrained", few, jets))
    out += controls.values()
    out.append(Subject(by_hand, "baseline", few, jets))
    seen = OnConstituents(CONSTITUENTS, suite.constituents)
    out.append(Subject(seen, "constituents", tuple(h for h in chosen if h.sees == "constituents"), jets))
    return [subject for subject in out if subject.heads]


def _scored(cache: Cache, subject: Subject, head: Head, background: str, contamination: float) -> Entry:
    """Scores of the test jets of every kind, by a head fitted on one background with so much of the second in it."""
    suite, jets, layer = subject.jets.suite, subject.jets, subject.layer(head)
    other = _contaminant(suite, background) if contamination else None
    fitted_on = [jets.keys[f"train {background}"]] + ([jets.keys[f"train {other}"]] if other else [])
    task = {
        "what": "anomaly scores",
        "representation": dict(subject.representation.identity),
        "layer": layer,
        "head": {"name": head.name, "settings": asdict(head)},  # type: ignore[call-overload]
        "fitted on": [*fitted_on, contamination, suite.train_jets, suite.seed],
        "measured on": {name: jets.keys[name] for name in suite.test},
    }

    def compute() -> Entry:
        start = time.monotonic()
        table = _mixed(subject, layer, background, other, contamination)
        detector = fit_head(head, table, f"{subject.name}, {background}", suite.seed)
        seconds = time.monotonic() - start
        scores = {
            name: scores_of(detector, as_inputs(subject.table(part, layer)), f"{name} jets")
            for name, part in jets.test.items()
        }
        width = table.shape[1] if isinstance(table, np.ndarray) else 0
        return Entry({"seconds": seconds, "width": width, "jets": len(table[0] if not width else table)}, scores)

    return cache.once(task, compute)


def _mixed(subject: Subject, layer: str, background: str, other: str | None, contamination: float) -> Any:
    """The fitted jets, of which the last are replaced by jets of another kind."""
    table = subject.table(subject.jets.train[background], layer)
    if other is None:
        return table
    strange = subject.table(subject.jets.train[other], layer)
    arrays = [table] if isinstance(table, np.ndarray) else list(table[:4])
    others = [strange] if isinstance(strange, np.ndarray) else list(strange[:4])
    replaced = min(round(contamination * len(arrays[0])), len(others[0]))
    mixed = [np.concatenate([a[: len(a) - replaced], b[:replaced]]) for a, b in zip(arrays, others, strict=True)]
    return mixed[0] if isinstance(table, np.ndarray) else type(table)(*mixed, *table[4:])


def _contaminant(suite: AnomalySuite, background: str) -> str:
    return next(name for name in suite.background if name != background)


def _contaminated(cache: Cache, subject: Subject) -> list[HeadScore]:
    """Heads on the first background with jets of the second among those that are fitted."""
    suite = subject.jets.suite
    if len(suite.background) < 2 or subject.kind not in ("run", "constituents"):
        return []
    background = next(iter(suite.background))
    heads = [head for head in subject.heads if head.name in suite.contaminated_heads]
    out = []
    with jet_progress(
        f"contaminated, on {subject.name}", len(heads) * len(suite.contamination), unit="fits"
    ) as advance:
        for head in heads:
            for share in suite.contamination:
                found = _head_scores(
                    cache, subject, head, background, share, _scored(cache, subject, head, background, share)
                )
                out += [score for score in found if score.signal == _contaminant(suite, background)]
                advance(1)
    return out


def _head_scores(
    cache: Cache, subject: Subject, head: Head, background: str, contamination: float, scored: Entry
) -> list[HeadScore]:
    suite, out = subject.jets.suite, []
    for signal in (name for one, name in suite.directions if one == background):
        pair = scored.arrays[background], scored.arrays[signal]

        def compute(pair: Any = pair) -> Entry:
            return Entry({name: asdict(value) for name, value in measured(pair[0], pair[1], suite.seed).items()}, {})

        task = {"what": "anomaly estimates", "scores": [_digest(x) for x in pair], "seed": suite.seed}
        kept = cache.once(task, compute).values
        out.append(
            HeadScore(
                subject.name,
                subject.kind,
                subject.layer(head),
                head.name,
                background,
                signal,
                contamination,
                scored.values["jets"],
                scored.values["width"],
                {name: Estimate(**value) for name, value in kept.items()},
                sic_curve(*pair),
                scored.values["seconds"],
            )
        )
    return out


def _sculpting(subject: Subject, head: Head, background: str, scores: np.ndarray) -> list[HeadSculpting]:
    """How the score depends on the jet mass of the background's test jets; nothing where all have the same."""
    part = subject.jets.test[background]
    if "jet_mass" not in part.columns:
        return []
    mass = part.column("jet_mass").astype(np.float64)
    cuts = tuple(eps for eps in SCULPTING_EPS_B if eps * len(mass) >= 1)
    if np.ptp(mass) == 0:
        return []
    found = mass_sculpting(scores, mass, eps_b=cuts)
    return [
        HeadSculpting(
            subject.name,
            subject.kind,
            head.name,
            background,
            found.distance_correlation,
            found.random_distance_correlation,
            cuts,
            floats(found.jsd),
            floats(found.random_jsd),
        )
    ]


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def _facts(jets: Jets, runs: Sequence[Encoded], start: float) -> Facts:
    suite = jets.suite
    roles = {f"fitted {name}": part for name, part in jets.train.items()}
    roles |= {f"measured {name}": part for name, part in jets.test.items()}
    data = {role: ", ".join(path.name for path in part.store.paths) for role, part in roles.items()}
    counts = {role: len(part.indices) for role, part in roles.items()}
    notes = []
    for run in runs:
        told = ", ".join(Path(path).name for path in run.config.data.train)
        notes.append(f"{run.name} was pretrained, without labels, on {told}.")
    return Facts(suite.name, __version__, data, counts, suite.seed, time.monotonic() - start, tuple(notes))
