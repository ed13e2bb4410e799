"""A suite that leaks is refused, with the reason."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jetclr.benchmark import leaks
from jetclr.benchmark.benchmark import run_benchmark
from jetclr.benchmark.jets import Part
from jetclr.benchmark.suite import Suite
from jetclr.data.chunk import JetChunk, join_chunks
from jetclr.data.store import Store
from jetclr.errors import UserError
from tests.jetclr.benchmark.conftest import noisy_chunk, write


def paths(folder: Path, *names: str) -> dict[str, tuple[str, ...]]:
    return {name: (str(folder / name),) for name in names}


def test_clean_splits_pass(folder: Path) -> None:
    assert leaks.refuse_shared_jets(paths(folder, "train", "val", "test", "other"), {}) == []


@pytest.mark.parametrize(("shared", "fitted", "measured"), [(1, "train", "test"), (50, "validation", "other tune")])
def test_the_same_jets_in_two_splits_are_refused(
    folder: Path, tmp_path: Path, shared: int, fitted: str, measured: str
) -> None:
    train, test = noisy_chunk(100, 260), noisy_chunk(102, 400)
    some = JetChunk(
        train.offsets[: shared + 1],
        {name: x[: train.offsets[shared]] for name, x in train.constituents.items()},
        {name: x[:shared] for name, x in train.jets.items()},
    )
    write(tmp_path / "test", join_chunks([test, some]))
    splits = {fitted: (str(folder / "train"),), measured: (str(tmp_path / "test"),)}
    with pytest.raises(UserError, match=rf"^{shared} jets are both {fitted} and {measured} jets"):
        leaks.refuse_shared_jets(splits, {})


def test_test_jets_may_be_measured_twice(folder: Path) -> None:
    splits = paths(folder, "train", "val", "test") | {"same": (str(folder / "test"),)}
    assert leaks.refuse_shared_jets(splits, {}) == []


def test_pretraining_on_test_jets_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="400 jets are both the pretraining jets of mine and test jets"):
        leaks.refuse_shared_jets(paths(folder, "train", "val", "test"), {"mine": (str(folder / "test"),)})


def test_pretraining_on_training_jets_is_what_it_is_for(folder: Path) -> None:
    assert leaks.refuse_shared_jets(paths(folder, "train", "val", "test"), {"mine": (str(folder / "train"),)}) == []


def test_pretraining_jets_that_are_gone_are_noted(folder: Path) -> None:
    (note,) = leaks.refuse_shared_jets(paths(folder, "train", "val", "test"), {"mine": ("gone/store",)})
    assert "gone/store" in note
    assert "unknown" in note


@pytest.mark.parametrize("name", ["label", "label_QCD", "truthE", "is_signal_new"])
def test_label_columns_are_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"{name!r} as an input"):
        leaks.refuse_label_columns(("charge", name), "run x")


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("copy", ["exact", "negative", "noisy", "float16"])
def test_the_label_among_the_inputs_is_refused(copy: str, many: bool) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 5 if many else 2, 4000).astype(np.int32)
    table = rng.normal(size=(4000, 8)).astype(np.float32)
    told = {
        "exact": classes.astype(np.float32),
        "negative": -3.0 * classes + 7,
        "noisy": classes + rng.normal(0, 0.05, 4000),
        "float16": classes.astype(np.float16) * 0.1,
    }[copy]
    leaks.refuse_telling_inputs("mine", {"embedding": table}, classes)
    table[:, 5] = told
    with pytest.raises(UserError, match="number 5 of embedding of mine alone tells the classes apart"):
        leaks.refuse_telling_inputs("mine", {"embedding": table}, classes)


def test_a_strong_observable_is_not_taken_for_the_label() -> None:
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 2, 20_000).astype(np.int32)
    strong = (classes * 4 + rng.normal(size=20_000)).astype(np.float32)[:, None]  # AUC 0.998
    leaks.refuse_telling_inputs("mine", {"embedding": strong}, classes)


def test_a_column_of_constituents_that_is_the_label_is_refused(tmp_path: Path) -> None:
    chunk = noisy_chunk(3, 800)
    secret = np.repeat(chunk.jets["label"], np.diff(chunk.offsets)).astype(np.float32)
    charge = np.random.default_rng(0).normal(size=len(secret)).astype(np.float32)
    columns = chunk.constituents | {"charge": charge, "secret": secret}
    part = Part("train", Store(write(tmp_path / "s", JetChunk(chunk.offsets, columns, chunk.jets))), np.arange(800))
    leaks.refuse_telling_columns("mine", part, (), chunk.jets["label"])
    leaks.refuse_telling_columns("mine", part, ("charge",), chunk.jets["label"])
    with pytest.raises(UserError, match="number 0 of the column 'secret' of mine alone tells the classes apart"):
        leaks.refuse_telling_columns("mine", part, ("charge", "secret"), chunk.jets["label"])


def test_shifted_jets_cannot_stand_for_others(suite: Suite, tmp_path: Path) -> None:
    for name in ("train", "test", "nominal", "pile-up"):
        with pytest.raises(UserError, match=f"called {name!r}, as other jets are"):
            run_benchmark(replace(suite, shifted={name: suite.test}), [], [], tmp_path / "work")


def test_a_leaky_suite_ends_before_anything_is_fitted(suite: Suite, tmp_path: Path) -> None:
    leaky = Suite("leaky", suite.train, suite.validation, suite.train)
    with pytest.raises(UserError, match="260 jets are both train and test jets"):
        run_benchmark(leaky, [], [], tmp_path / "work")
    assert not list((tmp_path / "work").rglob("*.npz"))


def test_a_suite_with_the_label_among_its_extras_is_refused(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="raw constituents takes the column 'label' as an input"):
        run_benchmark(replace(suite, extras=("label",)), [], [], tmp_path / "work")
