"""Four-momenta of files that hold none, and sums of them: for readers. (px, py, pz, E) [GeV] along the first axis."""

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from jetclr.data.kinematics import LARGEST_PHI


def massless(
    pt: Float64[np.ndarray, " M"], eta: Float64[np.ndarray, " M"], phi: Float64[np.ndarray, " M"]
) -> Float64[np.ndarray, "4 M"]:
    """Momenta of massless particles from pT [GeV], pseudorapidity and azimuth; not finite where an input is absurd."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)])


def from_rapidity(
    pt: Float64[np.ndarray, " M"],
    rapidity: Float64[np.ndarray, " M"],
    phi: Float64[np.ndarray, " M"],
    mass: Float64[np.ndarray, " M"],
) -> Float64[np.ndarray, "4 M"]:
    """Momenta from pT [GeV], rapidity, azimuth and mass [GeV]; not finite where an input is absurd.

    E = mT cosh y and pz = mT sinh y with mT^2 = pT^2 + m^2.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        transverse = np.hypot(pt, mass)
        return np.stack(
            [pt * np.cos(phi), pt * np.sin(phi), transverse * np.sinh(rapidity), transverse * np.cosh(rapidity)]
        )


def jet_sums(
    momenta: Float64[np.ndarray, "4 M"], offsets: Int64[np.ndarray, " edges"]
) -> Float64[np.ndarray, "4 edges-1"]:
    """The total momentum of each jet; zero for a jet without constituents."""
    filled = np.diff(offsets) > 0
    totals = np.zeros((4, len(filled)))
    totals[:, filled] = np.add.reduceat(momenta, offsets[:-1][filled], axis=1)
    return totals


def wrapped(phi: Float[np.ndarray, " M"]) -> Float32[np.ndarray, " M"]:
    """Azimuths in [-pi, pi]; those that lie there already keep their value."""
    near = np.remainder(phi + np.pi, 2 * np.pi) - np.pi
    return np.clip(np.where(np.abs(phi) > np.pi, near, phi).astype(np.float32), -LARGEST_PHI, LARGEST_PHI)
