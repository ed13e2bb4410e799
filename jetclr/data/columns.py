"""Columns of jets as a file, a batch at a time: how embeddings are written, and read again to be joined.

The ending of the name says the format: HDF5, Parquet, Arrow IPC (Feather), or a ROOT tree.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jetclr.data.readers.checks import printable
from jetclr.data.sinks.arrow import IPC, PARQUET
from jetclr.data.sinks.format import Described, Format, Sink
from jetclr.data.sinks.hdf5 import HDF5
from jetclr.data.sinks.root import ROOT
from jetclr.data.store import make_parent, refuse_existing
from jetclr.errors import UserError

SHARD, WHOLE = "jetclr_shard", "jetclr_whole"
"""Attributes of a shard's file: which part it is, and as JSON what it is a part of."""

FORMATS: dict[str, Format] = {
    ".h5": HDF5,
    ".hdf5": HDF5,
    ".parquet": PARQUET,
    ".arrow": IPC,
    ".feather": IPC,
    ".root": ROOT,
}


def refuse_output(out: Path, half: bool = False) -> None:
    """Raise UserError if there is something at `out`, if its name does not end as one of `FORMATS`, or if that format
    cannot be written: for want of a library, or with columns in half precision (`half`)."""
    if out.suffix not in FORMATS:
        raise UserError(f"cannot tell the format of {out}: its name must end in {', '.join(FORMATS)}")
    if why := FORMATS[out.suffix].hindrance(half):
        raise UserError(f"{out} cannot be written: {why}")
    refuse_existing(out)


@contextmanager
def new_file(out: Path, attributes: Mapping[str, str], batch: int, *, folder: Path | None = None) -> Iterator[Sink]:
    """A sink for batches of `batch` jets; the file appears at `out`, whole, only on a clean exit.

    Until then it is in `folder`, which must be of the same disk (default: beside `out`). Raises UserError where
    `refuse_output` does; on any error nothing is left behind.
    """
    refuse_output(out)
    make_parent(out)
    partial = (folder or out.parent) / f".{out.name}.{os.getpid()}.partial"
    try:
        with FORMATS[out.suffix].sink(partial, attributes, batch) as sink:
            yield sink
        refuse_existing(out)
        os.replace(partial, out)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def describe(path: Path) -> Described:
    """Attributes, columns and jets of a file that a sink wrote; raises UserError for one that cannot be read."""
    with _reading(path):
        return FORMATS[path.suffix].describe(path)


def read_batches(path: Path, names: Sequence[str], batch: int) -> Iterator[dict[str, np.ndarray]]:
    """The named columns of a file that a sink of batches of `batch` jets wrote, a batch at a time, as they went in.

    Raises UserError for a file that cannot be read.
    """
    with _reading(path):
        yield from FORMATS[path.suffix].read(path, names, batch)


def settings_of(attributes: Mapping[str, str]) -> dict[str, Any]:
    """What attributes tell of the work, to be compared one by one: configs as JSON values; without SHARD and WHOLE."""
    short = {name.removeprefix("jetclr_"): text for name, text in attributes.items() if name not in (SHARD, WHOLE)}
    return {name: json.loads(text) if name.startswith("config") else text for name, text in short.items()}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # on damaged files libraries raise nearly anything
        if isinstance(error, OSError) and error.errno is not None:  # the system's own, such as a missing permission
            raise
        said = printable(str(error), 200)
        raise UserError(f"{path} cannot be read; it is truncated, damaged or another format ({said})") from None
