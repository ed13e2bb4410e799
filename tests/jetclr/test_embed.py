import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from jetclr import embed, sharding, step
from jetclr.cli import main
from jetclr.data import columns
from jetclr.data.store import Store
from jetclr.run import open_run


def test_hdf5_and_parquet_hold_the_same_and_agree_with_the_encoder(
    run: Path, stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = ["--layers", "embedding", "projection"]
    for name in ("e.h5", "e.parquet"):
        assert main(["embed", str(run), str(stores["fit"]), str(tmp_path / name), *layers]) == 0
        assert "300 jets" in capsys.readouterr().out
    opened, store = open_run(run), Store(stores["fit"])
    batch = store.gather(np.resize(np.arange(300), 512), opened.config.data.constituents)
    encode = step.make_embed(opened.config, ("embedding", "projection"), sharding.local_mesh())
    expected = encode(opened.params, batch)
    table = pq.read_table(tmp_path / "e.parquet")
    with h5py.File(tmp_path / "e.h5") as file:
        for name in ("embedding", "projection"):
            np.testing.assert_allclose(file[name][:], expected[name][:300], atol=1e-5)
            np.testing.assert_array_equal(np.stack(table[name].to_numpy()), file[name][:])
        for name in store.columns:
            np.testing.assert_array_equal(file[name][:], store.column(name))
            np.testing.assert_array_equal(table[name].to_numpy(), store.column(name))
        assert file.attrs["jetclr_step"] == "8"
        assert json.loads(file.attrs["jetclr_config"])["batch"] == 32
    assert table.schema.metadata[b"jetclr_step"] == b"8"


def test_several_stores_are_embedded_one_after_the_other(run: Path, stores: dict[str, Path], tmp_path: Path) -> None:
    assert main(["embed", str(run), str(stores["fit"]), str(stores["test"]), str(tmp_path / "e.h5")]) == 0
    assert main(["embed", str(run), str(stores["test"]), str(tmp_path / "t.h5")]) == 0
    with h5py.File(tmp_path / "e.h5") as both, h5py.File(tmp_path / "t.h5") as second:
        assert both["embedding"].shape[0] == 600
        np.testing.assert_allclose(both["embedding"][300:], second["embedding"][:], atol=1e-6)


def test_the_size_of_batches_does_not_show(run: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened, store = open_run(run), Store(stores["fit"])
    found = []
    for batch in (512, 7):
        monkeypatch.setattr(embed, "BATCH", batch)
        found.append(embed.embed_jets(opened.config, opened.params, store, np.arange(33), ("embedding",))["embedding"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("e.csv", [], "its name must end in .h5, .hdf5, .parquet"),
        ("e.h5", ["--layers", "layer_9"], "has no layer 'layer_9'; it has layer_0, layer_1, embedding"),
        ("there.h5", [], "already exists"),
        ("e.h5", ["--shard", "2/2"], "shard is '2/2'; it must be I/N with I from 0 to N - 1"),
        ("e.h5", ["--shard", "0/2"], "shard 0/2 holds no jets: 300 jets come in units of 512, so N of --shard I/N may"),
    ],
)
def test_bad_requests_get_one_sentence_and_leave_nothing(
    run: Path, stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, flags: list[str], says: str,
) -> None:  # fmt: skip
    (tmp_path / "there.h5").write_text("mine")
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

    monkeypatch.setattr(columns.Hdf5Sink, "append", full)
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
