"""Jets of one's own making: NumPy arrays (.npy, .npz) of (pT [GeV], eta, phi), or Parquet and Arrow list columns.

NumPy: zero-padded [N, 3, n] or [N, n, 3]; a constituent of pT = 0 is padding. In an archive the array is named X, jets,
constituents or data or is the only one of three dimensions; y, label or labels [N] hold the labels. Both are read in
order, so that a compressed archive is never held whole. Parquet and Arrow: see `jetclr.data.readers.lists`.
"""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped

from jetclr.data.chunk import JetChunk
from jetclr.data.kinematics import jet_columns
from jetclr.data.readers import lists
from jetclr.data.readers.checks import existing_file, reading, refuse_unsound, whole_numbers
from jetclr.data.readers.momenta import jet_sums, massless, wrapped
from jetclr.data.readers.npy import MAGIC as NPY_MAGIC
from jetclr.data.readers.npy import Array, arrays, described, read_rows, readable, step_for
from jetclr.errors import UserError

LABELS: dict[int, str] = {}
ROWS = 4096
NAMES = ("X", "jets", "constituents", "data")
LABEL_NAMES = ("y", "label", "labels")


def recognises(path: Path) -> bool:
    """Whether a file has jets as arrays or as list columns; never raises."""
    try:
        rows(path)
    except (UserError, OSError):
        return False
    return True


def rows(path: Path) -> int:
    """Jets in a file. Raises UserError for a file of another layout."""
    if not _is_numpy(path):
        return lists.rows(path)
    with arrays(path) as found:
        return _layout(found, path)[0].shape[0]


def read(path: Path, start: int, stop: int) -> Iterator[JetChunk]:
    """Jets start:stop: pt, eta, phi, and of jets the label, if there is one, row and the massless sum's momentum.

    Raises UserError for a file of another layout, and for numbers that are no particle's.
    """
    if not _is_numpy(path):
        yield from lists.read(path, start, stop)
        return
    with arrays(path) as found:
        x, y = _layout(found, path)
        stop = min(stop, x.shape[0])
        step = step_for(x, ROWS)
        first = start
        labels = repeat(None) if y is None else read_rows(y, start, stop, step)
        for jets, label in zip(read_rows(x, start, stop, step), labels, strict=False):
            yield _chunk(np.moveaxis(jets, 1 if x.shape[1] == 3 else 2, 0), label, path, first)
            first += len(jets)


def _is_numpy(path: Path) -> bool:
    with reading(existing_file(path), "arrays"), path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith((NPY_MAGIC, b"PK")):
        return True
    if magic.startswith(lists.MAGICS):
        return False
    raise UserError(f"{path} is no .npy, .npz, Parquet or Arrow (Feather) file: it begins with {magic!r}")


def _layout(found: dict[str, Array], path: Path) -> tuple[Array, Array | None]:
    cubes = {name: array for name, array in found.items() if len(array.shape) == 3}
    named = [name for name in NAMES if name in cubes] or list(cubes)
    if not named or (len(named) > 1 and named[0] not in NAMES):
        raise UserError(
            f"{path} has no array of jets [N, 3, n] or [N, n, 3] that is named {', '.join(NAMES)} or the only one of "
            f"three dimensions; it holds {described(found)}"
        )
    x = readable(cubes[named[0]])
    if x.shape[1:].count(3) != 1:
        why = "3 constituents cannot be told from 3 coordinates; pad it" if 3 in x.shape[1:] else "no axis is 3"
        raise UserError(f"{path} must have jets as [N, 3, n] or [N, n, 3]; {x.name!r} is {list(x.shape)}: {why}")
    if x.dtype.kind != "f" or x.dtype.itemsize not in (2, 4, 8):
        raise UserError(f"{path} must have jets as float32 or float64; {x.name!r} is {x.dtype}")
    y = next((found[name] for name in LABEL_NAMES if name in found), None)
    if y is not None and (y.shape != x.shape[:1] or y.dtype.kind not in "biuf"):
        raise UserError(f"{path} must have one number a jet in {y.name}; it holds {described(found)}")
    return x, None if y is None else readable(y)


@np.errstate(over="ignore", invalid="ignore")  # what becomes infinite or NaN is refused
def _chunk(x: Shaped[np.ndarray, "3 J N"], label: Shaped[np.ndarray, " J"] | None, path: Path, first: int) -> JetChunk:
    real = x[0] != 0
    offsets = np.concatenate([[0], np.cumsum(real.sum(1))]).astype(np.int64)
    coordinates: dict[str, Float64[np.ndarray, " M"]] = {
        name: values[real].astype(np.float64) for name, values in zip(("pt", "eta", "phi"), x, strict=True)
    }
    momenta = massless(**coordinates)
    refuse_unsound(coordinates, momenta[3], offsets, first, path)
    jets: dict[str, np.ndarray] = {
        **jet_columns(jet_sums(momenta, offsets)),
        "row": np.arange(first, first + len(real)),
    }
    if label is not None:
        jets["label"] = whole_numbers(label, np.int32, "label", path, first)
    pt, eta = (coordinates[name].astype(np.float32) for name in ("pt", "eta"))
    return JetChunk(offsets, {"pt": pt, "eta": eta, "phi": wrapped(coordinates["phi"])}, jets)
