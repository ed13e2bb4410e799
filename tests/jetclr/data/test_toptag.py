"""The top-tagging reference layout, made here with h5py exactly as pandas and PyTables lay it out."""

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
import vector

from jetclr.cli import main
from jetclr.data.convert import convert
from jetclr.data.store import Store
from jetclr.errors import UserError

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


def test_every_value_agrees_with_vector(tmp_path: Path) -> None:
    table = rows()
    assert convert("toptag", [write(tmp_path / "a.h5", table)], tmp_path / "s") == 9
    store = Store(tmp_path / "s")
    padded = store.gather(np.arange(9), 200)
    for i, row in enumerate(table):
        e, px, py, pz = row["values_block_0"][:800].astype(np.float64).reshape(200, 4).T
        real = e > 0
        p = vector.array({"E": e[real], "px": px[real], "py": py[real], "pz": pz[real]})
        n = real.sum()
        for name, expected in (("pt", p.pt), ("eta", p.eta), ("phi", p.phi)):
            np.testing.assert_allclose(padded[name][i, :n], expected, rtol=1e-5, atol=1e-6)
            assert (padded[name][i, n:] == 0).all()
        jet = p.sum()
        for name, value in (("jet_pt", jet.pt), ("jet_eta", jet.eta), ("jet_phi", jet.phi)):
            np.testing.assert_allclose(store.column(name)[i], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(store.column("jet_mass")[i], jet.mass, rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(store.column("label"), table["values_block_1"][:, 1])
    np.testing.assert_array_equal(store.column("ttv"), 2)
    assert store.label_names == {0: "QCD", 1: "top"}


def test_the_true_top_is_never_read(tmp_path: Path) -> None:
    """It is zero for QCD: the label by another name."""
    table = rows()
    convert("toptag", [write(tmp_path / "a.h5", table)], tmp_path / "a")
    table["values_block_0"][:, 800:] = np.nan
    convert("toptag", [write(tmp_path / "b.h5", table)], tmp_path / "b")
    assert (tmp_path / "a" / "shard-00000.arrow").read_bytes() == (tmp_path / "b" / "shard-00000.arrow").read_bytes()


def test_several_files_follow_one_another(tmp_path: Path) -> None:
    sources = [write(tmp_path / f"{i}.h5", rows(5 + i, seed=i)) for i in range(3)]
    assert convert("toptag", sources, tmp_path / "s") == 18
    expected = np.concatenate([rows(5 + i, seed=i)["values_block_1"][:, 1] for i in range(3)])
    np.testing.assert_array_equal(Store(tmp_path / "s").column("label"), expected)


def refused(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Convert from the command line: one sentence, status 1, nothing left behind."""
    before = sorted(p.name for p in tmp_path.iterdir())
    status = main(["convert", "--format", "toptag", str(source), str(tmp_path / "out")])
    assert status == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jetclr: ")]
    assert len(lines) == 1
    return lines[0]


def test_bad_files_get_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no file" in refused(tmp_path, tmp_path / "none.h5", capsys)
    good = write(tmp_path / "good.h5", rows(500))
    cut = tmp_path / "cut.h5"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    assert "truncated, damaged or another format" in refused(tmp_path, cut, capsys)
    cut.write_text("no HDF5 at all")
    assert "truncated, damaged or another format" in refused(tmp_path, cut, capsys)
    key = write(tmp_path / "key.h5", rows(), key="events/table")
    assert "has no 'table/table', so it is not in the toptag layout; it holds ['events']" in refused(
        tmp_path, key, capsys
    )
    shape = write(tmp_path / "shape.h5", rows()[["index", "values_block_1"]])
    assert "is not in the toptag layout: table/table should have" in refused(tmp_path, shape, capsys)
    assert "holds no jets" in refused(tmp_path, write(tmp_path / "empty.h5", rows(0)), capsys)


@pytest.mark.parametrize(
    ("jet", "column", "value", "says"),
    [
        (3, slice(1, 2), np.nan, "jet 3 of .* has a momentum that is not a finite number"),
        (4, slice(0, 800), 0, "jet 4 of .* has no constituents"),
        (5, slice(1, 3), 0, "jet 5 of .* has a constituent with pT = 0"),
    ],
)
def test_bad_jets_are_named(tmp_path: Path, jet: int, column: slice, value: float, says: str) -> None:
    table = rows()
    table["values_block_0"][jet, column] = value
    with pytest.raises(UserError, match=says):
        convert("toptag", [write(tmp_path / "a.h5", table)], tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_an_unknown_label_is_named(tmp_path: Path) -> None:
    table = rows()
    table["values_block_1"][6, 1] = 7
    with pytest.raises(UserError, match=r"jet 6 of .* has label 7"):
        convert("toptag", [write(tmp_path / "a.h5", table)], tmp_path / "s")
