"""The anomaly benchmark from stores to page, on toy jets and toy dijets."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jetclr.anomaly import benchmark as benchmarks
from jetclr.anomaly import searching
from jetclr.anomaly.benchmark import run_anomaly_benchmark
from jetclr.anomaly.events import mix, open_sample
from jetclr.anomaly.results import AnomalyBenchmark
from jetclr.anomaly.suite import AnomalySuite, Events
from jetclr.anomaly.tables import sentences, tables
from jetclr.anomaly.writing import write_anomaly_results
from jetclr.benchmark.files import from_json
from jetclr.data.store import StoreWriter
from jetclr.errors import UserError
from probes.anomaly.search import Cwola, Idealised, Regions
from probes.anomaly.search.classifier import Trees
from tests.jetclr.anomaly.kinds import chosen, write_kind
from tests.toys import toy_chunk

REGIONS = Regions(3300.0, 3700.0, 2800.0, 4500.0)
TREES = Trees(members=1, trees=5)


def write_dijets(path: Path, events: int, seed: int, *, signal: bool) -> Path:
    """Toy events of two neighbouring jets: background falls with the mass, signal is three-pronged at 3.5 TeV."""
    rng = np.random.default_rng(seed)
    mass = rng.normal(3500, 60, events) if signal else 2800 + rng.exponential(500, events)
    chunk = toy_chunk(rng, 4 * events)
    jets = chosen(chunk, np.flatnonzero(chunk.jets["label"] == signal)[: 2 * events])
    columns = {
        "jet_index": np.tile([0, 1], events).astype(np.int8),
        "dijet_mass": np.repeat(mass, 2).astype(np.float32),
        "label": np.full(2 * events, 6 * signal, np.int32),
    }
    with StoreWriter(path, {"labels": {"0": "QCD", "6": "resonance"}}) as writer:
        writer.append(jets._replace(jets=jets.jets | columns))
    return path


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> AnomalySuite:
    folder = tmp_path_factory.mktemp("suite")
    background, test = (
        {
            name: (str(write_kind(folder / f"{name}-{part}", label, jets, 10 * seed + label)),)
            for label, name in enumerate(("QCD", "top"))
        }
        for seed, (part, jets) in enumerate((("train", 150), ("test", 100)))
    )
    events = Events(
        (str(write_dijets(folder / "background", 900, 31, signal=False)),),
        (str(write_dijets(folder / "signal", 200, 32, signal=True)),),
        fractions=(0.02, 0.1),
        main=0.1,
        seeds=2,
        kept=(0.2,),
    )
    return AnomalySuite(
        "toy",
        background,
        test,
        train_jets=140,
        constituents=12,
        heads=("Mahalanobis", "kNN"),
        control_heads=("kNN",),
        contamination=(0.05,),
        contaminated_heads=("Mahalanobis",),
        events=events,
    )


@pytest.fixture(scope="module")
def few_searches() -> object:
    """Flows take a minute to compile."""
    with pytest.MonkeyPatch.context() as patch:
        kinds = {kind.name: lambda kind=kind: kind(TREES, folds=2) for kind in (Cwola, Idealised)}
        patch.setattr(searching, "SEARCHES", {"CWoLa": kinds["CWoLa"]})
        patch.setattr(searching, "REFERENCES", {Idealised.name: kinds[Idealised.name]})
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def found(suite: AnomalySuite, run: Path, workdir: Path, few_searches: object) -> AnomalyBenchmark:
    return run_anomaly_benchmark(suite, [run], workdir)


def test_every_head_is_measured_in_both_directions_beside_its_controls(found: AnomalyBenchmark) -> None:
    rows = {(s.kind, s.head, s.background, s.signal) for s in found.heads if not s.contamination}
    both = [("QCD", "top"), ("top", "QCD")]
    expected = {("run", head, *d) for head in ("Mahalanobis", "kNN") for d in both}
    expected |= {(kind, "kNN", *d) for kind in ("untrained", "baseline") for d in both}
    assert rows == expected
    mixed = [s for s in found.heads if s.contamination]
    assert [(s.kind, s.head, s.background, s.signal, s.contamination) for s in mixed] == [
        ("run", "Mahalanobis", "QCD", "top", 0.05)
    ]
    assert all(s.jets == 140 for s in found.heads)
    for s in found.heads:
        assert s.test["auc"].low <= s.test["auc"].value <= s.test["auc"].high
        assert set(s.test) == {"auc", "r30", "r50", "max_sic"}


def test_signal_among_the_fitted_jets_makes_a_head_blind_to_it(found: AnomalyBenchmark) -> None:
    """Seven of 140 jets are three-pronged: their spread is then usual."""
    clean, mixed = (
        next(s.test["auc"].value for s in found.heads if s.head == "Mahalanobis" and s.contamination == share)
        for share in (0.0, 0.05)
    )
    assert mixed < clean


def test_searches_and_hunts_are_there(found: AnomalyBenchmark, suite: AnomalySuite) -> None:
    assert suite.events is not None
    seen = {(s.search, s.features.split(" ")[-1], s.fraction, len(s.max_sic)) for s in found.searches}
    for features in ("tau21", "embedding"):
        assert {("CWoLa", features, 0.02, 1), ("CWoLa", features, 0.1, 2), ("idealised", features, 0.1, 2)} <= seen
    assert {h.fraction for h in found.hunts} == {0.0, 0.1}
    for h in found.hunts:
        assert h.events == sum(h.counts)
        assert 0 < h.global_p.value <= 1
        assert (h.region.low, h.region.high) == suite.events.signal_region


def test_what_was_computed_is_not_computed_again(
    found: AnomalyBenchmark, suite: AnomalySuite, run: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks, "fit_head", None)
    for kind in (Cwola, Idealised):
        monkeypatch.setattr(kind, "fit", None)
    again = run_anomaly_benchmark(suite, [run], workdir)
    assert again.heads == found.heads
    assert again.hunts == found.hunts


def test_files_and_page(found: AnomalyBenchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_anomaly_results(found, tmp_path)
    said = capsys.readouterr().out
    assert "QCD → top" in said
    assert from_json(AnomalyBenchmark, (tmp_path / "results.json").read_text(), "results.json") == found
    assert json.loads((tmp_path / "results.json").read_text())["facts"]["suite"] == "toy"
    for name in ("heads", "sic_0", "sic_1", "contamination", "injection", "hunts"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 1000
    page = (tmp_path / "report.html").read_text()
    for table in tables(found).values():
        assert table.caption[:20] in page
    assert sentences(found)[0].startswith("QCD → top: the highest AUC is")


def test_a_suite_without_events_makes_no_searches(suite: AnomalySuite, run: Path, workdir: Path) -> None:
    found = run_anomaly_benchmark(replace(suite, events=None), [run], workdir)
    assert found.searches == []
    assert "searches" not in tables(found)


def test_jets_that_are_fitted_and_measured_are_refused(suite: AnomalySuite, run: Path, tmp_path: Path) -> None:
    leaky = replace(suite, test={**suite.test, "top": suite.background["top"]})
    with pytest.raises(UserError, match="are both"):
        run_anomaly_benchmark(leaky, [run], tmp_path)


def test_no_event_is_searched_and_measured(suite: AnomalySuite) -> None:
    events = suite.events
    assert events is not None
    background, signal = (open_sample(paths, REGIONS) for paths in (events.background, events.signal))
    mixed = mix(events, REGIONS, background.mass, signal.mass, 0.1, seed=1)
    parts = [mixed.background, mixed.other_background, mixed.test_background]
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))
    assert not set(mixed.signal) & set(mixed.test_signal)
    inside = np.count_nonzero(REGIONS.signal(background.mass[mixed.background]))
    assert np.count_nonzero(REGIONS.signal(signal.mass[mixed.signal])) == round(0.1 * inside)
    other = mix(events, REGIONS, background.mass, signal.mass, 0.1, seed=2)
    np.testing.assert_array_equal(mixed.background, other.background)
    assert not np.array_equal(mixed.signal, other.signal)
    with pytest.raises(UserError, match="generate more"):
        mix(events, REGIONS, background.mass, signal.mass[:10], 0.9, seed=1)


def test_the_heavier_jet_comes_first_and_pairs_stay_together(suite: AnomalySuite) -> None:
    assert suite.events is not None
    sample = open_sample(suite.events.background, REGIONS)
    mass, dijet = sample.store.column("jet_mass"), sample.store.column("dijet_mass")
    assert (mass[sample.first] >= mass[sample.second]).all()
    assert (np.abs(sample.first - sample.second) == 1).all()
    np.testing.assert_array_equal(dijet[sample.first], dijet[sample.second])
    rows = np.arange(0, len(sample.mass), 7)
    pairs = sample.pairs(lambda part: part.column("jet_mass")[:, None], rows)
    np.testing.assert_array_equal(pairs[:, 0, 0], mass[sample.first[rows]])
    np.testing.assert_array_equal(pairs[:, 1, 0], mass[sample.second[rows]])


def test_stores_that_hold_no_dijets_are_refused(suite: AnomalySuite) -> None:
    with pytest.raises(UserError, match=r"lacks .*dijet_mass"):
        open_sample(suite.background["QCD"], REGIONS)
