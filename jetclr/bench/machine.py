"""What a process did on this machine, processes to measure in, and rows of numbers.

Every run that tells memory or starting times is in processes of its own, so that nothing is warm but the disk. Memory
and faults are told on Linux and macOS.
"""

import json
import multiprocessing
import resource
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from jetclr.data.units import worker_pool
from jetclr.errors import UserError

Row = dict[str, Any]


class Used(NamedTuple):
    """What this process used up to a moment; `used() - earlier` is what it used since."""

    core_seconds: float
    minor_faults: int

    def since(self, earlier: "Used") -> "Used":
        """What was used between the two moments."""
        return Used(self.core_seconds - earlier.core_seconds, self.minor_faults - earlier.minor_faults)


def used() -> Used:
    """What this process, all threads together, used so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return Used(own.ru_utime + own.ru_stime, own.ru_minflt)


def core_seconds() -> float:
    """What this process and its children that have ended worked."""
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in own)


def peak_mib(who: int = resource.RUSAGE_SELF) -> float:
    """The most memory that this process, or the largest of its children that have ended, had at once."""
    return resource.getrusage(who).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextmanager
def fresh_processes(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end at once when the run is cut short."""
    with worker_pool(processes) as pool:
        try:
            yield pool
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def refuse_settings(least: Mapping[str, tuple[int, int]], seconds: float = 1.0) -> None:
    """Raise UserError for a setting below its lowest, `least` being name -> (value, lowest), and for no time at all."""
    for name, (value, lowest) in least.items():
        if value < lowest:
            raise UserError(f"--{name} is {value}; it must be at least {lowest}")
    if not 0 < seconds < float("inf"):
        raise UserError(f"--seconds is {seconds}; it must be above 0")


def say(what: str) -> None:
    """Tell a person who waits what is measured now."""
    print(what, file=sys.stderr, flush=True)


def print_rows(rows: Iterator[Row]) -> None:
    """One JSON line a row, as soon as it is there."""
    for row in rows:
        print(json.dumps(row), flush=True)


def medians(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Row:
    """The median of each named number over all rows."""
    return {name: rounded(statistics.median(row[name] for row in rows)) for name in names}


def rounded(value: float) -> float:
    """A number to four digits that mean something."""
    return float(f"{value:.4g}")
