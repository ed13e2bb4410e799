"""Four-momenta to collider coordinates, in numpy and double precision: what readers and the generator share."""

import numpy as np
from jaxtyping import Float32, Float64


def pt_eta_phi(momenta: Float64[np.ndarray, "M 4"]) -> dict[str, Float32[np.ndarray, " M"]]:
    """pt [GeV], eta, phi of four-momenta (E, px, py, pz) [GeV] that are not along the beam."""
    _, px, py, pz = momenta.T
    pt = np.hypot(px, py)
    return {name: x.astype(np.float32) for name, x in (("pt", pt), ("eta", np.arcsinh(pz / pt)), ("phi", _phi(py, px)))}


def jet_columns(momenta: Float64[np.ndarray, "J 4"]) -> dict[str, Float32[np.ndarray, " J"]]:
    """jet_pt, jet_mass [GeV], jet_eta, jet_phi of jets' total four-momenta (E, px, py, pz) [GeV].

    A mass squared that rounding made negative counts as zero. An empty jet (all zero) has eta = phi = 0.
    """
    energy, px, py, pz = momenta.T
    pt = np.hypot(px, py)
    mass2 = energy**2 - px**2 - py**2 - pz**2
    columns = {
        "jet_pt": pt,
        "jet_eta": np.arcsinh(pz / np.where(pt > 0, pt, 1)),
        "jet_phi": _phi(py, px),
        "jet_mass": np.sqrt(np.maximum(mass2, 0)),
    }
    return {name: x.astype(np.float32) for name, x in columns.items()}


def _phi(py: np.ndarray, px: np.ndarray) -> np.ndarray:
    """Azimuth in (-pi, pi] that stays there in float32, whose nearest number to pi is above it."""
    limit = np.nextafter(np.float32(np.pi), np.float32(0))
    return np.clip(np.arctan2(py, px), -limit, limit)
