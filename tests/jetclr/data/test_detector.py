"""The simple detector: what it keeps, what it loses, and how it smears."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data.detector import Seen, detect
from jetclr.data.kinematics import pt_eta_phi
from jetclr.data.particles import charges, masses
from jetclr.data.processes import Detector

PERFECT = Detector(
    tracking_efficiency=1.0, track_pt_min=0.0, track_eta_max=10.0, track_resolution=0.0, track_resolution_slope=0.0,
    granularity=0.001, calorimeter_eta_max=10.0, stochastic=0.0, constant=0.0, cell_pt_min=0.0,
)  # fmt: skip
KINDS = np.array([211, -211, 321, 2212, 22, 130, 2112, 11, -13])


def particles(pt: Any, eta: Any, phi: Any, pdg: Any, sizes: list[int] | None = None) -> Seen:
    """Particles on their mass shells; of one event if no sizes are given."""
    pt, eta, phi, pdg = np.broadcast_arrays(*(np.atleast_1d(x) for x in (pt, eta, phi, pdg)))
    if sizes is not None:
        pt, eta, phi, pdg = (np.broadcast_to(x, sum(sizes)) for x in (pt, eta, phi, pdg))
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]).astype(np.float64)
    pdg = pdg.astype(np.int64)
    energy = np.sqrt((p**2).sum(axis=0) + masses(pdg) ** 2)
    offsets = np.concatenate([[0], np.cumsum([len(pdg)] if sizes is None else sizes)]).astype(np.int64)
    return Seen(offsets, pdg, np.concatenate([p, energy[None]]))


def random_events(seed: int, sizes: list[int]) -> Seen:
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    return particles(
        rng.exponential(5.0, n) + 0.01,
        rng.normal(0, 1.5, n),
        rng.uniform(-np.pi, np.pi, n),
        rng.choice(KINDS, n),
        sizes,
    )


def test_a_perfect_detector_keeps_the_event() -> None:
    seen = random_events(1, [200, 0, 300])
    out = detect(seen, PERFECT, seed=5)
    assert out.offsets[2] == out.offsets[1]
    for a, b in ((0, 1), (2, 3)):
        before, after = (slice(s.offsets[a], s.offsets[b]) for s in (seen, out))
        charged = charges(seen.pdg[before]) != 0
        is_track = charges(out.pdg[after]) != 0
        np.testing.assert_array_equal(out.momentum[:3, after][:, is_track], seen.momentum[:3, before][:, charged])
        energy = [s.momentum[3, x][~c].sum() for s, x, c in ((seen, before, charged), (out, after, is_track))]
        assert energy[0] == pytest.approx(energy[1], rel=1e-12)
        total = [s.momentum[:3, x].sum(axis=1) for s, x in ((seen, before), (out, after))]
        assert np.abs(total[0] - total[1]).max() < 0.02 * seen.momentum[3, before].sum()


@pytest.mark.parametrize("granularity", [0.1, 0.3, 1.0])
def test_cells_add_up_as_a_plain_loop_has_it(granularity: float) -> None:
    detector = replace(PERFECT, granularity=granularity, tracking_efficiency=0.0, calorimeter_eta_max=3.0)
    seen = random_events(2, [150, 80])
    seen = seen._replace(pdg=np.where(np.abs(seen.pdg) == 13, 22, seen.pdg))
    out = detect(seen, detector, seed=1)
    in_phi, in_eta = round(2 * math.pi / granularity), math.ceil(6 / granularity)
    for e in range(2):
        cells: dict[tuple[int, int], list[float]] = {}
        for i in range(seen.offsets[e], seen.offsets[e + 1]):
            px, py, pz, energy = seen.momentum[:, i].tolist()
            eta, phi = math.asinh(pz / math.hypot(px, py)), math.atan2(py, px)
            if abs(eta) < 3:
                key = (
                    math.floor((eta + granularity * in_eta / 2) / granularity),
                    int((phi + math.pi) / (2 * math.pi) * in_phi),
                )
                sums = cells.setdefault(key, [0.0, 0.0])
                sums[0] += energy
                sums[1] += energy * (abs(seen.pdg[i]) in (11, 22))
        mine = slice(out.offsets[e], out.offsets[e + 1])
        assert out.offsets[e + 1] - out.offsets[e] == len(cells)
        pt, eta, phi = pt_eta_phi(out.momentum[:, mine])
        for k in range(len(pt)):
            row = math.floor((eta[k] + granularity * in_eta / 2) / granularity)
            total, light = cells.pop((row, int((phi[k] + math.pi) / (2 * math.pi) * in_phi)))
            assert pt[k] * math.cosh(eta[k]) == pytest.approx(total, rel=1e-9)
            assert out.pdg[mine][k] == (22 if light >= total / 2 else 130)
        assert not cells


@given(st.floats(-math.pi, math.pi), st.floats(-2.9, 2.9), st.sampled_from([0.07, 0.1, 0.5]))
def test_a_cell_lies_around_its_particle(phi: float, eta: float, granularity: float) -> None:
    detector = replace(PERFECT, granularity=granularity, calorimeter_eta_max=3.0)
    out = detect(particles(10.0, eta, phi, 22), detector, seed=0)
    assert out.pdg.tolist() == [22]
    _, found_eta, found_phi = pt_eta_phi(out.momentum)
    assert abs(found_eta[0] - eta) <= granularity / 2 + 1e-9
    distance = abs((found_phi[0] - phi + math.pi) % (2 * math.pi) - math.pi)
    assert distance <= math.pi / round(2 * math.pi / granularity) + 1e-9


def test_azimuth_closes_at_pi() -> None:
    """A photon at pi and one at -pi are in one cell, whose neighbours are on both sides."""
    detector = replace(PERFECT, granularity=0.1)
    together = detect(particles(10.0, 0.5, [np.pi, -np.pi], 22), detector, seed=0)
    assert together.momentum.shape == (4, 1)
    assert together.momentum[3, 0] == pytest.approx(2 * 10 * math.cosh(0.5))
    apart = detect(particles(10.0, 0.5, [np.pi - 0.01, -np.pi + 0.01], 22), detector, seed=0)
    assert apart.momentum.shape == (4, 2)


def test_tracks_are_smeared_as_asked() -> None:
    n = 20_000
    detector = replace(PERFECT, track_resolution=0.03, track_resolution_slope=4e-4)
    seen = particles(100.0, 0.7, 1.0, np.where(np.arange(n) % 2, 211, -2212))
    out = detect(seen, detector, seed=3)
    pt, eta, phi = pt_eta_phi(out.momentum)
    width = math.hypot(0.03, 4e-4 * 100)
    assert pt.mean() == pytest.approx(100, abs=4 * 100 * width / math.sqrt(n))
    assert pt.std() == pytest.approx(100 * width, rel=0.03)
    np.testing.assert_allclose(eta, 0.7, atol=1e-12)
    np.testing.assert_allclose(phi, 1.0, atol=1e-12)
    assert set(out.pdg.tolist()) == {211, -211}  # a proton is taken for a pion


@pytest.mark.parametrize("energy", [20.0, 400.0])
def test_cells_are_smeared_as_asked(energy: float) -> None:
    n = 20_000
    detector = replace(PERFECT, stochastic=0.8, constant=0.05)
    seen = particles(energy / math.cosh(0.3), 0.3, 1.0, 22, sizes=[1] * n)
    measured = detect(seen, detector, seed=3).momentum[3]
    width = math.hypot(0.8 / math.sqrt(energy), 0.05)
    assert len(measured) == n
    assert measured.mean() == pytest.approx(energy, abs=4 * energy * width / math.sqrt(n))
    assert measured.std() == pytest.approx(energy * width, rel=0.03)


def test_what_the_tracker_misses_goes_to_the_calorimeter() -> None:
    n = 10_000
    detector = replace(PERFECT, tracking_efficiency=0.8)
    seen = particles(5.0, np.linspace(-4, 4, n), 0.2, 211, sizes=[1] * n)
    out = detect(seen, detector, seed=8)
    track = out.pdg == 211
    assert track.mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / n))
    assert set(out.pdg.tolist()) == {211, 130}
    np.testing.assert_allclose(out.momentum[3], seen.momentum[3], rtol=1e-12)


def test_limits_and_thresholds() -> None:
    detector = replace(
        PERFECT, track_pt_min=1.0, track_eta_max=2.5, calorimeter_eta_max=3.0, cell_pt_min=2.0, tracking_efficiency=0.0
    )
    found = replace(detector, tracking_efficiency=1.0)

    def kinds(detector: Detector, pt: float, eta: float, pdg: int) -> list[int]:
        return detect(particles(pt, eta, 0.0, pdg), detector, seed=1).pdg.tolist()

    assert kinds(found, 5.0, 2.4, 211) == [211]
    assert kinds(found, 5.0, 2.6, 211) == [130]  # behind the tracker
    assert kinds(found, 5.0, 3.2, 211) == []  # behind all
    assert kinds(found, 0.9, 0.0, 211) == []  # below both thresholds
    assert kinds(found, 1.1, 0.0, 211) == [211]
    assert kinds(found, 1.9, 0.0, 22) == []
    assert kinds(found, 2.1, 0.0, 22) == [22]
    assert kinds(detector, 5.0, 0.0, 11) == [22]  # an electron without a track
    assert kinds(detector, 5.0, 0.0, 13) == [13]  # muons are tracks
    assert kinds(detector, 5.0, 2.6, 13) == []  # or nothing: they leave no energy
    assert kinds(found, 5.0, 0.0, -11) == [-11]


def test_events_do_not_depend_on_their_neighbours() -> None:
    """Batches are cut where it is convenient."""
    sizes = [30, 0, 45, 10]
    seen, detector = random_events(4, sizes), Detector(cell_pt_min=0.1)
    whole = detect(seen, detector, seed=9, first_event=100)
    assert detect(seen, detector, seed=9, first_event=100).momentum.tobytes() == whole.momentum.tobytes()
    for e in range(4):
        part = slice(seen.offsets[e], seen.offsets[e + 1])
        alone = Seen(np.array([0, sizes[e]]), seen.pdg[part], seen.momentum[:, part])
        out = detect(alone, detector, seed=9, first_event=100 + e)
        mine = slice(whole.offsets[e], whole.offsets[e + 1])
        assert out.momentum.tobytes() == whole.momentum[:, mine].tobytes()
        np.testing.assert_array_equal(out.pdg, whole.pdg[mine])
    other = detect(seen, detector, seed=10, first_event=100)
    assert other.momentum.shape != whole.momentum.shape or not np.array_equal(other.momentum, whole.momentum)


def test_nothing_in_nothing_out() -> None:
    out = detect(particles([], [], [], [], sizes=[0, 0]), Detector(), seed=1)
    assert out.offsets.tolist() == [0, 0, 0]
    assert out.momentum.shape == (4, 0)
