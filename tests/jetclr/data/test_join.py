"""Parts put together: bit for bit what would have been made at once, or one sentence about what does not fit."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot

from jetclr import embed
from jetclr.cli import main
from jetclr.data import columns
from jetclr.data import store as store_module
from jetclr.data.chunk import JetChunk, slice_chunk
from jetclr.data.generate import generate
from jetclr.data.join import join
from jetclr.data.shard import Shard
from jetclr.data.sinks.arrow import TableSink
from jetclr.data.sinks.hdf5 import Hdf5Sink
from jetclr.data.sinks.root import RootSink
from jetclr.data.store import Store, StoreWriter
from jetclr.errors import UserError
from tests.conftest import write_toy_store
from tests.toys import toy_chunk

Make = Callable[..., Path]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def working(count: int, units: int = 3) -> list[Shard]:
    """The shards that have something to do."""
    return [shard for index in range(count) if (shard := Shard(index, count)).part(units)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes 12 QCD jets in three units, or a shard of them, as the command line does."""
    pytest.importorskip("pythia8mc", reason="generating is an optional extra")
    pytest.importorskip("fastjet", reason="generating is an optional extra")

    def make(shard: Shard | None = None) -> Path:
        out = tmp_path_factory.mktemp("made") / "jets"
        told = f"jetclr generate --jets 12 {'' if shard is None else f'--shard {shard} '}{out.name}"
        generate("qcd", out, jets=12, seed=3, unit_jets=5, workers=1, shard=shard, command=told)
        return out

    return make


@pytest.fixture(scope="module")
def at_once(made: Make) -> Path:
    return made()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_generated_parts_become_the_store_made_at_once(made: Make, at_once: Path, tmp_path: Path, count: int) -> None:
    """Of four shards of three units one has nothing to do, and is not missed."""
    parts = [made(shard) for shard in working(count)]
    assert join([*parts[1:], *parts[:1]], tmp_path / "jets") == 12
    assert contents(tmp_path / "jets") == contents(at_once)
    assert [path.name for path in tmp_path.iterdir()] == ["jets"]


CHUNK = toy_chunk(np.random.default_rng(0), 12)


def write_part(path: Path, shard: Shard, /, **changes: Any) -> Path:
    """The part of a generated store of 12 jets in units of 5, with toy jets."""
    jets = shard.jets(12, 5)
    units = len(jets[::5])
    counts = {"tried": [9] * units, "events": [3] * units, "jets": [5] * units}
    counts |= {"sigma_mb": [0.5] * units, "sigma_error_mb": [0.1] * units}
    source = {"process": "qcd", "jets": 12, "seed": 3, "unit_jets": 5, "window": {"radius": 0.8}, "shard": str(shard)}
    with StoreWriter(path, source | {"unit_counts": counts} | changes, block_jets=4) as writer:
        writer.append(slice_chunk(CHUNK, jets.start, jets.stop))
    return path


def test_blocks_and_shards_of_the_store_are_those_of_one_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of five jets, two of them a file, from parts in blocks of four."""
    monkeypatch.setattr(store_module, "SHARD_BLOCKS", 2)
    parts = [write_part(tmp_path / str(shard.index), shard) for shard in working(3)]
    with StoreWriter(tmp_path / "whole", {}, block_jets=5) as writer:
        writer.append(CHUNK)
    monkeypatch.setattr("jetclr.data.join.StoreWriter", partial(StoreWriter, block_jets=5))
    join(parts, tmp_path / "joined")
    whole, joined = contents(tmp_path / "whole"), contents(tmp_path / "joined")
    assert sorted(joined) == ["metadata.json", "shard-00000.arrow", "shard-00001.arrow"]
    assert {name: joined[name] for name in joined if name.endswith("arrow")}.items() <= whole.items()
    source = Store(tmp_path / "joined").metadata[0]["source"]
    assert (source["phase_space_points"], source["events"], source["jets_found"]) == (27, 9, 15)
    assert source["cross_section_pb"] == pytest.approx(0.5e9)
    assert source["cross_section_error_pb"] == pytest.approx(0.1e9 / np.sqrt(3))
    assert not {"shard", "unit_counts"} & set(source)


@pytest.mark.parametrize(
    ("third", "changes", "says"),
    [
        (None, {}, "missing beside .*/0: part 2/3; name it, or make it with --shard and the same settings"),
        ("1/3", {}, "/1 and .*/third are both part 1/3; name one of them"),
        ("2/4", {}, "/third is part 2/4, and .*/0 is part 0/3: they do not fit"),
        ("2/3", {"seed": 4}, "/third does not belong to .*/0: it has seed = 4, not 3"),
        ("2/3", {"jets": 11}, r"/third does not say rightly which part it is \(2 jets where 1 belong\)"),
        ("2/3", {"window": {"radius": 0.4}}, "it has window radius = 0.4, not 0.8"),
        ("2/3", {"process": "top"}, "it has process = top, not qcd"),
        ("2/3", {"extra": 1}, "it has extra = 1, not None"),
        ("2/3", {"shard": "3/3"}, "/third does not say rightly which part it is .shard is '3/3'"),
        ("2/3", {"shard": 2}, "/third does not say rightly which part it is"),
        ("2/3", {"unit_jets": 0}, "/third does not say rightly which part it is"),
        ("2/3", {"unit_counts": {}}, "/third does not say rightly which part it is"),
    ],
)
def test_parts_that_do_not_fit_are_named(tmp_path: Path, third: str | None, changes: dict[str, Any], says: str) -> None:
    parts = [write_part(tmp_path / str(index), Shard(index, 3)) for index in range(2)]
    if third is not None:
        parts.append(write_part(tmp_path / "third", Shard.parse(third), **changes))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=says):
        join(parts, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_a_store_among_parts_is_named(tmp_path: Path) -> None:
    part, other = write_part(tmp_path / "part", Shard(0, 2)), write_toy_store(tmp_path / "other", 4, 0)
    with pytest.raises(UserError, match="/other was not made with --shard, as others were; join those first"):
        join([part, other], tmp_path / "out")
    (tmp_path / "file.h5").touch()
    with pytest.raises(UserError, match="one is a folder, the other a file"):
        join([part, tmp_path / "file.h5"], tmp_path / "out")
    with pytest.raises(UserError, match=r"there is nothing at .*/none"):
        join([part, tmp_path / "none"], tmp_path / "out")
    with pytest.raises(UserError, match="/other already exists"):
        join([part], other)


def test_independent_stores_are_joined_as_named(tmp_path: Path) -> None:
    chunk = CHUNK
    backwards = chunk._replace(jets=dict(reversed(chunk.jets.items())))
    for name, jets, source in (
        ("b", chunk, {"labels": {"1": "top"}, "seed": 1}),
        ("a", backwards, {"labels": {"0": "QCD"}}),
    ):
        with StoreWriter(tmp_path / name, source, block_jets=5) as writer:
            writer.append(jets)
    with StoreWriter(tmp_path / "both", {}) as writer:
        for _ in range(2):
            writer.append(chunk)
    assert main(["join", str(tmp_path / "b"), str(tmp_path / "a"), str(tmp_path / "joined")]) == 0
    assert contents(tmp_path / "joined")["shard-00000.arrow"] == contents(tmp_path / "both")["shard-00000.arrow"]
    source = Store(tmp_path / "joined").metadata[0]["source"]
    assert source["labels"] == {"0": "QCD", "1": "top"}
    assert source["joined"] == [
        {"store": "b", "jets": 12, "source": {"labels": {"1": "top"}, "seed": 1}},
        {"store": "a", "jets": 12, "source": {"labels": {"0": "QCD"}}},
    ]


def with_column(chunk: JetChunk, name: str, dtype: type) -> JetChunk:
    return chunk._replace(jets=chunk.jets | {name: np.zeros(len(chunk.offsets) - 1, dtype)})


@pytest.mark.parametrize(
    ("chunk", "labels", "says"),
    [
        (CHUNK, {"1": "W"}, "label 1 is 'top' in .*/first and 'W' in .*/second, so they stay apart"),
        (with_column(CHUNK, "ttv", np.int32), {}, "/second does not belong to .*/first: it has ttv = int32, not None"),
        (with_column(CHUNK, "label", np.int64), {}, "/second does not belong .* it has label = int64, not int32"),
    ],
)
def test_independent_stores_that_do_not_agree_are_named(
    tmp_path: Path, chunk: JetChunk, labels: dict[str, str], says: str
) -> None:
    write_toy_store(tmp_path / "first", 4, 0)
    with StoreWriter(tmp_path / "second", {"labels": labels}) as writer:
        writer.append(chunk)
    with pytest.raises(UserError, match=says):
        join([tmp_path / "first", tmp_path / "second"], tmp_path / "out")
    with pytest.raises(UserError, match="/first is named twice"):
        join([tmp_path / "first", tmp_path / "first"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def embedded(run: Path, sources: list[Path], out: Path, shard: Shard | None = None) -> Path:
    out.parent.mkdir(exist_ok=True)
    embed.embed_store(run, sources, out, ("projection", "embedding"), shard=shard)
    return out


@pytest.mark.parametrize(("name", "count"), [("e.h5", 1), ("e.h5", 3), ("e.parquet", 4), ("e.arrow", 2), ("e.root", 2)])
def test_embedded_parts_become_the_file_made_at_once(
    run: Path, stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    """Three batches of two stores, the last not full; tables in groups of two of them."""
    monkeypatch.setattr(embed, "BATCH", 256)
    monkeypatch.setattr(TableSink, "ROWS", 300)
    sources = [stores["fit"], stores["test"]]
    whole = embedded(run, sources, tmp_path / "whole" / name)
    parts = [embedded(run, sources, tmp_path / str(s.index) / name, s) for s in working(count)]
    assert join(parts[::-1], tmp_path / name) == 600
    if name == "e.h5":
        with h5py.File(whole) as expected, h5py.File(tmp_path / name) as found:
            assert dict(found.attrs) == dict(expected.attrs)
            assert list(found) == list(expected)
            for column, data in expected.items():
                assert found[column].dtype == data.dtype
                assert found[column].chunks == data.chunks
                np.testing.assert_array_equal(found[column][:], data[:])
    elif name == "e.parquet":
        assert pq.ParquetFile(tmp_path / name).num_row_groups == 2
        assert pq.read_table(tmp_path / name).equals(pq.read_table(whole), check_metadata=True)
    elif name == "e.root":  # these keep the time and a number of their own
        assert columns.describe(tmp_path / name) == columns.describe(whole)
        with uproot.open(tmp_path / name) as joined, uproot.open(whole) as expected:
            for branch in expected["jetclr"].branches:
                values = joined["jetclr"][branch.name].array(library="np")
                np.testing.assert_array_equal(values, branch.array(library="np"))
        return
    assert (tmp_path / name).read_bytes() == whole.read_bytes()


def write_file(path: Path, shard: Shard | None, *, width: int = 3, **changes: Any) -> Path:
    """Part of a file of 12 jets in batches of 5, with toy columns."""
    whole = {
        "jets": 12,
        "unit_jets": 5,
        "columns": ["embedding", "label"],
        "parameters_sha256": "a",
        "stores_sha256": "b",
    }
    whole |= {name: changes.pop(name) for name in list(changes) if name in whole}
    attributes = {"jetclr_config": '{"optim": {"peak_lr": 0.1}}', "jetclr_step": "8", "jetclr_stores": "fit"} | changes
    if shard is not None:
        attributes |= {columns.SHARD: str(shard), columns.WHOLE: json.dumps(whole)}
    jets = (shard or Shard(0, 1)).jets(12, 5)
    with columns.new_file(path, attributes, 5) as sink:
        for start in jets[::5]:
            index = np.arange(start, min(start + 5, jets.stop))
            embedding = (index[:, None] * width + np.arange(width)).astype(np.float32)
            sink.append({"embedding": embedding, "label": index.astype(np.int32)})
    return path


@pytest.mark.parametrize("ending", ["h5", "parquet"])
@pytest.mark.parametrize(
    ("third", "changes", "says"),
    [
        (None, {}, "missing beside .*/0[.].*: part 2/3; name it"),
        ("1/3", {}, "/1[.].* and .*/third[.].* are both part 1/3; name one of them"),
        ("2/3", {"jetclr_step": "4"}, "/third[.].* does not belong to .*/0[.].*: it has step = 4, not 8"),
        ("2/3", {"jetclr_stores": "test"}, "it has stores = test, not fit"),
        ("2/3", {"jetclr_config": '{"optim": {"peak_lr": 0.2}}'}, "it has config optim peak_lr = 0.2, not 0.1"),
        ("2/3", {"parameters_sha256": "c"}, "it has parameters_sha256 = c, not a"),
        ("2/3", {"stores_sha256": "c"}, "it has stores_sha256 = c, not b"),
        ("2/3", {"jets": 11}, r"/third[.].* does not say rightly .* \(2 jets where 1 belong\); make it again"),
        ("2/3", {"columns": ["embedding"]}, "/third[.].* does not say rightly which part it is"),
        ("2/3", {"jetclr_config": "{"}, "/third[.].* does not say rightly which part it is"),
        ("none", {}, "/third[.].* was not made by `jetclr embed --shard`; only its parts are joined"),
    ],
)
def test_files_that_do_not_fit_are_named(
    tmp_path: Path, ending: str, third: str | None, changes: dict[str, Any], says: str
) -> None:
    parts = [write_file(tmp_path / f"{index}.{ending}", Shard(index, 3)) for index in range(2)]
    if third is not None:
        shard = None if third == "none" else Shard.parse(third)
        parts.append(write_file(tmp_path / f"third.{ending}", shard, **changes))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=says):
        join(parts, tmp_path / f"out.{ending}")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("ending", ["h5", "parquet", "arrow", "root"])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, ending: str) -> None:
    part = write_file(tmp_path / f"0.{ending}", Shard(0, 1))
    whole = part.read_bytes()
    for damaged in (b"", whole[:100], whole[:-100]):
        part.write_bytes(damaged)
        with pytest.raises(UserError, match=r"/0\..* cannot be read; it is truncated, damaged or another format"):
            join([part], tmp_path / f"out.{ending}")
    with pytest.raises(UserError, match=r"out.txt: its name must end in .h5, .hdf5, .parquet, .arrow, .feather, .root"):
        join([part], tmp_path / "out.txt")
    other = "parquet" if ending == "h5" else "h5"
    with pytest.raises(UserError, match="are not of one format; parts are joined in the format they have"):
        join([part], tmp_path / f"out.{other}")
    assert list(tmp_path.iterdir()) == [part]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("out", ["out", "out.h5", "out.root"])
def test_a_join_that_is_stopped_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException], out: str
) -> None:
    write = write_part if out == "out" else write_file
    parts = [write(tmp_path / f"{shard.index}{Path(out).suffix}", shard) for shard in working(2)]
    before = sorted(tmp_path.iterdir())
    calls = iter([None])
    sink = {"out": StoreWriter, "out.h5": Hdf5Sink, "out.root": RootSink}[out]
    append = sink.append

    def stopped(*arguments: Any) -> None:
        if next(calls, stop) is stop:
            raise stop
        append(*arguments)

    monkeypatch.setattr(sink, "append", lambda *a, **_: stopped(*a))
    with pytest.raises(stop):
        join(parts, tmp_path / out)
    assert sorted(tmp_path.iterdir()) == before


def test_source_files_are_counted_through(tmp_path: Path) -> None:
    """Column `source` of a joined store still points to the file that a jet came from."""
    chunk = toy_chunk(np.random.default_rng(0), 6)
    for name, files in (("a", 2), ("b", 1)):
        source = np.arange(6, dtype=np.int32) % files
        with StoreWriter(tmp_path / name, {"sources": [{"file": f"{name}{i}"} for i in range(files)]}) as writer:
            writer.append(chunk._replace(jets=chunk.jets | {"source": source}))
    join([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    joined = Store(tmp_path / "c")
    told = [file["file"] for file in joined.metadata[0]["source"]["sources"]]
    assert [told[i] for i in joined.column("source")] == ["a0", "a1"] * 3 + ["b0"] * 6
    assert {n: joined.column(n).dtype for n in joined.columns} == {n: x.dtype for n, x in chunk.jets.items()} | {
        "source": np.dtype(np.int32)
    }
