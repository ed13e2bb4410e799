import errno
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data import store as store_module
from jetclr.data.chunk import JetChunk, join_chunks, slice_chunk, sort_by_pt
from jetclr.data.store import Store, StoreWriter
from jetclr.errors import UserError
from tests.conftest import write_toy_store
from tests.toys import toy_chunk


def assert_equal(a: JetChunk, b: JetChunk) -> None:
    np.testing.assert_array_equal(a.offsets, b.offsets)
    for left, right in ((a.constituents, b.constituents), (a.jets, b.jets)):
        assert list(left) == list(right)
        for name in left:
            assert left[name].dtype == right[name].dtype
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@given(st.integers(0, 1000), st.integers(1, 60), st.integers(1, 25), st.integers(1, 20))
def test_written_and_read_back_is_identical(
    tmp_path_factory: pytest.TempPathFactory, seed: int, jets: int, block: int, piece: int
) -> None:
    chunk = toy_chunk(np.random.default_rng(seed), jets)
    path = tmp_path_factory.mktemp("store") / "s"
    with StoreWriter(path, {}, block_jets=block) as writer:
        for start in range(0, jets, piece):
            writer.append(slice_chunk(chunk, start, min(start + piece, jets)))
    found = Store(path)
    assert len(found) == jets
    assert max(len(b.offsets) - 1 for b in found.blocks) <= block
    assert_equal(join_chunks(list(found.chunks())), chunk)


def test_extras_and_several_stores_are_read_as_one(tmp_path: Path) -> None:
    chunk = toy_chunk(np.random.default_rng(0), 7)
    charge = np.arange(chunk.offsets[-1]).astype(np.float32)
    chunk = chunk._replace(constituents=chunk.constituents | {"charge": charge})
    for name in "ab":
        with StoreWriter(tmp_path / name, {"labels": {"0": "QCD"}}) as writer:
            writer.append(chunk)
    both = Store(tmp_path / "a", tmp_path / "b")
    assert_equal(join_chunks(list(both.chunks())), join_chunks([chunk, chunk]))
    np.testing.assert_array_equal(both.column("label"), np.tile(chunk.jets["label"], 2))
    assert both.label_names == {0: "QCD"}
    gathered = both.gather(np.array([9, 2]), 5, ("charge",))
    np.testing.assert_array_equal(gathered["charge"][0], gathered["charge"][1])


def test_stores_of_different_jet_columns_share_what_both_have(tmp_path: Path) -> None:
    chunk = toy_chunk(np.random.default_rng(0), 5)
    extra = chunk._replace(jets=chunk.jets | {"ttv": np.arange(5, dtype=np.int32)})
    for name, jets in (("a", extra), ("b", chunk)):
        with StoreWriter(tmp_path / name, {}) as writer:
            writer.append(jets)
    both = Store(tmp_path / "a", tmp_path / "b")
    assert both.columns == list(chunk.jets)
    assert len(join_chunks(list(both.chunks())).offsets) == 11
    charged = chunk._replace(constituents=chunk.constituents | {"charge": chunk.constituents["pt"]})
    with StoreWriter(tmp_path / "c", {}) as writer:
        writer.append(charged)
    mixed = Store(tmp_path / "a", tmp_path / "c")
    assert mixed.constituents == ["pt", "eta", "phi"]
    assert list(mixed.gather(np.arange(10), 3)) == ["pt", "eta", "phi"]
    with pytest.raises(UserError, match="has no constituent column 'charge'; it has"):
        mixed.gather(np.arange(10), 3, ("charge",))
    found = Store(tmp_path / "c").gather(np.arange(5), 3, ("charge",))
    np.testing.assert_array_equal(found["charge"], found["pt"])


def test_arrow_itself_reads_a_shard(tmp_path: Path) -> None:
    chunk = toy_chunk(np.random.default_rng(0), 5)
    with StoreWriter(tmp_path / "s", {}) as writer:
        writer.append(chunk)
    table = pa.ipc.open_file(tmp_path / "s" / "shard-00000.arrow").read_all()
    first = table.column("constituents")[0].as_py()
    assert [c["pt"] for c in first] == chunk.constituents["pt"][: chunk.offsets[1]].tolist()


@given(st.integers(0, 1000), st.integers(1, 40))
def test_gather_equals_a_loop(stores: dict[str, Path], seed: int, slots: int) -> None:
    store = Store(stores["train"])
    whole = join_chunks(list(store.chunks()))
    indices = np.random.default_rng(seed).integers(0, len(store), 50)
    found = store.gather(indices, slots)
    for row, jet in enumerate(indices):
        low, high = whole.offsets[jet], whole.offsets[jet + 1]
        for name in ("pt", "eta", "phi"):
            expected = np.zeros(slots, np.float32)
            part = whole.constituents[name][low:high][:slots]
            expected[: len(part)] = part
            np.testing.assert_array_equal(found[name][row], expected)


def test_constituents_are_kept_hardest_first() -> None:
    chunk = toy_chunk(np.random.default_rng(1), 6)
    rng = np.random.default_rng(2)
    order = np.concatenate([rng.permutation(np.arange(a, b)) for a, b in pairwise(chunk.offsets)])
    shuffled = chunk._replace(constituents={k: v[order] for k, v in chunk.constituents.items()})
    assert (shuffled.constituents["pt"] != chunk.constituents["pt"]).any()
    assert_equal(sort_by_pt(shuffled), chunk)


def broken(name: str, value: float) -> JetChunk:
    chunk = toy_chunk(np.random.default_rng(0), 4)
    values = chunk.constituents[name].copy()
    values[chunk.offsets[2] + 1] = value
    return chunk._replace(constituents=chunk.constituents | {name: values})


@pytest.mark.parametrize(
    ("name", "value"),
    [("pt", np.nan), ("pt", -1.0), ("pt", 0.0), ("pt", np.inf), ("eta", np.nan), ("phi", np.inf), ("phi", 4.0)],
)
def test_an_unsound_constituent_is_refused_by_name_and_nothing_is_left(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"jet 2 of src\.h5 has a constituent with {name} = "):  # noqa: SIM117
        with StoreWriter(tmp_path / "s", {}) as writer:
            writer.append(broken(name, value), source="src.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_jet_without_constituents_is_refused(tmp_path: Path) -> None:
    chunk = toy_chunk(np.random.default_rng(0), 4)
    offsets = np.insert(chunk.offsets, 2, chunk.offsets[2])
    jets = {name: np.append(x, x[:1]) for name, x in chunk.jets.items()}
    with pytest.raises(UserError, match="jet 2 has no constituents"), StoreWriter(tmp_path / "s", {}) as writer:
        writer.append(chunk._replace(offsets=offsets, jets=jets))


def test_a_column_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    chunk = toy_chunk(np.random.default_rng(0), 4)
    mass = chunk.jets["jet_mass"].copy()
    mass[3] = np.nan
    with pytest.raises(UserError, match="jet 3 has jet_mass = nan"), StoreWriter(tmp_path / "s", {}) as writer:
        writer.append(chunk._replace(jets=chunk.jets | {"jet_mass": mass}))


def test_nothing_to_write_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no jets"), StoreWriter(tmp_path / "s", {}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused_and_untouched(tmp_path: Path) -> None:
    path = write_toy_store(tmp_path / "s", 4, 0)
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    with pytest.raises(UserError, match="already exists"), StoreWriter(path, {}):
        pass
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    chunk = toy_chunk(np.random.default_rng(0), 25)
    with StoreWriter(tmp_path / "first", {}, block_jets=10) as writer:
        writer.append(chunk)
    with pytest.raises(OSError, match="No space left"):  # noqa: SIM117, PT012
        with StoreWriter(tmp_path / "s", {}, block_jets=10) as writer:
            writer.append(chunk)  # two blocks are on the disk, then it is full
            monkeypatch.setattr(store_module, "_record_batch", full)
            writer.append(chunk)
    assert [p.name for p in tmp_path.iterdir()] == ["first"]


def test_damaged_stores_are_named(tmp_path: Path) -> None:
    path = write_toy_store(tmp_path / "s", 40, 0)
    shard, metadata = path / "shard-00000.arrow", path / "metadata.json"
    whole, described = shard.read_bytes(), metadata.read_text()

    def says(text: str) -> None:
        with pytest.raises(UserError, match=text):
            Store(path)

    shard.write_bytes(whole[:-100])
    says("bytes where .* were written")
    shard.write_bytes(whole[:100] + bytes(len(whole) - 100))
    says("is damaged")
    shard.unlink()
    says("is missing from its store")
    shard.write_bytes(whole)
    assert len(Store(path)) == 40
    metadata.write_text(described[:50])
    says("metadata.json is damaged")
    metadata.write_text(described.replace('"version": 1', '"version": 9'))
    says("version 9; this program reads")
    metadata.write_text(described.replace('"0": "QCD"', '"zero": "QCD"'))
    says("metadata.json is damaged")
    metadata.write_text(described.replace("shard-00000.arrow", "../secret.arrow"))
    says("names a shard outside the store")
    metadata.unlink()
    says("is not a jet store")


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no store at"):
        Store(tmp_path / "none")


def test_an_unknown_column_is_named(stores: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"has no column 'tau21'; it has \['jet_pt'"):
        Store(stores["fit"]).column("tau21")


@given(st.integers(0, 600), st.integers(0, 600))
def test_a_stretch_of_a_column_is_a_slice_of_it(stores: dict[str, Path], start: int, stop: int) -> None:
    store = Store(stores["fit"], stores["test"])
    for name in ("jet_mass", "multiplicity"):
        found = store.column(name, start, stop)
        np.testing.assert_array_equal(found, store.column(name)[start:stop])
        assert found.dtype == store.column(name).dtype


def test_metadata_counts_what_is_there(stores: dict[str, Path]) -> None:
    metadata = json.loads((stores["train"] / "metadata.json").read_text())
    chunks = list(Store(stores["train"]).chunks())
    assert metadata["jets"] == sum(len(c.offsets) - 1 for c in chunks) == 600
    assert metadata["constituents"] == sum(int(c.offsets[-1]) for c in chunks)
