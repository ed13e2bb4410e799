"""Particles that live long enough to enter a detector: mass, charge and type by PDG number.

Masses from the Review of Particle Physics (PDG 2024).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64

from jetclr.data.names import CONSTITUENT_TYPES


class Particle(NamedTuple):
    """What is known of a kind of particle; the antiparticle has the opposite charge."""

    mass: float  # GeV
    charge: int  # of the positive PDG number
    type: str  # of CONSTITUENT_TYPES


PARTICLES = {
    11: Particle(0.000510999, -1, "electron"),
    12: Particle(0.0, 0, "other"),
    13: Particle(0.105658, -1, "muon"),
    14: Particle(0.0, 0, "other"),
    16: Particle(0.0, 0, "other"),
    22: Particle(0.0, 0, "photon"),
    130: Particle(0.497611, 0, "neutral hadron"),
    211: Particle(0.139570, 1, "charged hadron"),
    310: Particle(0.497611, 0, "neutral hadron"),
    321: Particle(0.493677, 1, "charged hadron"),
    2112: Particle(0.939565, 0, "neutral hadron"),
    2212: Particle(0.938272, 1, "charged hadron"),
    3112: Particle(1.197449, -1, "charged hadron"),
    3122: Particle(1.115683, 0, "neutral hadron"),
    3222: Particle(1.18937, 1, "charged hadron"),
    3312: Particle(1.32171, -1, "charged hadron"),
    3322: Particle(1.31486, 0, "neutral hadron"),
    3334: Particle(1.67245, -1, "charged hadron"),
}

_NUMBERS = np.array(sorted(PARTICLES))
_MASSES = np.array([PARTICLES[n].mass for n in _NUMBERS.tolist()])
_CHARGES = np.array([PARTICLES[n].charge for n in _NUMBERS.tolist()], np.int8)
_TYPES = np.array([CONSTITUENT_TYPES.index(PARTICLES[n].type) for n in _NUMBERS.tolist()], np.int8)


def _at(pdg: Int64[np.ndarray, " M"]) -> tuple[Int64[np.ndarray, " M"], Bool[np.ndarray, " M"]]:
    number = np.abs(pdg)
    at = np.minimum(np.searchsorted(_NUMBERS, number), len(_NUMBERS) - 1)
    return at, _NUMBERS[at] == number


def known(pdg: Int64[np.ndarray, " M"]) -> Bool[np.ndarray, " M"]:
    """Whether the particles are in `PARTICLES`."""
    return _at(pdg)[1]


def masses(pdg: Int64[np.ndarray, " M"]) -> Float64[np.ndarray, " M"]:
    """Masses [GeV]; 0 for particles that are not in `PARTICLES`."""
    at, found = _at(pdg)
    return np.where(found, _MASSES[at], 0.0)


def charges(pdg: Int64[np.ndarray, " M"]) -> Int8[np.ndarray, " M"]:
    """Electric charges [e]; 0 for particles that are not in `PARTICLES`."""
    at, found = _at(pdg)
    return np.where(found, np.where(pdg < 0, -_CHARGES[at], _CHARGES[at]), np.int8(0)).astype(np.int8)


def types(pdg: Int64[np.ndarray, " M"]) -> Int8[np.ndarray, " M"]:
    """Numbers of `CONSTITUENT_TYPES`; 0, other, for particles that are not in `PARTICLES`."""
    at, found = _at(pdg)
    return np.where(found, _TYPES[at], np.int8(0)).astype(np.int8)
