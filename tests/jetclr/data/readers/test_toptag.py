"""The top-tagging reference layout, made here with h5py exactly as pandas and PyTables lay it out."""

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
import vector

from jetclr.data.chunk import JetChunk, check_chunk, join_chunks
from jetclr.data.readers import toptag
from jetclr.errors import UserError
from tests.jetclr.data.readers.mutations import storm

ROW = np.dtype([("index", "<i8"), ("values_block_0", "<f4", (804,)), ("values_block_1", "<i8", (2,))])


def rows(jets: int = 9, seed: int = 0) -> np.ndarray:
    """Massive constituents, hardest first, zero-padded; a true top for signal; ttv and label."""
    rng = np.random.default_rng(seed)
    table = np.zeros(jets, ROW)
    for i in range(jets):
        n = int(rng.integers(1, 60))
        pt = np.sort(rng.exponential(10, n))[::-1] + 0.1
        eta, phi, mass = rng.normal(0.5, 0.3, n), rng.uniform(-np.pi, np.pi, n), rng.uniform(0, 0.9, n)
        p = vector.array({"pt": pt, "eta": eta, "phi": phi, "mass": mass})
        table["values_block_0"][i, : 4 * n] = np.column_stack([p.E, p.px, p.py, p.pz]).ravel()
        table["values_block_0"][i, 800:] = 500 * (i % 2)
        table["values_block_1"][i] = (2, i % 2)
    table["index"] = np.arange(jets)
    return table


def write(path: Path, table: np.ndarray, key: str = "table/table") -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=table, chunks=(40,), maxshape=(None,), compression=hdf5plugin.Blosc())
    return path


def everything(path: Path) -> JetChunk:
    return join_chunks(list(toptag.read(path, 0, toptag.rows(path))))


def same(a: JetChunk, b: JetChunk) -> None:
    np.testing.assert_array_equal(a.offsets, b.offsets)
    for name in a.constituents:
        np.testing.assert_array_equal(a.constituents[name], b.constituents[name])
    for name in a.jets:
        np.testing.assert_array_equal(a.jets[name], b.jets[name])


def test_every_value_agrees_with_vector(tmp_path: Path) -> None:
    table = rows(50)
    table["values_block_1"][:, 0] = np.arange(50) % 3
    path = write(tmp_path / "a.h5", table)
    assert toptag.recognises(path)
    assert toptag.rows(path) == 50
    chunk = everything(path)
    check_chunk(chunk)
    assert {name: values.dtype.name for name, values in chunk.jets.items()} == {
        "jet_pt": "float32", "jet_eta": "float32", "jet_phi": "float32", "jet_mass": "float32",
        "label": "int32", "split": "int8", "row": "int64",
    }  # fmt: skip
    assert {values.dtype.name for values in chunk.constituents.values()} == {"float32"}
    for i, row in enumerate(table):
        e, px, py, pz = row["values_block_0"][:800].astype(np.float64).reshape(200, 4).T
        real = e > 0
        p = vector.array({"E": e[real], "px": px[real], "py": py[real], "pz": pz[real]})
        mine = slice(chunk.offsets[i], chunk.offsets[i + 1])
        for name, expected in (("pt", p.pt), ("eta", p.eta), ("phi", p.phi)):
            np.testing.assert_allclose(chunk.constituents[name][mine], expected, rtol=1e-6, atol=1e-6)
        jet = p.sum()
        for name, value in (("jet_pt", jet.pt), ("jet_eta", jet.eta), ("jet_phi", jet.phi), ("jet_mass", jet.mass)):
            np.testing.assert_allclose(chunk.jets[name][i], value, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(chunk.jets["label"], table["values_block_1"][:, 1])
    np.testing.assert_array_equal(chunk.jets["split"], np.arange(50) % 3)
    np.testing.assert_array_equal(chunk.jets["row"], np.arange(50))


def test_the_true_top_is_never_read(tmp_path: Path) -> None:
    """It is zero for QCD: the label by another name."""
    table = rows()
    before = everything(write(tmp_path / "a.h5", table))
    table["values_block_0"][:, 800:] = np.nan
    same(before, everything(write(tmp_path / "b.h5", table)))


def test_padding_may_be_anywhere_and_negative_zero(tmp_path: Path) -> None:
    table = rows()
    before = everything(write(tmp_path / "a.h5", table))
    slots = table["values_block_0"][:, :800].reshape(9, 200, 4)
    moved = np.zeros_like(slots)
    moved[:, 5:200:3] = slots[:, :65]
    moved[(moved == 0).all(axis=2)] = [-0.0, 0.0, -0.0, -0.0]
    table["values_block_0"][:, :800] = moved.reshape(9, 800)
    same(before, everything(write(tmp_path / "b.h5", table)))


def test_any_range_of_rows(tmp_path: Path) -> None:
    table = rows(130)
    path = write(tmp_path / "a.h5", table)
    whole = everything(path)
    pieces = [list(toptag.read(path, start, stop)) for start, stop in ((0, 1), (1, 41), (41, 120), (120, 9999))]
    same(whole, join_chunks([chunk for piece in pieces for chunk in piece]))
    assert list(toptag.read(path, 130, 200)) == []


def refused(path: Path) -> str:
    """The same sentence from `rows` and `read`, and not recognised."""
    assert not toptag.recognises(path)
    with pytest.raises(UserError) as by_rows:
        toptag.rows(path)
    with pytest.raises(UserError) as by_read:
        list(toptag.read(path, 0, 1))
    assert str(by_rows.value) == str(by_read.value)
    return str(by_rows.value)


def test_bad_files_get_one_sentence(tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "none.h5")
    assert "is a folder" in refused(tmp_path)
    good = write(tmp_path / "good.h5", rows(500))
    cut = tmp_path / "cut.h5"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    assert "truncated, damaged or another format" in refused(cut)
    cut.write_text("no HDF5 at all")
    assert "truncated, damaged or another format" in refused(cut)
    key = write(tmp_path / "key.h5", rows(), key="events/table")
    assert "has no 'table/table', so it is not in the toptag layout; it holds ['events']" in refused(key)
    shape = write(tmp_path / "shape.h5", rows()[["index", "values_block_1"]])
    assert "is not in the toptag layout: table/table should have" in refused(shape)
    kind = [*ROW.descr[:1], ("values_block_0", "<f8", (804,)), ROW.descr[2]]
    assert "('float32', (804,))" in refused(write(tmp_path / "kind.h5", rows().astype(kind)))
    assert toptag.rows(write(tmp_path / "empty.h5", rows(0))) == 0


@pytest.mark.parametrize(
    ("jet", "column", "value", "says"),
    [
        (3, slice(1, 2), np.nan, "jet 3 of .* has a momentum that is not a finite number"),
        (4, slice(0, 1), np.inf, "jet 4 of .* has a momentum that is not a finite number"),
        (8, slice(799, 800), np.nan, "jet 8 of .* has a momentum that is not a finite number"),
        (5, slice(1, 3), 0, "jet 5 of .* has a constituent with pT = 0"),
        (6, slice(796, 797), 3, "jet 6 of .* has a constituent with pT = 0"),
    ],
)
def test_bad_jets_are_named(tmp_path: Path, jet: int, column: slice, value: float, says: str) -> None:
    table = rows()
    table["values_block_0"][jet, column] = value
    with pytest.raises(UserError, match=says):
        everything(write(tmp_path / "a.h5", table))


def test_a_jet_without_constituents_is_given_as_such(tmp_path: Path) -> None:
    table = rows()
    for jet in (0, 4, 8):
        table["values_block_0"][jet, :800] = 0
    chunk = everything(write(tmp_path / "a.h5", table))
    assert np.flatnonzero(np.diff(chunk.offsets) == 0).tolist() == [0, 4, 8]
    assert (chunk.jets["jet_pt"][[0, 4, 8]] == 0).all()
    assert (chunk.jets["jet_pt"][[1, 3, 5, 7]] > 0).all()


@pytest.mark.parametrize(("column", "says"), [(1, "label 7"), (0, "ttv 7")])
def test_an_unknown_label_is_named(tmp_path: Path, column: int, says: str) -> None:
    table = rows()
    table["values_block_1"][6, column] = 7
    with pytest.raises(UserError, match=f"jet 6 of .* has {says}; the toptag layout knows"):
        everything(write(tmp_path / "a.h5", table))


def test_damaged_files(tmp_path: Path) -> None:
    toll = storm("toptag", write(tmp_path / "a.h5", rows(60)), 40)
    assert not toll.faults, toll
    assert not toll.hangs, toll
    assert len(toll.refused) > 10, toll


@pytest.mark.slow
def test_many_damaged_files(tmp_path: Path) -> None:
    toll = storm("toptag", write(tmp_path / "a.h5", rows(60)), 1000, seed=1)
    print(toll, toll.sentences())
    assert not toll.faults, toll
    assert not toll.hangs, toll
