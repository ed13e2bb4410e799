"""Measuring: numbers that mean what they are called, and runs that can be cut short."""

import json
import time
from pathlib import Path

import pytest

from jetclr.bench import data, machine
from jetclr.bench.data import bench_data
from jetclr.cli import main
from jetclr.errors import UserError
from tests.conftest import write_toy_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_store(tmp_path_factory.mktemp("bench") / "store", 64, 0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"jets": 0}, "--jets is 0; it must be at least 1"),
        ({"batch": 1}, "--batch is 1; it must be at least 2"),
        ({"constituents": 0}, "--constituents is 0; it must be at least 1"),
        ({"repeats": 0}, "--repeats is 0; it must be at least 1"),
        ({"seconds": 0.0}, "--seconds is 0.0; it must be above 0"),
        ({"seconds": float("nan")}, "--seconds is nan; it must be above 0"),
    ],
)
def test_measurements_that_cannot_be(store: Path, settings: dict, says: str) -> None:
    usual = {"jets": 10, "batch": 8, "constituents": 5, "repeats": 1, "seconds": 0.1}
    with pytest.raises(UserError, match=says):
        next(bench_data([store], **usual | settings))


def test_reading_is_measured(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "data", str(store), "--batch", "8", "--repeats", "1", "--seconds", "0.1"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["what"], row["processes"]) for row in rows] == [("read", 1), ("read", 2)]
    for row in rows:
        assert min(row["jets"], row["jets_per_s"], row["jets_per_s_per_core"]) > 0
        assert row["peak_mib"] > 50


def test_runs_of_several_processes_count_from_the_first_start_to_the_last_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """They need not overlap, and then they share nothing."""
    monkeypatch.setattr(data, "_read_part", _part)
    run = data._read([], 8, 5, 1.0, 2)
    assert run == data._Run(20, 1.0, 4.0, 3.0, 200.0)


def _part(*arguments: object) -> data._Run:
    part = arguments[4]
    return data._Run(10, 1.0 + 2 * part, 2.0 + 2 * part, 1.5, 100.0)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "run"], "bench train takes no path, and got run"),
        (["train", "--jets", "5", "--formats", ".h5", ".root"], "bench train does not take --jets, --formats"),
        (["train", "--python", "python9"], "name one"),
        (["train", "--steps", "0"], "--steps is 0; it must be at least 1"),
        (["augment", "--precision", "bfloat16"], "bench augment does not take --precision"),
        (["scaling", "--devices", "0"], "--devices is 0; it must be at least 1"),
        (["scaling", "--against", "peer.py"], "bench scaling does not take --against"),
        (["generate", "--size", "small"], "bench generate does not take --size"),
        (["generate", "--jets", "1"], "--jets is 1; it must be at least 2"),
        (["embed", "--size", "small", "--formats", ".root"], "bench embed --size does not take --formats"),
        (["embed", "run", "--size", "small"], "bench embed --size takes no path, and got run"),
        (["embed"], "measures one run, and got 0 paths"),
        (["data"], "name some"),
        (["data", "nothing", "--steps", "3"], "bench data does not take --steps"),
    ],
)
def test_options_that_belong_to_another_measurement(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 1
    assert says in " ".join(capsys.readouterr().err.split())


def _cut_short() -> None:
    with machine.fresh_processes(1) as pool:
        pool.submit(time.sleep, 60)
        raise KeyboardInterrupt


def test_a_run_that_is_cut_short_ends_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _cut_short()
    assert time.monotonic() - start < 20
