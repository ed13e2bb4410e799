"""Checkpoints that were damaged, and which of them stay."""

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr import config as configs
from jetclr import sharding, step
from jetclr.checkpoint import ASIDE, Checkpoints, checksums
from jetclr.cli import main
from jetclr.config import Checkpoint
from jetclr.errors import UserError
from jetclr.run import open_run
from jetclr.sharding import Devices
from tests.conftest import CONFIG

# After a read that failed some versions of Orbax leave coroutines behind, of which Python complains at the end.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def largest(checkpoint: Path) -> Path:
    return max(files(checkpoint / "params"), key=lambda path: path.stat().st_size)


def truncate(checkpoint: Path) -> None:
    file = largest(checkpoint)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(checkpoint: Path) -> None:
    file = largest(checkpoint)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def lose_a_file(checkpoint: Path) -> None:
    largest(checkpoint).unlink()


def lose_everything(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def lose_the_record(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "record")


def empty_all_files(checkpoint: Path) -> None:
    for file in files(checkpoint):
        file.write_bytes(b"")


DAMAGES = [truncate, flip_a_bit, lose_a_file, lose_everything, lose_the_record, empty_all_files]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_a_damaged_newest_checkpoint_is_passed_over_and_told_of(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    workdir = tmp_path / "r"
    shutil.copytree(run, workdir)
    damage(workdir / "checkpoints" / "8")
    assert open_run(workdir).step == 4
    said = capsys.readouterr().err
    assert said.startswith(f"jetclr: checkpoint 8 in {workdir / 'checkpoints'} cannot be read: it is damaged")
    assert said.rstrip().endswith("going back to the one of step 4")
    with pytest.raises(UserError, match=r"checkpoint 8 in .* cannot be read"):
        open_run(workdir, 8)
    assert open_run(workdir, 4).step == 4


def test_training_goes_back_to_the_one_before_and_ends_where_it_would_have(
    tmp_path: Path, run: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "r"
    shutil.copytree(run, workdir)
    flip_a_bit(workdir / "checkpoints" / "8")
    command = ["pretrain", str(CONFIG), "--workdir", str(workdir), "--data.train", str(stores["train"])]
    assert main(command) == 0
    assert "going back to the one of step 4" in capsys.readouterr().err
    assert [path.name for path in (workdir / ASIDE).iterdir()] == ["8"]
    again = open_run(workdir)
    assert again.step == 8
    jax.tree.map(np.testing.assert_array_equal, again.params, open_run(run).params)


def test_when_none_is_whole_nothing_is_touched(
    tmp_path: Path, run: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "r"
    shutil.copytree(run, workdir)
    for name in ("4", "8"):
        lose_a_file(workdir / "checkpoints" / name)
    command = ["pretrain", str(CONFIG), "--workdir", str(workdir), "--data.train", str(stores["train"])]
    assert main(command) == 1
    assert "checkpoint 8 in" in capsys.readouterr().err
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["4", "8"]
    assert not (workdir / ASIDE).exists()


def test_no_flipped_bit_changes_a_number_unnoticed(tmp_path: Path, run: Path) -> None:
    """Every file of a checkpoint, a few places in each: either it is told, or the numbers are those saved."""
    workdir = tmp_path / "r"
    shutil.copytree(run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    right = open_run(run).params
    rng = np.random.default_rng(0)
    told = 0
    for file in files(workdir / "checkpoints" / "8"):
        whole = file.read_bytes()
        for place in rng.integers(len(whole), size=3) if whole else []:
            data = bytearray(whole)
            data[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(data)
            try:
                jax.tree.map(np.testing.assert_array_equal, open_run(workdir).params, right)
            except UserError:
                told += 1
        file.write_bytes(whole)
    assert told > 5
    jax.tree.map(np.testing.assert_array_equal, open_run(workdir).params, right)


@given(st.integers(0, 2**32 - 1), st.integers(0, 31), st.integers(0, 34))
def test_checksums_see_any_single_bit(seed: int, bit: int, place: int) -> None:
    x = np.random.default_rng(seed).normal(size=(5, 7)).astype(np.float32)
    y = x.copy()
    y.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
    assert checksums([jnp.asarray(x)]) != checksums([jnp.asarray(y)])


def test_checksums_see_a_swap_and_not_where_arrays_lie() -> None:
    x = np.arange(64, dtype=np.float32).reshape(8, 8)
    assert checksums([jnp.asarray(x)]) != checksums([jnp.asarray(x[::-1].copy())])
    mesh = sharding.make_mesh(Devices(2, 4), 8)
    spread = jax.device_put(x, sharding.of_state(mesh, [x])[0])
    assert checksums([spread]) == checksums([jnp.asarray(x)])


def save_all(folder: Path, keep: Checkpoint, probed: dict[int, float], steps: range) -> Checkpoints:
    state = step.init_state(configs.load(CONFIG))
    checkpoints = Checkpoints(folder, keep)
    for number in steps:
        state = state._replace(step=jnp.asarray(number, jnp.int32))
        checkpoints.save(state, probed.get(number))
    checkpoints.wait()
    return checkpoints


def test_the_newest_the_best_and_every_so_many_are_kept(tmp_path: Path) -> None:
    probed = {2: 0.7, 4: 0.9, 6: 0.8, 8: 0.6}
    with save_all(tmp_path, Checkpoint(every=1, keep=2, keep_every=5, best=1), probed, range(1, 10)) as checkpoints:
        assert checkpoints.steps == [4, 5, 8, 9]
        assert (checkpoints.latest, checkpoints.best) == (9, 4)
    # What is best is remembered by those that start again.
    with save_all(tmp_path, Checkpoint(every=1, keep=1, best=1), {10: 0.85, 11: 0.5}, range(10, 13)) as checkpoints:
        assert checkpoints.best == 4
        assert checkpoints.steps == [4, 12]


def test_the_best_checkpoint_can_be_asked_for(tmp_path: Path, run: Path) -> None:
    with Checkpoints(run) as checkpoints:
        best = checkpoints.best
    assert best in (4, 8)
    assert open_run(run, "best").step == best
    with pytest.raises(UserError, match="none of step 7 is kept; it has 4, 8"):
        open_run(run, 7)


def test_without_probes_there_is_no_best(tmp_path: Path) -> None:
    config = dataclasses.replace(configs.load(CONFIG))
    (tmp_path / "config.json").write_text(configs.to_json(config))
    save_all(tmp_path, Checkpoint(every=1, keep=2), {}, range(1, 4)).wait()
    with pytest.raises(UserError, match="none of a probed step is kept; it has 2, 3"):
        open_run(tmp_path, "best")


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path: Path) -> None:
    torn = tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp"
    torn.mkdir(parents=True)
    (torn / "half").write_bytes(b"x")
    with save_all(tmp_path, Checkpoint(every=1, keep=2), {}, range(1, 3)) as checkpoints:
        assert checkpoints.steps == [1, 2]
    assert not torn.exists()


def test_a_reader_beside_a_run_that_goes_on_takes_what_is_there_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configs.load(CONFIG)
    (tmp_path / "config.json").write_text(configs.to_json(config))
    keep = Checkpoint(every=1, keep=1, best=1)
    save_all(tmp_path, keep, {1: 0.5}, range(1, 3)).wait()
    like = sharding.abstract(sharding.local_mesh(), jax.eval_shape(lambda: step.init_params(config)))
    for which, expected in (("latest", 4), ("best", 5)):
        with Checkpoints(tmp_path) as reader:
            before = reader.steps
            newest = {"latest": {4: 0.6}, "best": {5: 0.7}}[which]
            with save_all(tmp_path, keep, newest, range(max(before) + 1, expected + 1)) as writer:
                assert not set(before) & set(writer.steps)
            _, found = reader.restore_params(like, which)  # type: ignore[arg-type]
            assert found == expected
    assert "damaged" not in capsys.readouterr().err


def test_a_fault_of_the_file_system_puts_nothing_aside(
    tmp_path: Path, run: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    workdir = tmp_path / "r"
    shutil.copytree(run, workdir)

    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", stale)
    command = ["pretrain", str(CONFIG), "--workdir", str(workdir), "--data.train", str(stores["train"])]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "Stale file handle; nothing was changed" in said
    assert "damaged" not in said
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["4", "8"]


def test_a_best_checkpoint_whose_record_cannot_be_read_is_not_deleted(tmp_path: Path) -> None:
    keep = Checkpoint(every=1, keep=1, best=1)
    save_all(tmp_path, keep, {1: 0.9, 3: 0.6}, range(1, 4)).wait()
    record = max(files(tmp_path / "checkpoints" / "1" / "record"), key=lambda path: path.stat().st_size)
    record.write_bytes(record.read_bytes()[:7])
    with save_all(tmp_path, keep, {}, range(4, 6)) as checkpoints:
        assert 1 in checkpoints.steps
