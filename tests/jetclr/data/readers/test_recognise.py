"""Formats are told by content: names of files say nothing here."""

import bz2
import gzip
import lzma
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import uproot

from jetclr.data.readers import FORMATS
from jetclr.data.readers.recognise import recognise
from jetclr.errors import UserError
from tests.conftest import write_toy_store
from tests.jetclr.data.readers import test_arrays, test_jetclass, test_qg

TOPTAG = np.dtype([("index", "<i8"), ("values_block_0", "<f4", (804,)), ("values_block_1", "<i8", (2,))])
LISTS = {name: [[1.0, 2.0], [1.0]] for name in ("pt", "eta", "phi")}


def hdf5(path: Path, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


ASPEN = {"event_info": (4, 3), "jet_kinematics": (4, 4), "PFCands": (4, 150, 11), "jet_tagging": (4, 13)}
FILES: dict[str, Callable[[Path], Any]] = {
    "toptag": lambda path: hdf5(path, **{"table/table": np.zeros(4, TOPTAG)}),
    "jetnet": lambda path: hdf5(path, particle_features=np.ones((4, 30, 4)), jet_features=np.ones((4, 4))),
    "lhco": lambda path: hdf5(path, **{"df/block0_values": np.zeros((4, 2101), np.float32)}),
    "aspen": lambda path: hdf5(path, **{name: np.ones(shape, np.float32) for name, shape in ASPEN.items()}),
    "jetclass": lambda path: test_jetclass.write(path, test_jetclass.branches(4)),
    "qg": lambda path: saved(path, X=test_qg.content(4)[0], y=test_qg.content(4)[1]),
    "arrays": lambda path: saved(path, X=test_arrays.cube(4), y=np.zeros(4)),
    "arrays, npy": lambda path: saved_alone(path, test_arrays.cube(4)),
    "arrays, Parquet": lambda path: pq.write_table(pa.table(LISTS), path),
    "arrays, Feather": lambda path: feather.write_feather(pa.table(LISTS), path),
}


def saved(path: Path, **content: np.ndarray) -> None:
    with path.open("wb") as file:  # by a path, NumPy would add .npz to the name
        np.savez_compressed(file, **content)


def saved_alone(path: Path, content: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, content)


@pytest.mark.parametrize("kind", FILES)
def test_every_format_is_recognised(tmp_path: Path, kind: str) -> None:
    FILES[kind](tmp_path / "file")
    assert recognise(tmp_path / "file") == kind.partition(",")[0]


def test_every_format_is_tried() -> None:
    assert {kind.partition(",")[0] for kind in FILES} == set(FORMATS)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        recognise(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def test_what_is_not_recognised_is_described(tmp_path: Path) -> None:
    file = tmp_path / "file"
    hdf5(file, a=np.zeros(3), b=np.zeros(3))
    said = refused(file)
    assert said.startswith("FILE is an HDF5 file holding ['a', 'b'], and none of toptag, jetnet, lhco, aspen; give --f")
    hdf5(file, **{f"x{i:02}": np.zeros(1) for i in range(30)})
    assert "'x11'] and 18 more" in refused(file)
    test_jetclass.write(file, test_jetclass.branches(3), tree="Events")
    assert "FILE is a ROOT file of no known format: FILE has no tree 'tree'" in refused(file)
    assert "['Events (TTree)']" in refused(file)
    saved(file, weights=np.zeros((2, 2)))
    assert "FILE is an archive holding weights float64 [2, 2], and none of qg, arrays" in refused(file)
    saved_alone(file, np.zeros((5, 7)))
    assert "FILE is a NumPy array of no known format: " in refused(file)
    assert "it holds array float64 [5, 7]" in refused(file)
    pq.write_table(pa.table({"a": [1, 2]}), file)
    assert "FILE is a Parquet file of no known format: " in refused(file)
    assert "it has a: int64" in refused(file)
    feather.write_feather(pa.table({"a": [1, 2]}), file)
    assert "FILE is an Arrow file of no known format: " in refused(file)


def test_other_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    text = b"pt,eta,phi\n" * 300
    (tmp_path / "plain").write_bytes(text)
    with tarfile.open(tmp_path / "tar", "w") as archive:
        archive.add(tmp_path / "plain", "plain")
    with pa.ipc.new_stream(tmp_path / "stream", pa.schema([("a", pa.int8())])):
        pass
    for content, says in (
        (text, "text, 'pt,eta,phi"),
        ("\u03b7".encode() * 700, "text, "),
        (b"", "empty"),
        (gzip.compress(text), "compressed with gzip"),
        (bz2.compress(text), "compressed with bzip2"),
        (lzma.compress(text), "compressed with xz"),
        (pa.compress(text, "zstd", asbytes=True), "compressed with zstd"),
        ((tmp_path / "tar").read_bytes(), "a tar archive"),
        ((tmp_path / "stream").read_bytes(), "an Arrow stream"),
        (b"FEA1" + bytes(20), "a Feather file of version 1"),
        (b"\x80\x04\x95abc", "a pickle, perhaps, and those are never read"),
        (bytes(range(1, 30)), "of an unknown kind, and begins with b'"),
        (b"\xff\xfe\x00\x01", "of an unknown kind"),
    ):
        file.write_bytes(content)
        assert refused(file).startswith(f"FILE is {says}")


def test_files_that_several_formats_fit(tmp_path: Path) -> None:
    """[N, 3, 4]: three particles of (pT, y, phi, PDG number), or (pT, eta, phi) of four."""
    saved(tmp_path / "file", X=np.ones((5, 3, 4)), y=np.zeros(5))
    assert "FILE is an archive that may be qg or arrays; give --format to choose" in refused(tmp_path / "file")


def test_hdf5_after_a_block_of_the_users(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file", "w", userblock_size=512) as file:
        file["table/table"] = np.zeros(4, TOPTAG)
    assert recognise(tmp_path / "file") == "toptag"


def test_what_is_no_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == "there is no file FILE"
    assert refused(tmp_path) == "FILE is a folder; name the files in it"
    assert refused(write_toy_store(tmp_path / "store", 5, 0)) == "FILE is a jet store already"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0)
    assert refused(tmp_path / "file") == "FILE cannot be read: permission denied"


def test_a_missing_uproot_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FILES["jetclass"](tmp_path / "file")
    monkeypatch.setitem(sys.modules, "uproot", None)
    assert "FILE is a ROOT file; it needs uproot: pip install 'jetclr[root]'" in refused(tmp_path / "file")


def test_truncated_files_get_a_sentence(tmp_path: Path) -> None:
    for kind, write in FILES.items():
        write(tmp_path / "whole")
        content = (tmp_path / "whole").read_bytes()
        for size in (1, 7, 100, len(content) // 2, len(content) - 9):
            (tmp_path / "file").write_bytes(content[:size])
            try:
                found = recognise(tmp_path / "file")
            except UserError as error:
                found = str(error)
            assert found == kind.partition(",")[0] or str(tmp_path / "file") in found


def test_a_renamed_tree_of_histograms(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "file") as file:
        file["tree"] = np.histogram(np.arange(5))
    assert "has no tree 'tree'" in refused(tmp_path / "file")
