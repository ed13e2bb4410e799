"""Plain arrays and list columns, written with NumPy, pyarrow and awkward."""

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import vector

from jetclr.data.chunk import JetChunk, check_chunk, join_chunks
from jetclr.data.kinematics import LARGEST_PHI
from jetclr.data.readers import Reader, arrays, lists, reader
from jetclr.data.store import Store, StoreWriter
from jetclr.errors import UserError
from tests.jetclr.data.readers.mutations import storm

COORDINATES = ("pt", "eta", "phi")


def cube(jets: int = 30, slots: int = 9, seed: int = 0) -> np.ndarray:
    """[jets, slots, 3] pt, eta, phi, zero-padded."""
    rng = np.random.default_rng(seed)
    x = np.zeros((jets, slots, 3), np.float32)
    for i in range(jets):
        n = int(rng.integers(1, slots + 1))
        x[i, :n] = np.column_stack([rng.exponential(10, n) + 0.1, rng.normal(0, 1, n), rng.uniform(-3, 3, n)])
    return x


def columns(x: np.ndarray) -> dict[str, ak.Array]:
    counts = (x[..., 0] > 0).sum(1)
    return {name: ak.unflatten(x[..., i][x[..., 0] > 0], counts) for i, name in enumerate(COORDINATES)}


def read(path: Path, start: int = 0, stop: int | None = None) -> JetChunk:
    chunks = list(arrays.read(path, start, arrays.rows(path) if stop is None else stop))
    for chunk in chunks:
        check_chunk(chunk)
    return join_chunks(chunks)


def agrees(chunk: JetChunk, x: np.ndarray) -> None:
    """Constituents as they were, jets as vector adds massless ones up."""
    assert len(chunk.offsets) == len(x) + 1
    assert chunk.offsets.dtype == np.int64
    for i, jet in enumerate(x.astype(np.float64)):
        real = jet[jet[:, 0] > 0]
        at = slice(chunk.offsets[i], chunk.offsets[i + 1])
        for k, name in enumerate(COORDINATES):
            np.testing.assert_array_equal(chunk.constituents[name][at], real[:, k].astype(np.float32))
        p = vector.array({"pt": real[:, 0], "eta": real[:, 1], "phi": real[:, 2], "mass": np.zeros(len(real))}).sum()
        for name in ("pt", "eta", "phi"):
            np.testing.assert_allclose(chunk.jets[f"jet_{name}"][i], getattr(p, name), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(chunk.jets["jet_mass"][i], p.mass, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(chunk.jets["row"], np.arange(len(x)))
    assert chunk.jets["row"].dtype == np.int64
    assert all(chunk.constituents[name].dtype == np.float32 for name in COORDINATES)
    assert all(chunk.jets[f"jet_{name}"].dtype == np.float32 for name in (*COORDINATES, "mass"))


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- NumPy


@pytest.mark.parametrize("kind", [np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("turned", [False, True])
def test_npy(tmp_path: Path, kind: Any, turned: bool) -> None:
    assert isinstance(reader("arrays"), Reader)
    x = cube()
    np.save(tmp_path / "a.npy", np.ascontiguousarray(x.transpose(0, 2, 1) if turned else x).astype(kind))
    assert arrays.recognises(tmp_path / "a.npy")
    chunk = read(tmp_path / "a.npy")
    agrees(chunk, x)
    assert "label" not in chunk.jets


@pytest.mark.parametrize("name", ["X", "jets", "constituents", "data", "whatever"])
@pytest.mark.parametrize("label", ["y", "label", "labels"])
def test_npz(tmp_path: Path, name: str, label: str) -> None:
    x, y = cube(), np.arange(30) % 3
    np.savez_compressed(tmp_path / "a.npz", **{"other": np.ones((2, 2)), name: x, label: y})
    chunk = read(tmp_path / "a.npz")
    agrees(chunk, x)
    np.testing.assert_array_equal(chunk.jets["label"], y)
    assert chunk.jets["label"].dtype == np.int32


def test_what_else_is_in_an_archive_does_no_harm(tmp_path: Path) -> None:
    x = cube()
    other = {"pickle": np.array([None]), "turned": np.asfortranarray(np.ones((3, 4))), "empty": np.ones((5, 0))}
    np.savez(tmp_path / "a.npz", jets=x, wide=np.ones((1, 3_000_000)), name=np.array("top"), **other)
    agrees(read(tmp_path / "a.npz"), x)


def test_rows_without_bytes_are_refused(tmp_path: Path) -> None:
    """They cost nothing to claim, and to go through them would take for ever."""
    with (tmp_path / "a.npy").open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 0, 3)}
        np.lib.format.write_array_header_1_0(file, header)
    assert "has rows of 0 bytes" in refused(tmp_path / "a.npy")


def test_padding_is_what_has_no_pt(tmp_path: Path) -> None:
    """Centred jets have angles in their padding."""
    x = cube()
    y = x.copy()
    y[..., 1:] += np.where(x[..., :1] == 0, 0.5, 0).astype(np.float32)
    np.save(tmp_path / "a.npy", y)
    agrees(read(tmp_path / "a.npy"), x)


def test_azimuths_are_wrapped(tmp_path: Path) -> None:
    x = np.zeros((1, 5, 3))
    x[0, :, 0] = 1
    x[0, :, 2] = 0, 3, 3.5, 2 * np.pi - 0.25, np.pi
    np.save(tmp_path / "a.npy", x)
    expected = [0, 3, 3.5 - 2 * np.pi, -0.25, LARGEST_PHI]
    np.testing.assert_allclose(read(tmp_path / "a.npy").constituents["phi"], expected, atol=1e-6)


def save(path: Path, **content: Any) -> Path:
    np.savez(path, **content)
    return path


def test_other_numpy_files_get_one_sentence(tmp_path: Path) -> None:
    def npy(x: np.ndarray) -> str:
        np.save(tmp_path / "a.npy", x)
        return refused(tmp_path / "a.npy")

    x, y = cube(), np.zeros(30)
    assert "3 constituents cannot be told from 3 coordinates" in npy(x[:, :3])
    assert "'array' is [30, 9, 2]: no axis is 3" in npy(x[..., :2])
    assert "it holds array float32 [30, 27]" in npy(x.reshape(30, 27))
    assert "'array' is int64" in npy(x.astype(np.int64))
    assert "is in Fortran order; save np.ascontiguousarray" in npy(np.asfortranarray(x))
    assert "Python objects, which are never read" in npy(np.full((5, 3, 4), None))
    several = save(tmp_path / "a.npz", a=x, b=x)
    assert "it holds a float32 [30, 9, 3], b float32 [30, 9, 3]" in refused(several)
    assert "it holds no arrays" in refused(save(tmp_path / "b.npz"))
    assert "must have one number a jet in y" in refused(save(tmp_path / "c.npz", X=x, y=np.zeros((30, 2))))
    y[7] = 0.5
    assert "jet 7 of" in refused(save(tmp_path / "d.npz", X=x, y=y))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    assert "truncated, damaged or another format" in refused(tmp_path / "a.npy")
    (tmp_path / "a.txt").write_text("pt eta phi")
    assert "begins with b'pt eta'" in refused(tmp_path / "a.txt")
    assert not arrays.recognises(tmp_path / "a.txt")
    assert "there is no file" in refused(tmp_path / "none.npy")


@pytest.mark.parametrize(
    ("coordinate", "value"),
    [(0, np.nan), (0, -1), (0, np.inf), (1, np.nan), (1, 900), (2, np.inf), (2, 180), (0, 1e300)],
)
def test_bad_constituents_are_named(tmp_path: Path, coordinate: int, value: float) -> None:
    x = cube().astype(np.float64)
    x[6, 0, coordinate] = value
    np.save(tmp_path / "a.npy", x)
    assert f"jet 6 of {tmp_path / 'a.npy'} has a constituent with pt" in refused(tmp_path / "a.npy")
    pq.write_table(ak.to_arrow_table(ak.Array(columns_with(x)), extensionarray=False), tmp_path / "a.parquet")
    assert f"jet 6 of {tmp_path / 'a.parquet'} has a constituent with pt" in refused(tmp_path / "a.parquet")


def columns_with(x: np.ndarray) -> dict[str, ak.Array]:
    """As `columns`, of jets with a bad number."""
    counts = (x[..., 0] != 0).sum(1)
    return {name: ak.unflatten(x[..., i][x[..., 0] != 0], counts) for i, name in enumerate(COORDINATES)}


# --- list columns


def struct_array(x: np.ndarray, **extras: ak.Array) -> ak.Array:
    return ak.Array({"cands": ak.zip(columns(x) | extras), "njets": np.arange(len(x))})


def prefixed(x: np.ndarray) -> ak.Array:
    return ak.Array({f"part_{name}": values for name, values in columns(x).items()})


WRITERS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "awkward records, Parquet": lambda x, path: ak.to_parquet(struct_array(x), path),
    "awkward records, Parquet with its types": lambda x, p: ak.to_parquet(struct_array(x), p, extensionarray=True),
    "awkward records, Feather": lambda x, path: ak.to_feather(struct_array(x), path),
    "awkward lists, Parquet": lambda x, path: ak.to_parquet(prefixed(x), path),
    "awkward without a name, Parquet": lambda x, path: ak.to_parquet(ak.zip(columns(x)), path),
    "awkward without a name, Feather": lambda x, path: ak.to_feather(ak.zip(columns(x)), path),
    "awkward in row groups": lambda x, path: ak.to_parquet(prefixed(x), path, row_group_size=7),
    "pyarrow lists, Parquet": lambda x, path: pq.write_table(listed(x), path, row_group_size=11),
    "pyarrow lists, LZ4 Feather": lambda x, path: feather.write_feather(listed(x), path, chunksize=11),
    "pyarrow lists, plain Feather": lambda x, p: feather.write_feather(listed(x), p, compression="uncompressed"),
    "nullable and dictionary-encoded": lambda x, p: pq.write_table(listed(x), p, use_dictionary=True, version="1.0"),
}


def listed(x: np.ndarray) -> pa.Table:
    return pa.table({name: pa.array(ak.to_list(values), pa.list_(pa.float32())) for name, values in columns(x).items()})


@pytest.mark.parametrize("writer", WRITERS)
def test_list_columns(tmp_path: Path, writer: str) -> None:
    x = cube()
    WRITERS[writer](x, tmp_path / "a")
    assert arrays.recognises(tmp_path / "a")
    agrees(read(tmp_path / "a"), x)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (7, 29), (13, 14), (22, 99), (5, 5)])
def test_a_range_is_the_same_jets(
    tmp_path: Path, writer: str, start: int, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[writer](cube(), tmp_path / "a")
    whole = read(tmp_path / "a")
    monkeypatch.setattr(lists, "ROWS", 4)
    monkeypatch.setattr(lists, "CONSTITUENTS", 10)
    chunks = list(arrays.read(tmp_path / "a", start, stop))
    assert all(len(c.offsets) == 2 or c.offsets[-1] <= 10 for c in chunks)
    if start == stop:
        assert chunks == []
        return
    part = join_chunks(chunks)
    low, high = whole.offsets[start], whole.offsets[min(stop, 30)]
    np.testing.assert_array_equal(part.offsets, whole.offsets[start : stop + 1] - low)
    for name, values in part.constituents.items():
        np.testing.assert_array_equal(values, whole.constituents[name][low:high])
    for name, values in part.jets.items():
        np.testing.assert_array_equal(values, whole.jets[name][start:stop])


@pytest.mark.parametrize(("start", "stop"), [(0, 30), (11, 12), (3, 29)])
def test_a_range_of_numpy_jets(tmp_path: Path, start: int, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = cube()
    np.savez_compressed(tmp_path / "a.npz", data=x, label=np.arange(30))
    np.save(tmp_path / "a.npy", x)
    monkeypatch.setattr(arrays, "ROWS", 4)
    for name in ("a.npz", "a.npy"):
        part = read(tmp_path / name, start, stop)
        np.testing.assert_array_equal(part.jets["row"], np.arange(start, stop))
        np.testing.assert_array_equal(part.constituents["eta"], x[start:stop][x[start:stop, :, 0] > 0][:, 1])
    np.testing.assert_array_equal(read(tmp_path / "a.npz", start, stop).jets["label"], np.arange(start, stop))


def test_a_program_without_awkward_reads_awkward_files(tmp_path: Path) -> None:
    """Its extension types are then unknown to Arrow, which shows what lies below them."""
    WRITERS["awkward records, Feather"](cube(), tmp_path / "a")
    code = (
        "import sys; from pathlib import Path; from jetclr.data.readers import arrays\n"
        "chunk, = arrays.read(Path(sys.argv[1]), 0, 30)\n"
        "assert 'awkward' not in sys.modules\n"
        "print(repr(float(chunk.constituents['eta'].sum(dtype='f8'))))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], capture_output=True, text=True, check=True)
    assert float(done.stdout) == read(tmp_path / "a").constituents["eta"].sum(dtype="f8")


def test_extras_and_jet_columns(tmp_path: Path) -> None:
    x = cube()
    real = x[..., 0] > 0
    counts = real.sum(1)
    total = int(counts.sum())
    rng = np.random.default_rng(1)
    extras = {
        "charge": rng.integers(-1, 2, total).astype(np.float64), "pdg": rng.choice([211, -13], total),
        "d0": rng.normal(0, 1, total), "b": rng.random(total) > 0.5, "half": rng.random(total).astype(np.float16),
        "hits": rng.integers(0, 99, total).astype(np.uint16),
    }  # fmt: skip
    kinds = {"charge": "i1", "pdg": "i4", "d0": "f4", "b": "i1", "half": "f4", "hits": "u2"}
    jagged = {name: ak.unflatten(values, counts) for name, values in extras.items()}
    scalars = {
        "y": np.arange(30) % 2, "split": np.full(30, 2), "jet_mass": np.arange(30.0), "jet_phi": np.full(30, 6.0),
        "seen": np.arange(30) > 3, "event": np.arange(30) + 2**40, "row": np.zeros(30), "n": np.ones(30, np.float16),
    }  # fmt: skip
    table = {f"p_{name}": pa.array(ak.to_list(v)) for name, v in columns(x).items()}
    table |= {f"p_{name}": ak.to_arrow(v, extensionarray=False) for name, v in jagged.items()}
    table |= {name: pa.array(values) for name, values in scalars.items()}
    table |= {"name": pa.array(["jet"] * 30), "sv_pt": pa.array([[1.0]] * 30), "p_tag": pa.array([["a"]] * 30)}
    pq.write_table(pa.table(table), tmp_path / "lists.parquet")
    records = ak.Array({"c": ak.zip(columns(x) | jagged), **scalars})
    ak.to_parquet(records, tmp_path / "structs.parquet")
    for file in ("lists.parquet", "structs.parquet"):
        chunk = read(tmp_path / file)
        assert set(chunk.constituents) == {*COORDINATES, *extras}
        for name, values in extras.items():
            assert chunk.constituents[name].dtype == kinds[name]
            np.testing.assert_allclose(chunk.constituents[name], np.asarray(values, np.float64), rtol=1e-6)
        jets = chunk.jets
        computed = {"jet_pt", "jet_eta", "jet_phi", "jet_mass", "row", "label"}
        assert set(jets) == computed | {"split", "seen", "event", "n"}
        np.testing.assert_array_equal(jets["row"], np.arange(30))
        np.testing.assert_array_equal(jets["label"], scalars["y"])
        np.testing.assert_array_equal(jets["event"], scalars["event"])
        np.testing.assert_array_equal(jets["jet_mass"], scalars["jet_mass"])
        np.testing.assert_allclose(jets["jet_phi"], 6 - 2 * np.pi, rtol=1e-6)
        kept = {"label": "i4", "split": "i1", "seen": "i1", "event": "i8", "jet_mass": "f4", "n": "f4"}
        assert {name: jets[name].dtype for name in kept} == {name: np.dtype(kind) for name, kind in kept.items()}


def test_the_shards_of_a_store_can_be_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=cube(), y=np.arange(30))
    with StoreWriter(tmp_path / "s", {}, block_jets=8) as writer:
        for chunk in arrays.read(tmp_path / "a.npz", 0, 30):
            writer.append(chunk)
    store = Store(tmp_path / "s")
    chunk = read(tmp_path / "s" / "shard-00000.arrow")
    assert set(chunk.jets) == set(store.columns)
    for name in ("label", "jet_pt", "row"):
        np.testing.assert_array_equal(chunk.jets[name], store.column(name))
    np.testing.assert_array_equal(
        chunk.constituents["pt"], np.concatenate([b.constituents["pt"] for b in store.blocks])
    )


def test_fixed_size_lists(tmp_path: Path) -> None:
    x = np.abs(cube(6, 4)) % 2 + 0.5
    lists_ = {n: pa.FixedSizeListArray.from_arrays(pa.array(x[..., i].ravel()), 4) for i, n in enumerate(COORDINATES)}
    pq.write_table(pa.table(lists_), tmp_path / "a.parquet")
    feather.write_feather(pa.table(lists_), tmp_path / "a.feather")
    for name in ("a.parquet", "a.feather"):
        agrees(read(tmp_path / name), x)
        np.testing.assert_array_equal(read(tmp_path / name, 2, 4).constituents["pt"], x[2:4, :, 0].ravel())


def table_refused(path: Path, columns: dict[str, Any]) -> str:
    """The sentence for a Parquet file, which must be that for a Feather file."""
    said = set()
    for name, write in (("a.parquet", pq.write_table), ("a.feather", feather.write_feather)):
        write(pa.table(columns), path / name)
        said.add(refused(path / name).replace(name, "FILE"))
    (sentence,) = said
    return sentence


def test_other_tables_get_one_sentence(tmp_path: Path) -> None:
    one = {name: [[1.0, 2.0], [1.0]] for name in COORDINATES}
    assert "it has a: int64" in table_refused(tmp_path, {"a": [1, 2]})
    assert "it has several: pt, eta, phi; sv_pt, sv_eta, sv_phi" in table_refused(
        tmp_path, one | {f"sv_{name}": values for name, values in one.items()}
    )
    assert "missing values in column 'eta'" in table_refused(tmp_path, one | {"eta": [[1.0, None], [1.0]]})
    assert "missing values in column 'phi'" in table_refused(tmp_path, one | {"phi": [[1.0, 2.0], None]})
    assert "missing values in column 'm'" in table_refused(tmp_path, one | {"m": [None, 2]})
    records = [[dict.fromkeys(COORDINATES, 1.0)], [None]]
    assert "missing values in column 'c'" in table_refused(tmp_path, {"c": records})
    assert "column named 'm [GeV]'; rename it" in table_refused(tmp_path, one | {"m [GeV]": [1, 2]})
    assert "column named 'd/0'; rename it" in table_refused(tmp_path, one | {"d/0": [[1, 2], [1]]})
    assert "a column of numbers named 'constituents'" in table_refused(tmp_path, one | {"constituents": [1, 2]})
    assert "jet 1 of" in table_refused(tmp_path, one | {"d0": [[1, 2], [1, 2]]})
    assert "has 2 values in 'd0' where 'pt' has 1" in table_refused(tmp_path, one | {"d0": [[1, 2], [1, 2]]})
    assert "jet 1 of" in table_refused(tmp_path, one | {"charge": [[1, 2], [0.5]]})
    assert "jet 1 of" in table_refused(tmp_path, one | {"label": [1, 1.5]})
    assert "has split = 999" in table_refused(tmp_path, one | {"split": [1, 999]})
    assert "jet 1 of" in table_refused(tmp_path, one | {"event": pa.array([1, 2**63], pa.uint64())})
    assert "jet_phi that is no azimuth in radians" in table_refused(tmp_path, one | {"jet_phi": [1.0, 170.0]})


def test_columns_with_common_names_have_their_common_types(tmp_path: Path) -> None:
    """Else a store from one file could not be joined to one from another."""
    table = {name: pa.array([[1.0, 2.0], [1.0]]) for name in COORDINATES}
    table |= {name: pa.array([1.0, 2.0]) for name in ("event", "run", "luminosity_block", "jet_index", "tau1")}
    table |= {"weight": pa.array([1, 2]), "mine": pa.array([1.0, 2.0])}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    jets = read(tmp_path / "a.parquet").jets
    expected = {"event": "i8", "run": "i8", "luminosity_block": "i8", "jet_index": "i1", "tau1": "f4", "weight": "f4"}
    for name, kind in (expected | {"mine": "f8"}).items():
        assert jets[name].dtype == kind
        assert jets[name].tolist() == [1, 2]


def test_names_from_a_file_are_shown_without_their_tricks(tmp_path: Path) -> None:
    """A terminal obeys escape sequences; a log has one sentence a line."""
    name = "a\n\x1b[2Jjetclr: all is well"
    assert "a [2Jjetclr: all is well: int64" in table_refused(tmp_path, {name: [1, 2]})
    one = {name: [[1.0, 2.0], [1.0]] for name in COORDINATES}
    assert r"'a\n\x1b[2Jjetclr" in table_refused(tmp_path, one | {name: [1, 2]})
    said = refused(save(tmp_path / "a.npz", **{name: np.ones((2, 2)), "b": np.ones((2, 2))}))
    assert "a [2Jjetclr: all is well float64 [2, 2], b float64" in said
    assert len(refused(save(tmp_path / "b.npz", **{f"x{i}": np.ones(2) for i in range(900)}))) < 2000


def test_a_large_row_group_is_never_held(tmp_path: Path) -> None:
    """One row group and one record batch of 96 MB."""
    jets, each = 80_000, 100
    values = pa.array(np.random.default_rng(0).random(jets * each, np.float32) + np.float32(0.5))
    column = pa.ListArray.from_arrays(pa.array(np.arange(jets + 1, dtype=np.int32) * each), values)
    table = pa.table(dict.fromkeys(COORDINATES, column))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=jets, use_dictionary=False, compression="none")
    feather.write_feather(table, tmp_path / "a.feather", compression="uncompressed", chunksize=jets)
    del table, column, values
    for name in ("a.parquet", "a.feather"):
        before = pa.total_allocated_bytes()
        most = 0
        tracemalloc.start()
        try:
            for chunk in arrays.read(tmp_path / name, 60_000, jets):
                assert len(chunk.offsets) <= 4097
                most = max(most, pa.total_allocated_bytes() - before)
            assert tracemalloc.get_traced_memory()[1] < 100e6
        finally:
            tracemalloc.stop()
        assert most < 30e6


def test_large_compressed_batches_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "INFLATED_ROWS", 20)
    table = listed(cube())
    feather.write_feather(table, tmp_path / "a", compression="uncompressed")
    agrees(read(tmp_path / "a"), cube())
    feather.write_feather(table, tmp_path / "a", compression="zstd", chunksize=20)
    agrees(read(tmp_path / "a"), cube())
    feather.write_feather(table, tmp_path / "a", compression="zstd")
    assert "compressed in pieces of 30 rows" in refused(tmp_path / "a")


def test_larger_jets_come_fewer_at_a_time(tmp_path: Path) -> None:
    """Of 5,000 jets with 2,000 constituents, 4,096 would be too many."""
    values = pa.array(np.full(10_000_000, 0.5, np.float32))
    column = pa.ListArray.from_arrays(pa.array(np.arange(5001, dtype=np.int32) * 2000), values)
    pq.write_table(pa.table(dict.fromkeys(COORDINATES, column)), tmp_path / "a.parquet")
    del values, column
    sizes, before = [], pa.total_allocated_bytes()
    for chunk in arrays.read(tmp_path / "a.parquet", 0, 2000):
        sizes.append(len(chunk.offsets) - 1)
        assert pa.total_allocated_bytes() - before < 60e6
    assert max(sizes) == (1 << 20) // 2000
    assert sum(sizes) == 2000


KINDS: dict[str, Callable[[Path], Any]] = {
    "a.npy": lambda path: np.save(path, cube(20)),
    "a.npz": lambda path: np.savez_compressed(path, X=cube(20), y=np.arange(20)),
    "a.parquet": lambda path: pq.write_table(listed(cube(20)), path, row_group_size=8),
    "b.parquet": lambda path: ak.to_parquet(struct_array(cube(20)), path),
    "a.feather": lambda path: feather.write_feather(listed(cube(20)), path, chunksize=8),
    "b.feather": lambda path: ak.to_feather(struct_array(cube(20)), path, compression="uncompressed"),
}


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_get_jets_or_a_sentence(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name)
    toll = storm("arrays", tmp_path / name, 40)
    assert not [*toll.faults, *toll.crashes, *toll.hangs], str(toll)
    assert toll.refused


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_thousand_damaged_files(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name)
    toll = storm("arrays", tmp_path / name, 1000, seed=1)
    assert not [*toll.faults, *toll.crashes, *toll.hangs], str(toll)
