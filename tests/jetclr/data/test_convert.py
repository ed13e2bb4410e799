"""Files -> store: the same for any number of workers, begun again where it stopped, selected and weighted as asked."""

import hashlib
import json
import os
import re
import shlex
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jetclr.cli import main
from jetclr.data import convert as module
from jetclr.data.convert import convert
from jetclr.data.hashing import uniform
from jetclr.data.names import CONSTITUENT_COLUMNS, JET_COLUMNS
from jetclr.data.readers import FORMATS, Reader, reader
from jetclr.data.selection import SHARES, Selection, _stored
from jetclr.data.store import Store, StoreWriter
from jetclr.data.units import Task, run_units
from jetclr.errors import UserError
from tests.jetclr.data.readers.test_toptag import rows, write

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of the top-tagging layout, 90 and 40 jets."""
    folder = tmp_path_factory.mktemp("files")
    return [write(folder / f"{i}.h5", rows(jets, seed=i)) for i, jets in enumerate((90, 40))]


@pytest.fixture(scope="module")
def store(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both files give with all settings left alone, in units of 25 rows."""
    out = tmp_path_factory.mktemp("store") / "s"
    assert convert("toptag", files, out, workers=1, unit_rows=25) == 130
    return out


def content(store: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(store.iterdir())]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_a_reader(format: str) -> None:
    assert isinstance(reader(format), Reader)


def test_the_store_is_the_same_for_any_workers(files: list[Path], store: Path, tmp_path: Path) -> None:
    convert("auto", files, tmp_path / "t", workers=2, unit_rows=25)
    assert content(tmp_path / "t") == content(store)
    assert not (tmp_path / "t.partial").exists()


def test_metadata_tell_where_jets_come_from(files: list[Path], store: Path) -> None:
    metadata = json.loads((store / "metadata.json").read_text())
    source = metadata["source"]
    for found, file, jets in zip(source["sources"], files, (90, 40), strict=True):
        assert found == {
            "file": file.name,
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "rows": jets,
        }
    assert source["labels"] == {"0": "QCD", "1": "top"}
    assert source["splits"] == {"0": "train", "1": "validation", "2": "test"}
    assert metadata["columns"]["jets"]["jet_pt"] == {
        "type": "float32", "unit": "GeV", "meaning": "transverse momentum",
    }  # fmt: skip
    opened = Store(store)
    np.testing.assert_array_equal(opened.column("source"), np.repeat([0, 1], [90, 40]))
    np.testing.assert_array_equal(opened.column("row"), np.r_[np.arange(90), np.arange(40)])


def test_an_interrupted_conversion_goes_on(
    files: list[Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def interrupted(tasks: dict[int, Task], *arguments: object) -> object:
        made.extend(tasks)
        if len(tasks) == 6:
            run_units({unit: tasks[unit] for unit in (0, 4)}, *arguments)  # type: ignore[arg-type]
            raise KeyboardInterrupt
        return run_units(tasks, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "run_units", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert("toptag", files, tmp_path / "s", workers=1, unit_rows=25)
    assert not (tmp_path / "s").exists()
    convert("toptag", files, tmp_path / "s", workers=1, unit_rows=25)
    assert made == [0, 1, 2, 3, 4, 5, 1, 2, 3, 5]
    assert content(tmp_path / "s") == content(store)


def test_a_source_that_was_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.h5", rows(50))
    monkeypatch.setattr(module, "StoreWriter", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        convert("toptag", [file], tmp_path / "s", workers=1, unit_rows=25)
    monkeypatch.undo()
    file.unlink()
    write(file, rows(50, seed=9))
    convert("toptag", [file], tmp_path / "s", workers=1, unit_rows=25)
    other = write(tmp_path / "b.h5", rows(50, seed=9))
    convert("toptag", [other], tmp_path / "t", workers=1, unit_rows=25)
    assert content(tmp_path / "s")[1:] == content(tmp_path / "t")[1:]


def test_other_settings_are_not_mixed(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "StoreWriter", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        convert("toptag", files, tmp_path / "s", workers=1)
    with pytest.raises(UserError, match=r"was begun with selection where = , not jet_pt > 1; repeat the former"):
        convert("toptag", files, tmp_path / "s", workers=1, selection=Selection(where="jet_pt > 1"))


def test_selections_and_derived_columns(files: list[Path], store: Path, tmp_path: Path) -> None:
    selection = Selection(
        where="jet_pt > 30 & multiplicity >= 20 & rho < 4",
        derive=("rho = 2 * ln(jet_mass / jet_pt)", "twice = 2 * label", "hard = jet_pt > 60"),
    )
    whole, pt = Store(store), Store(store).column("jet_pt")
    with np.errstate(divide="ignore"):
        rho = 2 * np.log(whole.column("jet_mass").astype(np.float64) / pt)
    keep = (pt > 30) & (whole.column("multiplicity") >= 20) & (rho < 4)
    assert 10 < keep.sum() < 120
    assert convert("toptag", files, tmp_path / "s", selection=selection, workers=1) == keep.sum()
    chosen = Store(tmp_path / "s")
    np.testing.assert_array_equal(chosen.column("row"), whole.column("row")[keep])
    np.testing.assert_allclose(chosen.column("rho"), rho[keep], rtol=1e-5)
    np.testing.assert_array_equal(chosen.column("twice"), 2 * whole.column("label")[keep])
    np.testing.assert_array_equal(chosen.column("hard"), pt[keep] > 60)
    assert [chosen.column(n).dtype for n in ("rho", "twice", "hard")] == [np.float32, np.int64, np.int8]
    found = chosen.gather(np.arange(len(chosen)), 60)
    expected = whole.gather(np.flatnonzero(keep), 60)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_fractions_are_nested_and_splits_have_their_shares(files: list[Path], tmp_path: Path) -> None:
    kept = {}
    for share in (0.3, 0.6):
        selection = Selection(fraction=share, split=(0.5, 0.25, 0.25), seed=5)
        convert("toptag", files, tmp_path / f"{share}", selection=selection, workers=1)
        store = Store(tmp_path / f"{share}")
        kept[share] = {
            (s, r): p for s, r, p in zip(*(store.column(n).tolist() for n in ("source", "row", "split")), strict=True)
        }
    assert kept[0.3].items() < kept[0.6].items()
    assert 25 < len(kept[0.3]) < 55
    assert set(kept[0.6].values()) == {0, 1, 2}


def test_rows_without_a_split_get_one_by_hash() -> None:
    u = uniform(np.arange(20_000), 0, 1, 0)
    shares = np.diff([0, *np.searchsorted(np.sort(u), np.cumsum(SHARES)[:2]), len(u)]) / len(u)
    np.testing.assert_allclose(shares, SHARES, atol=0.01)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"where": "jet_p > 1"}, "uses jet_p; there is"),
        ({"where": "jet_pt"}, "is a number and not a condition"),
        ({"where": "jet_pt > 1e9"}, "of 130 jets none is selected"),
        ({"derive": ("jet_pt = 1 + label",)}, "there is a column of this name already"),
        ({"derive": ("rho",)}, "is not of the form"),
        ({"derive": ("a == label",)}, "is not of the form"),
        ({"derive": ("a = label", "a = row")}, "each name once"),
        ({"fraction": 0.0}, "must lie above 0"),
        ({"fraction": 1.5}, "must lie above 0"),
        ({"split": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"split": (float("nan"), 0.5, 0.5)}, "sum to 1"),
        ({"seed": -1}, "must lie in"),
    ],
)
def test_selections_that_cannot_be(files: list[Path], tmp_path: Path, options: dict, says: str) -> None:
    with pytest.raises(UserError) as raised:
        convert("toptag", files, tmp_path / "s", selection=Selection(**options), workers=1)
    assert says in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_balance_and_flatten(files: list[Path], store: Path, tmp_path: Path) -> None:
    convert("toptag", files, tmp_path / "s", balance="label", flat="jet_pt", workers=1, unit_rows=25)
    weighted = Store(tmp_path / "s")
    weight, label = weighted.column("weight"), weighted.column("label")
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight.mean(), 1, rtol=1e-5)
    np.testing.assert_allclose([weight[label == k].sum() for k in (0, 1)], 65, rtol=1e-5)
    with pytest.raises(UserError, match="there is no column 'mass' to weight by; there is"):
        convert("toptag", files, tmp_path / "t", flat="mass", workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]  # told before all was read


def test_weights_from_some_jets_are_right_for_rare_classes(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One jet in seven, and of a class in a unit always one: classes get what they would get from all jets."""
    monkeypatch.setattr(module, "WEIGHTED_JETS", 20)
    derived = Selection(derive=("rare = jet_pt > 90",))
    convert("toptag", files, tmp_path / "s", selection=derived, balance="rare", workers=1, unit_rows=25)
    store = Store(tmp_path / "s")
    weight, rare = store.column("weight"), store.column("rare")
    assert 5 < rare.sum() < 45
    np.testing.assert_allclose([weight[rare == k].sum() for k in (0, 1)], 65, rtol=1e-5)


def write_lists(path: Path, **columns: np.ndarray) -> Path:
    """A Parquet file of five jets with three constituents each."""
    lists = {name: [[3.0, 2.0, 1.0]] * 5 for name in ("pt", "eta", "phi")}
    pq.write_table(pa.table(lists | dict(columns)), path)
    return path


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_sources_of_other_columns_are_named(tmp_path: Path, names: str) -> None:
    """Labels that only some files have are neither dropped nor a crash."""
    write_lists(tmp_path / "a.parquet")
    write_lists(tmp_path / "b.parquet", label=np.ones(5, np.int32), x=np.ones(5))
    paths = [tmp_path / f"{name}.parquet" for name in names]
    with pytest.raises(UserError, match=rf"columns of .*{names[1]}\.parquet are not those .*; what was") as raised:
        convert("arrays", paths, tmp_path / "s", workers=1)
    assert all(f"{name} is " in str(raised.value) for name in ("label", "x"))
    assert not (tmp_path / "s").exists()


def test_columns_in_another_order_are_the_same_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "StoreWriter", partial(StoreWriter, block_jets=4))
    x, y = np.arange(5.0), np.arange(5)
    paths = [write_lists(tmp_path / "a.parquet", x=x, y=y), write_lists(tmp_path / "b.parquet", y=y, x=x)]
    convert("arrays", paths, tmp_path / "s", workers=1)
    np.testing.assert_array_equal(Store(tmp_path / "s").column("x"), np.tile(x, 2))


def test_a_source_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.h5", rows())

    def changing(*arguments: object) -> object:
        counts = run_units(*arguments)  # type: ignore[arg-type]
        os.utime(file, ns=(0, 0))
        return counts

    monkeypatch.setattr(module, "run_units", changing)
    with pytest.raises(UserError, match=r"a\.h5 was changed while it was read; repeat the same command"):
        convert("toptag", [file], tmp_path / "s", workers=1)
    assert not (tmp_path / "s").exists()


def test_an_error_does_not_wait_for_checksums(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hundred gigabytes they take minutes."""
    hashed: list[bool] = []

    def endless(path: Path, stopped: threading.Event) -> str:
        hashed.append(stopped.wait(60))
        return ""

    monkeypatch.setattr(module, "_sha256", endless)
    with pytest.raises(UserError, match="uses jet_p"):
        convert("toptag", files[:1], tmp_path / "s", selection=Selection(where="jet_p > 1"), workers=1)
    assert hashed == [True]


def test_arguments_that_cannot_be(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="workers is 0"):
        convert("toptag", files, tmp_path / "s", workers=0)
    with pytest.raises(UserError, match="is a folder; name the files in it"):
        convert("toptag", [files[0].parent], tmp_path / "s", workers=1)
    with pytest.raises(UserError, match=r"s.udcff' is not a name in UTF-8"):
        convert("toptag", files, tmp_path / "s\udcff", workers=1)


def test_large_derived_values(files: list[Path], tmp_path: Path) -> None:
    """What float32 cannot hold is refused, with no warning beside it."""
    with pytest.raises(UserError, match=r"jet 0 of .* has x = inf"):
        convert("toptag", files, tmp_path / "s", selection=Selection(derive=("x = exp(100 + jet_pt)",)), workers=1)
    large = np.array([2**63 + 1, 5], np.uint64)
    np.testing.assert_array_equal(_stored(large), large)


def test_bad_jets_can_be_left_out(tmp_path: Path) -> None:
    table = rows()
    table["values_block_0"][4, :800] = 0
    file = write(tmp_path / "a.h5", table)
    with pytest.raises(UserError, match=r"jet 4 of .*a\.h5 has no constituents"):
        convert("toptag", [file], tmp_path / "s", workers=1)
    assert convert("toptag", [file], tmp_path / "s", selection=Selection(where="multiplicity > 0"), workers=1) == 8


def test_what_was_finished_before_an_error_is_kept(tmp_path: Path) -> None:
    table = rows(60)
    table["values_block_0"][51, :800] = 0
    file = write(tmp_path / "a.h5", table)
    with pytest.raises(UserError, match=r"jet 51 .*; what was finished is kept in .*s\.partial for the next try"):
        convert("toptag", [file], tmp_path / "s", workers=1, unit_rows=25)
    assert not (tmp_path / "s").exists()


def test_a_crash_of_a_library_ends_in_a_sentence(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_rows", _crash)
    with pytest.raises(UserError, match=r"a worker process died while it read .*0\.h5, .*1\.h5: a damaged file"):
        convert("toptag", files, tmp_path / "s", workers=1)
    assert list(tmp_path.iterdir()) == []


def _crash(format: str, path: Path) -> int:
    os.kill(os.getpid(), 11)
    return 1


def test_from_the_command_line(files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [str(path) for path in files]
    command = [
        "convert",
        "--where=-jet_pt < -30",
        "--split",
        "0.5",
        "0.5",
        "0",
        "--derive",
        "rho = jet_mass / jet_pt",
        "--derive",
        "two = 2 * rho",
    ]
    assert main([*command, *sources, str(tmp_path / "s")]) == 0
    assert re.search(r"s: \d+ jets", capsys.readouterr().out)
    told = json.loads((tmp_path / "s" / "metadata.json").read_text())["source"]["command"]
    assert {"rho", "two"} < set(Store(tmp_path / "s").columns)
    before = content(tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    assert main(shlex.split(told)[1:]) == 0
    assert content(tmp_path / "s") == before
    capsys.readouterr()
    assert main(["convert", *sources, str(tmp_path / "s")]) == 1
    assert "already exists" in capsys.readouterr().err


def test_the_documented_columns_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "data.md").read_text()
    for name in JET_COLUMNS | CONSTITUENT_COLUMNS:
        assert f"`{name}`" in text or name in ("tau2", "tau3"), name
