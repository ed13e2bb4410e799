"""Files of embeddings from anybody: read by row, proven by columns, refused with a reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from jetclr.benchmark import representations
from jetclr.benchmark.embeddings import open_embeddings
from jetclr.benchmark.jets import Part
from jetclr.cli import main
from jetclr.data.store import Store
from jetclr.errors import UserError

JETS = 260 + 300 + 400


@pytest.fixture(scope="module")
def splits(folder: Path) -> dict[str, Store]:
    return {
        split: Store(folder / name) for split, name in {"train": "train", "validation": "val", "test": "test"}.items()
    }


def columns(splits: Mapping[str, Store], *names: str) -> dict[str, np.ndarray]:
    return {name: np.concatenate([store.column(name) for store in splits.values()]) for name in names}


def write(path: Path, **sets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in sets.items():
            file[name] = values
    return path


def some(width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(JETS, width)).astype(np.float32)


def test_rows_belong_to_the_splits_in_order(splits: dict[str, Store], tmp_path: Path) -> None:
    x = some()
    file = write(tmp_path / "x.h5", other=some(3), embedding=x, **columns(splits, "jet_pt", "label"))
    found = open_embeddings(file, splits, "theirs")
    assert found.main == "embedding"
    assert set(found.layers) == {"embedding", "other"}
    for split, rows in {"train": slice(0, 260), "validation": slice(260, 560), "test": slice(560, 960)}.items():
        part = Part(split, splits[split], np.array([3, 0, 7]))
        np.testing.assert_array_equal(found.tables(part, ("embedding",))["embedding"], x[rows][[3, 0, 7]])


def test_what_jetclr_embed_writes_can_be_read(
    run: Path, folder: Path, splits: dict[str, Store], tmp_path: Path
) -> None:
    stores = [str(folder / name) for name in ("train", "val", "test")]
    assert main(["embed", str(run), *stores, str(tmp_path / "e.h5"), "--layers", "embedding", "layer_1"]) == 0
    assert open_embeddings(tmp_path / "e.h5", splits, "mine").layers == ("embedding", "layer_1")


def test_another_file_has_another_identity(splits: dict[str, Store], tmp_path: Path) -> None:
    pt = columns(splits, "jet_pt")
    a, b = (open_embeddings(write(tmp_path / f"{k}.h5", embedding=some() + k, **pt), splits, "x") for k in (0, 1))
    assert a.identity != b.identity


def refused(path: Path, splits: dict[str, Store], told: str) -> None:
    with pytest.raises(UserError, match=told):
        open_embeddings(path, splits, "theirs")


def test_files_that_are_refused(splits: dict[str, Store], tmp_path: Path) -> None:
    x, pt = some(), columns(splits, "jet_pt")
    refused(tmp_path / "gone.h5", splits, "gone.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    refused(tmp_path / "text.h5", splits, "text.h5")
    refused(write(tmp_path / "a.h5", **pt), splits, "holds no embeddings")
    refused(write(tmp_path / "b.h5", embedding=x), splits, "nothing in .* proves which jets")
    refused(write(tmp_path / "c.h5", embedding=x[:-1], **pt), splits, "959 rows; the suite has 260 train \\+ 300")
    refused(write(tmp_path / "d.h5", embedding=x, jet_pt=np.roll(pt["jet_pt"], 1)), splits, "row 0 of .* has jet_pt")
    refused(write(tmp_path / "e.h5", label_embedding=x, **pt), splits, "that is the label")


def test_labels_alone_do_not_prove_which_jets_rows_are(splits: dict[str, Store], tmp_path: Path) -> None:
    file = write(tmp_path / "l.h5", embedding=some(), **columns(splits, "label"))
    refused(file, splits, r"nothing in .* proves which jets its rows are \(label alone cannot")


def test_columns_that_are_no_numbers_prove_nothing(splits: dict[str, Store], tmp_path: Path) -> None:
    refused(write(tmp_path / "t.h5", embedding=some(), jet_pt=[b"600"] * JETS), splits, "nothing in .* proves")


def test_rows_that_were_never_written_are_not_zeros(splits: dict[str, Store], tmp_path: Path) -> None:
    write(tmp_path / "h.h5", **columns(splits, "jet_pt"))
    with h5py.File(tmp_path / "h.h5", "a") as file:
        file.create_dataset("embedding", (JETS, 6), "f4", chunks=(100, 6))[:700] = some()[:700]
    refused(tmp_path / "h.h5", splits, "claims 960 rows, and not all are there")


def test_few_rows_of_many_are_read(splits: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representations, "STRETCH", 64)
    x = some()
    found = open_embeddings(write(tmp_path / "x.h5", embedding=x, **columns(splits, "jet_pt")), splits, "theirs")
    rows = np.array([299, 0, 64, 63, 128])
    part = Part("validation", splits["validation"], rows)
    np.testing.assert_array_equal(found.tables(part, ("embedding",))["embedding"], x[260 + rows])


def test_a_short_column_is_told(splits: dict[str, Store], tmp_path: Path) -> None:
    pt = columns(splits, "jet_pt")["jet_pt"]
    refused(write(tmp_path / "s.h5", embedding=some(), jet_pt=pt[:700]), splits, "jet_pt of .* has 700 rows")


def test_links_out_of_the_file_are_not_followed(splits: dict[str, Store], tmp_path: Path) -> None:
    write(tmp_path / "secret.h5", embedding=some())
    write(tmp_path / "l.h5", **columns(splits, "jet_pt"))
    with h5py.File(tmp_path / "l.h5", "a") as file:
        file["embedding"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "embedding")
    refused(tmp_path / "l.h5", splits, "link to another place")
