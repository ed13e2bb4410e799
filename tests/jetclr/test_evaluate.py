import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from jetclr import evaluate, step
from jetclr.cli import main
from jetclr.data.chunk import join_chunks
from jetclr.data.store import Store, StoreWriter
from jetclr.embed import embed_jets
from jetclr.run import open_run
from tests.conftest import write_toy_store


@pytest.fixture(scope="module")
def probed(run: Path, stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `jetclr probe --json` writes for the session's run."""
    out = tmp_path_factory.mktemp("probe") / "probe.json"
    command = ["probe", str(run), "--train", str(stores["fit"]), "--test", str(stores["test"]), "--json", str(out)]
    assert main(command) == 0
    return out


def test_every_layer_stands_beside_both_controls(probed: Path) -> None:
    results = json.loads(probed.read_text())["results"]
    layers = ["layer_0", "layer_1", "embedding", "head_1", "projection"]
    expected = [f"{state} {layer}" for state in ("trained", "untrained") for layer in layers]
    assert list(results) == [*expected, "raw constituents"]
    for by_probe in results.values():
        assert list(by_probe) == ["logistic", "LDA"]
        for result in by_probe.values():
            for name in ("auc", "accuracy", "r30", "r50"):
                estimate = result[name]
                assert estimate["is_lower_bound"] or estimate["low"] <= estimate["value"]
                assert estimate["high"] is None or estimate["value"] <= estimate["high"]
    assert json.loads(probed.read_text())["trained_minus_untrained"]["logistic"]["auc_p_value"] <= 1


def test_the_table_agrees_with_scikit_learn(probed: Path, run: Path, stores: dict[str, Path]) -> None:
    found = json.loads(probed.read_text())["results"]["trained embedding"]["logistic"]
    opened = open_run(run)
    (x, y), (x_test, y_test) = (
        (embed_jets(opened.config, opened.params, s, np.arange(300), ("embedding",))["embedding"], s.column("label"))
        for s in (Store(stores["fit"]), Store(stores["test"]))
    )
    scaler = StandardScaler().fit(x)
    reference = LogisticRegression(C=1 / found["l2"], tol=1e-8, max_iter=2000).fit(scaler.transform(x), y)
    scores = reference.decision_function(scaler.transform(x_test))
    np.testing.assert_allclose(found["auc"]["value"], roc_auc_score(y_test, scores), atol=2e-3)
    np.testing.assert_allclose(found["accuracy"]["value"], ((scores > 0) == y_test).mean(), atol=1e-2)


def test_the_untrained_control_is_the_same_network_before_its_first_step(run: Path, stores: dict[str, Path]) -> None:
    opened = open_run(run)
    sets = [("trained", "embedding"), ("untrained", "embedding")]
    store = Store(stores["fit"])
    found = dict(evaluate._features(opened, sets, [store, store]))
    before = step.init_params(opened.config)
    expected = embed_jets(opened.config, before, store, np.arange(300), ("embedding",))["embedding"]
    np.testing.assert_array_equal(found["untrained embedding"][0], expected)
    assert np.abs(found["trained embedding"][0] - expected).max() > 1e-3


def test_toy_prongs_are_told_apart(probed: Path) -> None:
    """One prong against three: any sensible representation sees it, so the whole chain must."""
    results = json.loads(probed.read_text())["results"]
    assert results["trained embedding"]["logistic"]["auc"]["value"] > 0.95


def test_measuring_on_jets_that_were_fitted_or_pretrained_on_is_called_out(
    run: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate._warn_of_overlap(open_run(run), [stores["fit"]], [stores["test"]])
    assert capsys.readouterr().err == ""
    evaluate._warn_of_overlap(open_run(run), [stores["train"]], [stores["train"]])
    said = capsys.readouterr().err
    assert "the probes are fitted on the test jets of train; do not quote" in said
    assert "the encoder was pretrained on the test jets of train; do not quote" in said


def test_stores_without_two_labels_are_refused(
    run: Path, stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chunk = join_chunks(list(Store(write_toy_store(tmp_path / "s", 20, 0)).chunks()))
    broken = np.where(np.arange(20) == 3, np.nan, chunk.jets["label"]).astype(np.float32)
    for name, label in (("none", None), ("ones", np.ones(20, np.int32)), ("broken", broken)):
        jets = {k: v for k, v in chunk.jets.items() if k != "label"} | ({} if label is None else {"label": label})
        with StoreWriter(tmp_path / name, {}) as writer:
            writer.append_sound(chunk._replace(jets=jets))
    command = ["probe", str(run), "--test", str(stores["test"]), "--train"]
    assert main([*command, str(tmp_path / "none")]) == 1
    assert "has no labels; a probe needs a column 'label'" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "ones")]) == 1
    assert "are signal; a probe needs both" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "broken")]) == 1
    assert "jet 3 of Store(" in capsys.readouterr().err


def test_an_existing_json_is_kept_unless_asked(
    probed: Path, run: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = probed.read_bytes()
    command = ["probe", str(run), "--train", str(stores["fit"]), "--test", str(stores["test"]), "--json", str(probed)]
    assert main(command) == 1
    assert "already exists" in capsys.readouterr().err
    assert probed.read_bytes() == before


def test_the_report_is_one_self_contained_page(
    probed: Path, run: Path, stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    command = ["report", str(run), "--data", str(stores["test"]), "--probe", str(probed), "--out", str(out)]
    assert main(command) == 0
    page = out.read_text()
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", page)
    assert "<script" not in page
    for heading in ("What the frozen representation is worth", "Training", "The jets", "Settings"):
        assert heading in page
    assert page.count("<figure") == 5  # ROC, training, similarity, projection, histograms
    assert main(command) == 1
    assert "already exists" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_a_report_without_probe_results_leaves_them_out(run: Path, stores: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    assert main(["report", str(run), "--data", str(stores["test"]), "--out", str(out)]) == 0
    assert out.read_text().count("<figure") == 4


def test_a_foreign_json_is_not_taken_for_probe_results(
    run: Path, stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.json").write_text('{"results": {"a": {"b": {}}}}')
    command = ["report", str(run), "--data", str(stores["test"]), "--out", str(tmp_path / "r.html")]
    assert main([*command, "--probe", str(tmp_path / "p.json")]) == 1
    assert "was not written by jetclr probe --json" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()
