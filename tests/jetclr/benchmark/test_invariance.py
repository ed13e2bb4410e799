"""Similarity and geometry against embeddings whose answer is known."""

from collections.abc import Callable

import jax
import numpy as np
import pytest

from augmentations import Jets, center, make_jets, trimmed
from jetclr.benchmark import invariance
from jetclr.benchmark.invariance import CHANGES, ROTATION, Change, cosines, geometry, similarity
from jetclr.benchmark.results import Similarity
from jetclr.errors import UserError
from probes.geometry import effective_rank
from tests.toys import toy_batch

N = 20
BATCH = make_jets(**toy_batch(0, 40, slots=30))
# With so few constituents that nothing falls out of the slots when some split.
FEW = make_jets(*(np.where(np.arange(30) < 10, x, 0) for x in (BATCH.pt, BATCH.eta, BATCH.phi)))
EXPECTED = {"rotation", "translation", "splitting", "soft radiation", "boost"}

Embed = Callable[[Jets], np.ndarray]


def columns(jets: Jets) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(x, np.float64) for x in (jets.pt, jets.eta, jets.phi))


def safe(jets: Jets) -> np.ndarray:
    """Sums over constituents that no rotation, translation or collinear splitting changes: moments of the distance."""
    assert jets.pt.shape[1] == N
    pt, eta, phi = columns(center(jets))
    z = pt / pt.sum(1, keepdims=True)
    r = np.hypot(eta, phi)
    return np.stack([(z * r**power).sum(1) for power in (1, 2, 3)], axis=1)


def pointing(jets: Jets) -> np.ndarray:
    """Where the jet points: changed by a translation alone."""
    return np.stack([np.cos(columns(jets)[2][:, 0]), np.sin(columns(jets)[2][:, 0]), columns(jets)[1][:, 0]], axis=1)


def counted(jets: Jets) -> np.ndarray:
    """Multiplicity, and the number of hard constituents."""
    pt, _, _ = columns(jets)
    return np.stack([(pt > 0).sum(1), (pt > 30).sum(1)], axis=1).astype(np.float64)


def curves(embed: Embed, jets: Jets = BATCH) -> dict[str, Similarity]:
    return {row.transform: row for row in similarity("toy", "run", embed, jets, N)}


def test_every_change_has_a_curve_that_starts_from_the_jet_itself() -> None:
    found = curves(safe)
    assert found.keys() == EXPECTED
    for change in CHANGES:
        row = found[change.name]
        assert (row.representation, row.kind, row.strength_label) == ("toy", "run", change.strength_label)
        assert row.strength == change.strengths
        assert len(row.strength) == len(row.mean) == len(row.low) == len(row.high)
        assert row.mean[row.strength.index(0)] == pytest.approx(1, abs=1e-4)
        assert all(-1.001 <= low <= high <= 1.001 for low, high in zip(row.low, row.high, strict=True))
    assert len(found["rotation"].mean) == 25
    assert found["rotation"].mean[-1] == pytest.approx(1, abs=1e-4)  # a whole turn


def test_what_an_embedding_ignores_stays_at_one_and_what_it_sees_falls() -> None:
    found = curves(safe, FEW)
    for name in ("rotation", "translation", "splitting"):
        np.testing.assert_allclose(found[name].mean, 1, atol=2e-3)
    assert found["boost"].mean[0] < 0.9
    assert found["boost"].mean[-1] < 0.9
    falling = np.array(found["soft radiation"].mean)
    assert (np.diff(falling) < 1e-3).all()
    assert 0.5 < falling[1] < 1
    seen = curves(pointing, FEW)
    assert seen["translation"].mean[-1] < seen["translation"].mean[2] < 0.99
    many = curves(counted, FEW)
    np.testing.assert_allclose(many["rotation"].mean, 1, atol=1e-6)
    assert many["splitting"].mean[-1] < many["splitting"].mean[3] < 0.999


def test_an_offset_that_all_jets_share_does_not_hide_a_change() -> None:
    plain, lifted = (curves(embed)["boost"] for embed in (safe, lambda jets: safe(jets) + 100.0))
    np.testing.assert_allclose(lifted.mean, plain.mean, atol=1e-6)


def test_cosines_by_hand_and_of_nothing() -> None:
    a = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 0.0], [2.0, 0.0]])
    b = np.array([[0.0, 2.0], [4.0, 3.0], [1.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_allclose(cosines(a, b), [0, 0.96, 0, -1])


def test_the_band_is_the_central_68_per_cent() -> None:
    """Jets of one constituent at an angle phi_i, each turned back by a share of it: the cosines are known."""

    def fraction(key: jax.Array, jets: Jets, strength: jax.Array) -> Jets:
        return jets._replace(phi=jets.phi * (1 - strength))

    phi = np.linspace(-3, 3, 101, dtype=np.float32)
    jets = make_jets(np.ones((101, 1), np.float32), np.zeros((101, 1), np.float32), phi[:, None])
    circle = lambda j: np.stack([np.cos(np.asarray(j.phi)[:, 0]), np.sin(np.asarray(j.phi)[:, 0])], axis=1)  # noqa: E731
    (row,) = similarity("toy", "run", circle, jets, 1, changes=[Change("back", "share", (0.0, 0.5), fraction)])
    mean = circle(jets).mean(0)
    a, b = circle(jets) - mean, circle(jets._replace(phi=jets.phi * 0.5)) - mean
    expected = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert row.mean == pytest.approx((1.0, expected.mean()), abs=1e-6)
    assert row.low[1] == pytest.approx(np.quantile(expected, 0.16), abs=1e-6)
    assert row.high[1] == pytest.approx(np.quantile(expected, 0.84), abs=1e-6)


def test_a_jet_that_fills_its_slots_is_changed_as_well() -> None:
    pt, eta, phi = (
        np.tile(np.linspace(*ends, 30), (40, 1)).astype(np.float32) for ends in ((50, 1), (-0.3, 0.3), (0, 0.4))
    )
    copies = list(invariance.changed("toy", counted, make_jets(pt, eta, phi), N, CHANGES[2]))
    assert (copies[-1] != copies[0]).all(axis=0).any()


def test_randomness_is_of_the_seed_and_the_jet_alone() -> None:
    some = jax.tree.map(lambda x: x[:7], BATCH)
    change = CHANGES[3]

    def last(jets: Jets, seed: int) -> np.ndarray:
        return list(invariance.changed("toy", safe, jets, N, change, seed=seed))[-1]

    np.testing.assert_array_equal(last(some, 1), last(BATCH, 1)[:7])
    np.testing.assert_array_equal(last(some, 1), last(some, 1))
    assert (last(some, 1) != last(some, 2)).any()


def test_geometry_is_that_of_the_embeddings() -> None:
    found = geometry("toy", "untrained", safe, BATCH, N)
    assert (found.representation, found.kind, found.width) == ("toy", "untrained", 3)
    straight = safe(trimmed(BATCH, N))
    z = straight / np.linalg.norm(straight, axis=1, keepdims=True)
    cosine = z @ z.T
    other = ~np.eye(40, dtype=bool)
    assert found.between == pytest.approx(cosine[other].mean(), abs=1e-9)
    assert found.uniformity == pytest.approx(np.log(np.exp(-2 * (2 - 2 * cosine[other])).mean()), abs=1e-6)
    assert found.effective_rank == pytest.approx(effective_rank(straight), abs=1e-9)
    assert 0 <= found.alignment < 0.01
    assert geometry("toy", "run", counted, BATCH, N).alignment > 0  # splitting changes numbers
    moved = geometry("toy", "run", lambda jets: columns(center(jets))[1][:, :3] + 0.01, BATCH, N)
    assert moved.alignment > 0.5  # and rotations angles


def test_the_two_views_are_different() -> None:
    seen: list[Jets] = []

    def keep(jets: Jets) -> np.ndarray:
        seen.append(jets)
        return safe(jets)

    geometry("toy", "run", keep, BATCH, N)
    _, one, other = (np.asarray(jets.eta) for jets in seen)
    assert (one != other).any()


def test_what_cannot_be_measured_gets_one_sentence() -> None:
    with pytest.raises(UserError, match="jets have 30 slots, fewer than the 31 constituents of the encoder"):
        similarity("toy", "run", safe, BATCH, 31)
    with pytest.raises(UserError, match="1 jets are too few"):
        geometry("toy", "run", safe, jax.tree.map(lambda x: x[:1], BATCH), N)

    def broken(jets: Jets) -> np.ndarray:
        out = safe(jets)
        out[3, 1] = np.nan
        return out

    with pytest.raises(UserError, match="toy gives jet 3 of 40 features that are NaN or infinite"):
        similarity("toy", "run", broken, BATCH, N, changes=[ROTATION])
    with pytest.raises(UserError, match="toy has no geometry: 40 jets have only zeros for features"):
        geometry("toy", "run", lambda jets: 0 * safe(jets), BATCH, N)


def test_rotations_are_about_the_centroid_and_soft_radiation_is_ten_constituents() -> None:
    seen: list[Jets] = []

    def keep(jets: Jets) -> np.ndarray:
        seen.append(jets)
        return np.ones((40, 2))

    list(invariance.changed("toy", keep, FEW, N, ROTATION))
    np.testing.assert_allclose(center(seen[12]).eta, -np.asarray(center(seen[0]).eta), atol=1e-5)  # by pi
    list(invariance.changed("toy", keep, FEW, N, CHANGES[3]))
    np.testing.assert_array_equal(seen[-1].mask.sum(1), FEW.mask.sum(1) + 10)
