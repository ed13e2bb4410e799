"""The top-tagging reference layout (Zenodo 2603256; arXiv:1902.09914): pandas/PyTables HDF5, key `table`.

`table/table` has rows (index, values_block_0 float32 [804], values_block_1 int64 [2]): 200 zero-padded constituents
(E, px, py, pz) in GeV, the true top's four-momentum (never read: it gives the label away), then ttv and label.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the Blosc filter these files are compressed with)
import numpy as np
from jaxtyping import Float64, Int64, Shaped

from jetclr.data.chunk import JetChunk
from jetclr.data.kinematics import constituent_columns, jet_columns
from jetclr.errors import UserError

LABELS = {0: "QCD", 1: "top"}
CONSTITUENTS = 200
FIELDS = {"values_block_0": (4 * CONSTITUENTS + 4,), "values_block_1": (2,)}


def read(path: Path, rows: int = 4096) -> Iterator[JetChunk]:
    """Jagged chunks of up to `rows` jets: pt, eta, phi and jet_pt, jet_eta, jet_phi, jet_mass, label, ttv.

    Raises UserError when the file is missing, is truncated or has another layout, saying what it holds instead.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with h5py.File(path, "r") as file:
            table = _table(file, path)
            for start in range(0, len(table), rows):
                yield _chunk(table[start : start + rows], path, start)
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # all that h5py raises on damaged files
        if isinstance(error, OSError) and error.errno is not None:  # the system's own, such as a missing permission
            raise
        raise UserError(
            f"{path} cannot be read as HDF5; it is truncated, damaged or another format ({error})"
        ) from None


def _table(file: h5py.File, path: Path) -> h5py.Dataset:
    table = file.get("table/table")
    if not isinstance(table, h5py.Dataset):
        raise UserError(f"{path} has no 'table/table', so it is not in the toptag layout; it holds {sorted(file)}")
    fields = table.dtype.fields or {}
    found = {name: fields[name][0].shape for name in FIELDS if name in fields}
    if found != FIELDS:
        raise UserError(
            f"{path} is not in the toptag layout: table/table should have {FIELDS} and has {table.dtype.descr}"
        )
    return table


def _chunk(records: Shaped[np.ndarray, " J"], path: Path, first: int) -> JetChunk:
    momenta = records["values_block_0"][:, : 4 * CONSTITUENTS].reshape(-1, CONSTITUENTS, 4).astype(np.float64)
    ttv, label = records["values_block_1"].T
    _refuse_unsound(momenta, label, path, first)
    real = (momenta != 0).any(-1)
    offsets = np.concatenate([[0], np.cumsum(real.sum(1))]).astype(np.int64)
    momenta = np.moveaxis(momenta[..., [1, 2, 3, 0]], -1, 0)  # (px, py, pz, E), as everywhere else
    return JetChunk(
        offsets,
        constituent_columns(momenta[:, real]),
        jet_columns(momenta.sum(axis=2)) | {"label": label.astype(np.int32), "ttv": ttv.astype(np.int32)},
    )


def _refuse_unsound(
    momenta: Float64[np.ndarray, "J N 4"], label: Int64[np.ndarray, " J"], path: Path, first: int
) -> None:
    unsound = ~np.isfinite(momenta).all((1, 2))
    if unsound.any():
        raise UserError(f"jet {first + int(np.argmax(unsound))} of {path} has a momentum that is not a finite number")
    beam = ((momenta != 0).any(-1) & ~(momenta[..., 1:3] != 0).any(-1)).any(-1)
    if beam.any():
        raise UserError(f"jet {first + int(np.argmax(beam))} of {path} has a constituent with pT = 0")
    unknown = ~np.isin(label, list(LABELS))
    if unknown.any():
        row = int(np.argmax(unknown))
        raise UserError(f"jet {first + row} of {path} has label {label[row]}; the toptag layout knows {LABELS}")
