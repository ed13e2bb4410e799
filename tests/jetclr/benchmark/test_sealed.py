"""The test jets, under seal: which scores they give, of which jets."""

from pathlib import Path

import numpy as np
import pytest

from jetclr.benchmark.fitting import Fitted, Task
from jetclr.benchmark.jets import Classes, Part
from jetclr.benchmark.representations import Batch, FromFile, HandBuilt
from jetclr.benchmark.sealed import Sealed
from jetclr.data.store import Store
from jetclr.errors import UserError
from tests.jetclr.benchmark.conftest import noisy_chunk, write


def hardest(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return pt[:, :2]


def twice(batch: Batch, first: int) -> Batch:
    return batch | {"pt": 2 * batch["pt"]}


def gone(batch: Batch, first: int) -> Batch:
    return batch | {"pt": np.where(np.arange(len(batch["pt"]))[:, None] + first == 3, 0, batch["pt"])}


REPRESENTATION = HandBuilt("hardest", hardest, {}, 8)


def fitted(*, everywhere: bool, column: int = 0) -> Fitted:
    task = Task("features", "logistic", everywhere=everywhere)
    return Fitted(task, lambda x: x[:, column].astype(np.float64), np.zeros(0), 2, 1, 1)


@pytest.fixture(scope="module")
def sealed(folder: Path) -> Sealed:
    classes = Classes.of([Store(folder / "train")], many=False)
    changes = {"twice": twice, "gone": gone}
    return Sealed([str(folder / "test")], classes, changes, {"other": [str(folder / "other")]})


def test_each_predictor_scores_the_views_it_is_asked_for(sealed: Sealed, folder: Path) -> None:
    once, everywhere = sealed.scores(REPRESENTATION, [fitted(everywhere=False, column=1), fitted(everywhere=True)])
    assert list(once) == ["nominal"]
    assert list(everywhere) == ["nominal", "twice", "gone", "other"] == sealed.views(REPRESENTATION)
    pt = Store(folder / "test").gather(np.arange(400), 2)["pt"]
    np.testing.assert_array_equal(once["nominal"], pt[:, 1])
    np.testing.assert_array_equal(everywhere["nominal"], pt[:, 0])
    np.testing.assert_array_equal(everywhere["twice"], 2 * pt[:, 0])
    np.testing.assert_array_equal(everywhere["other"], Store(folder / "other").gather(np.arange(300), 1)["pt"][:, 0])


def test_a_jet_that_a_change_leaves_empty_has_zeros(sealed: Sealed) -> None:
    (scores,) = sealed.scores(REPRESENTATION, [fitted(everywhere=True)])
    same = scores["gone"] == scores["nominal"]
    assert not same[3]
    assert scores["gone"][3] == 0
    assert np.delete(same, 3).all()


def test_classes_and_columns_are_those_of_the_view(sealed: Sealed, folder: Path) -> None:
    assert len(sealed) == 400
    np.testing.assert_array_equal(sealed.classes(), Store(folder / "test").column("label"))
    np.testing.assert_array_equal(sealed.classes("twice"), sealed.classes())
    np.testing.assert_array_equal(sealed.classes("other"), Store(folder / "other").column("label"))
    assert [sealed.other(view) for view in ("nominal", "twice", "other")] == [False, False, True]
    np.testing.assert_array_equal(sealed.column("jet_mass"), Store(folder / "test").column("jet_mass"))
    assert {"jet_mass", "multiplicity"} <= set(sealed.columns)


def test_embeddings_of_a_file_have_no_changed_jets(sealed: Sealed, folder: Path) -> None:
    file = FromFile("theirs", folder / "x.h5", ("embedding",), "embedding", {"test": range(800, 1200)}, "")
    assert sealed.views(file) == ["nominal"]
    with pytest.raises(UserError, match="holds embeddings of the suite's jets only"):
        file.tables(Part("other", Store(folder / "other"), np.arange(3)), ("embedding",))


def test_what_cannot_be_scored_is_told(sealed: Sealed) -> None:
    def refuse(x: np.ndarray) -> np.ndarray:
        raise ValueError("the features of 2 jets are NaN or infinite")

    bad = Fitted(Task("features", "LDA"), refuse, np.zeros(0), 2, 1, 1)
    with pytest.raises(UserError, match="LDA on hardest, nominal test jets: the features of 2 jets"):
        sealed.scores(REPRESENTATION, [bad])


def test_too_few_test_jets_of_a_class(folder: Path, tmp_path: Path) -> None:
    classes = Classes.of([Store(folder / "train")], many=False)
    chunk = noisy_chunk(7, 40)
    chunk.jets["label"][:] = 0
    alone = str(write(tmp_path / "alone", chunk))
    with pytest.raises(UserError, match="the nominal test jets hold 0 of class 'top'"):
        Sealed([alone], classes, {}, {})
    with pytest.raises(UserError, match="the tune test jets hold 0 of class 'top'"):
        Sealed([str(folder / "test")], classes, {}, {"tune": [alone]})
