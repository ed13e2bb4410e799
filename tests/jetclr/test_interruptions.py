"""A run that is killed and started again, over and over, ends where an undisturbed one does, bit for bit."""

import signal
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from jetclr.logs import read_metrics
from jetclr.meter import CLOCK
from jetclr.run import open_run
from tests.processes import Training

FLAGS = ("--log.every", "1", "--checkpoint.every", "3", "--probe.every", "20")


def assert_same_bits(a: Path, b: Path, steps: int) -> None:
    first, second = open_run(a), open_run(b)
    assert first.step == second.step == steps
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    rows = [[{k: v for k, v in row.items() if k not in CLOCK} for row in read_metrics(run)] for run in (a, b)]
    assert rows[0] == rows[1]


def moment(rng: np.random.Generator, workdir: Path, rows: int) -> Callable[[], bool]:
    """A random point in the life of a run: while it starts, between two steps, or while a checkpoint is written."""
    kind = rng.integers(6)
    if kind == 0:
        return lambda: (workdir / ".lock").exists()
    if kind < 3:
        return lambda: any((workdir / "checkpoints").glob("*tmp*"))
    return lambda: len(read_metrics(workdir)) >= rows


def interrupt(folder: Path, store: Path, number: signal.Signals, times: int, steps: int = 300) -> None:
    whole, workdir = folder / "whole", folder / "interrupted"
    flags = (*FLAGS, "--steps", str(steps))
    status, _, err = Training(whole, store, *flags).end()
    assert status == 0, err
    rng = np.random.default_rng(5)
    for _ in range(times):
        run = Training(workdir, store, *flags)
        before = len(read_metrics(workdir))
        (workdir / ".lock").unlink(missing_ok=True)  # or it would tell of the start before this one
        when = moment(rng, workdir, before + int(rng.integers(1, 10)))
        if number == signal.SIGTERM:  # before it trains there is nothing to save, and the signal ends it
            assert run.wait_for_rows(before + 1)
        assert run.wait_until(when), "it finished before it could be stopped"
        run.kill(number)
        status, _, err = run.end()
        assert status == (-signal.SIGKILL if number == signal.SIGKILL else 75), err
        assert "Traceback" not in err
    status, out, err = Training(workdir, store, *flags).end()
    assert status == 0, err
    assert "finished" in out
    assert "damaged" not in err
    assert_same_bits(whole, workdir, steps)


def test_two_kills(tmp_path: Path, stores: dict[str, Path]) -> None:
    interrupt(tmp_path, stores["train"], signal.SIGKILL, 2, steps=50)


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path, stores: dict[str, Path]) -> None:
    interrupt(tmp_path, stores["train"], signal.SIGKILL, 20)


@pytest.mark.slow
def test_ten_requests_to_stop(tmp_path: Path, stores: dict[str, Path]) -> None:
    interrupt(tmp_path, stores["train"], signal.SIGTERM, 10)
