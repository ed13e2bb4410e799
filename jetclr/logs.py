"""What a run writes while it trains: `metrics.jsonl` for programs, TensorBoard event files for eyes."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from jetclr.data.store import write_whole
from jetclr.errors import UserError

METRICS = "metrics.jsonl"


class Logs:
    """Appends rows of metrics; opened at `step`, it first drops what an interrupted run wrote beyond that step."""

    def __init__(self, run: Path, step: int) -> None:
        self._path = run / METRICS
        kept = [row for row in read_metrics(run) if row["step"] <= step]
        write_whole(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("a")
        self._events = EventFileWriter(str(run))
        if step:  # TensorBoard hides the points after a restart's step that the interrupted run left
            self._events.add_event(
                Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START))
            )

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, *exception: Any) -> None:
        # What cannot be written at the end because the disk is full must not stand before the error that says so.
        with contextlib.suppress(*([OSError] if exception[0] is not None else [])):
            self._events.close()
            self._file.close()

    def write(self, row: dict[str, float]) -> None:
        """One logged step: `row` holds "step" and any numbers; it is on the disk when this returns."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "step"]
        self._events.add_event(Event(wall_time=time.time(), step=int(row["step"]), summary=Summary(value=values)))
        self._events.flush()


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl; a last line torn by a crash is left out."""
    path = run / METRICS
    if not path.exists():
        return []
    rows = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({str(name): float(value) for name, value in row.items()} | {"step": int(row["step"])})
        except (ValueError, KeyError, TypeError, AttributeError):
            if number == len(lines):
                break
            raise UserError(f"line {number} of {path} is damaged: {line[:80]!r}") from None
    return rows
