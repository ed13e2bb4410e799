"""A benchmark of three classes as a whole."""

import json
from pathlib import Path

import numpy as np
import pytest

from jetclr.benchmark.benchmark import run_benchmark
from jetclr.benchmark.results import Benchmark
from jetclr.benchmark.suite import Suite
from jetclr.benchmark.writing import write_results
from jetclr.data.chunk import JetChunk
from tests.jetclr.benchmark.conftest import noisy_chunk, write


def three_classes(path: Path, seed: int, jets: int) -> Path:
    """One prong or three, and of those with three prongs a third class whose constituents are softer by half."""
    chunk = noisy_chunk(seed, jets)
    rng = np.random.default_rng(seed)
    label = np.where((chunk.jets["label"] == 1) & (rng.uniform(size=jets) < 0.5), 2, chunk.jets["label"])
    softer = np.repeat(label == 2, np.diff(chunk.offsets))
    pt = np.where(softer, chunk.constituents["pt"] / 2, chunk.constituents["pt"]).astype(np.float32)
    made = JetChunk(chunk.offsets, chunk.constituents | {"pt": pt}, chunk.jets | {"label": label.astype(np.int32)})
    return write(path, made)


@pytest.fixture(scope="module")
def found(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    folder = tmp_path_factory.mktemp("three")
    stores = [(str(three_classes(folder / name, seed, 240)),) for seed, name in enumerate(("train", "val", "test"))]
    suite = Suite(
        "three",
        *stores,
        many=True,
        constituents=16,
        label_counts=(160,),
        draws=1,
        probes=("logistic", "LDA", "kNN"),
        baselines=("observables",),
        taggers=(),
        finetune=False,
        regress=("jet_mass", "typo"),
    )
    return run_benchmark(suite, [run], [], folder / "work")


def test_every_predictor_is_measured_in_every_class(found: Benchmark) -> None:
    assert found.facts.classes == ("QCD", "top", "label 2")
    names = {"run", "run untrained", "mass, multiplicity, N-subjettiness"}
    assert {s.representation for s in found.scores} == names
    probes = {s.probe for s in found.scores if s.representation == "run" and s.layer == "embedding"}
    assert probes == {"logistic", "LDA", "kNN"}
    for score in found.scores:
        assert set(score.test) == {"auc", "accuracy", "r50 top", "r50 label 2"}
        assert 0 < score.test["auc"].value < 1
    by_hand = [s for s in found.scores if s.kind == "baseline" and s.probe == "logistic"]
    assert by_hand[0].test["auc"].value > 0.75


def test_other_studies_follow_or_say_that_they_do_not(found: Benchmark) -> None:
    assert {(e.labels, len(e.auc), len(e.r50)) for e in found.efficiency} == {(160, 1, 0), (240, 1, 0)}
    for entry in found.efficiency:
        assert entry.auc_interval.low < entry.auc[0] < entry.auc_interval.high
    assert {r.target for r in found.regression} == {"jet_mass"}
    assert {c.representation for c in found.calibration} == {s.representation for s in found.scores}
    assert {g.representation for g in found.geometry} == {"run", "run untrained"}
    assert found.comparisons == found.robustness == found.sculpting == []
    told = " ".join(found.facts.notes)
    assert "typo is not regressed" in told
    assert "measured for two classes only" in told


def test_its_files_are_written(found: Benchmark, tmp_path: Path) -> None:
    write_results(found, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["facts"]["classes"] == ["QCD", "top", "label 2"]
    assert "label 2" in (tmp_path / "report.html").read_text()
