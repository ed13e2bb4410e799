"""Quark and gluon jets as EnergyFlow publishes them (Zenodo 3164691, 3066475; arXiv:1810.05165): .npz.

`X` [n, M, 4] holds (pT [GeV], rapidity, phi, PDG number) of M zero-padded constituents in no particular order, `y` [n]
is 1 for quarks. Pseudorapidity follows from rapidity and the particle's mass.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from jetclr.data import particles
from jetclr.data.chunk import JetChunk
from jetclr.data.kinematics import constituent_columns, jet_columns
from jetclr.data.readers.checks import owner, refuse_unsound, whole_numbers
from jetclr.data.readers.momenta import from_rapidity, jet_sums
from jetclr.data.readers.npy import Array, arrays, described, read_rows, readable, step_for
from jetclr.errors import UserError

LABELS = {0: "gluon", 1: "quark"}
ROWS = 4096


def recognises(path: Path) -> bool:
    """Whether a file has arrays X [n, M, 4] and y [n]; never raises."""
    try:
        rows(path)
    except (UserError, OSError):
        return False
    return True


def rows(path: Path) -> int:
    """Jets in a file. Raises UserError for a file of another layout."""
    with arrays(path) as found:
        return _layout(found, path)[0].shape[0]


def read(path: Path, start: int, stop: int) -> Iterator[JetChunk]:
    """Jets start:stop: pt, eta, phi, charge, type, pdg and jet_pt, jet_eta, jet_phi, jet_mass, label, row.

    Raises UserError for a file of another layout, a particle whose mass is not known, numbers that are no particle's
    and labels other than 0 and 1.
    """
    with arrays(path) as found:
        x, y = _layout(found, path)
        stop = min(stop, x.shape[0])
        step = step_for(x, ROWS)
        first = start
        for jets, label in zip(read_rows(x, start, stop, step), read_rows(y, start, stop, step), strict=True):
            yield _chunk(jets, label, path, first)
            first += len(jets)


def _layout(found: dict[str, Array], path: Path) -> tuple[Array, Array]:
    x, y = found.get("X"), found.get("y")
    if x is None or y is None or len(x.shape) != 3 or x.shape[2] != 4 or y.shape != x.shape[:1]:
        raise UserError(f"{path} is not in the qg layout, X [n, M, 4] and y [n]; it holds {described(found)}")
    x, y = readable(x), readable(y)
    if x.dtype.kind != "f" or x.dtype.itemsize not in (4, 8) or y.dtype.kind not in "biuf":
        raise UserError(
            f"{path} is not in the qg layout: X must be float32 or float64, y numbers; it holds {described(found)}"
        )
    return x, y


@np.errstate(over="ignore", invalid="ignore")  # what becomes infinite or NaN is refused
def _chunk(x: Float[np.ndarray, "J N 4"], y: Shaped[np.ndarray, " J"], path: Path, first: int) -> JetChunk:
    real = (x != 0).any(-1)
    offsets = np.concatenate([[0], np.cumsum(real.sum(1))]).astype(np.int64)
    pt, rapidity, phi, number = np.ascontiguousarray(x[real].T.astype(np.float64))
    pdg = whole_numbers(number, np.int32, "PDG number", path, first, offsets).astype(np.int64)
    unknown = ~particles.known(pdg)
    if unknown.any():
        worst = int(np.argmax(unknown))
        raise UserError(
            f"jet {first + owner(offsets, worst)} of {path} has a particle with the PDG number {pdg[worst]}, "
            "whose mass is not known; drop it, or add it to jetclr.data.particles"
        )
    momenta = from_rapidity(pt, rapidity, phi, particles.masses(pdg))
    refuse_unsound({"pt": pt, "rapidity": rapidity, "phi": phi}, momenta[3], offsets, first, path)
    label = whole_numbers(y, np.int32, "label", path, first)
    strange = ~np.isin(label, list(LABELS))
    if strange.any():
        worst = int(np.argmax(strange))
        raise UserError(f"jet {first + worst} of {path} has label {label[worst]}; the qg layout knows {LABELS}")
    constituents: dict[str, np.ndarray] = {**constituent_columns(momenta)}
    constituents |= {"charge": particles.charges(pdg), "type": particles.types(pdg), "pdg": pdg.astype(np.int32)}
    jets: dict[str, np.ndarray] = {**jet_columns(jet_sums(momenta, offsets)), "label": label}
    return JetChunk(offsets, constituents, jets | {"row": np.arange(first, first + len(x))})
