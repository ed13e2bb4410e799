"""Suites: what they compare, where their jets come from, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from jetclr.benchmark.suite import Suite, changed, find_suite, suite_from_file
from jetclr.cli import main
from jetclr.data.store import Store
from jetclr.errors import UserError


@pytest.mark.parametrize("name", ["toptag", "qg", "jetclass"])
def test_named_suites_find_their_stores(name: str, folder: Path, tmp_path: Path) -> None:
    suite = find_suite(name, folder, tmp_path)
    assert (suite.name, suite.train, suite.validation, suite.test) == (
        name,
        *((str(folder / split),) for split in ("train", "val", "test")),
    )
    assert suite.many == (name == "jetclass")


def test_validation_may_be_spelled_out(folder: Path, tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        shutil.copytree(folder / name, tmp_path / {"val": "validation"}.get(name, name))
    assert find_suite("toptag", tmp_path, tmp_path).validation == (str(tmp_path / "validation"),)


def public_files(folder: Path, jets: int = 30) -> Path:
    """Files of the top-tagging reference layout."""
    folder.mkdir()
    for seed, name in enumerate(("train", "val", "test")):
        rng = np.random.default_rng(seed)
        momenta = np.zeros((jets, 200, 4), np.float32)
        p = rng.normal(0, 30, (jets, 5, 3)) + np.array([300.0, 0, 0])
        momenta[:, :5] = np.concatenate([np.linalg.norm(p, axis=2, keepdims=True), p], axis=2)
        with h5py.File(folder / f"{name}.h5", "w") as file:
            group = file.create_group("table")
            kind = np.dtype([("index", "i8"), ("values_block_0", "f4", (804,)), ("values_block_1", "i8", (2,))])
            rows = np.zeros(jets, kind)
            rows["values_block_0"][:, :800] = momenta.reshape(jets, 800)
            rows["values_block_1"][:, 1] = np.arange(jets) % 2
            group.create_dataset("table", data=rows)
    return folder


def test_public_files_are_converted_once(tmp_path: Path) -> None:
    data, scratch = public_files(tmp_path / "data"), tmp_path / "scratch"
    suite = find_suite("toptag", data, scratch)
    assert suite.test == (str(scratch / "test"),)
    assert len(Store(scratch / "test")) == 30
    made = (scratch / "test" / "metadata.json").stat().st_mtime_ns
    assert find_suite("toptag", data, scratch) == suite
    assert (scratch / "test" / "metadata.json").stat().st_mtime_ns == made


def test_a_converted_store_of_another_file_is_not_taken(tmp_path: Path) -> None:
    find_suite("toptag", public_files(tmp_path / "data"), tmp_path / "scratch")
    other = public_files(tmp_path / "other", jets=40)
    with pytest.raises(UserError, match="was made from another file"):
        find_suite("toptag", other, tmp_path / "scratch")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no suite 'tops'; known are toptag, qg, jetclass"):
        find_suite("tops", tmp_path, tmp_path)
    with pytest.raises(UserError, match="there is no data folder"):
        find_suite("toptag", tmp_path / "gone", tmp_path)
    with pytest.raises(UserError, match="neither a store train"):
        find_suite("toptag", tmp_path, tmp_path)
    with pytest.raises(UserError, match="there is no suite file"):
        suite_from_file(Path("gone.py"))


def suite_file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_suite_file(tmp_path: Path) -> None:
    text = "from jetclr.benchmark.suite import Suite\nsuite = Suite('mine', ('a',), ('b',), ('c',), draws=2)"
    assert suite_from_file(suite_file(tmp_path / "s.py", text)) == Suite("mine", ("a",), ("b",), ("c",), draws=2)


def test_a_suite_file_names_its_stores_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "run", "--suite", "s.py", "--data", str(tmp_path)]) == 1
    assert "names its stores itself" in capsys.readouterr().err


ABC = "suite = Suite('m', ('a',), ('b',), ('c',)"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", "must set `suite = Suite"),
        ("1/0", "line 2: ZeroDivisionError"),
        ("suite = Suite('m', (), ('b',), ('c',))", "Suite.train names no store"),
        (ABC + ", efp_edges=9)", "from 1 to 7"),
        (ABC + ", seed=-1)", "must not be negative"),
        (ABC + ", label_counts=(3,))", "must be a whole number, at least 20"),
    ],
)
def test_bad_suite_files_end_in_a_sentence(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        suite_from_file(suite_file(tmp_path / "s.py", f"from jetclr.benchmark.suite import Suite\n{text}"))


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("train", "stores/a", r"Suite.train is 'stores/a'; it must be a tuple of stores, such as \('stores/a',\)"),
        ("shifted", {"tune": "d"}, r"Suite.shifted\['tune'\] is 'd'; it must be a tuple"),
        ("shifted", {"tune": ()}, r"Suite.shifted\['tune'\] names no store"),
        ("probes", ("SVM",), "Suite.probes has 'SVM'; known are logistic, LDA, kNN, MLP"),
        ("taggers", ("GNN",), "Suite.taggers has 'GNN'; known are PFN"),
        ("label_counts", (20.5,), "must be a whole number, at least 20"),
    ],
)
def test_values_of_another_type_are_told(suite: Suite, setting: str, value: object, told: str) -> None:
    wrong = replace(suite)
    object.__setattr__(wrong, setting, value)  # past the check of types, which only tests have
    with pytest.raises(ValueError, match=told):
        wrong.__post_init__()


def test_what_the_command_line_changes(suite: Suite) -> None:
    assert changed(suite) == suite
    assert changed(suite, taggers=("none",), baselines=("efp", "raw-constituents")).taggers == ()
    assert changed(suite, baselines=("efp", "raw-constituents")).baselines == ("EFP", "raw constituents")
    assert changed(suite, shifted=("tune=a", "tune=b")).shifted["tune"] == ("a", "b")
    with pytest.raises(UserError, match="--taggers has 'GNN'; known are none, PFN"):
        changed(suite, taggers=("GNN",))
    with pytest.raises(UserError, match="it must be NAME=STORE"):
        changed(suite, shifted=("tune",))
    with pytest.raises(UserError, match="at least 20"):
        changed(suite, label_counts=(3,))
