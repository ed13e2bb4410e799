"""Truth matching on records written by hand, and against a walk through records of Pythia."""

from collections.abc import Sequence

import numpy as np
import pytest
import vector
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data import pythia
from jetclr.data.clustering import antikt_jets
from jetclr.data.kinematics import pt_eta_phi
from jetclr.data.matching import Particles, delta_r, invisible, matched, missing_pt, to_match
from jetclr.data.processes import Match, Recipe, recipe

TOP, W, Z, HIGGS = Match((6,), 3), Match((24,), 2), Match((23,), 2), Match((25,), 2)


def record(*events: Sequence[tuple[int, int, int, float, float]]) -> Particles:
    """Events of massless particles of 100 GeV: (PDG number, status, mother within the event, eta, phi)."""
    rows = [row for event in events for row in event]
    offsets = np.cumsum([0] + [len(event) for event in events]).astype(np.int64)
    pdg, status, mother = (np.array([row[k] for row in rows], np.int64) for k in range(3))
    eta, phi = (np.array([row[k] for row in rows], np.float64) for k in (3, 4))
    momentum = 100 * np.stack([np.cos(phi), np.sin(phi), np.sinh(eta), np.cosh(eta)])
    return Particles(offsets, pdg, status, mother + np.repeat(offsets[:-1], np.diff(offsets)), momentum)


def axes(*eta_phi: tuple[float, float]) -> np.ndarray:
    eta, phi = np.array(eta_phi).T
    return 600 * np.stack([np.cos(phi), np.sin(phi), np.sinh(eta), np.cosh(eta)])


SYSTEM = (90, -11, 0, 0.0, 0.0)
# Two W bosons, each with a copy before it decays; the second one's quarks are listed before those of the first.
PAIR = [
    SYSTEM,
    (24, -22, 0, 0.0, 0.0),
    (-24, -22, 0, 0.0, 3.0),
    (24, -44, 1, 0.1, 0.0),
    (-24, -44, 2, 0.0, 3.1),
    (3, -23, 4, 0.2, 3.0),
    (-4, -23, 4, 0.0, -3.0),
    (2, -23, 3, 0.0, 0.3),
    (-1, -23, 3, 0.9, 0.0),
    (1, 51, 7, 0.0, 0.3),  # a shower's copy is not a decay product
]


def test_bosons_with_their_quarks() -> None:
    particles = record([SYSTEM], PAIR, [SYSTEM], PAIR)
    assert (to_match(particles, W) - 1).tolist() == [[3, 7, 8], [4, 5, 6], [14, 18, 19], [15, 16, 17]]
    jet_event = np.array([0, 1, 1, 1, 3, 3])
    axis = axes((0.0, 0.0), (0.3, 0.1), (0.0, 0.1), (0.0, 3.1), (0.1, -3.1), (0.0, 1.0))
    assert matched(particles, W, jet_event, axis, 0.8).tolist() == [False, True, False, True, True, False]
    assert matched(particles, W, jet_event, axis, 1.0).tolist() == [False, True, True, True, True, False]
    assert not matched(particles, Z, jet_event, axis, 1.0).any()


def test_a_boson_that_goes_elsewhere_is_an_error() -> None:
    leptonic = [SYSTEM, (23, -22, 0, 0.0, 0.0), (12, 23, 1, 0.0, 0.0), (-12, 23, 1, 0.0, 0.0)]
    with pytest.raises(RuntimeError, match="does not decay to two quarks"):
        to_match(record(leptonic), Z)
    lost = [row for i, row in enumerate(PAIR) if i != 5]
    lost = [(p, s, m - (m > 5), *x) for p, s, m, *x in lost]  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="does not decay to two quarks"):
        to_match(record(lost), W)


def test_tops_through_copies_of_their_w() -> None:
    event = [
        SYSTEM,
        (6, -22, 0, 0.0, 0.0),
        (6, -44, 1, 0.0, 0.0),
        (24, -22, 2, 0.1, 0.0),
        (5, -23, 2, -0.2, 0.1),
        (24, -52, 3, 0.1, 0.0),
        (24, -52, 5, 0.1, 0.0),
        (4, -23, 6, 0.3, 0.0),
        (-3, -23, 6, 0.2, -0.3),
    ]
    particles = record(event, event)
    assert to_match(particles, TOP).tolist() == [[2, 4, 7, 8], [11, 13, 16, 17]]
    with pytest.raises(RuntimeError, match="does not decay to three quarks"):
        to_match(record(event[:-1]), TOP)


def test_partons_are_those_of_the_hard_process() -> None:
    event = [SYSTEM, (21, -23, 0, 0.0, 0.0), (2, 23, 0, 0.0, 2.0), (21, 51, 1, 1.5, 1.0), (21, -33, 0, 1.5, -1.0)]
    particles = record(event)
    jets = np.zeros(4, np.int64), axes((0.1, 0.1), (0.1, 2.1), (1.5, 1.0), (1.5, -1.0))
    assert matched(particles, Match((21,), 0), *jets, 0.8).tolist() == [True, False, False, False]
    assert matched(particles, Match((1, 2), 0), *jets, 0.8).tolist() == [False, True, False, False]


@given(st.integers(0, 2**32))
def test_matching_is_the_plain_double_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    events = [
        [(int(rng.choice([21, 2])), int(rng.choice([23, -23, 62])), 0, *rng.uniform(-3, 3, 2).tolist())
         for _ in range(rng.integers(0, 6))]
        for _ in range(4)
    ]  # fmt: skip
    particles = record(*events)
    jets = int(rng.integers(0, 8))
    jet_event = np.sort(rng.integers(0, 4, jets))
    eta, phi = rng.uniform(-3, 3, (2, jets))
    axis = 50 * np.stack([np.cos(phi), np.sin(phi), np.sinh(eta), np.cosh(eta)])
    expected = [
        any(
            p == 21 and abs(s) == 23 and delta_r(*(np.array([x]) for x in (e, f, eta[j], phi[j])))[0] < 1.0
            for p, s, _, e, f in events[jet_event[j]]
        )
        for j in range(jets)
    ]
    assert matched(particles, Match((21,), 0), jet_event, axis, 1.0).tolist() == expected


def test_distance_wraps_in_azimuth() -> None:
    one, other = vector.obj(pt=1, eta=0.3, phi=3.1), vector.obj(pt=1, eta=-0.2, phi=-3.0)
    found = delta_r(*(np.array([x]) for x in (one.eta, one.phi, other.eta, other.phi)))
    assert found[0] == pytest.approx(one.deltaR(other))


def test_what_nobody_sees() -> None:
    pdg = np.array([12, -14, 16, 51, -51, 4900111, -4900211, 4900101, 11, 22, 130, -211, 13])
    assert invisible(pdg).tolist() == [True] * 8 + [False] * 5
    event = [
        (12, 1, 0, 0.0, 0.0),
        (51, 1, 0, 1.0, np.pi / 2),
        (22, 1, 0, 0.0, 0.0),
        (-14, -1, 0, 0.0, 0.0),  # not final
    ]
    particles = record(event, [(22, 1, 0, 0.0, 0.0)], [])
    np.testing.assert_allclose(missing_pt(particles), [100 * np.sqrt(2), 0, 0])
    assert particles.visible.tolist() == [False, False, True, False, True]


@pytest.mark.parametrize("process", ["top", "w", "z", "higgs"])
def test_matched_jets_hold_all_that_the_record_tells(process: str) -> None:
    """Against a walk from each particle down to what it decays to, one at a time."""
    pytest.importorskip("pythia8mc", reason="generating is an optional extra")
    pytest.importorskip("fastjet", reason="generating is an optional extra")
    made: Recipe = recipe(process)
    assert made.match is not None
    instance, _hook = pythia.make_pythia(made, 4)
    particles = pythia.next_events(instance, 40)
    seen = pythia.observe(particles, made, 4, 0)
    found = antikt_jets(seen.momentum, seen.offsets, 0.8, 300.0)
    inside = matched(particles, made.match, found.event, found.momentum, 0.8)
    assert 0 < inside.sum() < len(inside)
    expected = []
    for event, axis in zip(found.event.tolist(), found.momentum.T, strict=True):
        jet = vector.obj(**dict(zip(("px", "py", "pz", "E"), axis.tolist(), strict=True)))
        candidates = decays(particles, event, made.match)
        expected.append(any(all(m.deltaR(jet) < 0.8 for m in members) for members in candidates))
    assert inside.tolist() == expected


def decays(particles: Particles, event: int, match: Match) -> list[list[vector.VectorObject4D]]:
    """Particles of the match with the quarks they decay to, found by walking the record downwards."""

    def momentum(i: int) -> vector.VectorObject4D:
        return vector.obj(**dict(zip(("px", "py", "pz", "E"), particles.momentum[:, i].tolist(), strict=True)))

    def children(i: int) -> list[int]:
        mine = range(particles.offsets[event], particles.offsets[event + 1])
        return [c for c in mine if particles.mother[c] == i and c != i]

    def last_copy(i: int) -> int:
        while same := [c for c in children(i) if particles.pdg[c] == particles.pdg[i]]:
            i = same[0]
        return i

    def quarks_of(i: int) -> list[int]:
        """The quarks of a decay; a W on the way is followed."""
        found = []
        for c in children(last_copy(i)):
            found += quarks_of(c) if abs(particles.pdg[c]) == 24 else [c] * int(abs(particles.pdg[c]) < 6)
        return found

    candidates = []
    for i in range(particles.offsets[event], particles.offsets[event + 1]):
        if abs(particles.pdg[i]) not in match.pdg or last_copy(i) != i:
            continue
        quarks = quarks_of(i)
        assert len(quarks) == match.quarks
        direct = [momentum(c) for c in children(i) if abs(particles.pdg[c]) < 6 or abs(particles.pdg[c]) == 24]
        total = direct[0] + direct[1]
        assert total.mass == pytest.approx(momentum(i).mass, rel=1e-5)  # nothing of the decay is missing
        candidates.append([momentum(i), *map(momentum, quarks)])
    assert len(candidates) == (1 if match.pdg == (25,) else 2)
    return candidates


def test_kinematics_of_the_record() -> None:
    """The records above say what they mean."""
    pt, eta, phi = pt_eta_phi(record(PAIR).momentum)
    np.testing.assert_allclose(pt, 100)
    np.testing.assert_allclose((eta[8], phi[6]), (0.9, -3.0))
