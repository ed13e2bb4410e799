"""The folder of finished parts belongs to one command and one process, and goes when the work is done."""

import errno
import fcntl
from pathlib import Path

import numpy as np
import pytest

from jetclr.data import parts
from jetclr.errors import UserError


def stop_within(out: Path, error: BaseException, part: bool) -> None:
    with parts.work_folder(out, {"step": 8}) as folder:
        if part:
            (folder / "part-00000.arrow").touch()
        raise error


@pytest.mark.parametrize("error", [UserError("it is wrong"), OSError(28, "No space left on device"), SystemExit(143)])
def test_what_stops_the_work_tells_where_parts_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    out, folder = tmp_path / "e.h5", tmp_path / "e.h5.partial"
    with pytest.raises(type(error)):
        stop_within(out, error, part=False)
    assert not folder.exists()
    with pytest.raises(type(error)) as raised:
        stop_within(out, error, part=True)
    said = str(raised.value) + capsys.readouterr().err
    assert f"what was finished is kept in {folder}, and the same command goes on from there" in said
    with pytest.raises(UserError, match="was begun with step = 8, not 9"), parts.work_folder(out, {"step": 9}):
        pass
    killed = [folder / ".e.h5.1.partial", folder / ".part-00001.arrow.1.partial"]  # half-written by such a process
    for path in killed:
        path.touch()
    with parts.work_folder(out, {"step": 8}) as kept:
        assert (kept / "part-00000.arrow").exists()
        assert not any(path.exists() for path in killed)
    assert list(tmp_path.iterdir()) == []


def test_one_process_works_at_a_time(tmp_path: Path) -> None:
    with parts.work_folder(tmp_path / "e.h5", {}) as folder:
        with pytest.raises(UserError, match="another process is writing"), parts.work_folder(tmp_path / "e.h5", {}):
            pass
        assert folder.exists()


def test_a_disk_without_locks_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with parts.work_folder(tmp_path / "e.h5", {}) as folder:
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_other_jets_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BATCHES", 2)
    made: list[range] = []

    def make(jets: range) -> parts.Batches:
        made.append(jets)
        for start in range(0, len(jets), 3):
            yield {"layer": np.array(jets[start : start + 3], np.float32)[:, None]}

    def run() -> list[float]:
        found = parts.Parts(tmp_path, range(3, 20), 3).batches(make)
        return np.concatenate([one["layer"][:, 0] for one in found]).tolist()

    assert run() == run() == list(range(3, 20))
    assert made == [range(3, 20), range(15, 20)]
    (tmp_path / "part-00001.arrow").write_bytes((tmp_path / "part-00000.arrow").read_bytes()[:-8])
    assert run() == list(range(3, 20))
    assert made[2:] == [range(9, 20)]
