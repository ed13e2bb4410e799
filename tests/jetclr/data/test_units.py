"""Units of long work: whole or not there, begun again where they stopped."""

import time
from pathlib import Path

import numpy as np
import pytest

from jetclr.data.chunk import JetChunk
from jetclr.data.units import (
    Task,
    WorkerDied,
    finished,
    read_columns,
    read_unit,
    run_units,
    unit_path,
    worker_pool,
    write_unit,
)
from jetclr.errors import UserError
from tests.toys import toy_chunk

CHUNK = toy_chunk(np.random.default_rng(0), 30)


def test_units_are_whole_or_not_there(tmp_path: Path) -> None:
    path = unit_path(tmp_path, 7)
    assert read_unit(path) is None
    write_unit(path, CHUNK, (3.0, 30.0))
    kept = read_unit(path)
    assert kept is not None
    assert kept[1] == [3, 30]
    np.testing.assert_array_equal(kept[0].constituents["phi"], CHUNK.constituents["phi"])
    np.testing.assert_array_equal(read_columns(path)["multiplicity"], np.diff(CHUNK.offsets))
    assert finished([(7, path), (8, unit_path(tmp_path, 8))]) == {7: (30, [3.0, 30.0])}
    whole = path.read_bytes()
    for damage in (b"", whole[:100], whole[:-30], whole[:2000] + b"\xff" + whole[2001:]):
        path.write_bytes(damage)
        assert read_unit(path) is None
        assert finished([(7, path)]) == {}
    for place in range(len(whole) - 800, len(whole)):  # the list of what the archive holds
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 9]) + whole[place + 1 :])
        found = read_unit(path)
        assert found is None or all(len(x) == 30 for x in found[0].jets.values())
    path.unlink()
    with pytest.raises(UserError, match="was changed while the store was written"):
        read_columns(path)


def test_a_worker_that_dies_names_its_units(tmp_path: Path) -> None:
    import os

    tasks = {u: Task(os._exit, (3,), unit_path(tmp_path, u), 1) for u in (4, 5)}
    with pytest.raises(WorkerDied, match="died") as raised, worker_pool(1) as pool:
        run_units(tasks, pool, 1, lambda n: None)
    assert raised.value.units == [4, 5]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError("bad value(s) in fds_to_keep"), OSError("handle is closed")], ids=str)
def test_a_worker_that_dies_while_another_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def closed(*arguments: object) -> None:
        raise error

    with worker_pool(1) as pool:
        monkeypatch.setattr(pool, "submit", closed)
        with pytest.raises(WorkerDied, match="died"):
            run_units({0: Task(int, (), tmp_path / "0", 1)}, pool, 1, lambda n: None)


def _slow(path: Path) -> tuple[JetChunk, tuple[float, ...]]:
    time.sleep(0.5)
    path.touch()
    return CHUNK, (1.0,)


def test_after_an_error_nobody_writes(tmp_path: Path) -> None:
    slow, bad = Task(_slow, (tmp_path / "done",), unit_path(tmp_path, 0), 1), Task(int, ("none",), tmp_path / "1", 1)
    with worker_pool(2) as pool:
        with pytest.raises(ValueError, match="invalid literal"):
            run_units({0: slow, 1: bad}, pool, 2, lambda n: None)
        before = sorted(tmp_path.iterdir())
        time.sleep(1)
        assert sorted(tmp_path.iterdir()) == before


def test_an_error_of_a_worker_is_that_of_the_call(tmp_path: Path) -> None:
    tasks = {0: Task(int, ("none",), unit_path(tmp_path, 0), 1)}
    with pytest.raises(ValueError, match="invalid literal"), worker_pool(1) as pool:
        run_units(tasks, pool, 1, lambda n: None)
