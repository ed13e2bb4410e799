"""Several real processes over loopback: the same run as one, and an end together whatever happens to one of them."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from jetclr import sharding
from jetclr.cli import main
from jetclr.logs import read_metrics
from jetclr.run import open_run
from jetclr.step import make_embed
from tests.conftest import CONFIG
from tests.processes import PATIENCE, Training, free_port, peers, said
from tests.toys import toy_batch


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, stores: dict[str, Path]) -> Path:
    """Twenty steps in one process on eight devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    assert main(["pretrain", str(CONFIG), "--workdir", str(workdir), "--data.train", str(stores["train"]), "--steps",
                 "20", "--log.every", "1", "--probe.every", "10"]) == 0  # fmt: skip
    return workdir


def assert_same_trajectory(a: Path, b: Path, rtol: float) -> None:
    rows = list(zip(read_metrics(a), read_metrics(b), strict=True))
    assert [x["step"] for x, _ in rows] == list(range(1, 21))
    for x, y in rows:
        for name in ("loss", "gradient_norm"):
            np.testing.assert_allclose(x[name], y[name], rtol=rtol, err_msg=f"{name} of step {x['step']}")
        assert ("probe_auc" in x) == ("probe_auc" in y) == (x["step"] % 10 == 0)


def embedded(workdir: Path) -> np.ndarray:
    opened = open_run(workdir)
    embed = make_embed(opened.config, ("embedding",), sharding.local_mesh())
    return np.asarray(embed(opened.params, toy_batch(0, 16, opened.config.data.constituents))["embedding"])


FLAGS = ("--steps", "20", "--log.every", "1", "--probe.every", "10")


def test_two_processes_give_the_run_of_one(tmp_path: Path, stores: dict[str, Path], alone: Path) -> None:
    workdir = tmp_path / "run"
    first, second = peers(2, workdir, stores["train"], *FLAGS, devices=4)
    (status, out, err), (other_status, other_out, other_err) = first.end(), second.end()
    assert (status, other_status) == (0, 0), err + other_err
    assert "step 20 of 20, finished" in out
    assert "8 device(s)" in err
    assert "finished" not in other_out  # only one speaks and writes logs
    assert len(list(workdir.glob("events.out.tfevents.*"))) == 1
    assert_same_trajectory(alone, workdir, 1e-5)
    # The checkpoint of two processes is read by one. (Not all parameters are alike: the bias of the keys has no effect,
    # so its gradient is rounding, which Adam makes as large as any other.)
    np.testing.assert_allclose(embedded(alone), embedded(workdir), atol=1e-3)


@pytest.mark.slow
def test_two_processes_read_the_weighted_pieces_of_one(tmp_path: Path, stores: dict[str, Path]) -> None:
    """Which jets are drawn, how they are cut, and whether a batch fits, is the same for all."""
    flags = ("--steps", "4", "--log.every", "1", "--probe.every", "0", "--batch", "64", "--data.buckets", "12",
             "--data.where", "jet_mass > 5", "--data.weight", "1 + label", "--data.flat", "jet_mass")  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["pretrain", str(CONFIG), "--workdir", str(one), "--data.train", str(stores["train"]), *flags,
                 "--mesh.data", "2"]) == 0  # fmt: skip
    for part in peers(2, two, stores["train"], *flags, devices=1):
        status, _, err = part.end()
        assert status == 0, err
    for x, y in zip(read_metrics(one), read_metrics(two), strict=True):
        np.testing.assert_allclose(x["loss"], y["loss"], rtol=1e-5, err_msg=f"loss of step {x['step']}")


@pytest.mark.slow  # half a minute; the test of two processes and those of other numbers of devices see most of it
def test_one_run_on_eight_then_two_then_four_devices_and_two_processes(
    tmp_path: Path, stores: dict[str, Path], alone: Path
) -> None:
    workdir = tmp_path / "run"
    command = ["pretrain", str(CONFIG), "--workdir", str(workdir), "--data.train", str(stores["train"]), *FLAGS]
    assert main([*command, "--stop-at", "5"]) == 0
    assert main([*command, "--stop-at", "9", "--mesh.data", "2", "--chunks", "2"]) == 0
    assert main([*command, "--stop-at", "12", "--mesh.data", "2", "--mesh.fsdp", "2"]) == 0
    for part in peers(2, workdir, stores["train"], *FLAGS, devices=2):
        status, _, err = part.end()
        assert status == 0, err
    assert_same_trajectory(alone, workdir, 1e-4)


def test_killing_one_process_ends_the_other_and_both_resume(tmp_path: Path, stores: dict[str, Path]) -> None:
    workdir = tmp_path / "run"
    flags = ("--steps", "100000", "--log.every", "1", "--checkpoint.every", "4")
    for victim in (1, 0):
        both = peers(2, workdir, stores["train"], *flags, devices=1)
        before = len(read_metrics(workdir))
        assert both[0].wait_for_rows(before + 10)
        both[victim].kill()
        status, _, err = both[1 - victim].end(seconds=120)
        assert status in (75, -signal.SIGABRT), err  # told by us, or by JAX's runtime
        assert any("lost contact with another process" in line for line in said(err)) or "another task died" in err, err
        both[victim].end()
        reached = open_run(workdir).step
        assert reached % 4 == 0
        assert reached >= 4
    assert read_metrics(workdir)[-1]["step"] > 10


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_to_one_process_stops_all_at_the_same_step(
    tmp_path: Path, stores: dict[str, Path], number: signal.Signals, status: int
) -> None:
    workdir = tmp_path / "run"
    both = peers(2, workdir, stores["train"], "--steps", "100000", "--log.every", "1", devices=1)
    assert both[0].wait_for_rows(3)
    both[1].kill(number)
    (first, out, err), (second, _, other_err) = both[0].end(), both[1].end()
    assert first == 75, err
    assert second == status, other_err
    reached = open_run(workdir).step
    assert f"step {reached:,} of 100,000, stopped, saved" in out
    assert read_metrics(workdir)[-1]["step"] == reached


def test_an_error_of_one_process_is_told_by_all(tmp_path: Path, stores: dict[str, Path]) -> None:
    """The second process gets a store that is not there: the first must not wait for it."""
    workdir = tmp_path / "run"
    port = free_port()
    flags = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id")
    first = Training(workdir, stores["train"], *flags, "0")
    second = Training(workdir, tmp_path / "nowhere", *flags, "1")
    for part, whose in ((first, "process 1: "), (second, "")):
        status, _, err = part.end(PATIENCE)
        assert status == 1, err
        assert said(err) == [f"jetclr: {whose}there is no store at {tmp_path / 'nowhere'}"]
    assert not workdir.exists()


def test_data_lost_by_one_process_ends_all(tmp_path: Path, stores: dict[str, Path]) -> None:
    workdir, port = tmp_path / "run", free_port()
    mine = shutil.copytree(stores["train"], tmp_path / "mine")
    flags = ("--steps", "100000", "--log.every", "1", "--coordinator", f"127.0.0.1:{port}", "--num-processes", "2")
    link = tmp_path / "first"
    link.mkdir()
    theirs = shutil.copytree(stores["train"], link / "mine")
    both = [
        Training(workdir, store, *flags, "--process-id", str(index), devices=1)
        for index, store in enumerate((theirs, mine))
    ]
    # Only the path that the first process has is in config.json, and only that of the second is damaged.
    assert both[0].wait_for_rows(3)
    shard = next(mine.glob("*.arrow"))
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)
    (first, _, err), (second, _, other_err) = both[0].end(120), both[1].end(120)
    assert first in (75, -signal.SIGABRT), err
    assert second == 1
    assert any("was truncated while it was read" in line for line in said(other_err)), other_err


def test_processes_with_other_settings_are_refused(tmp_path: Path, stores: dict[str, Path]) -> None:
    workdir, port = tmp_path / "run", free_port()
    flags = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id")
    first = Training(workdir, stores["train"], *flags, "0")
    second = Training(workdir, stores["train"], "--optim.peak-lr", "0.5", *flags, "1")
    (status, _, err), (other, _, other_err) = first.end(), second.end()
    assert (status, other) == (1, 1), err + other_err
    assert "all processes of a run take the same settings" in said(other_err)[0]
    assert "optim.peak_lr: 0.001 -> 0.5" in said(other_err)[0]
    assert said(err)[0].startswith("jetclr: process 1: all processes of a run take the same settings")


@pytest.mark.slow
def test_a_signal_before_the_first_step_of_a_resumed_run_stops_it(tmp_path: Path, stores: dict[str, Path]) -> None:
    """While the processes restore and compile: the runtime must not wait for a step long past."""
    workdir = tmp_path / "run"
    flags = ("--steps", "100000", "--log.every", "1", "--probe.every", "0")
    for part in peers(2, workdir, stores["train"], *flags, "--stop-at", "6", devices=1):
        assert part.end()[0] == 0
    both = peers(2, workdir, stores["train"], *flags, devices=1)
    assert both[0].wait_until_said("from step 6; compiling")
    both[0].kill(signal.SIGTERM)
    for part in both:
        status, _, err = part.end()
        assert status == 75, err
    assert open_run(workdir).step < 1000


@pytest.mark.slow
def test_a_checkpoint_that_one_process_cannot_read_is_passed_over_by_both(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    """Parameters are split over the processes, so that each reads a share; that of the second is damaged."""
    workdir = tmp_path / "run"
    flags = ("--mesh.data", "1", "--mesh.fsdp", "2", "--checkpoint.every", "4", "--probe.every", "0")
    for part in peers(2, workdir, stores["train"], *flags, devices=1):
        status, _, err = part.end()
        assert status == 0, err
    assert open_run(workdir).step == 8  # one process reads what two have written
    newest = workdir / "checkpoints" / "8" / "params"
    share = max((newest / "ocdbt.process_1").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    share.write_bytes(share.read_bytes()[:100])
    first, second = peers(2, workdir, stores["train"], *flags, devices=1)
    (status, out, err), (other, _, other_err) = first.end(), second.end()
    assert (status, other) == (0, 0), err + other_err
    assert "going back to the one of step 4" in err
    assert "going back" not in other_err  # told once
    assert "step 8 of 8, finished" in out
    assert (workdir / "damaged-checkpoints" / "8").is_dir()
    assert open_run(workdir).step == 8
