"""Four-momenta to collider coordinates, in numpy and double precision: what readers and the generator share.

Momenta are (px, py, pz, E) [GeV] along the first axis. What does not fit single precision becomes infinite, and no
store takes that (`jetclr.data.chunk.check_chunk`).
"""

import numpy as np
from jaxtyping import Float32, Float64

# The float32 nearest to pi lies above it; this is the largest below, so azimuths stay within (-pi, pi].
LARGEST_PHI = np.nextafter(np.float32(np.pi), np.float32(0))


def pt_eta_phi(
    p: Float64[np.ndarray, "4 *any"],
) -> tuple[Float64[np.ndarray, "*any"], Float64[np.ndarray, "*any"], Float64[np.ndarray, "*any"]]:
    """pT [GeV], pseudorapidity and azimuth in [-pi, pi]; pT and pseudorapidity of a momentum of zero are zero."""
    pt = np.sqrt(p[0] * p[0] + p[1] * p[1])  # np.hypot takes seven times as long, for momenta beyond 1e154 GeV
    return pt, np.arcsinh(p[2] / np.where(pt > 0, pt, 1)), np.arctan2(p[1], p[0])


def constituent_columns(p: Float64[np.ndarray, "4 M"]) -> dict[str, Float32[np.ndarray, " M"]]:
    """pt [GeV], eta, phi of constituents, as the store holds them."""
    with np.errstate(over="ignore"):
        pt, eta, phi = (x.astype(np.float32) for x in pt_eta_phi(p))
    return {"pt": pt, "eta": eta, "phi": np.clip(phi, -LARGEST_PHI, LARGEST_PHI)}


def masses(p: Float64[np.ndarray, "4 *any"]) -> Float64[np.ndarray, "*any"]:
    """Invariant masses [GeV]; a mass squared below zero is rounding: zero."""
    return np.sqrt(np.maximum(p[3] ** 2 - (p[:3] ** 2).sum(axis=0), 0))


def jet_columns(p: Float64[np.ndarray, "4 J"]) -> dict[str, Float32[np.ndarray, " J"]]:
    """jet_pt, jet_mass [GeV], jet_eta, jet_phi of jets' total momenta; a mass squared below zero is rounding: zero."""
    with np.errstate(over="ignore"):
        pt, eta, phi, mass = (x.astype(np.float32) for x in (*pt_eta_phi(p), masses(p)))
    return {"jet_pt": pt, "jet_eta": eta, "jet_phi": np.clip(phi, -LARGEST_PHI, LARGEST_PHI), "jet_mass": mass}
