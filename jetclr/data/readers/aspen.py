"""Aspen Open Jets (arXiv:2412.10504): real jets of CMS open data, HDF5, without labels.

`event_info` [N, 3] = run, luminosity block, event; `jet_kinematics` [N, 4] = pT [GeV], eta, phi, soft-drop mass [GeV];
`PFCands` [N, 150, 11] = px, py, pz, E [GeV], d0, its error, dz, its error [cm], charge, PDG number of the hypothesis,
PUPPI weight; `jet_tagging` [N, 13], kept as it is.

Impact parameters are stored in mm. Neutral candidates have no track and get 0 for all four, whatever the file says,
which need not be a number; so do charged ones, mostly soft, of whose track CMS kept no details: all four are -1 there.
`jet_mass` is that of the sum of the candidates, without PUPPI weights.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float, Float32, Int8, Int32, Int64, Num

from jetclr.data.chunk import JetChunk
from jetclr.data.kinematics import constituent_columns, masses
from jetclr.data.names import CONSTITUENT_TYPES
from jetclr.data.particles import types
from jetclr.data.readers.checks import MAX_PHI, refuse, refuse_unsound, whole_numbers
from jetclr.data.readers.hdf5 import batches, double, numbers, offsets, opened, same_rows
from jetclr.data.readers.momenta import jet_sums, wrapped
from jetclr.errors import UserError

LABELS: dict[int, str] = {}
TRACK = {"d0": 4, "d0_error": 5, "dz": 6, "dz_error": 7}  # columns of PFCands
CHARGE, PDG, PUPPI = 8, 9, 10
NO_TRACK = -1.0  # in place of an uncertainty
MM_PER_CM = 10.0
FORWARD = {1: "neutral hadron", 2: "photon"}  # numbers CMS gives to deposits in the forward calorimeter
EVENT = ("run", "luminosity_block", "event")
LAYOUT: dict[str, tuple[tuple[int | None, ...], str]] = {
    "event_info": ((3,), "fiu"),
    "jet_kinematics": ((4,), "f"),
    "PFCands": ((None, 11), "f"),
    "jet_tagging": ((13,), "fiu"),
}


def recognises(path: Path) -> bool:
    """Whether a file is in this layout; never raises."""
    try:
        rows(path)
    except UserError:
        return False
    return True


def rows(path: Path) -> int:
    """Jets in a file; raises UserError for another layout, saying what it holds."""
    with opened(path) as file:
        return same_rows(path, _datasets(file, path))


def read(path: Path, start: int, stop: int) -> Iterator[JetChunk]:
    """Jets start:stop: pt, eta, phi, charge, type, pdg, d0, d0_error, dz, dz_error [mm], puppi; and of each jet
    jet_*, softdrop_mass, run, luminosity_block, event, jet_tagging_0 to jet_tagging_12, row.

    Raises UserError as `rows` does, and for jets or candidates whose numbers cannot be those of particles.
    """
    with opened(path) as file:
        for first, pieces in batches(path, _datasets(file, path), start, stop):
            yield _chunk(pieces, path, first)


def _datasets(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    return {name: numbers(file, path, name, "aspen", [shape], kinds) for name, (shape, kinds) in LAYOUT.items()}


def _chunk(pieces: dict[str, np.ndarray], path: Path, first: int) -> JetChunk:
    padded = pieces["PFCands"]
    real = (padded[..., :4] != 0).any(axis=-1)
    starts = offsets(real)
    candidates = padded[real]
    p = double(candidates[:, :4].T)
    with np.errstate(over="ignore", invalid="ignore"):
        pt = np.sqrt(p[0] ** 2 + p[1] ** 2)
    named = dict(zip(("px", "py", "pz", "E"), p, strict=True))
    refuse_unsound({"pt": pt, **named}, np.abs(p).max(axis=0), starts, first, path)
    charge = whole_numbers(candidates[:, CHARGE], np.int8, "charge", path, first, starts)
    pdg = whole_numbers(candidates[:, PDG], np.int32, "PDG number", path, first, starts)
    columns: dict[str, np.ndarray] = {
        **constituent_columns(p),
        "charge": charge,
        "type": _types(pdg),
        "pdg": pdg,
        **_tracks(candidates, charge, starts, path, first),
        "puppi": _single(candidates[:, PUPPI]),
    }
    return JetChunk(starts, columns, _jets(pieces, path, first) | {"jet_mass": _masses(p, starts)})


def _single(values: Num[np.ndarray, "*any"]) -> Float32[np.ndarray, "*any"]:
    """In single precision; what does not fit becomes infinite, and no store takes that."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)


def _masses(p: Float[np.ndarray, "4 M"], starts: Int64[np.ndarray, " offsets"]) -> Float32[np.ndarray, " J"]:
    return masses(jet_sums(p, starts)).astype(np.float32)


def _types(pdg: Int32[np.ndarray, " M"]) -> Int8[np.ndarray, " M"]:
    found = types(pdg.astype(np.int64))
    for number, name in FORWARD.items():
        found[pdg == number] = CONSTITUENT_TYPES.index(name)
    return found


def _tracks(
    candidates: Float[np.ndarray, "M 11"],
    charge: Int8[np.ndarray, " M"],
    starts: Int64[np.ndarray, " offsets"],
    path: Path,
    first: int,
) -> dict[str, Float32[np.ndarray, " M"]]:
    columns = {}
    errors = candidates[:, [TRACK["d0_error"], TRACK["dz_error"]]]
    without = (charge == 0) | (errors == NO_TRACK).all(axis=1)
    for name, at in TRACK.items():
        with np.errstate(over="ignore", invalid="ignore"):
            value = np.where(without, np.float32(0), _single(MM_PER_CM * double(candidates[:, at])))
        refuse(~np.isfinite(value), first, path, f"has a charged constituent whose {name} is not a number", starts)
        columns[name] = value
    return columns


def _jets(pieces: dict[str, np.ndarray], path: Path, first: int) -> dict[str, np.ndarray]:
    pt, eta, phi, mass = _single(pieces["jet_kinematics"]).T
    refuse(~(np.abs(phi) < MAX_PHI), first, path, "has a phi that is no azimuth in radians")
    columns: dict[str, np.ndarray] = {"jet_pt": pt, "jet_eta": eta, "jet_phi": wrapped(phi), "softdrop_mass": mass}
    for number, name in enumerate(EVENT):
        columns[name] = whole_numbers(pieces["event_info"][:, number], np.int64, name, path, first)
    columns |= {f"jet_tagging_{i}": column for i, column in enumerate(_single(pieces["jet_tagging"]).T)}
    return columns | {"row": np.arange(first, first + len(pt))}
