"""One module for each public format: file -> jagged chunks of jets, a bounded piece at a time."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

from jetclr.data.chunk import JetChunk
from jetclr.errors import UserError

FORMATS = ("toptag", "jetclass", "jetnet", "lhco", "qg", "aspen", "arrays")


@runtime_checkable
class Reader(Protocol):
    """What a module of this package offers. All of it raises UserError for a file that is not what it should be."""

    LABELS: dict[int, str]
    """What the numbers in column `label` mean."""

    def recognises(self, path: Path) -> bool:
        """Whether the content (for some formats, with the name) of a file is of this format; never raises."""
        ...

    def rows(self, path: Path) -> int:
        """Jets, or events, in a file, after a check of its layout."""
        ...

    def read(self, path: Path, start: int, stop: int) -> Iterator[JetChunk]:
        """The jets of rows start:stop, in order, in chunks of a few thousand rows.

        Jets carry an int64 column `row`, the row of the file they come from; constituents need not be sorted. Columns
        have the names and units of `jetclr.data.names`, so far as they are there.
        """
        ...


def reader(name: str) -> Reader:
    """The reader of a format; what it needs is imported now. Raises UserError for a name that is none."""
    if name not in FORMATS:
        raise UserError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    module: ModuleType = import_module(f"jetclr.data.readers.{name}")
    return module
