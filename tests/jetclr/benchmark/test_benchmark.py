"""The benchmark as a whole, on toy jets: complete, repeatable, resumable, and blind to the test jets until the end."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jetclr.benchmark import panel as panels
from jetclr.benchmark.benchmark import run_benchmark
from jetclr.benchmark.fitting import fit_task
from jetclr.benchmark.jets import Development
from jetclr.benchmark.names import short_names
from jetclr.benchmark.results import Benchmark
from jetclr.benchmark.suite import Suite
from jetclr.cli import main
from jetclr.data.chunk import JetChunk
from jetclr.errors import UserError
from tests.conftest import CONFIG
from tests.jetclr.benchmark.conftest import noisy_chunk, write

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def theirs(run: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of all jets in a file."""
    out = tmp_path_factory.mktemp("theirs") / "theirs.h5"
    assert main(["embed", str(run), *(str(folder / name) for name in ("train", "val", "test")), str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def found(run: Path, theirs: Path, suite: Suite, workdir: Path) -> Benchmark:
    """A whole benchmark of one run and one file of embeddings."""
    return run_benchmark(suite, [run], [theirs], workdir)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the representations on which something is fitted while the test runs."""
    names: list[str] = []

    def recorded(task: Any, representation: Any, *rest: Any) -> Any:
        names.append(representation.name)
        return fit_task(task, representation, *rest)

    monkeypatch.setattr(panels, "fit_task", recorded)
    return names


BASELINES = {"raw constituents", "EFP d<=2"}


def test_every_part_is_there(found: Benchmark) -> None:
    names = {s.representation for s in found.scores}
    networks = {"PFN", "run fine-tuned", "run from scratch"}
    assert names == {"run", "run untrained", "theirs"} | BASELINES | networks
    layers = {s.layer for s in found.scores if s.representation == "run"}
    assert layers == {"layer_0", "layer_1", "embedding", "head_1", "projection"}
    probes = {s.probe for s in found.scores if s.representation == "run" and s.layer == "embedding"}
    assert probes == {"logistic", "LDA", "kNN", "MLP"}
    for representation in names:
        assert sum(s.chosen for s in found.scores if s.representation == representation) == 1
    assert ("run", "run untrained", "logistic") in {(c.a, c.b, c.probe) for c in found.comparisons}
    assert networks <= {c.b for c in found.comparisons}  # which have no layer to be named by
    for mine in ("run", "theirs"):
        against = [c.b for c in found.comparisons if c.a.startswith(mine)]
        assert all(any(b.startswith(other) for b in against) for other in names - {mine})
    assert {(e.labels, len(e.auc)) for e in found.efficiency} == {(160, 2), (260, 1)}
    assert {e.probe for e in found.efficiency} == {"logistic", "LDA", "fine-tuned", "from scratch"}
    assert {r.target for r in found.regression} == {"jet_mass", "jet_pt", "multiplicity"}
    assert {g.representation for g in found.geometry} == {"run", "run untrained"}
    changes = {"rotation", "translation", "splitting", "soft radiation", "boost"}
    assert {s.transform for s in found.similarity} == changes
    assert {r.shift for r in found.robustness} >= {"nominal", "pile-up", "detector smearing", "other"}
    assert {s.probe for s in found.sculpting} >= {"logistic", "logistic + DisCo"}
    assert {c.representation for c in found.calibration} == names
    assert {r.representation for r in found.robustness} == names - {"theirs"}


def test_the_same_embeddings_from_a_file_give_the_same_numbers(found: Benchmark) -> None:
    def aucs(name: str) -> list[float]:
        return [s.test["auc"].value for s in found.scores if s.representation == name and s.layer == "embedding"]

    np.testing.assert_allclose(aucs("run"), aucs("theirs"), atol=1e-6)


def test_the_untrained_and_the_trained_encoder_differ(found: Benchmark) -> None:
    compared = [c for c in found.comparisons if c.a == "run" and c.b == "run untrained"]
    assert {c.probe for c in compared} >= {"logistic", "LDA"}
    assert all(c.auc.value != 0 for c in compared)


def without_time(benchmark: Benchmark) -> dict[str, Any]:
    values = dataclasses.asdict(benchmark)
    values["facts"].pop("seconds")
    return values


def test_the_same_again_computes_nothing(
    found: Benchmark, run: Path, theirs: Path, suite: Suite, workdir: Path, fits: list[str]
) -> None:
    again = run_benchmark(suite, [run], [theirs], workdir)
    assert fits == []
    assert without_time(again) == without_time(found)


@pytest.fixture(scope="module")
def second(run: Path, stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run like the first, with another seed."""
    out = tmp_path_factory.mktemp("second") / "again"
    data = ["--data.train", str(stores["train"])]
    assert main(["pretrain", str(CONFIG), "--workdir", str(out), "--seed", "7", *data]) == 0
    return out


def test_one_more_run_costs_only_that_run(
    found: Benchmark, run: Path, second: Path, suite: Suite, workdir: Path, fits: list[str]
) -> None:
    both = run_benchmark(dataclasses.replace(suite, label_counts=()), [run, second], [], workdir)
    assert set(fits) == {"again", "again untrained", "again fine-tuned"}  # from scratch it is the same network
    kept = {(s.representation, s.layer, s.probe): s.test["auc"] for s in found.scores}
    again = {(s.representation, s.layer, s.probe): s.test["auc"] for s in both.scores}
    assert all(again[key] == auc for key, auc in kept.items() if key[0] != "theirs")
    assert {(seeds.runs, seeds.probe) for seeds in both.seeds} == {(("run", "again"), p) for p in ("logistic", "LDA")}
    assert found.seeds == []


def test_other_shifted_jets_cost_only_what_is_measured_on_them(
    found: Benchmark, small: Suite, run: Path, theirs: Path, workdir: Path, fits: list[str]
) -> None:
    run_benchmark(dataclasses.replace(small, shifted={}), [run], [theirs], workdir)
    assert sorted(fits) == ["raw constituents", "run", "run untrained"]  # the logistic probe of each


@pytest.fixture(scope="module")
def small(suite: Suite) -> Suite:
    """What is quick of the suite."""
    return dataclasses.replace(
        suite,
        probes=("logistic", "LDA"),
        baselines=("raw constituents",),
        taggers=(),
        label_counts=(),
        finetune=False,
        regress=("jet_mass",),
        disco=0,
    )


def test_an_interrupted_benchmark_goes_on_where_it_stopped(
    found: Benchmark,
    small: Suite,
    run: Path,
    theirs: Path,
    workdir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def interrupted(task: Any, representation: Any, *rest: Any) -> Any:
        calls.append(representation.name)
        if calls.count("theirs") > 1:
            raise KeyboardInterrupt
        return fit_task(task, representation, *rest)

    monkeypatch.setattr(panels, "fit_task", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(small, [run], [theirs], tmp_path)
    assert set(calls) == {"run", "run untrained", "theirs"}
    calls.clear()
    monkeypatch.setattr(panels, "fit_task", lambda task, r, *rest: calls.append(r.name) or fit_task(task, r, *rest))
    resumed = without_time(run_benchmark(small, [run], [theirs], tmp_path))
    assert set(calls) == {"theirs", "raw constituents"}
    whole = without_time(run_benchmark(small, [run], [theirs], workdir))
    for one in (resumed, whole):  # neither times nor how often it was looked are results
        one["facts"].pop("test_looks")
        for score in one["scores"]:
            score.pop("seconds")
    assert resumed == whole


def test_the_test_jets_choose_nothing(found: Benchmark, run: Path, suite: Suite, tmp_path: Path) -> None:
    """With the labels of the test jets dealt anew, everything is fitted and chosen as before."""
    chunk = noisy_chunk(102, 400)
    label = np.random.default_rng(5).permutation(chunk.jets["label"])
    dealt = write(tmp_path / "test", JetChunk(chunk.offsets, chunk.constituents, chunk.jets | {"label": label}))
    same = dataclasses.replace(suite, test=(str(dealt),), shifted={}, label_counts=(), regress=(), disco=0)
    blind = run_benchmark(same, [run], [], tmp_path / "work")
    before = {(s.representation, s.layer, s.probe): s for s in found.scores}
    for score in blind.scores:
        old = before[score.representation, score.layer, score.probe]
        assert (score.validation_auc, score.chosen, score.settings) == (old.validation_auc, old.chosen, old.settings)
    assert all(abs(s.test["auc"].value - 0.5) < 0.12 for s in blind.scores)
    scaled = {c.representation: c.temperature for c in found.calibration}
    assert all(scaled[c.representation] == c.temperature for c in blind.calibration)


def test_what_fits_is_not_told_where_the_test_jets_lie(
    small: Suite, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*given: Any) -> Any:
        told = repr([one for one in given if isinstance(one, Suite | Development)])
        assert small.train[0] in told
        assert small.test[0] not in told
        assert small.shifted["other"][0] not in told
        raise KeyboardInterrupt

    monkeypatch.setattr(panels, "fit_task", look)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(small, [run], [], tmp_path)


def test_the_command_writes_everything(
    found: Benchmark, small: Suite, run: Path, workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {f.name: getattr(small, f.name) for f in dataclasses.fields(small)}
    file = tmp_path / "suite.py"
    file.write_text(f"from jetclr.benchmark.suite import Suite\nsuite = Suite(**{settings!r})\n")
    command = ["benchmark", str(run), "--suite", str(file), "--workdir", str(workdir)]
    assert main(command) == 0
    assert "run untrained" in capsys.readouterr().out
    written = {path.name for path in workdir.iterdir()}
    assert written >= {"results.json", "results.md", "results.tex", "report.html", "figures", "cache"}
    assert json.loads((workdir / "results.json").read_text())["facts"]["suite"] == "toy"


def test_mistakes_end_in_a_sentence(
    run: Path, suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "--suite", "toptag"]) == 1
    assert "needs a run" in capsys.readouterr().err
    with pytest.raises(UserError, match="named twice"):
        run_benchmark(suite, [run, run], [], tmp_path)
    with pytest.raises(UserError, match="gone"):
        run_benchmark(suite, [tmp_path / "gone"], [], tmp_path)


def test_too_few_labels_of_a_class_are_told_before_anything_is_fitted(
    suite: Suite, tmp_path: Path, fits: list[str]
) -> None:
    chunk = noisy_chunk(9, 400)
    rare = (np.arange(400) % 40 == 0).astype(np.int32)
    train = write(tmp_path / "train", JetChunk(chunk.offsets, chunk.constituents, chunk.jets | {"label": rare}))
    with pytest.raises(UserError, match="label counts of suite 'toy': 60 labelled jets leave 1 of class 1"):
        run_benchmark(dataclasses.replace(suite, train=(str(train),), label_counts=(60,)), [], [], tmp_path / "work")
    assert fits == []


def test_names_tell_all_representations_apart() -> None:
    runs = [Path("/x/a/transformer"), Path("/x/b/mine")]
    assert short_names(runs, set()) == ["transformer", "mine"]
    assert short_names(runs, {"transformer", "PFN"}) == ["a/transformer", "b/mine"]
    assert short_names([Path("/x/a/mine"), Path("/x/b/mine")], set()) == ["a/mine", "b/mine"]
    assert short_names([Path("/x/a/mine"), Path("/x/b/mine untrained")], set()) == ["a/mine", "b/mine untrained"]
