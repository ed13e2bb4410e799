"""What HDF5 files may claim, and what is believed of it."""

import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data.readers import hdf5, toptag
from jetclr.errors import UserError
from tests.jetclr.data.readers.mutations import mutants, survives

SECRET = np.arange(12, dtype=np.float32).reshape(4, 3)


def read(path: Path, name: str = "x") -> np.ndarray:
    """All of a data set [N, 3], as a reader would."""
    with hdf5.opened(path) as file:
        found = hdf5.numbers(file, path, name, "test", [(3,)])
        return np.concatenate([pieces["x"] for _, pieces in hdf5.batches(path, {"x": found}, 0, len(found), 5)])


def build(path: Path, fill: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w", libver="latest") as file:
        fill(file)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (3, 2)},
        {"chunks": (3, 3), "compression": "gzip"},
        {"chunks": (3, 2), "compression": "lzf", "maxshape": (None, 3)},
        {"dtype": ">f8"},
        {"dtype": "f2"},
    ],
)
def test_whole_files_are_read(tmp_path: Path, options: dict[str, object]) -> None:
    path = build(tmp_path / "a.h5", lambda f: f.create_dataset("x", data=SECRET, **options))
    np.testing.assert_array_equal(read(path), SECRET)


def test_compact_data_are_read(tmp_path: Path) -> None:
    def compact(file: h5py.File) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((4, 3)), plist).write(
            h5py.h5s.ALL, h5py.h5s.ALL, SECRET
        )

    np.testing.assert_array_equal(read(build(tmp_path / "a.h5", compact)), SECRET)


def virtual(file: h5py.File, elsewhere: Path) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource(elsewhere, "x", (4, 3))
    file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize(
    ("reach", "says"),
    [
        (lambda f, other: f.update({"x": h5py.ExternalLink(str(other), "x")}), "link to another place"),
        (lambda f, other: f.update({"x": h5py.SoftLink("/elsewhere")}), "link to another place"),
        (virtual, "lies in other files"),
        (
            lambda f, other: f.create_dataset("x", (4, 3), "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)]),
            "lies in other files",
        ),
    ],
)
def test_other_files_are_never_reached(tmp_path: Path, reach: Callable[[h5py.File, Path], object], says: str) -> None:
    other = build(tmp_path / "other.h5", lambda f: f.create_dataset("x", data=SECRET))
    path = build(tmp_path / "a.h5", lambda f: reach(f, other))
    with pytest.raises(UserError, match=says):
        read(path)


def test_links_on_the_way_are_not_followed(tmp_path: Path) -> None:
    other = build(tmp_path / "other.h5", lambda f: f.create_dataset("g/x", data=SECRET))
    path = build(tmp_path / "a.h5", lambda f: f.update({"g": h5py.ExternalLink(str(other), "g")}))
    with pytest.raises(UserError, match=r"'g/x' of .* is a link to another place"):
        read(path, "g/x")


def partly(file: h5py.File) -> None:
    file.create_dataset("x", (400, 3), "f4", chunks=(10, 3), compression="gzip")[:390] = 1


def grown(file: h5py.File) -> None:
    file.create_dataset("x", data=SECRET, chunks=(2, 3), maxshape=(None, 3)).resize(10**12, axis=0)


def bomb(file: h5py.File) -> None:
    data = file.create_dataset("x", (10, 3), "f4", chunks=(10, 3), compression="gzip")
    data.id.write_direct_chunk((0, 0), zlib.compress(bytes(32 << 20)))


@pytest.mark.parametrize(
    "fill",
    [partly, grown, bomb, lambda f: f.create_dataset("x", (400, 3), "f4")],
    ids=["chunks missing", "10^12 rows", "a chunk too large", "never written"],
)
def test_rows_that_are_not_there(tmp_path: Path, fill: Callable[[h5py.File], object]) -> None:
    """libhdf5 itself would give zeros, or as much memory as a chunk asks for."""
    with pytest.raises(UserError, match=r"is incomplete or damaged: 'x' claims .* rows, and not all are there"):
        read(build(tmp_path / "a.h5", fill))


@pytest.mark.parametrize(
    ("fill", "says"),
    [
        (lambda f: f.create_dataset("x", (1, 3), "f4", chunks=(2**26, 3), maxshape=(None, 3)), "chunks of 805,306,368"),
        (lambda f: f.create_dataset("x", (2, 2**20), "f4"), "rows of 4,194,304 bytes"),
        (lambda f: f.create_dataset("x", (4, 3), h5py.vlen_dtype("f4")), "should hold numbers and holds object"),
        (lambda f: f.create_dataset("x", (4, 3), h5py.string_dtype()), "should hold numbers and holds object"),
        (lambda f: f.create_dataset("x", data=np.zeros((4, 3), "S4")), "should be numbers of shape .* and is .S4"),
        (lambda f: f.create_dataset("x", data=np.zeros((4, 3), "i4,f4")), "should be numbers of shape"),
        (lambda f: f.create_dataset("x", data=np.zeros((4, 3), "c8")), "should be numbers of shape .* and is complex"),
        (lambda f: f.create_dataset("x", data=np.zeros((4, 3), int)), "should be numbers of shape .* and is int64"),
        (lambda f: f.create_dataset("x", data=np.zeros(4)), r"should be numbers of shape \[N, 3\] and is .* \[4\]"),
        (lambda f: f.create_dataset("x", data=1.0), "has no rows"),
        (lambda f: f.create_dataset("x", data=h5py.Empty("f4")), "has no rows"),
        (lambda f: f.create_group("x"), r"has no 'x', so it is not in the test layout; it holds \['x'\]"),
        (lambda f: h5py.h5g.create(f.id, b"\xff y"), r"it holds .*xff y"),
        (lambda f: f.update({"x": np.dtype("f4")}), "has no 'x'"),
    ],
)
def test_what_is_not_numbers_of_jets_is_refused(tmp_path: Path, fill: Callable[[h5py.File], object], says: str) -> None:
    with pytest.raises(UserError, match=says) as raised:
        read(build(tmp_path / "a.h5", fill))
    str(raised.value).encode()  # can be printed


def test_names_in_vain(tmp_path: Path) -> None:
    for path in (tmp_path / "none.h5", tmp_path / ("x" * 999), tmp_path):
        with pytest.raises(UserError), hdf5.opened(path):
            pass


def test_a_file_of_more_groups_than_can_be_told(tmp_path: Path) -> None:
    path = build(tmp_path / "a.h5", lambda f: [f.create_group(f"g{i:05d}") for i in range(3000)])
    with pytest.raises(UserError) as raised:
        read(path)
    assert len(str(raised.value)) < 500


@given(
    rows=st.integers(0, 60),
    chunk=st.integers(1, 60),
    start=st.integers(0, 70),
    length=st.integers(0, 70),
    size=st.integers(1, 30),
)
def test_batches_are_the_rows_in_order(rows: int, chunk: int, start: int, length: int, size: int) -> None:
    with h5py.File.in_memory() as file:
        values = np.arange(rows * 2).reshape(rows, 2)
        a = file.create_dataset("a", data=values, chunks=(min(chunk, max(rows, 1)), 1), maxshape=(None, 2))
        b = file.create_dataset("b", data=values[:, 0])
        found = list(hdf5.batches(Path("a.h5"), {"a": a, "b": b}, start, start + length, size))
    expected = values[start : start + length]
    assert all(len(pieces["a"]) == len(pieces["b"]) <= size for _, pieces in found)
    assert [first for first, _ in found] == [int(pieces["b"][0]) // 2 for _, pieces in found]
    for name, column in (("a", expected), ("b", expected[:, 0])):
        joined = [pieces[name] for _, pieces in found]
        np.testing.assert_array_equal(np.concatenate(joined) if joined else column[:0], column)


def test_batches_follow_the_chunks_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that lay in two reads would be unpacked twice."""
    reads = []
    getitem = h5py.Dataset.__getitem__

    def watched(self: h5py.Dataset, rows: slice) -> np.ndarray:
        reads.append((rows.start, rows.stop))
        return getitem(self, rows)

    path = build(tmp_path / "a.h5", lambda f: f.create_dataset("x", data=np.ones((100, 3)), chunks=(8, 3)))
    with hdf5.opened(path) as file:
        found = hdf5.dataset(file, path, "x", "test")
        monkeypatch.setattr(h5py.Dataset, "__getitem__", watched)
        sizes = [len(pieces["x"]) for _, pieces in hdf5.batches(path, {"x": found}, 4, 100, 20)]
        assert reads == [(4, 16), (16, 32), (32, 48), (48, 64), (64, 80), (80, 96), (96, 100)]
        assert sum(sizes) == 96
        reads.clear()
        list(hdf5.batches(path, {"x": found}, 4, 100, 5))  # chunks larger than what is asked for
        assert reads == [(4, 8), *((first, first + 8) for first in range(8, 96, 8)), (96, 100)]


def test_wide_rows_come_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed zeros of 4 GB are a small file."""
    monkeypatch.setattr(hdf5, "LARGEST_CHUNK", 6_000)
    with h5py.File.in_memory() as file:
        for chunks in ((2, 300), (1, 300), (5, 30), None):
            wide = file.create_dataset(f"x{chunks}", (50, 300), "f4", chunks=chunks, fillvalue=1)
            found = list(hdf5.batches(Path("a.h5"), {"x": wide}, 3, 50))
            assert max(pieces["x"].nbytes for _, pieces in found) <= 6_000
            assert [first for first, _ in found] == np.cumsum([3] + [len(p["x"]) for _, p in found])[:-1].tolist()
            assert sum(len(pieces["x"]) for _, pieces in found) == 47


def test_different_numbers_of_rows_are_refused(tmp_path: Path) -> None:
    path = build(tmp_path / "a.h5", lambda f: f.update({"a": np.ones(3), "b": np.ones(4)}))
    with hdf5.opened(path) as file, pytest.raises(UserError, match=r"different numbers of rows: {'a': 3, 'b': 4}"):
        hdf5.same_rows(path, {name: hdf5.dataset(file, path, name, "test") for name in ("a", "b")})


def test_mutants_are_the_same_each_time_and_damaged(tmp_path: Path) -> None:
    content = build(tmp_path / "a.h5", lambda f: f.create_dataset("x", data=SECRET)).read_bytes()
    first, again = list(mutants(content, 60, 3)), list(mutants(content, 60, 3))
    assert first == again
    assert list(mutants(content, 30, 3)) == first[:30]
    assert list(mutants(content, 30, 4)) != first[:30]
    assert sum(mutant != content for mutant in first) > 40
    assert max(map(len, first)) <= len(content) + 4096


def test_only_sentences_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> Callable[[Path], int]:
        def rows(path: Path) -> int:
            raise error

        return rows

    monkeypatch.setattr(toptag, "rows", fail(UserError("it is damaged")))
    assert survives(toptag, tmp_path) == "it is damaged"
    for error in (KeyError("x"), MemoryError(), RuntimeWarning("overflow"), UserError("")):
        monkeypatch.setattr(toptag, "rows", fail(error))
        with pytest.raises((type(error), AssertionError)):
            survives(toptag, tmp_path)
