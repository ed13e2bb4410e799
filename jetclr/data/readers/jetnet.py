"""JetNet (Zenodo 6975118 with 30 and 6975117 with 150 constituents; arXiv:2106.11535): `g.hdf5`, `t150.hdf5`, ...

`particle_features` [N, M, 4] = eta_rel, phi_rel, pT_rel, mask, relative to the jet; `jet_features` [N, 4] = pT [GeV],
eta, mass [GeV], multiplicity. The set has no azimuth of jets, which is 0 here, and its label is the file's name.

The mask tells what is a constituent. One with pT_rel of exactly 0 is left out all the same: generative models that
write this layout leave such behind. A jet without any constituent is given as such, and it is for the caller to refuse
it or leave it out.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float

from jetclr.data.chunk import JetChunk
from jetclr.data.readers.checks import MAX_ETA, refuse
from jetclr.data.readers.hdf5 import batches, double, numbers, offsets, opened, same_rows
from jetclr.data.readers.momenta import wrapped
from jetclr.errors import UserError

LABELS = {0: "gluon", 1: "quark", 2: "top", 3: "W", 4: "Z"}
LETTERS = "gqtwz"
NAMED = re.compile(r"([gqtwz])(?:30|150)?\.(?:hdf5|h5)")
PARTICLES, JETS = "particle_features", "jet_features"


def recognises(path: Path) -> bool:
    """Whether a file is in this layout, whatever its name; never raises."""
    try:
        with opened(path) as file:
            _features(file, path)
    except UserError:
        return False
    return True


def rows(path: Path) -> int:
    """Jets in a file; raises UserError for another layout, and for a name that does not tell the label."""
    _label(path)
    with opened(path) as file:
        return same_rows(path, _features(file, path))


def read(path: Path, start: int, stop: int) -> Iterator[JetChunk]:
    """Jets start:stop: pt, eta, phi; jet_pt, jet_eta and jet_mass as in the file, jet_phi = 0; label, row.

    Raises UserError as `rows` does, and for jets or constituents whose numbers cannot be those of particles.
    """
    label = _label(path)
    with opened(path) as file:
        for first, pieces in batches(path, _features(file, path), start, stop):
            yield _chunk(pieces[PARTICLES], pieces[JETS], label, path, first)


def _label(path: Path) -> int:
    found = NAMED.fullmatch(path.name)
    if found is None:
        raise UserError(
            f"{path}: the label of a JetNet file is its name; it must be called g.hdf5 (gluon), q.hdf5 (quark), "
            "t.hdf5 (top), w.hdf5 (W) or z.hdf5 (Z), or such as g150.hdf5"
        )
    return LETTERS.index(found[1])


def _features(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    return {
        PARTICLES: numbers(file, path, PARTICLES, "jetnet", [(None, 4)]),
        JETS: numbers(file, path, JETS, "jetnet", [(4,)]),
    }


def _chunk(
    particles: Float[np.ndarray, "J N 4"], features: Float[np.ndarray, "J 4"], label: int, path: Path, first: int
) -> JetChunk:
    jet_pt, jet_eta, jet_mass = double(features[:, :3].T)
    refuse(~((jet_pt > 0) & (jet_pt < np.inf)), first, path, "has a pT that is not a positive number")
    refuse(~(np.abs(jet_eta) < MAX_ETA), first, path, f"has an eta beyond {MAX_ETA:g}")
    refuse(~((jet_mass >= 0) & (jet_mass < np.inf)), first, path, "has a mass that is not a number from 0")
    mask = particles[..., 3]
    refuse(~np.isfinite(mask).all(axis=1), first, path, "has a mask that is not a number")
    real = (mask > 0.5) & (particles[..., 2] != 0)
    starts = offsets(real)
    eta_rel, phi_rel, pt_rel = double(particles[real][:, :3].T)
    refuse(~((pt_rel > 0) & (pt_rel < np.inf)), first, path, "has a constituent with pT_rel not above 0", starts)
    refuse(~(np.abs(eta_rel) < MAX_ETA), first, path, f"has a constituent with eta_rel beyond {MAX_ETA:g}", starts)
    refuse(~(np.abs(phi_rel) < 2 * np.pi), first, path, "has a constituent with phi_rel beyond 2 pi", starts)
    counts = np.diff(starts)
    with np.errstate(over="ignore"):  # what is too large for a float32 becomes infinite, and no store takes that
        pt = (pt_rel * np.repeat(jet_pt, counts)).astype(np.float32)
        jets = {"jet_pt": jet_pt.astype(np.float32), "jet_eta": jet_eta.astype(np.float32)}
        jets |= {"jet_phi": np.zeros(len(counts), np.float32), "jet_mass": jet_mass.astype(np.float32)}
    return JetChunk(
        starts,
        {"pt": pt, "eta": (eta_rel + np.repeat(jet_eta, counts)).astype(np.float32), "phi": wrapped(phi_rel)},
        jets | {"label": np.full(len(counts), label, np.int32), "row": np.arange(first, first + len(counts))},
    )
