"""Four-momenta to collider coordinates, in numpy and double precision: what readers and the generator share.

Momenta are (px, py, pz, E) [GeV] along the first axis.
"""

import numpy as np
from jaxtyping import Float32, Float64

# The float32 nearest to pi lies above it; this is the largest below, so azimuths stay within (-pi, pi].
LARGEST_PHI = np.nextafter(np.float32(np.pi), np.float32(0))


def pt_eta_phi(
    p: Float64[np.ndarray, "4 *any"],
) -> tuple[Float64[np.ndarray, "*any"], Float64[np.ndarray, "*any"], Float64[np.ndarray, "*any"]]:
    """pT [GeV], pseudorapidity and azimuth in [-pi, pi]; a momentum of zero has all three zero."""
    pt = np.hypot(p[0], p[1])
    return pt, np.arcsinh(p[2] / np.where(pt > 0, pt, 1)), np.arctan2(p[1], p[0])


def constituent_columns(p: Float64[np.ndarray, "4 M"]) -> dict[str, Float32[np.ndarray, " M"]]:
    """pt [GeV], eta, phi of constituents, as the store holds them."""
    pt, eta, phi = (x.astype(np.float32) for x in pt_eta_phi(p))
    return {"pt": pt, "eta": eta, "phi": np.clip(phi, -LARGEST_PHI, LARGEST_PHI)}


def jet_columns(p: Float64[np.ndarray, "4 J"]) -> dict[str, Float32[np.ndarray, " J"]]:
    """jet_pt, jet_mass [GeV], jet_eta, jet_phi of jets' total momenta; a mass squared below zero is rounding: zero."""
    pt, eta, phi = (x.astype(np.float32) for x in pt_eta_phi(p))
    mass = np.sqrt(np.maximum(p[3] ** 2 - (p[:3] ** 2).sum(axis=0), 0)).astype(np.float32)
    return {"jet_pt": pt, "jet_eta": eta, "jet_phi": np.clip(phi, -LARGEST_PHI, LARGEST_PHI), "jet_mass": mass}
