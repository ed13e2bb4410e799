import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot

from jetclr import embed, sharding, step
from jetclr.cli import main
from jetclr.data import buckets, parts
from jetclr.data.keys import Passed
from jetclr.data.sinks.hdf5 import Hdf5Sink
from jetclr.data.store import Store, StoreWriter
from jetclr.errors import UserError
from jetclr.run import open_run
from tests.toys import toy_batch, toy_chunk


def test_all_formats_hold_the_same_and_agree_with_the_encoder(
    run: Path, stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = ["--layers", "projection", "embedding"]
    for name in ("e.h5", "e.parquet", "e.root"):
        assert main(["embed", str(run), str(stores["fit"]), str(tmp_path / name), *layers]) == 0
        assert "300 jets" in capsys.readouterr().out
    opened, store = open_run(run), Store(stores["fit"])
    batch = store.gather(np.resize(np.arange(300), 512), opened.config.data.constituents)
    encode = step.make_embed(opened.config, ("embedding", "projection"), sharding.local_mesh())
    expected = encode(opened.params, batch)
    table = pq.read_table(tmp_path / "e.parquet")
    assert table.column_names == ["projection", "embedding", "row", *store.columns]
    with h5py.File(tmp_path / "e.h5") as file, uproot.open(tmp_path / "e.root") as root:
        tree = root["jetclr"].arrays(library="np")
        for name in ("embedding", "projection"):
            np.testing.assert_allclose(file[name][:], expected[name][:300], atol=1e-5)
            np.testing.assert_array_equal(np.stack(table[name].to_numpy()), file[name][:])
            np.testing.assert_array_equal(tree[name], file[name][:])
        for name in store.columns:
            np.testing.assert_array_equal(file[name][:], store.column(name))
            np.testing.assert_array_equal(table[name].to_numpy(), store.column(name))
            np.testing.assert_array_equal(tree[name], store.column(name))
        np.testing.assert_array_equal(tree["row"], np.arange(300))  # the store knows no source
        assert file.attrs["jetclr_step"] == root["jetclr_step"] == "8"
        assert json.loads(file.attrs["jetclr_config"])["batch"] == 32
    assert table.schema.metadata[b"jetclr_step"] == b"8"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.h5", "e.parquet", "e.root"]


def test_several_stores_are_embedded_one_after_the_other(run: Path, stores: dict[str, Path], tmp_path: Path) -> None:
    assert main(["embed", str(run), str(stores["fit"]), str(stores["test"]), str(tmp_path / "e.h5")]) == 0
    assert main(["embed", str(run), str(stores["test"]), str(tmp_path / "t.h5")]) == 0
    with h5py.File(tmp_path / "e.h5") as both, h5py.File(tmp_path / "t.h5") as second:
        assert both["embedding"].shape[0] == 600
        np.testing.assert_array_equal(both["store"][:], np.repeat([0, 1], 300))
        np.testing.assert_array_equal(both["row"][:], np.tile(np.arange(300), 2))
        np.testing.assert_allclose(both["embedding"][300:], second["embedding"][:], atol=1e-6)


def cut_short(monkeypatch: pytest.MonkeyPatch, batch: int = 64) -> None:
    """Batches of several pieces of 8 jets, of as many lengths as there can be."""
    monkeypatch.setattr(embed, "BATCH", batch)
    monkeypatch.setattr(embed, "SLOTS", {"cpu": 1})
    monkeypatch.setattr(buckets, "PROGRAM_SLOTS", 0.5)


def test_neither_batches_nor_pieces_show(run: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each jet gets, in its place, what the encoder makes of it alone with all its padding."""
    opened, store = open_run(run), Store(stores["fit"])
    indices = np.random.default_rng(1).integers(300, size=133)
    slots, layers = opened.config.data.constituents, ("embedding", "layer_0")
    encode = step.make_embed(opened.config, layers, sharding.local_mesh())
    expected = encode(opened.params, store.gather(np.resize(indices, 136), slots))
    shapes = set()
    make = step.make_embed

    def noted(*settings: Any) -> Any:
        call = make(*settings)
        return lambda params, batch: shapes.add(batch["pt"].shape) or call(params, batch)

    monkeypatch.setattr(step, "make_embed", noted)
    for batch in (None, 64, 7):
        if batch:
            cut_short(monkeypatch, batch)
        found = embed.embed_jets(opened.config, opened.params, store, indices, layers)
        assert list(found) == list(layers)
        for name in layers:
            np.testing.assert_allclose(found[name], np.asarray(expected[name])[:133], rtol=1e-5, atol=2e-6)
        again = embed.embed_jets(opened.config, opened.params, store, indices, layers)
        np.testing.assert_array_equal(found["embedding"], again["embedding"])
    assert {size for size, length in shapes if length < slots} == {8}
    assert len(shapes) > 2


def test_pieces_at_the_same_time_give_the_same(
    run: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte, and each batch in its place; on one device, where there are several threads."""
    opened, store = open_run(run), Store(stores["fit"])
    monkeypatch.setattr(sharding, "local_mesh", lambda: sharding.make_mesh(sharding.Devices(data=1), 8))
    cut_short(monkeypatch)
    found = []
    for streams in (1, 3):
        monkeypatch.setattr(embed, "_streams", lambda streams=streams: streams)
        found.append(embed.embed_jets(opened.config, opened.params, store, np.arange(300), ("embedding",))["embedding"])
    np.testing.assert_array_equal(*found)


def test_changed_jets_with_holes_keep_all_their_constituents(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `encode_batches` gets them: constituents anywhere, some jets without any, fewer jets than rows."""
    opened = open_run(run)
    slots = opened.config.data.constituents
    batch = toy_batch(0, 24, slots)
    there = np.random.default_rng(0).random((24, slots)) < np.linspace(0, 0.4, 24)[:, None]
    batch = {name: np.where(there, np.asarray(x), 0).astype(np.float32) for name, x in batch.items()}
    expected = step.make_embed(opened.config, ("embedding",), sharding.local_mesh())(opened.params, batch)["embedding"]
    cut_short(monkeypatch)
    (found,) = embed.encode_batches(opened.config, opened.params, [(batch, 21)], ("embedding",), (8, slots))
    assert found["embedding"].shape[0] == 21
    np.testing.assert_allclose(found["embedding"], np.asarray(expected)[:21], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("e.csv", [], "its name must end in .h5, .hdf5, .parquet, .arrow, .feather, .root"),
        ("e.root", ["--dtype", "f16"], "ROOT trees hold no half precision; leave out --dtype f16"),
        ("e.h5", ["--columns", "label", "none"], "columns are label none; give names, or all or none alone"),
        ("e.h5", ["--columns", "tau1"], "has no column 'tau1'; it has jet_pt, jet_eta, jet_phi, jet_mass, label"),
        ("e.h5", ["--also", "{run}"], "runs of one pass need folders of different names"),
        ("e.h5", ["--layers", "layer_9"], "has no layer 'layer_9'; it has layer_0, layer_1, embedding"),
        ("e.h5", ["--layers"], "no layer was named"),
        ("there.h5", [], "already exists"),
        ("e.h5", ["--shard", "2/2"], "shard is '2/2'; it must be I/N with I from 0 to N - 1"),
        (
            "e.h5",
            ["--shard", "0/2"],
            "shard 0/2 holds no jets: 300 jets come in units of 2,048, so N of --shard I/N may",
        ),
    ],
)
def test_bad_requests_get_one_sentence_and_leave_nothing(
    run: Path, stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, flags: list[str], says: str,
) -> None:  # fmt: skip
    (tmp_path / "there.h5").write_text("mine")
    flags = [flag.format(run=run) for flag in flags]
    assert main(["embed", str(run), str(stores["fit"]), str(tmp_path / name), *flags]) == 1
    assert says in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["there.h5"]
    assert (tmp_path / "there.h5").read_text() == "mine"


def test_a_failure_half_way_leaves_nothing(
    run: Path, stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Hdf5Sink, "append", full)
    assert main(["embed", str(run), str(stores["fit"]), str(tmp_path / "e.h5")]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_embedding_that_is_not_finite_is_refused(
    run: Path, stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    gather = Store.gather

    def poisoned(self: Store, indices: np.ndarray, *settings: Any) -> dict[str, np.ndarray]:
        batch = gather(self, indices, *settings)
        batch["eta"][5] = np.nan
        return batch

    monkeypatch.setattr(Store, "gather", poisoned)
    assert main(["embed", str(run), str(stores["fit"]), str(tmp_path / "e.h5")]) == 1
    assert "layer 'embedding' of jet 5 of" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_shard_reads_its_own_jets_only(
    run: Path, stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "BATCH", 64)
    read: dict[str, set[int]] = {"constituents": set()}
    gather, column = Store.gather, Store.column

    def noted_gather(self: Store, indices: np.ndarray, *settings: Any) -> dict[str, np.ndarray]:
        read["constituents"] |= set(indices.tolist())
        return gather(self, indices, *settings)

    def noted_column(self: Store, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        read.setdefault(name, set()).update(range(start, 300 if stop is None else stop))
        return column(self, name, start, stop)

    monkeypatch.setattr(Store, "gather", noted_gather)
    monkeypatch.setattr(Store, "column", noted_column)
    assert main(["embed", str(run), str(stores["fit"]), str(tmp_path / "e.h5"), "--shard", "1/2"]) == 0
    assert read == {name: set(range(128, 300)) for name in ("constituents", *Store(stores["fit"]).columns)}
    with h5py.File(tmp_path / "e.h5") as file:
        assert file["embedding"].shape[0] == 172
        assert file.attrs["jetclr_shard"] == "1/2"


def test_keys_are_always_passed_on(run: Path, tmp_path: Path) -> None:
    """And no place in the store is counted where the source has one; layers in half precision."""
    chunk = toy_chunk(np.random.default_rng(0), 20)
    event, index = np.arange(100, 110, dtype=np.int64).repeat(2), np.tile(np.array([0, 1], np.int8), 10)
    with StoreWriter(tmp_path / "jets", {}) as writer:
        writer.append(chunk._replace(jets=chunk.jets | {"event": event, "jet_index": index}))
    store = Store(tmp_path / "jets")
    for asked, expected in (("jet_mass", ["jet_mass"]), ("all", list(chunk.jets))):
        assert sorted(Passed.of(store, [asked]).names) == sorted(["event", "jet_index", *expected])
    out = tmp_path / "e.h5"
    assert main(["embed", str(run), str(store.paths[0]), str(out), "--columns", "none", "--dtype", "f16"]) == 0
    opened = open_run(run)
    layers = embed.embed_jets(opened.config, opened.params, store, np.arange(20), ("embedding",))
    with h5py.File(out) as file:
        assert sorted(file) == ["embedding", "event", "jet_index"]
        np.testing.assert_array_equal(file["event"][:], event)
        np.testing.assert_array_equal(file["jet_index"][:], index)
        np.testing.assert_array_equal(file["embedding"][:], layers["embedding"].astype(np.float16), strict=True)


def test_what_is_too_large_for_half_precision_is_refused() -> None:
    def layers() -> Iterator[dict[str, np.ndarray]]:
        for most in (65504.0, 65520.0):  # the largest, and the first that is rounded up to no number
            yield {"wide": np.array([[0.0, 1.0], [-most, 2.0]], np.float32)}

    checked = embed._checked(layers(), 10, "f16", "here")
    np.testing.assert_array_equal(next(checked)["wide"], np.array([[0, 1], [-65504, 2]], np.float16))
    with pytest.raises(UserError, match="layer 'wide' of jet 13 of here is too large for float16; leave out"):
        next(checked)


def test_several_runs_in_one_pass_give_what_each_gives(
    run: Path, stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one sees fewer constituents, so that jets are grouped otherwise; each jet is read once."""
    cut_short(monkeypatch)
    short = tmp_path / "short"
    shutil.copytree(run, short)
    config = json.loads((short / "config.json").read_text())
    config["data"]["constituents"] = 5
    (short / "config.json").write_text(json.dumps(config))
    alone = {}
    for path in (run, short):
        opened = open_run(path)
        found = embed.embed_jets(opened.config, opened.params, Store(stores["fit"]), np.arange(300), ("embedding",))
        alone[f"{path.name}_embedding"] = found["embedding"]
    read: list[int] = []
    gather = Store.gather

    def noted(self: Store, indices: np.ndarray, *settings: Any) -> dict[str, np.ndarray]:
        read.extend(indices.tolist())
        return gather(self, indices, *settings)

    monkeypatch.setattr(Store, "gather", noted)
    out = tmp_path / "both.h5"
    assert main(["embed", str(run), str(stores["fit"]), str(out), "--columns", "none", "--also", str(short)]) == 0
    assert read == list(range(300))
    with h5py.File(out) as file:
        assert sorted(file) == sorted([*alone, "row"])
        for name, values in alone.items():
            np.testing.assert_array_equal(file[name][:], values)
        assert json.loads(file.attrs["jetclr_config_short"])["data"]["constituents"] == 5
        assert file.attrs["jetclr_step_run"] == "8"
    assert not np.allclose(*alone.values(), atol=1e-3)


HERE = {"JAX_NUM_CPU_DEVICES": "8"}  # as in this process
INTERRUPTED = """
import os, signal, sys
from jetclr import embed
from jetclr.cli import main
from jetclr.data import buckets, parts
from jetclr.data.sinks.arrow import ParquetSink

embed.BATCH, parts.PART_BATCHES = 64, 1
embed.SLOTS, buckets.PROGRAM_SLOTS = {"cpu": 1}, 0.5
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit one that is ignored
append, calls = ParquetSink.append, iter(range(3))

def stopped(self, columns):
    if next(calls, None) is None:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        signal.pause()
    append(self, columns)

ParquetSink.append = stopped
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("number", "status"), [("SIGKILL", -9), ("SIGINT", 130)])
def test_the_same_command_goes_on_after_any_end(
    run: Path, stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], number: str, status: int,
) -> None:  # fmt: skip
    """Stopped when three of five batches are written; what comes out is, to the byte, what comes out undisturbed."""
    command = ["embed", str(run), str(stores["fit"]), str(tmp_path / "e.parquet")]
    flags = [sys.executable, "-c", INTERRUPTED, number, *command]
    ended = subprocess.run(flags, capture_output=True, text=True, check=False, env=os.environ | HERE)
    assert ended.returncode == status, ended.stderr
    folder = tmp_path / "e.parquet.partial"
    if number != "SIGKILL":
        assert f"what was finished is kept in {folder}, and the same command goes on from there\n" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not list(folder.glob("*.partial"))
    assert not (tmp_path / "e.parquet").exists()
    assert sorted(path.name for path in folder.glob("part-*")) == [f"part-{i:05d}.arrow" for i in range(3)]

    cut_short(monkeypatch)
    monkeypatch.setattr(parts, "PART_BATCHES", 1)
    assert main([*command, "--dtype", "f16"]) == 1
    assert "was begun with dtype = f32, not f16; repeat the former command" in capsys.readouterr().err
    encoded: list[int] = []
    gather = Store.gather
    monkeypatch.setattr(Store, "gather", lambda *a, **k: encoded.extend(a[1].tolist()) or gather(*a, **k))
    torn = folder / "part-00001.arrow"
    torn.write_bytes(torn.read_bytes()[:-100])
    assert main(command) == 0
    assert encoded == list(range(64, 300))
    assert main([*command[:-1], str(tmp_path / "whole.parquet")]) == 0
    assert (tmp_path / "e.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet", "whole.parquet"]
