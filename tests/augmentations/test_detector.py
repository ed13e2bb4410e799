import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augmentations import (
    AngularSmear,
    DeadRegion,
    Efficiency,
    Jets,
    PtScale,
    PtShift,
    PtSmear,
    Resolution,
    SoftLoss,
    SoftSmear,
    Threshold,
    Transform,
    Translate,
    make_jets,
)
from augmentations.jets import centroid
from tests.toys import toy_jet

SEEDS = st.integers(0, 10_000)
DEAD = jax.jit(DeadRegion(0.2, 0.5))


def repeated(transform: Transform, jets: Jets, times: int) -> Jets:
    """The transform with so many keys."""
    return jax.jit(jax.vmap(transform, (0, None)))(jax.random.split(jax.random.key(0), times), jets)


def one_a_slot(pt: list[float]) -> Jets:
    """Constituents at the origin with these momenta."""
    zero = np.zeros(len(pt), np.float32)
    return make_jets(np.array(pt, np.float32), zero, zero)


def test_the_pt_scale_is_common_to_the_jet_and_the_resolution_is_not() -> None:
    jets = toy_jet(2)
    real = np.asarray(jets.mask)
    common = np.asarray(PtScale(0.1)(jax.random.key(0), jets).pt / np.where(real, jets.pt, 1))[real]
    np.testing.assert_allclose(common, common[0], rtol=1e-6)
    keys = jax.random.split(jax.random.key(0), 5000)
    own = np.log(
        np.asarray(jax.jit(jax.vmap(PtSmear(0.1), (0, None)))(keys, jets).pt)[:, real] / np.asarray(jets.pt)[real]
    )
    np.testing.assert_allclose(own.std(0), 0.1, rtol=0.05)
    assert abs(np.corrcoef(own[:, 0], own[:, 1])[0, 1]) < 0.06


@given(SEEDS, st.floats(0.5, 2))
def test_a_shift_of_the_scale_is_the_same_for_all(seed: int, factor: float) -> None:
    jets = toy_jet(seed)
    out = PtShift(factor)(jax.random.key(seed), jets)
    np.testing.assert_allclose(out.pt, factor * np.asarray(jets.pt), rtol=1e-6)
    np.testing.assert_array_equal(out.eta, jets.eta)


def test_the_resolution_is_that_of_a_calorimeter_and_unbiased() -> None:
    pt = np.array([0.5, 4.0, 100.0, 0.0], np.float32)
    ratio = np.asarray(repeated(Resolution(0.5, 0.05), one_a_slot(pt.tolist()), 40_000).pt)[:, :3] / pt[:3]
    expected = np.hypot(0.5 / np.sqrt(pt[:3]), 0.05)
    np.testing.assert_allclose(ratio.mean(0), 1, atol=0.015)
    np.testing.assert_allclose(ratio.std(0), expected, rtol=0.05)
    assert (ratio > 0).all()
    correlation = np.corrcoef(ratio[:, 1], ratio[:, 2])[0, 1]
    assert abs(correlation) < 0.02


def test_a_perfect_detector_changes_nothing() -> None:
    jets, key = toy_jet(1), jax.random.key(0)
    for perfect in (Resolution(0, 0), AngularSmear(0), Threshold(0), Efficiency(1), DeadRegion(0), PtShift(1)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), jax.jit(perfect)(key, jets), jets)
    gradient = jax.jit(jax.grad(lambda pt: Resolution(0, 0)(key, jets._replace(pt=pt)).pt.sum()))(jets.pt)
    np.testing.assert_array_equal(gradient, 1)


def test_angles_are_smeared_alike_at_every_pt_and_wrap() -> None:
    jets = make_jets(*(np.array(x, np.float32) for x in ([500, 0.5, 0], [0, 0, 0], [np.pi, 0, 0])))
    out = repeated(AngularSmear(0.02), jets, 20_000)
    np.testing.assert_allclose(out.eta.std(0), [0.02, 0.02, 0], rtol=0.03)
    assert (np.abs(out.phi) <= np.pi + 1e-6).all()
    np.testing.assert_allclose(out.phi[:, 1].std(), 0.02, rtol=0.03)
    assert (np.asarray(out.phi)[:, 0] < 0).mean() == pytest.approx(0.5, abs=0.02)


@given(SEEDS, st.floats(0, 100))
def test_a_threshold_keeps_what_is_above_it(seed: int, pt_min: float) -> None:
    jets = toy_jet(seed)
    pt = np.asarray(jets.pt)
    expected = (pt > 0) & ((pt >= np.float32(pt_min)) | (pt == pt.max()))
    np.testing.assert_array_equal(Threshold(pt_min)(jax.random.key(0), jets).mask, expected)


def test_the_efficiency_is_that_of_all_but_the_hardest() -> None:
    out = repeated(Efficiency(0.8), one_a_slot([1, 50, 0.1, 7, 0]), 20_000)
    np.testing.assert_allclose(np.asarray(out.mask).mean(0), [0.8, 1, 0.8, 0.8, 0], atol=0.01)


@given(SEEDS, SEEDS)
def test_a_dead_region_is_a_disc_in_the_jet(seed: int, key: int) -> None:
    """What is lost fits into a disc of that radius around some place, and everything in it but the hardest is lost."""
    jets = toy_jet(seed)
    out = DEAD(jax.random.key(key), jets)
    eta0, phi0 = (float(x) for x in centroid(jets))
    real = np.asarray(jets.mask)
    # The place is where the transform says, found by asking it about a dense net of test particles.
    grid = np.stack(np.meshgrid(*[np.linspace(-0.8, 0.8, 81)] * 2), -1).reshape(-1, 2).astype(np.float32)
    eta, phi = (np.concatenate([np.asarray(x), g]) for x, g in ((jets.eta, grid[:, 0] + eta0), (jets.phi, grid[:, 1])))
    phi[len(real) :] = (phi[len(real) :] + phi0 + np.pi) % (2 * np.pi) - np.pi
    net = make_jets(np.concatenate([np.asarray(jets.pt), np.full(len(grid), 1e-9, np.float32)]), eta, phi)
    lost = ~np.asarray(DEAD(jax.random.key(key), net).mask)[len(real) :]
    centre = grid[lost].mean(0)
    assert np.hypot(*centre) <= 0.5 + 0.01
    np.testing.assert_allclose(lost.sum() * 0.02**2, np.pi * 0.2**2, rtol=0.1)
    d_phi = (np.asarray(jets.phi) - phi0 - centre[1] + np.pi) % (2 * np.pi) - np.pi
    distance = np.hypot(np.asarray(jets.eta) - eta0 - centre[0], d_phi)
    hardest = np.arange(len(real)) == np.argmax(jets.pt)
    clear = real & ~hardest & (np.abs(distance - 0.2) > 0.02)
    np.testing.assert_array_equal(np.asarray(out.mask)[clear], distance[clear] > 0.2)
    assert np.asarray(out.mask)[hardest]


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        (PtShift, "factor", 0.0), (Resolution, "stochastic", -1.0), (Resolution, "constant", float("nan")),
        (AngularSmear, "width", -0.1), (Threshold, "pt_min", -1.0), (Efficiency, "efficiency", 1.01),
        (DeadRegion, "radius", -0.1), (DeadRegion, "within", 4.0), (PtScale, "width", -1.0), (PtSmear, "width", 6.0),
        (SoftSmear, "scale", -1.0), (SoftSmear, "floor", float("nan")), (SoftLoss, "scale", 0.0),
        (Translate, "extents", -1.0),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(kind: type, setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.{setting} is {value}; it must lie between"):
        kind(**{setting: value})
