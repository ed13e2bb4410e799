"""What the event record tells of the truth: what nobody sees, and which jets hold what they were made for.

Shapes: E events, P particles of all the events of a batch, J jets, T particles to be matched, M members of each.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from jetclr.data.kinematics import pt_eta_phi
from jetclr.data.processes import DARK_MATTER, Match

NEUTRINOS = (12, 14, 16)
HIDDEN_VALLEY = (4_900_000, 5_000_000)  # PDG numbers of its particles: from, and up to
HARD_PROCESS = 23  # Pythia's status of what leaves it; negative once it has radiated


class Particles(NamedTuple):
    """The event records of a batch, end to end: numbers of each particle [P] and where each event starts [E+1].

    Momenta are in GeV; `mother` is an index into these arrays.
    """

    offsets: Int64[np.ndarray, " E+1"]
    pdg: Int64[np.ndarray, " P"]
    status: Int64[np.ndarray, " P"]
    mother: Int64[np.ndarray, " P"]
    momentum: Float64[np.ndarray, "4 P"]  # px, py, pz, E

    @property
    def event(self) -> Int64[np.ndarray, " P"]:
        """Which event each particle belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def visible(self) -> Bool[np.ndarray, " P"]:
        """Final particles that a detector could see."""
        return (self.status > 0) & ~invisible(self.pdg)


def invisible(pdg: Int64[np.ndarray, " P"]) -> Bool[np.ndarray, " P"]:
    """Whether particles leave no trace: neutrinos, dark matter and all of a Hidden Valley."""
    number = np.abs(pdg)
    hidden = (number >= HIDDEN_VALLEY[0]) & (number < HIDDEN_VALLEY[1])
    return np.isin(number, (*NEUTRINOS, DARK_MATTER)) | hidden


def missing_pt(particles: Particles) -> Float64[np.ndarray, " E"]:
    """Transverse momentum [GeV] of the sum of all invisible final particles of each event."""
    lost = (particles.status > 0) & invisible(particles.pdg)
    event, events = particles.event[lost], len(particles.offsets) - 1
    px, py = (np.bincount(event, p[lost], events) for p in particles.momentum[:2])
    return np.hypot(px, py)


def matched(
    particles: Particles,
    match: Match,
    jet_event: Int64[np.ndarray, " J"],
    axis: Float64[np.ndarray, "4 J"],
    radius: float,
) -> Bool[np.ndarray, " J"]:
    """Whether one particle of the match and all that it decays to are within `radius` of the jet axis."""
    members = to_match(particles, match)
    event = particles.event[members[:, 0]]
    first = np.searchsorted(event, jet_event)
    count = np.searchsorted(event, jet_event, side="right") - first
    jet = np.repeat(np.arange(len(jet_event)), count)  # every jet with every candidate of its event
    candidate = np.arange(len(jet)) + np.repeat(first - np.cumsum(count) + count, count)
    _, eta, phi = pt_eta_phi(particles.momentum[:, members[candidate]])
    _, jet_eta, jet_phi = pt_eta_phi(axis)
    near = delta_r(eta, phi, jet_eta[jet, None], jet_phi[jet, None]) < radius
    return np.bincount(jet[near.all(axis=1)], minlength=len(jet_event)) > 0


def delta_r(eta1: np.ndarray, phi1: np.ndarray, eta2: np.ndarray, phi2: np.ndarray) -> np.ndarray:
    """Distance in (pseudorapidity, azimuth), the azimuth wrapped."""
    return np.hypot(eta1 - eta2, (phi1 - phi2 + np.pi) % (2 * np.pi) - np.pi)


def to_match(particles: Particles, match: Match) -> Int64[np.ndarray, "T M"]:
    """The particles of the match with the quarks they decay to, as indices, in the order of the events.

    A decaying particle is the last of its copies; quarks are as they leave the decay, before their shower. Raises
    RuntimeError if one decays in any other way than to quarks.
    """
    kind = np.abs(particles.pdg)
    if match.quarks == 0:
        outgoing = np.isin(kind, match.pdg) & (np.abs(particles.status) == HARD_PROCESS)
        return np.flatnonzero(outgoing)[:, None]
    return tops(particles) if match.quarks == 3 else bosons(particles, match.pdg)


def bosons(particles: Particles, pdg: tuple[int, ...]) -> Int64[np.ndarray, "T 3"]:
    """The bosons of these kinds, each with its two quarks; see `to_match`."""
    mother, (kind, parent) = particles.mother, _kinds(particles)
    quarks = np.flatnonzero((kind >= 1) & (kind <= 5) & np.isin(parent, pdg))
    quarks = quarks[np.argsort(mother[quarks], kind="stable")]
    boson = np.flatnonzero(np.isin(kind, pdg))
    heirs = mother[np.flatnonzero(np.isin(kind, pdg) & (kind == parent))]
    boson = np.setdiff1d(boson, heirs)  # the last copy of each
    if not np.array_equal(np.repeat(boson, 2), mother[quarks]):
        raise RuntimeError("an event has a boson that does not decay to two quarks")
    return np.stack([boson, quarks[0::2], quarks[1::2]], axis=1)


def tops(particles: Particles) -> Int64[np.ndarray, "T 4"]:
    """The top quarks, each with its b or lighter quark and the two quarks of its W; see `to_match`."""
    mother, (kind, parent) = particles.mother, _kinds(particles)
    is_quark = (kind >= 1) & (kind <= 5)

    def sorted_by_top(index: np.ndarray, top: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(top, kind="stable")
        return top[order], index[order]

    w = np.flatnonzero((kind == 24) & (parent == 6))
    b = np.flatnonzero(is_quark & (parent == 6))
    q = np.flatnonzero(is_quark & (parent == 24))
    first_w = mother[q]
    while (copies := parent[first_w] == 24).any():
        first_w = np.where(copies, mother[first_w], first_w)
    top, _ = sorted_by_top(w, mother[w])
    top_of_b, b = sorted_by_top(b, mother[b])
    top_of_q, q = sorted_by_top(q, mother[first_w])
    if not (np.array_equal(top, top_of_b) and np.array_equal(np.repeat(top, 2), top_of_q)):
        raise RuntimeError("an event has a top quark that does not decay to three quarks")
    return np.stack([top, b, q[0::2], q[1::2]], axis=1)


def _kinds(particles: Particles) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
    """The kind of each particle, and of its mother: PDG numbers without sign."""
    kind = np.abs(particles.pdg)
    return kind, kind[particles.mother]
