import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from augmentations import Chain
from jetclr import config as configs
from jetclr import step, train
from jetclr.cli import main
from jetclr.cost import step_flops
from jetclr.data.buckets import Layout
from jetclr.data.lock import only_process
from jetclr.data.store import StoreWriter
from jetclr.errors import UserError
from jetclr.logs import METRICS, Logs, read_metrics
from jetclr.meter import CLOCK, Meter
from jetclr.objectives import AnomCLR
from jetclr.run import open_run
from tests.conftest import CONFIG
from tests.processes import Training
from tests.toys import toy_chunk


def pretrain(workdir: Path, store: Path, *flags: str) -> int:
    return main(["pretrain", str(CONFIG), "--workdir", str(workdir), "--data.train", str(store), *flags])


def trajectory(workdir: Path) -> list[dict[str, float]]:
    """The logged rows without the clock."""
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in read_metrics(workdir)]


def assert_same_run(a: Path, b: Path) -> None:
    """Bit for bit: parameters, optimizer state (through the next steps' losses) and every logged number."""
    first, second = open_run(a), open_run(b)
    assert first.step == second.step
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    assert trajectory(a) == trajectory(b)


def test_a_run_writes_what_it_promises(run: Path) -> None:
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    for row in rows:
        assert {"step", "loss", "jets_per_s", "alignment", "uniformity", "effective_rank", "learning_rate"} <= set(row)
        assert row["jets_per_s"] > 0
    assert [0 <= row["probe_auc"] <= 1 for row in rows if "probe_auc" in row] == [True, True]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["4", "8"]
    events = [event for path in run.glob("events.out.tfevents.*") for event in EventFileLoader(str(path)).Load()]
    tags = {value.tag for event in events for value in event.summary.value}
    assert {"loss", "probe_auc", "jets_per_s"} <= tags
    assert configs.load(run / "config.json").steps == 8


def test_a_restarted_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, run: Path, stores: dict[str, Path]
) -> None:
    for stop in ("4", "5"):  # at a checkpoint of its own, and between two
        workdir = tmp_path / stop
        assert pretrain(workdir, stores["train"], "--stop-at", stop) == 0
        assert open_run(workdir).step == int(stop)
        assert pretrain(workdir, stores["train"]) == 0
        assert_same_run(workdir, run) if stop == "4" else None
        jax.tree.map(np.testing.assert_array_equal, open_run(workdir).params, open_run(run).params)


def test_a_finished_run_stays_as_it_is(run: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / METRICS).read_bytes()
    assert pretrain(run, stores["train"]) == 0
    assert "step 8 of 8, finished" in capsys.readouterr().out
    assert (run / METRICS).read_bytes() == before


def test_a_run_with_anomalies_resumes_bit_for_bit_and_tells_how_alike_they_are(
    tmp_path: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIG.with_name("tiny_anomaly_config.py")
    flags = ["--data.train", str(stores["train"]), "--probe.every", "0", "--mesh.data", "1", "--steps", "4"]
    command = ["pretrain", str(config), *flags, "--objective.temperature", "0.3", "--objective.no-others"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*command, "--workdir", str(whole)]) == 0
    for stop in ("2", "4"):
        assert main([*command, "--workdir", str(parts), "--stop-at", stop]) == 0
    assert_same_run(whole, parts)
    assert all(-1 <= row["anomaly_similarity"] <= 1 for row in trajectory(whole))
    assert open_run(whole).config.objective == AnomCLR(0.3)
    capsys.readouterr()
    assert main([*command[:-1], "--workdir", str(whole)]) == 1
    assert "objective.others: false -> true" in capsys.readouterr().err


def test_an_anomaly_of_somebody_s_own_needs_their_config_file(
    tmp_path: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    described = configs.to_dict(configs.load(CONFIG)) | {"anomalies": [{"type": "mine.Dark"}]}
    (tmp_path / "config.json").write_text(json.dumps(described))
    command = ["pretrain", str(tmp_path / "config.json"), "--workdir", str(tmp_path / "r")]
    assert main([*command, "--data.train", str(stores["train"])]) == 1
    assert "mine.Dark: not part of augmentations" in capsys.readouterr().err


def test_a_run_folder_of_another_config_is_refused(
    run: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "config.json").read_bytes()
    assert pretrain(run, stores["train"], "--optim.peak-lr", "0.5", "--seed", "3") == 1
    said = capsys.readouterr().err
    assert "holds a run of another config" in said
    assert "optim.peak_lr: 0.001 -> 0.5; seed: 0 -> 3" in said
    assert (run / "config.json").read_bytes() == before


def test_a_folder_with_something_else_is_refused(
    tmp_path: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert pretrain(tmp_path, stores["train"]) == 1
    assert "holds other files" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(
    tmp_path: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A batch with one infinite angle at step 6; the checkpoint of step 4 must survive."""
    gather = train.Store.gather
    calls = iter(range(100))

    def poisoned(self: object, indices: np.ndarray, *settings: object) -> dict[str, np.ndarray]:
        batch = gather(self, indices, *settings)  # type: ignore[arg-type]
        if len(indices) == 32 and next(calls) == 5:
            batch["eta"][0, 0] = np.inf
        return batch

    monkeypatch.setattr(train.Store, "gather", poisoned)
    assert pretrain(tmp_path / "r", stores["train"], "--probe.every", "0") == 1
    said = capsys.readouterr().err
    assert "step 6 gave loss" in said
    assert "the checkpoint of step 4 is good" in said
    assert open_run(tmp_path / "r").step == 4
    monkeypatch.undo()
    assert pretrain(tmp_path / "r", stores["train"], "--probe.every", "0") == 0


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "r"
    assert pretrain(workdir, stores["train"], "--stop-at", "4") == 0

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", full)
    assert pretrain(workdir, stores["train"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    assert open_run(workdir).step == 4


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_same_command_resumes(
    tmp_path: Path, stores: dict[str, Path], number: signal.Signals, status: int
) -> None:
    workdir = tmp_path / "r"
    run = Training(workdir, stores["train"], "--steps", "100000", "--log.every", "1", "--probe.every", "0",
                   "--checkpoint.every", "100000")  # fmt: skip
    assert run.wait_for_rows(3)
    run.kill(number)
    returned, out, err = run.end()
    assert returned == status, err
    assert "stopped, saved; the same command resumes" in out
    assert "Traceback" not in err
    reached = open_run(workdir).step
    assert reached >= 3
    assert read_metrics(workdir)[-1]["step"] <= reached


def test_a_data_shard_that_is_truncated_ends_the_run_with_the_last_checkpoint_whole(
    tmp_path: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file loses its second half between two batches; reading on would be a bus error."""
    mine = Path(shutil.copytree(stores["train"], tmp_path / "mine"))
    shard = next(mine.glob("*.arrow"))
    whole = shard.read_bytes()
    gather, calls = train.Store.gather, iter(range(100))

    def losing(self: object, indices: np.ndarray, *settings: object) -> dict[str, np.ndarray]:
        if next(calls) == 5:
            os.truncate(shard, len(whole) // 2)
        return gather(self, indices, *settings)  # type: ignore[arg-type]

    monkeypatch.setattr(train.Store, "gather", losing)
    assert pretrain(tmp_path / "r", mine, "--probe.every", "0") == 1
    assert f"{shard} was truncated while it was read" in capsys.readouterr().err
    assert open_run(tmp_path / "r").step == 4
    monkeypatch.undo()
    assert pretrain(tmp_path / "r", mine, "--probe.every", "0") == 1  # and is not begun with half the data
    assert f"{shard} has {len(whole) // 2:,} bytes where {len(whole):,} were written" in capsys.readouterr().err
    shard.write_bytes(whole)
    assert pretrain(tmp_path / "r", mine, "--probe.every", "0") == 0


def test_a_data_shard_that_vanishes_is_read_to_the_end_and_missed_at_the_next_start(
    tmp_path: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Path(shutil.copytree(stores["train"], tmp_path / "mine"))
    shard = next(mine.glob("*.arrow"))
    gather, calls = train.Store.gather, iter(range(100))

    def losing(self: object, indices: np.ndarray, *settings: object) -> dict[str, np.ndarray]:
        if next(calls) == 2:
            shard.unlink()
        return gather(self, indices, *settings)  # type: ignore[arg-type]

    monkeypatch.setattr(train.Store, "gather", losing)
    assert pretrain(tmp_path / "r", mine, "--probe.every", "0", "--stop-at", "6") == 0
    assert pretrain(tmp_path / "r", mine, "--probe.every", "0") == 1
    assert f"{shard} is missing from its store" in capsys.readouterr().err
    assert open_run(tmp_path / "r").step == 6


def test_too_little_memory_is_told_with_what_would_help(
    tmp_path: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 81604378624 bytes."
        )

    monkeypatch.setattr(train._Loop, "compile", full)
    assert pretrain(tmp_path / "r", stores["train"]) == 1
    said = capsys.readouterr().err
    assert "a device has too little memory: more --chunks, a smaller --batch or --mesh.fsdp save some" in said
    assert "81604378624" in said


def test_where_the_time_goes_adds_up(run: Path) -> None:
    for row in read_metrics(run):
        assert set(CLOCK) <= set(row)
        assert row["jets_per_s_per_device"] == pytest.approx(row["jets_per_s"] / jax.device_count())
        assert row["step_ms"] == pytest.approx(1e3 * 32 / row["jets_per_s"], rel=1e-6)
        assert 0 < row["data_ms"] + row["device_ms"] <= row["step_ms"] * 1.001
        assert 0.01 < row["memory_gib"] < 100
        assert row["peak_share"] > 0


def test_a_profile_lies_where_tensorboard_looks(tmp_path: Path, stores: dict[str, Path]) -> None:
    assert pretrain(tmp_path / "r", stores["train"], "--profile", "--probe.every", "0", "--log.every", "4") == 0
    traces = list((tmp_path / "r" / "plugins" / "profile").glob("*/*.xplane.pb"))
    assert len(traces) == 1
    assert b"train_step" in traces[0].read_bytes()
    assert open_run(tmp_path / "r").step == 8


def test_rows_beyond_the_restart_are_dropped_and_a_torn_line_is_not_read(tmp_path: Path) -> None:
    rows = [json.dumps({"step": s, "loss": 1.0, "jets_per_s": 2.0}) for s in (2, 4, 6)]
    (tmp_path / METRICS).write_text("\n".join(rows) + '\n{"step": 8, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)] == [2, 4, 6]
    with Logs(tmp_path, 4) as logs:
        logs.write({"step": 5, "loss": 0.5, "jets_per_s": 1.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [2, 4, 5]


def test_a_damaged_metrics_file_is_named(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('nonsense\n{"step": 1}\n')
    with pytest.raises(UserError, match=r"line 1 of .*metrics\.jsonl is damaged"):
        read_metrics(tmp_path)


def test_opening_what_is_no_run_is_said(tmp_path: Path, stores: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"is not a run folder: it has no config\.json"):
        open_run(tmp_path)
    (tmp_path / "config.json").write_text(configs.to_json(configs.load(CONFIG)))
    with pytest.raises(UserError, match="has no checkpoint yet"):
        open_run(tmp_path)
    assert os.listdir(tmp_path) == ["config.json"]  # looking leaves no trace


def test_a_step_before_the_first_is_refused(
    tmp_path: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(tmp_path / "r", stores["train"], "--stop-at", "0") == 1
    assert "--stop-at is 0; the first step is 1" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    with only_process(tmp_path, ""):  # noqa: SIM117
        with pytest.raises(UserError, match="somebody is there"), only_process(tmp_path, "somebody is there"):
            pass
    with only_process(tmp_path, "") as held:  # and the folder is free again
        assert held


def test_a_transform_that_is_only_a_record_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    config = configs.load(CONFIG)
    foreign = configs.Foreign("mine.Twist", {})
    with pytest.raises(UserError, match=r"mine\.Twist: not part of augmentations"):
        train.pretrain(dataclasses.replace(config, views=(Chain(foreign), foreign)), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_config_that_no_longer_fits_its_checkpoint_is_said(
    tmp_path: Path, stores: dict[str, Path], run: Path
) -> None:
    shutil.copytree(run, tmp_path / "r")
    file = tmp_path / "r" / "config.json"
    file.write_text(file.read_text().replace('"width": 16', '"width": 32'))
    with pytest.raises(UserError, match=r"it is damaged, or config\.json was changed"):
        open_run(tmp_path / "r")


def test_a_collapsed_encoder_does_not_end_the_run(stores: dict[str, Path]) -> None:
    config = dataclasses.replace(configs.load(CONFIG), data=configs.Data(train=(str(stores["train"]),), holdout=0.2))
    probe = train._validation_probe(config, train.Store(stores["train"]))
    assert probe is not None
    state = step.init_state(config)
    assert probe(state.params) > 0.5
    assert probe(jax.tree.map(lambda x: 0 * x, state.params)) == 0.5


def test_no_jets_to_train_on_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(CONFIG), "--workdir", str(tmp_path / "r")]) == 1
    assert "give --data.train STORE" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


RICH = """
import dataclasses
from augmentations import Chain, Rotate
from jetclr.features import Features
from tests.tiny_config import config as tiny

data = dataclasses.replace(tiny.data, extras=("type", "d0"), buckets=(8, 12), slots=18, where="jet_mass > 5",
                           weight="1 + label", flat="jet_mass", fraction=0.95, shares=(1, 2))
config = dataclasses.replace(tiny, data=data, views=(Chain(Rotate()),) * 2, batch=64,
                             features=Features(("z", "eta", "phi", "d0", "muon")), mesh=type(tiny.mesh)(data=2))
"""


class Rich(NamedTuple):
    """A run with every option of the data, some of whose batches do not fit into their pieces."""

    workdir: Path
    config: Path
    stores: list[str]
    compiled: list[Layout]


def write_rich_store(path: Path, jets: int, seed: int) -> Path:
    chunk = toy_chunk(np.random.default_rng(seed), jets)
    number = np.arange(len(chunk.constituents["pt"]))
    extras = {"type": (number % 6).astype(np.int8), "d0": (number % 17 / 10).astype(np.float32)}
    with StoreWriter(path, {"labels": {"0": "QCD", "1": "top"}}, block_jets=100) as writer:
        writer.append(chunk._replace(constituents=chunk.constituents | extras))
    return path


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> list[Layout]:
    """Pieces that are too short for some batches; the layouts that are compiled from now on."""
    compile, layouts = train._Loop.compile, []

    def spy(self: train._Loop, state: step.State, layout: Layout) -> None:
        layouts.append(layout)
        compile(self, state, layout)

    monkeypatch.setattr(train._Loop, "compile", spy)
    monkeypatch.setattr("jetclr.data.pipeline.choose_layout", lambda *_: ((16, 8), (48, 16)))
    return layouts


@pytest.fixture
def rich(tmp_path: Path, short_pieces: list[Layout]) -> Rich:
    stores = [str(write_rich_store(tmp_path / name, jets, seed)) for seed, (name, jets) in
              enumerate({"first": 400, "second": 200}.items())]  # fmt: skip
    config = tmp_path / "rich.py"
    config.write_text(RICH)
    workdir = tmp_path / "whole"
    command = ["pretrain", str(config), "--workdir", str(workdir), "--data.train", *stores]
    assert main(command) == 0
    return Rich(workdir, config, stores, list(short_pieces))


def test_a_run_with_every_option_resumes_bit_for_bit_and_can_be_used(
    rich: Rich, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rich.compiled == [((16, 10), (48, 18)), ((64, 18),)]  # a second program, when first needed
    command = ["pretrain", str(rich.config), "--workdir", str(tmp_path / "halves"), "--data.train", *rich.stores]
    assert main([*command, "--stop-at", "3"]) == 0
    assert main(command) == 0
    assert "batches of 16 x 10 + 48 x 18 slots (89 % of all)" in capsys.readouterr().err
    found = open_run(tmp_path / "halves").params
    jax.tree.map(np.testing.assert_array_equal, found, open_run(rich.workdir).params)
    test = str(write_rich_store(tmp_path / "test", 120, 9))
    assert main(["embed", str(rich.workdir), test, str(tmp_path / "e.h5")]) == 0
    assert main(["probe", str(rich.workdir), "--train", *rich.stores, "--test", test]) == 0
    assert main(["report", str(rich.workdir), "--data", test]) == 0


def test_a_store_without_an_extra_is_named_at_the_start(
    tmp_path: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(write_rich_store(tmp_path / "good", 120, 0))
    for flags in (["--data.train", good, str(stores["train"])],
                  ["--data.train", good, "--data.validation", str(stores["train"])]):  # fmt: skip
        assert pretrain(tmp_path / "r", Path(good), *flags, "--data.extras", "d0") == 1
        assert "train has no constituent column 'd0' (data.extras)" in capsys.readouterr().err
        assert not (tmp_path / "r").exists()


def test_pieces_that_do_not_divide_are_told_with_what_would(
    tmp_path: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(tmp_path / "r", stores["train"], "--data.buckets", "8") == 1
    said = capsys.readouterr().err
    assert "batch 32, cut into 8 groups by data.buckets, does not divide over 8 devices; 64 would" in said


@pytest.mark.parametrize("validation", [False, True])
def test_the_probe_takes_selected_held_out_jets_whatever_their_weights(
    stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, validation: bool
) -> None:
    store = train.Store(stores["train"])
    data = configs.Data(
        train=(str(stores["train"]),),
        validation=(str(stores["train"]),) if validation else (),
        holdout=0.2,
        where="jet_mass > 50",
        weight="jet_pt",
        fraction=0.1,
    )
    seen: list[np.ndarray] = []

    def embedded(config: object, params: object, store: object, indices: np.ndarray, layers: object) -> dict[str, Any]:
        seen.append(indices)
        return {"embedding": np.random.default_rng(0).normal(size=(len(indices), 3)).astype(np.float32)}

    monkeypatch.setattr(train.embed, "embed_jets", embedded)
    probe = train._validation_probe(dataclasses.replace(configs.load(CONFIG), data=data), store)
    assert probe is not None
    probe({})
    held_out = np.flatnonzero((np.arange(600) % 100 >= 80) & (store.column("jet_mass") > 50))
    np.testing.assert_array_equal(seen[0], np.arange(600) if validation else held_out)
    assert 20 < len(held_out) < 120


def test_a_meter_counts_the_products_of_the_pieces_and_no_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configs.load(CONFIG)
    clock = iter([0.0, 0.0, 10.0, 20.0])  # restarted, compiling from 0 to 10, rates at 20
    monkeypatch.setattr("jetclr.meter.peak_tflops", lambda _: 1.0)
    monkeypatch.setattr("jetclr.meter.time.perf_counter", lambda: next(clock))
    meter = Meter(config, 1)
    with meter.aside():
        pass
    layout = ((16, 8), (16, 16))
    meter.step()
    meter.step(layout)
    assert meter.rates()["tflops"] == pytest.approx((step_flops(config) + step_flops(config, layout)) / 1e12 / 10)
