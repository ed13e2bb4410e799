"""Measuring the exported encoder: every way gives the same numbers, ways take turns, and rows say what they are."""

import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jetclr.cli import main
from jetclr.errors import UserError
from jetclr.export import bench
from jetclr.export.bench import _Case, _Turn, bench_export
from jetclr.export.graph import Frozen
from jetclr.export.verify import difference, expected
from jetclr.run import open_run

CMS = _Case("onnxruntime", "cms", "f32", 1, True)
JAX = _Case("jax", "batch", "f32", 8, False)


@pytest.fixture(scope="module")
def frozen(run: Path) -> Frozen:
    opened = open_run(run)
    return Frozen(opened.config, opened.params)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch": 0}, "--batch is 0; it must be at least 1"),
        ({"repeats": 0}, "--repeats is 0; it must be at least 1"),
        ({"seconds": float("nan")}, "--seconds is nan; it must be above 0"),
        ({}, "is not a run folder"),
    ],
)
def test_measurements_that_cannot_be(tmp_path: Path, settings: dict, says: str) -> None:
    usual = {"batch": 8, "repeats": 1, "seconds": 0.1}
    with pytest.raises(UserError, match=says):
        next(bench_export(tmp_path, **usual | settings))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["export", "run", "--jets", "5", "--format", "qg"], "bench export does not take --format, --jets"),
        (["export", "run", "other"], "measures one run, and got 2 paths"),
        (["data", "file.h5", "--data", "store"], "bench data does not take --data"),
        (["embed", "run", "--batch", "5", "--data", "store"], "bench embed does not take --batch"),
        (["embed", "run"], "name stores with --data"),
    ],
)
def test_options_of_the_other_measurement_are_refused(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 1
    assert says in capsys.readouterr().err


def test_all_ways_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.runtimes, "has_torch", lambda: True)
    cases = bench._cases(1024)
    assert len(set(cases)) == len(cases) == 10
    assert {(case.batch, case.one_thread) for case in cases} == {(1, True), (1024, False)}
    monkeypatch.setattr(bench.runtimes, "has_torch", lambda: False)
    assert [case for case in cases if case.runtime != "torch"] == bench._cases(1024)


WAYS = [
    JAX._replace(batch=4),
    CMS,
    pytest.param(CMS._replace(flavor="atlas"), marks=pytest.mark.slow),
    pytest.param(CMS._replace(flavor="batch", batch=4), marks=pytest.mark.slow),
    CMS._replace(flavor="batch", batch=4, dtype="f16"),
    CMS._replace(runtime="torch", flavor="batch", batch=4),
]


@pytest.mark.parametrize("case", WAYS)
def test_each_way_gives_the_numbers_of_embed(
    frozen: Frozen, stores: dict[str, Path], tmp_path: Path, case: _Case
) -> None:
    """So each was given the same jets, as it takes them, and none computes something else."""
    if case.runtime != "jax":
        pytest.importorskip({"onnxruntime": "jax2onnx", "torch": "torch"}[case.runtime])
    jets = bench._jets(frozen, [stores["test"]], 12)
    np.savez(tmp_path / bench._JETS, **jets)
    bench._write_models(tmp_path, frozen, [case])
    call, feeds = bench._ready.__wrapped__(tmp_path, case)
    assert len(feeds) == 12 // case.batch
    found = np.concatenate([_only(call(feed)) for feed in feeds])
    apart = difference(found, expected(frozen, jets)["embedding"])
    assert (1e-5 < apart < 1e-2) if case.dtype == "f16" else apart <= 1e-5


def _only(outputs: Any) -> np.ndarray:
    if isinstance(outputs, dict):
        return outputs["embedding"]
    return outputs[0] if isinstance(outputs, list) else outputs


def test_jets_come_from_all_over_the_store_and_again(frozen: Frozen, stores: dict[str, Path]) -> None:
    jets = bench._jets(frozen, [stores["test"]], 700)  # of 300
    np.testing.assert_array_equal(jets["pt"][:100], jets["pt"][300:400])
    assert len(np.unique(jets["pt"][:, 0])) == 300
    some = bench._jets(frozen, [], 100)
    assert {x.shape for x in some.values()} == {(100, 16)}
    assert not some["pt"][some["mask"] == 0].any()


def test_ways_take_turns_in_both_orders_each_in_its_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that what slows the machine for a while slows all of them, and none always comes first."""
    said: list[tuple[int, _Case]] = []

    class Pool:
        def submit(self, run: Any, folder: Path, case: _Case, seconds: float) -> Future:
            said.append((id(self), case))
            done: Future = Future()
            done.set_result(_Turn(1.0, 1.0, 1.0))
            return done

    @contextmanager
    def pool(processes: int) -> Iterator[Pool]:
        assert processes == 1
        yield Pool()

    monkeypatch.setattr(bench, "fresh_processes", pool)
    cases = [CMS, JAX, CMS._replace(flavor="atlas")]
    turns = bench._take_turns(tmp_path, cases, 3, 1.0)
    assert [case for _, case in said] == cases + cases[::-1] + cases
    assert [len(turns[case]) for case in cases] == [3, 3, 3]
    processes = {(one, case.one_thread) for one, case in said}
    assert sorted(one_thread for _, one_thread in processes) == [False, True]


def test_a_row_holds_medians_of_the_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    row = bench._row(CMS, [_Turn(100.4, 2.0, 9.0), _Turn(50.0, 3.0, 4.0), _Turn(900.0, 1.0, 5.0)])
    assert (row["jets_per_s"], row["ms_median"], row["ms_p95"], row["runs"]) == (100, 2.0, 5.0, 3)
    assert (row["threads"], row["batch"], row["flavor"], row["dtype"]) == (1, 1, "cms", "f32")
    monkeypatch.delattr("os.sched_setaffinity", raising=False)  # as on macOS: JAX cannot be held to one thread
    monkeypatch.setattr(bench, "cores", lambda: 6)
    assert JAX._replace(one_thread=True).threads == JAX.threads == 6
    assert CMS.threads == 1


def test_a_process_measures(
    run: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jax2onnx")
    alone = JAX._replace(batch=1, one_thread=True)
    monkeypatch.setattr(bench, "_cases", lambda batch: [CMS, alone])  # which share a process, held to one core
    command = ["bench", "export", str(run), "--repeats", "1", "--seconds", "0.1", "--batch", "8"]
    assert main([*command, "--data", str(stores["test"])]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["runtime"], row["flavor"], row["batch"]) for row in rows] == [
        ("onnxruntime", "cms", 1),
        ("jax", "batch", 1),
    ]
    for row in rows:
        assert 0 < row["ms_median"] <= row["ms_p95"]
        assert row["jets_per_s"] > 1
        assert row["data"] == "test"
        assert 4 <= row["mean_constituents"] <= row["slots"] == 16
