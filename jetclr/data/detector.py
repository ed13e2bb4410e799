"""A simple detector: particles of events -> tracks and calorimeter cells, from which jets are then made.

Charged particles that the tracker finds keep their direction, and their pT is smeared. All else, a charged particle
that was not found included, goes into the cells of one calorimeter; a cell becomes one massless particle at its
centre. What is seen is called as an experiment would: a track is a pion unless it is an electron or a muon, a cell is a
photon or, where electrons and photons gave less than half of its energy, a neutral hadron. There is no magnetic field,
no pile-up, no shower from one cell into the next.

Shapes: E events, P particles of all events, C cells.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from jetclr.data.kinematics import pt_eta_phi
from jetclr.data.particles import charges, masses
from jetclr.data.processes import Detector

ELECTRON, MUON, PHOTON, NEUTRAL_HADRON, PION = 11, 13, 22, 130, 211


class Seen(NamedTuple):
    """What a detector sees of events, end to end: where each event starts, PDG numbers, four-momenta [GeV]."""

    offsets: Int64[np.ndarray, " E+1"]
    pdg: Int64[np.ndarray, " P"]
    momentum: Float64[np.ndarray, "4 P"]  # px, py, pz, E


def detect(seen: Seen, detector: Detector, seed: int, first_event: int = 0) -> Seen:
    """What the detector makes of visible particles: of each event the tracks, then the cells.

    A pure function: the chances of an event are drawn from `seed` and its number, counted from `first_event`, so that
    they do not depend on the events beside it.
    """
    sizes = np.diff(seen.offsets)
    event = np.repeat(np.arange(len(sizes)), sizes)
    luck, noise, cell_noise = _draw(sizes, seed, first_event)
    pt, eta, _ = pt_eta_phi(seen.momentum)
    muon = np.abs(seen.pdg) == MUON
    reached = (charges(seen.pdg) != 0) & (pt > detector.track_pt_min) & (np.abs(eta) < detector.track_eta_max)
    found = reached & ((luck < detector.tracking_efficiency) | muon)
    track, track_pdg, track_momentum = _tracks(seen, found, noise, detector)

    stopped = np.flatnonzero(~found & ~muon & (np.abs(eta) < detector.calorimeter_eta_max))
    rest = Seen(np.searchsorted(stopped, seen.offsets), seen.pdg[stopped], seen.momentum[:, stopped])
    cell_event, cell_pdg, cell_momentum = _cells(rest, cell_noise[stopped], detector)

    all_events = np.concatenate([event[track], cell_event])
    order = np.argsort(all_events, kind="stable")
    return Seen(
        np.concatenate([[0], np.cumsum(np.bincount(all_events, minlength=len(sizes)))]).astype(np.int64),
        np.concatenate([track_pdg, cell_pdg])[order],
        np.concatenate([track_momentum, cell_momentum], axis=1)[:, order],
    )


def _draw(
    sizes: Int64[np.ndarray, " E"], seed: int, first_event: int
) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, " P"], Float64[np.ndarray, " P"]]:
    """A uniform and two normal numbers for each particle; an event has at most as many cells as particles."""
    uniform, normal = [np.zeros(0)], [np.zeros((2, 0))]
    for number, size in enumerate(sizes.tolist(), start=first_event):
        generator = np.random.default_rng([seed, number])
        uniform.append(generator.random(size))
        normal.append(generator.standard_normal((2, size)))
    first, second = np.concatenate(normal, axis=1)
    return np.concatenate(uniform), first, second


def _tracks(
    seen: Seen, found: Bool[np.ndarray, " P"], noise: Float64[np.ndarray, " P"], detector: Detector
) -> tuple[Int64[np.ndarray, " T"], Int64[np.ndarray, " T"], Float64[np.ndarray, "4 T"]]:
    """The particles found, as indices; what they are called, and their smeared four-momenta."""
    pt = np.hypot(seen.momentum[0], seen.momentum[1])
    scale = 1 + noise * np.hypot(detector.track_resolution, detector.track_resolution_slope * pt)
    track = np.flatnonzero(found & (scale > 0))  # a track of no momentum is none
    pdg = seen.pdg[track]
    lepton = np.isin(np.abs(pdg), (ELECTRON, MUON))
    pdg = np.where(lepton, pdg, PION * charges(pdg).astype(np.int64))
    p = seen.momentum[:3, track] * scale[track]
    energy = np.sqrt((p**2).sum(axis=0) + masses(pdg) ** 2)
    return track, pdg, np.concatenate([p, energy[None]])


def _cells(
    seen: Seen, noise: Float64[np.ndarray, " P"], detector: Detector
) -> tuple[Int64[np.ndarray, " C"], Int64[np.ndarray, " C"], Float64[np.ndarray, "4 C"]]:
    """The cells that particles light up, in the order of the events: event, what it is called, smeared four-momentum.

    The i-th cell of an event takes the event's i-th number of `noise`.
    """
    in_eta = int(np.ceil(2 * detector.calorimeter_eta_max / detector.granularity))
    in_phi = max(1, round(2 * np.pi / detector.granularity))  # a whole number goes round
    _, eta, phi = pt_eta_phi(seen.momentum)
    sizes = np.diff(seen.offsets)
    row = np.floor(eta / detector.granularity + in_eta / 2).astype(np.int64)
    column = np.floor((phi / (2 * np.pi) + 0.5) * in_phi).astype(np.int64) % in_phi  # pi and -pi are one
    cell = (np.repeat(np.arange(len(sizes)), sizes) * in_eta + np.clip(row, 0, in_eta - 1)) * in_phi + column

    cell, which = np.unique(cell, return_inverse=True)
    is_light = np.isin(np.abs(seen.pdg), (ELECTRON, PHOTON))
    energy = np.bincount(which, seen.momentum[3], len(cell))
    light = np.bincount(which, seen.momentum[3] * is_light, len(cell))
    event = cell // (in_eta * in_phi)
    rank = np.arange(len(cell)) - np.searchsorted(event, event)
    width = np.hypot(detector.stochastic / np.sqrt(energy), detector.constant)
    measured = energy * (1 + width * noise[seen.offsets[event] + rank])

    eta = (cell // in_phi % in_eta + 0.5 - in_eta / 2) * detector.granularity
    phi = (cell % in_phi + 0.5) * (2 * np.pi / in_phi) - np.pi
    pt = measured / np.cosh(eta)
    momentum = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), measured])
    kept = (measured > 0) & (pt > detector.cell_pt_min)
    return event[kept], np.where(2 * light >= energy, PHOTON, NEUTRAL_HADRON)[kept], momentum[:, kept]
