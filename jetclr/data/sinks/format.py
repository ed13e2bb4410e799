"""What every format does: take columns batch by batch, tell what is in a file, and give the batches back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

Columns = Mapping[str, np.ndarray]
"""Name -> [jets] or [jets, width]."""

ROWS = 8192
"""Jets from which on waiting batches are written, where a format keeps rows together."""


@runtime_checkable
class Sink(Protocol):
    """Takes the columns of some more jets."""

    def __enter__(self) -> "Sink": ...
    def __exit__(self, *_: object) -> None: ...
    def append(self, columns: Columns) -> None: ...


class Described(NamedTuple):
    """What is in a file of columns."""

    attributes: dict[str, str]
    columns: dict[str, str]  # name -> type and width
    jets: int


def no_hindrance(half: bool) -> str:
    """Of formats that can always be written, in half precision too."""
    return ""


@dataclass(frozen=True)
class Format:
    """A format. `describe` and `read` raise nearly anything for files that are damaged or something else."""

    sink: Callable[[Path, Mapping[str, str], int], Sink]
    """(path, attributes, jets in a batch) -> a sink that makes the file."""
    describe: Callable[[Path], Described]
    read: Callable[[Path, Sequence[str], int], Iterator[dict[str, np.ndarray]]]
    """(path, names, jets in a batch) -> the named columns, in the batches that went in."""
    hindrance: Callable[[bool], str] = no_hindrance
    """Why such a file cannot be written here, with float16 columns if asked so; "" if it can."""
