"""LHC Olympics 2020 (arXiv:2101.08320): the R&D events (Zenodo 4536377, 6466204) and the black boxes.

pandas "fixed" HDF5, key `df`: `df/block0_values` [E, 2101] = 700 zero-padded massless particles (pT [GeV], eta, phi) of
an EVENT, not a jet, then the label (absent in the black boxes). Jets are clustered here, anti-kT with R = 1.0, and the
two hardest of each event become two jets of the store, so that a search can use the pair: `event`, `jet_index`,
`dijet_mass`. Events with fewer than two jets above `PT_MIN` are left out.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float, Float64, Int64

from jetclr.data.chunk import JetChunk
from jetclr.data.clustering import antikt_jets, reorder
from jetclr.data.kinematics import jet_columns, masses
from jetclr.data.readers.checks import MAX_ETA, MAX_PHI, owner, reading
from jetclr.data.readers.hdf5 import batches, dataset, double, find, numbers, offsets, opened
from jetclr.data.readers.momenta import massless, wrapped
from jetclr.errors import UserError

LABELS = {0: "QCD", 1: "signal"}
PARTICLES = 700
RADIUS = 1.0
PT_MIN = 20.0  # GeV
EVENTS = 1024  # clustered at once
NAME, COLUMNS = "df/block0_values", "df/block0_items"
FEATURES = b"pxj1"  # a column of the file of high-level features


def recognises(path: Path) -> bool:
    """Whether a file is of the LHC Olympics, be it the one of features that has no particles; never raises."""
    try:
        with opened(path) as file:
            if _has_features(file, path):
                return True
            _events(file, path)
    except UserError:
        return False
    return True


def rows(path: Path) -> int:
    """Events in a file; raises UserError for another layout, and for the features, which have no particles."""
    with opened(path) as file:
        return len(_events(file, path))


def read(path: Path, start: int, stop: int) -> Iterator[JetChunk]:
    """The two hardest jets of events start:stop: pt, eta, phi; jet_*, event, jet_index, dijet_mass, label, row.

    `row` and `event` are the row of the event, so the two jets of an event share them. Raises UserError as `rows` does,
    where FastJet is not installed, and for numbers that cannot be those of particles.
    """
    with opened(path) as file:
        for first, pieces in batches(path, {NAME: _events(file, path)}, start, stop, EVENTS):
            yield _chunk(pieces[NAME], path, first)


def _has_features(file: h5py.File, path: Path) -> bool:
    if find(file, path, COLUMNS) is None:
        return False
    names = dataset(file, path, COLUMNS, "lhco")
    with reading(path, "HDF5"):
        return names.dtype.kind == "S" and names.size < 100 and FEATURES in names[:]


def _events(file: h5py.File, path: Path) -> h5py.Dataset:
    if _has_features(file, path):
        raise UserError(
            f"{path} holds high-level features of jets and no particles; convert the file of events they were made "
            "from, such as events_anomalydetection_v2.h5"
        )
    return numbers(file, path, NAME, "lhco", [(3 * PARTICLES + 1,), (3 * PARTICLES,)])


def _refuse_unsound(
    pt: Float64[np.ndarray, " P"],
    eta: Float64[np.ndarray, " P"],
    phi: Float64[np.ndarray, " P"],
    starts: Int64[np.ndarray, " offsets"],
    path: Path,
    first: int,
) -> None:
    good = (pt > 0) & (pt < np.finfo(np.float32).max) & (np.abs(eta) < MAX_ETA) & (np.abs(phi) < MAX_PHI)
    if not good.all():
        worst = int(np.argmin(good))
        raise UserError(
            f"event {first + owner(starts, worst)} of {path} has a particle with pT = {pt[worst]:g}, "
            f"eta = {eta[worst]:g}, phi = {phi[worst]:g}, which is none"
        )


def _chunk(values: Float[np.ndarray, "E columns"], path: Path, first: int) -> JetChunk:
    slots = values[:, : 3 * PARTICLES].reshape(-1, PARTICLES, 3)
    real = slots[..., 0] != 0
    starts = offsets(real)
    pt, eta, phi = double(slots[real].T)
    _refuse_unsound(pt, eta, phi, starts, path, first)
    jets = antikt_jets(massless(pt, eta, phi), starts, RADIUS, PT_MIN)
    number = np.bincount(jets.event, minlength=len(values))
    rank = np.arange(len(jets.event)) - np.repeat(np.cumsum(number) - number, number)
    pair = reorder(jets, np.flatnonzero((rank < 2) & (number[jets.event] >= 2)))
    event = first + pair.event
    columns: dict[str, np.ndarray] = {**jet_columns(pair.momentum), "row": event, "event": event}
    columns["jet_index"] = np.tile(np.array([0, 1], np.int8), len(event) // 2)
    with np.errstate(over="ignore"):
        columns["dijet_mass"] = np.repeat(masses(pair.momentum[:, ::2] + pair.momentum[:, 1::2]), 2).astype(np.float32)
    if values.shape[1] > 3 * PARTICLES:
        columns["label"] = _labels(values[:, -1], path, first)[pair.event]
    at = pair.index
    coordinates = {"pt": pt[at].astype(np.float32), "eta": eta[at].astype(np.float32), "phi": wrapped(phi[at])}
    return JetChunk(pair.offsets, coordinates, columns)


def _labels(label: Float[np.ndarray, " E"], path: Path, first: int) -> np.ndarray:
    unknown = ~np.isin(label, list(LABELS))
    if unknown.any():
        worst = int(np.argmax(unknown))
        raise UserError(f"event {first + worst} of {path} has label {label[worst]:g}; the lhco layout knows {LABELS}")
    return label.astype(np.int32)
