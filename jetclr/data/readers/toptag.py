"""The top-tagging reference layout (Zenodo 2603256; arXiv:1902.09914): pandas/PyTables HDF5, key `table`.

`table/table` has rows (index, values_block_0 float32 [804], values_block_1 int64 [2]): 200 zero-padded constituents
(E, px, py, pz) in GeV, the true top's four-momentum (never read: it gives the label away), then ttv (0 train, 1
validation, 2 test; kept as `split`) and label.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Bool, Float32, Shaped

from jetclr.data.chunk import JetChunk
from jetclr.data.kinematics import constituent_columns, jet_columns
from jetclr.data.names import SPLITS
from jetclr.data.readers.checks import refuse
from jetclr.data.readers.hdf5 import batches, dataset, double, offsets, opened
from jetclr.data.readers.momenta import jet_sums
from jetclr.errors import UserError

LABELS = {0: "QCD", 1: "top"}
CONSTITUENTS = 200
NAME = "table/table"
FIELDS = {"values_block_0": (np.float32, (4 * CONSTITUENTS + 4,)), "values_block_1": (np.int64, (2,))}
WITHOUT_SIGN = np.uint64(0x7FFF_FFFF_7FFF_FFFF)  # of two float32 side by side: -0 is no constituent either


def recognises(path: Path) -> bool:
    """Whether a file is in this layout; never raises."""
    try:
        with opened(path) as file:
            _table(file, path)
    except UserError:
        return False
    return True


def rows(path: Path) -> int:
    """Jets in a file; raises UserError when it is missing, is truncated or has another layout, saying what it holds."""
    with opened(path) as file:
        return len(_table(file, path))


def read(path: Path, start: int, stop: int) -> Iterator[JetChunk]:
    """Jets start:stop: pt, eta, phi; jet_* (from the constituents), label, split, row.

    Raises UserError as `rows` does, and for a jet with a momentum that is not finite, a constituent with pT = 0, or a
    label or ttv that the layout does not know.
    """
    with opened(path) as file:
        for first, pieces in batches(path, {NAME: _table(file, path)}, start, stop):
            yield _chunk(pieces[NAME], path, first)


def _table(file: h5py.File, path: Path) -> h5py.Dataset:
    table = dataset(file, path, NAME, "toptag")
    fields = table.dtype.fields or {}
    found = {name: fields[name][0].subdtype for name in FIELDS if name in fields}
    if found != FIELDS or table.ndim != 1:
        wanted = {name: (np.dtype(kind).name, shape) for name, (kind, shape) in FIELDS.items()}
        raise UserError(
            f"{path} is not in the toptag layout: {NAME} should have {wanted} and has {table.dtype} {table.shape}"
        )
    return table


def _real(slots: Float32[np.ndarray, "J 800"]) -> Bool[np.ndarray, "J 200"]:
    """Which slots are not all zero, two components of a momentum at a time."""
    pairs = slots.view(np.uint64)
    return ((pairs[:, ::2] | pairs[:, 1::2]) & WITHOUT_SIGN) != 0


def _chunk(records: Shaped[np.ndarray, " J"], path: Path, first: int) -> JetChunk:
    slots = records["values_block_0"][:, : 4 * CONSTITUENTS]
    ttv, label = records["values_block_1"].T
    for name, column, known in (("label", label, LABELS), ("ttv", ttv, SPLITS)):
        unknown = ~np.isin(column, list(known))
        says = f"has {name} {column[np.argmax(unknown)]}; the toptag layout knows {known}"
        refuse(unknown, first, path, says)
    real = _real(slots)
    starts = offsets(real)
    # A momentum of four float32 has the size of one complex128, and is gathered ten times as fast as one.
    momenta = slots.view(np.complex128)[real].view(np.float32).reshape(-1, 4)
    finite = np.isfinite(momenta)
    if not finite.all():  # of all first: along the short axis it takes as long as the rest together
        refuse(~finite.all(axis=1), first, path, "has a momentum that is not a finite number", starts)
    p = double(momenta[:, [1, 2, 3, 0]].T)  # (px, py, pz, E), as everywhere else
    refuse((p[0] == 0) & (p[1] == 0), first, path, "has a constituent with pT = 0", starts)
    return JetChunk(
        starts,
        constituent_columns(p),
        jet_columns(jet_sums(p, starts))
        | {
            "label": label.astype(np.int32),
            "split": ttv.astype(np.int8),
            "row": np.arange(first, first + len(records)),
        },
    )
