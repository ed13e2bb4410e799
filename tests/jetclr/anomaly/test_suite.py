"""Anomaly suites: where their jets come from, and what is refused."""

from pathlib import Path

import pytest
from jaxtyping import TypeCheckError

from jetclr.anomaly.suite import AnomalySuite, Events, find_anomaly_suite
from jetclr.benchmark.suite import Suite, suite_from_file
from jetclr.cli import main
from jetclr.errors import UserError
from tests.conftest import write_toy_store
from tests.jetclr.anomaly.kinds import write_kind


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("anomaly")
    for name, label in (("top-train", 1), ("qcd-train", 0), ("qcd-test", 0), ("top-test", 1)):
        write_kind(folder / name, label, 10, len(name))
    write_kind(folder / "dijet-train", 0, 10, 3)
    return folder


def test_kinds_are_called_as_their_stores_label_them_and_qcd_comes_first(folder: Path) -> None:
    suite = find_anomaly_suite(folder)
    assert list(suite.background) == ["QCD", "top"]
    assert suite.test == {"QCD": (str(folder / "qcd-test"),), "top": (str(folder / "top-test"),)}
    assert suite.directions == [("QCD", "top"), ("top", "QCD")]
    assert suite.events is None


def test_events_are_found_where_both_stores_are(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for name in ("dijet-background", "dijet-signal"):
        (tmp_path / name).symlink_to(folder / "dijet-train")
    events = find_anomaly_suite(tmp_path).events
    assert events is not None
    assert events.signal == (str(tmp_path / "dijet-signal"),)


def test_what_is_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no data folder"):
        find_anomaly_suite(tmp_path / "gone")
    with pytest.raises(UserError, match="holds no stores"):
        find_anomaly_suite(tmp_path)
    (tmp_path / "qcd-train").symlink_to(folder / "qcd-train")
    (tmp_path / "top-test").symlink_to(folder / "top-test")
    with pytest.raises(UserError, match="NAME-test of each of them"):
        find_anomaly_suite(tmp_path)
    write_toy_store(tmp_path / "mixed-test", 20, 1)
    with pytest.raises(UserError, match="holds 2 labels"):
        find_anomaly_suite(tmp_path)


TWO = {"QCD": ("a",)}, {"QCD": ("b",), "top": ("c",)}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"background": {"W": ("a",)}}, "test jets of each"),
        ({"test": {"QCD": "b", "top": ("c",)}}, "tuples of paths"),
        ({"train_jets": 0}, "must be positive"),
        ({"contamination": (0.0,)}, "shares lie in"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], told: str) -> None:
    # Where shapes are checked at run time, that check may come first.
    with pytest.raises((ValueError, TypeCheckError), match=f"{told}|Type-check error"):
        AnomalySuite(**{"name": "m", "background": TWO[0], "test": TWO[1]} | settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"signal_region": (2000.0, 3700.0)}, "both sides of the signal region"),
        ({"main": 0.3}, "hold main"),
        ({"held_out": 1.0}, "held_out"),
        ({"seeds": 0}, "positive"),
    ],
)
def test_events_that_cannot_be(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Events(("a",), ("b",), **settings)  # type: ignore[arg-type]


def test_a_suite_file_may_be_of_either_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.py"
    path.write_text(
        "from jetclr.anomaly.suite import AnomalySuite\n"
        "suite = AnomalySuite('mine', {'QCD': ('a',)}, {'QCD': ('b',), 'top': ('c',)})"
    )
    assert suite_from_file(path, (Suite, AnomalySuite)).name == "mine"
    assert main(["benchmark", "run", "--suite", str(path), "--taggers", "PFN"]) == 1
    assert "it takes --heads" in capsys.readouterr().err
    assert main(["benchmark", "run", "--suite", "toptag", "--heads", "kNN", "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err
