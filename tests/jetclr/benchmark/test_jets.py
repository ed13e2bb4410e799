"""The labelled jets of a suite: which class is which, and which jets may be fitted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jetclr.benchmark.jets import Classes, open_development
from jetclr.data.chunk import JetChunk
from jetclr.data.store import Store, StoreWriter
from jetclr.errors import UserError
from tests.toys import toy_chunk

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A store whose jets have these labels, in this order."""

    def made(name: str, label: np.ndarray | None, names: dict[str, str] | None = None) -> Path:
        chunk = toy_chunk(np.random.default_rng(len(name)), 60 if label is None else len(label))
        jets = {k: x for k, x in chunk.jets.items() if k != "label"} | ({} if label is None else {"label": label})
        with StoreWriter(tmp_path / name, {"labels": names or {}}) as writer:
            writer.append(JetChunk(chunk.offsets, chunk.constituents, jets))
        return tmp_path / name

    return made


def test_of_two_labels_the_lower_is_background(make: Make) -> None:
    store = Store(make("a", np.array([7, 3] * 20, np.int32), {"3": "QCD", "7": "top"}))
    classes = Classes.of([store], many=False)
    assert classes.names == ("QCD", "top")
    np.testing.assert_array_equal(classes(store), [1, 0] * 20)


def test_of_several_labels_all_but_the_lowest_are_signal_or_each_is_a_class(make: Make) -> None:
    label = np.array([4, 0, 9, 4], np.int32)
    store = Store(make("a", label, {"0": "QCD", "4": "W"}))
    two, many = (Classes.of([store], many) for many in (False, True))
    assert two.names == ("QCD", "signal")
    np.testing.assert_array_equal(two(store), [1, 0, 1, 1])
    assert many.names == ("QCD", "W", "label 9")
    np.testing.assert_array_equal(many(store), [1, 0, 2, 1])


def test_labels_that_make_no_benchmark(make: Make) -> None:
    one, two, three = (Store(make(f"s{n}", np.arange(30, dtype=np.int32) % n)) for n in (1, 2, 3))
    with pytest.raises(UserError, match="have the label 0; a benchmark needs two classes"):
        Classes.of([one], many=False)
    with pytest.raises(UserError, match="has 2 labels; leave `many` out"):
        Classes.of([two], many=True)
    with pytest.raises(UserError, match="has the label 2, which no training jet has"):
        Classes.of([two], many=False)(three)
    with pytest.raises(UserError, match="has no labels"):
        Classes.of([Store(make("none", None))], many=False)


def test_a_class_that_is_rare_or_missing_is_told(make: Make) -> None:
    many, few = (str(make(f"s{n}", np.repeat([0, 1], (30, n)).astype(np.int32))) for n in (30, 9))
    with pytest.raises(UserError, match="has 9 jets of class 'label 1'; a benchmark needs at least 10"):
        open_development([many], [few], many=False, most=0, seed=0)
    with pytest.raises(UserError, match="has 9 jets of class"):
        open_development([few], [many], many=False, most=0, seed=0)


def test_at_most_so_many_training_jets_of_each_class(make: Make) -> None:
    label = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], (100, 40, 15))).astype(np.int32)
    paths = [str(make("train", label))], [str(make("val", label))]
    whole, some, again, other = (
        open_development(*paths, many=True, most=most, seed=seed) for most, seed in ((0, 0), (20, 0), (20, 0), (20, 1))
    )
    np.testing.assert_array_equal(whole.train_class, label)
    np.testing.assert_array_equal(whole.train.indices, np.arange(155))
    np.testing.assert_array_equal(np.bincount(some.train_class), [20, 20, 15])
    np.testing.assert_array_equal(some.train_class, label[some.train.indices])
    np.testing.assert_array_equal(some.train.column("label"), some.train_class)
    assert (np.diff(some.train.indices) > 0).all()
    np.testing.assert_array_equal(some.train.indices, again.train.indices)
    assert set(some.train.indices) != set(other.train.indices)
    assert len(some.validation_class) == 155
