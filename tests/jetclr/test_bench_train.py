"""Measuring training beside a peer, on growing numbers of devices, and the machine's peak."""

import json
import mmap
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jetclr import config as configs
from jetclr import meter
from jetclr.bench import scaling, train
from jetclr.bench.jets import about_axis, in_memory, made_chunk, open_jets
from jetclr.bench.machine import used
from jetclr.bench.peer import Peer
from jetclr.bench.scaling import bench_scaling
from jetclr.bench.sizes import WIDTHS, config_of
from jetclr.bench.train import bench_train
from jetclr.cost import step_flops
from jetclr.data.chunk import check_chunk
from jetclr.encoder import Encoder
from jetclr.errors import UserError

# Says what it was given, as a peer of 10 jets/s.
PEER = """
import json, sys
import numpy as np
jets = np.load(sys.argv[1])
words = dict(zip(sys.argv[2::2], map(int, sys.argv[3::2])))
assert jets.dtype == np.float32 and jets.shape[1:] == (words["--constituents"], 3), jets.shape
print("a word before")
print(json.dumps({"jets_per_s": 10, "ms_per_step": 100, "peak_rss_mb": 1000, "words": words}))
"""


def tiny() -> configs.Config:
    config = config_of("small")
    return replace(config, encoder=replace(config.encoder, width=8, layers=1, heads=2, feedforward=8), batch=8)


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    path = tmp_path / "peer.py"
    path.write_text(PEER)
    return path


def test_training_is_measured_beside_a_peer(stores: dict[str, Path], peer: Path) -> None:
    config = tiny()
    rows = list(bench_train(config, "tiny", [stores["train"]], steps=2, repeats=1, peer=Peer(peer, sys.executable)))
    assert json.loads(json.dumps(rows)) == rows
    ours, theirs, medians = rows
    assert [row["what"] for row in rows] == ["jetclr", "peer", "medians"]
    words = {"dim": 8, "ff": 8, "layers": 1, "heads": 2, "batch": 8, "steps": 2, "constituents": 50}
    assert theirs["words"] == {f"--{name}": value for name, value in words.items()} | {"--threads": ours["threads"]}
    assert ours["gflops"] * ours["ms_per_step"] == pytest.approx(step_flops(config) / 1e6, rel=1e-3)
    assert ours["jets_per_s"] * ours["ms_per_step"] == pytest.approx(8000, rel=1e-3)
    assert ours["devices"] == 1
    assert ours["waiting_share"] >= 0
    assert min(ours[name] for name in ("compile_s", "state_s", "core_ms_per_step")) > 0
    assert ours["peak_mib"] > 100
    assert medians["ratio"] == pytest.approx(ours["jets_per_s"] / 10, rel=1e-3)
    assert medians["memory_ratio"] == pytest.approx(ours["peak_mib"] / 1000, rel=1e-3)
    assert medians["peer_ms_per_step"] == 100
    assert (medians["compile_s"], medians["runs"]) == (ours["compile_s"], 1)


def test_medians_are_of_all_turns_beside_the_best_peak() -> None:
    numbers = ("ms_per_step", "core_ms_per_step", "minor_faults", "waiting_share")
    same: dict[str, Any] = {"precision": "float32", "batch": 8, "steps": 2, "devices": 1, "threads": 2}
    ours = [
        same
        | dict.fromkeys(numbers, 1.0)
        | {"jets_per_s": rate, "gflops": rate / 10, "peak_gflops": peak, "peak_of": of, "compile_s": s, "peak_mib": 700}
        for rate, peak, of, s in ((30.0, 4.0, "a", 9.0), (10.0, 8.0, "b", 2.0), (20.0, 5.0, "c", 1.0))
    ]
    theirs = [{"jets_per_s": rate, "ms_per_step": 1.0, "peak_rss_mb": 1000} for rate in (1.0, 8.0, 100.0)]
    found = train._summary(ours, theirs)
    assert (found["peak_gflops"], found["peak_of"], found["peak_share"]) == (8.0, "b", 0.25)
    assert (found["compile_s"], found["compile_again_s"]) == (9.0, 1.5)
    assert (found["ratio"], found["memory_ratio"], found["runs"]) == (2.5, 0.7, 3)
    assert "mfu" not in found
    assert "ratio" not in train._summary(ours[:1], [])


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import sys; sys.exit('no such option')", "failed with status 1: no such option"),
        ("raise SystemExit(3)", "failed with status 3: it said nothing"),
        ("print('fast!')", "must print a JSON object last, and printed 'fast!'"),
        ("", "must print a JSON object last, and printed ''"),
        ("print([1, 2])", "must print a JSON object last"),
        ('print(\'{"jets_per_s": 1, "ms_per_step": 1}\')', "tells peak_rss_mb = None"),
        ('print(\'{"jets_per_s": 0, "ms_per_step": 1, "peak_rss_mb": 1}\')', "tells jets_per_s = 0"),
        ('print(\'{"jets_per_s": NaN, "ms_per_step": 1, "peak_rss_mb": 1}\')', "tells jets_per_s = nan"),
        ('print(\'{"jets_per_s": true, "ms_per_step": 1, "peak_rss_mb": 1}\')', "tells jets_per_s = True"),
    ],
)
def test_peers_that_do_not_keep_to_what_is_agreed(tmp_path: Path, program: str, says: str) -> None:
    path = tmp_path / "peer.py"
    path.write_text(program)
    with pytest.raises(UserError, match=r"peer\.py") as error:
        Peer(path, sys.executable).train(tmp_path / "jets.npy", tiny(), 1, 1)
    assert says in str(error.value)


def test_peers_that_are_not_there(tmp_path: Path, peer: Path) -> None:
    with pytest.raises(UserError, match=r"no program .*nothing\.py to measure against"):
        Peer(tmp_path / "nothing.py", sys.executable)
    with pytest.raises(UserError, match=r"--python .*python9 is no program that can be run"):
        Peer(peer, str(tmp_path / "python9"))


@pytest.mark.parametrize(("shared", "efficiency"), [(True, [1.0, 0.9, 0.8]), (False, [1.0, 0.45, 0.2667])])
def test_efficiency_counts_devices_that_share_no_cores(
    monkeypatch: pytest.MonkeyPatch, stores: dict[str, Path], shared: bool, efficiency: list[float]
) -> None:
    def turn(config: configs.Config, _: object, steps: int, programs: Path, devices: int) -> dict[str, float]:
        rate = {1: 100.0, 2: 90.0, 3: 80.0}[devices]
        assert config.batch == devices * 8
        return {"jets_per_s": rate, "ms_per_step": 1.0, "gflops": 1.0, "peak_mib": 1.0}

    monkeypatch.setattr(scaling, "train_turn", turn)
    monkeypatch.setattr(scaling, "_devices_there", lambda: ("cpu", 1) if shared else ("gpu", 3))
    rows = list(bench_scaling(tiny(), "tiny", [stores["train"]], devices=3, steps=1, repeats=2))
    assert [row["devices"] for row in rows] == [1, 2, 3]
    assert [row["batch"] for row in rows] == [8, 16, 24]
    assert [row["efficiency"] for row in rows] == efficiency
    assert all((row["shared_cores"] is not None) == shared for row in rows)
    if not shared:
        with pytest.raises(UserError, match="--devices is 4; there are 3"):
            next(bench_scaling(tiny(), "tiny", [], devices=4, steps=1, repeats=1))


def test_the_peak_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"XLA 1024": 0.02, "NumPy 1024": 0.01, "XLA 2048": 0.2, "NumPy 2048": 0.05}
    tried: list[str] = []

    def took(product: Callable[[], str]) -> float:
        tried.append(product())
        return seconds[tried[-1]]

    monkeypatch.setattr(meter, "_xla_product", lambda size, precision: lambda: f"XLA {size}")
    monkeypatch.setattr(meter, "_numpy_product", lambda size: lambda: f"NumPy {size}")
    monkeypatch.setattr(meter, "_seconds", took)
    assert meter.peak("float32", 0.001) == meter.Peak(pytest.approx(2 * 2048**3 / 0.05 / 1e12), "NumPy 2048")
    seconds["NumPy 1024"] = 0.05
    assert meter.peak("bfloat16", 0.001).of == "XLA 1024"
    assert "NumPy 2048" in tried
    tried.clear()
    seconds["XLA 1024"] = seconds["NumPy 1024"] = 1.0  # where 2048 would take eight
    assert meter.peak("float32", 0.001).of == "XLA 1024"
    assert not [name for name in tried if "2048" in name]


def test_the_peak_of_this_machine() -> None:
    found = meter.peak("float32", 0.001)
    assert 1e-4 < found.tflops < 1e3
    assert meter.peak_tflops("float32") > 0


def test_sizes_are_those_of_the_study() -> None:
    config = config_of("paper")
    study = configs.load(Path(__file__).parents[2] / "configs/jetclr_paper.py")
    assert WIDTHS["paper"] == (1000, 1000)
    assert config.encoder == study.encoder
    same = ("views", "features", "head", "objective", "batch", "precision")
    assert all(getattr(config, name) == getattr(study, name) for name in same)
    assert config_of("small").encoder == Encoder(
        width=128, layers=4, heads=4, feedforward=256, dropout=0.1, pooling=("pt",), wide=0
    )
    assert config_of("small", "bfloat16").precision == "bfloat16"


def test_jets_made_on_the_spot_are_sound_and_as_many_as_real_ones(tmp_path: Path) -> None:
    chunk = made_chunk(2000)
    check_chunk(chunk)
    counts = np.diff(chunk.offsets)
    assert counts.mean() == pytest.approx(66, abs=2)
    assert counts.std() == pytest.approx(23, abs=2)
    np.testing.assert_allclose(np.add.reduceat(chunk.constituents["pt"], chunk.offsets[:-1]), 600, rtol=1e-5)
    store = open_jets([], tmp_path, 40)
    assert len(open_jets([], tmp_path, 99)) == len(store) == 40  # made once
    assert in_memory(store, 100, 16)["pt"].shape == (100, 16)


def test_a_peer_gets_jets_about_their_axis() -> None:
    pt = np.array([[4.0, 3.0, 1.0, 0.0], [9.0, 0.0, 0.0, 0.0]], np.float32)
    eta = np.array([[0.5, 0.6, 0.9, 0.0], [-1.0, 0.0, 0.0, 0.0]], np.float32)
    phi = np.array([[3.1, -3.1, 3.0, 0.0], [2.0, 0.0, 0.0, 0.0]], np.float32)  # across the edge
    found = about_axis({"pt": pt, "eta": eta, "phi": phi})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 0], pt)
    np.testing.assert_allclose((found * pt[..., None])[..., 1:].sum(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(found[0, 1, 2] - found[0, 0, 2], 2 * np.pi - 6.2, atol=1e-5)
    assert not found[pt == 0].any()


def test_what_is_used_only_grows() -> None:
    before = used()
    with mmap.mmap(-1, 512 * mmap.PAGESIZE) as new:
        for page in range(512):
            new[page * mmap.PAGESIZE] = 1
    since = used().since(before)
    assert since.minor_faults > 0  # as many as pages, where none is a huge one
    assert since.core_seconds >= 0
