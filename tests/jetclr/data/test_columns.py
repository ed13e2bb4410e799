"""Files of columns say in every format what went in, as the software of others reads it."""

import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jetclr.data import columns
from jetclr.data.sinks import format as formats
from jetclr.errors import UserError

ENDINGS = ("h5", "parquet", "arrow", "root")
TYPES = (np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8, np.uint32, bool)

Table = dict[str, np.ndarray]


def read_hdf5(path: Path) -> Table:
    with h5py.File(path) as file:
        return {name: data[:] for name, data in file.items()}


def read_with_awkward(path: Path) -> Table:
    table = ak.from_feather(path) if path.suffix == ".arrow" else ak.from_parquet(path)
    return {name: ak.to_numpy(table[name], allow_missing=False) for name in table.fields}


def read_root(path: Path) -> Table:
    with uproot.open(path) as file:
        return {b.name: b.array(library="np") for b in file["jetclr"].branches}


READ: dict[str, Callable[[Path], Table]] = {
    "h5": read_hdf5,
    "parquet": read_with_awkward,
    "arrow": read_with_awkward,
    "root": read_root,
}


def write(path: Path, table: Table, batch: int, jets: int, **attributes: str) -> Path:
    with columns.new_file(path, attributes, batch) as sink:
        for start in range(0, jets, batch):
            sink.append({name: x[start : start + batch] for name, x in table.items()})
    return path


def table_of(draw: st.DrawFn) -> tuple[Table, int, int]:
    jets, batch = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    kinds = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
    table = {f"column{i}": draw(hnp.arrays(kind, jets)) for i, kind in enumerate(kinds)}
    width = draw(st.integers(1, 5))
    table["layer"] = draw(hnp.arrays(np.float32, (jets, width), elements=st.floats(-1e6, 1e6, width=32)))
    return table, batch, jets


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=10)
@given(made=st.composite(table_of)())
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, ending: str, made: tuple[Table, int, int]
) -> None:
    """Read by other software, and by ours in the batches that went in, however many batches lie together."""
    table, batch, jets = made
    with pytest.MonkeyPatch.context() as patch:
        for module in ("arrow.TableSink.ROWS", "root.ROWS"):
            patch.setattr(f"jetclr.data.sinks.{module}", 2 * batch + 1)
        path = write(tmp_path_factory.mktemp("columns") / f"x.{ending}", table, batch, jets, jetclr_step="8")
        batches = list(columns.read_batches(path, list(table), batch))
    found = READ[ending](path)
    assert found.keys() == table.keys()
    for name, values in table.items():
        assert found[name].dtype.newbyteorder("=") == values.dtype
        np.testing.assert_array_equal(found[name], values)
        np.testing.assert_array_equal(np.concatenate([one[name] for one in batches]), values)
    assert [len(one["layer"]) for one in batches[:-1]] == [batch] * (len(batches) - 1)
    described = columns.describe(path)
    assert (described.attributes, described.jets) == ({"jetclr_step": "8"}, jets)
    assert described.columns.keys() == table.keys()


@pytest.mark.parametrize("ending", ["h5", "parquet", "feather"])
def test_half_precision_is_kept_where_there_is_one(tmp_path: Path, ending: str) -> None:
    values = np.linspace(-2, 2, 12, dtype=np.float16).reshape(4, 3)
    path = write(tmp_path / f"x.{ending}", {"layer": values}, 2, 4)
    if ending == "feather":
        np.testing.assert_array_equal(np.stack(pd.read_feather(path)["layer"]), values)
    elif ending == "parquet":
        np.testing.assert_array_equal(np.stack(pq.read_table(path)["layer"].to_numpy()), values)
    (first, second) = columns.read_batches(path, ["layer"], 2)
    assert first["layer"].dtype == np.float16
    np.testing.assert_array_equal(np.concatenate([first["layer"], second["layer"]]), values)


def test_root_has_no_half_precision_and_needs_uproot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jet-level columns that have it are widened, which loses nothing."""
    values = np.linspace(-2, 2, 4, dtype=np.float16)
    found = read_root(write(tmp_path / "y.root", {"label": values}, 2, 4))
    np.testing.assert_array_equal(found["label"], values.astype(np.float32), strict=True)
    with pytest.raises(UserError, match=r"x\.root cannot be written: ROOT trees hold no half precision; leave out"):
        columns.refuse_output(tmp_path / "x.root", half=True)
    monkeypatch.setitem(sys.modules, "uproot", None)
    with pytest.raises(UserError, match=r"writing ROOT files needs uproot: pip install 'jetclr\[root\]'"):
        columns.refuse_output(tmp_path / "x.root")


def test_a_tree_is_one_branch_a_layer_and_attributes_beside_it(tmp_path: Path) -> None:
    table = {"embedding": np.ones((3, 4), np.float32), "row": np.arange(3)}
    with uproot.open(write(tmp_path / "x.root", table, 2, 3, jetclr_config="{}" * 200)) as file:
        assert file.classnames(cycle=False) == {"jetclr_config": "TObjString", "jetclr": "TTree"}
        assert {b.name: b.typename for b in file["jetclr"].branches} == {"embedding": "float[4]", "row": "int64_t"}
        assert file["jetclr_config"] == "{}" * 200


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_a_file_that_is_not_finished_is_not_there(tmp_path: Path, ending: str, stop: type[BaseException]) -> None:
    def begin() -> None:
        with columns.new_file(tmp_path / f"x.{ending}", {}, formats.ROWS) as sink:
            sink.append({"layer": np.zeros((formats.ROWS, 2), np.float32)})
            raise stop

    with pytest.raises(stop):
        begin()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 500 kB: what is written there fails with an OSError, as it does on a full disk."""
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, ending: str) -> None:
    table = {"layer": np.random.default_rng(0).normal(size=(3 * formats.ROWS, 8))}
    with pytest.raises(OSError, match="File too large"):
        write(tmp_path / f"x.{ending}", table, formats.ROWS, 3 * formats.ROWS)
    assert list(tmp_path.iterdir()) == []
