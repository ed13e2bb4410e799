import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vector
from hypothesis import given
from hypothesis import strategies as st

from augmentations import Boost, Jets, Reflect, Rotate, Translate, boost, make_jets, rotate, translate
from augmentations.jets import center, centroid, wrap_phi
from tests.toys import toy_batch, toy_jet

SEEDS = st.integers(0, 10_000)
BOOST, TRANSLATE = jax.jit(boost), jax.jit(translate)
ROTATING, MOVING, MIRRORING = (jax.jit(transform) for transform in (Rotate(), Translate(), Reflect()))
CENTER = jax.jit(center)


def distances(jets: Jets) -> np.ndarray:
    """All pairwise (d_eta^2 + d_phi^2)^1/2 of real constituents, by brute force."""
    eta, phi = (np.asarray(x, np.float64)[np.asarray(jets.mask)] for x in (jets.eta, jets.phi))
    d_phi = (phi[:, None] - phi + np.pi) % (2 * np.pi) - np.pi
    return np.hypot(eta[:, None] - eta, d_phi)


def assert_padding_is_zero(jets: Jets) -> None:
    padding = ~np.asarray(jets.mask)
    for x in (jets.pt, jets.eta, jets.phi):
        assert (np.asarray(x)[padding] == 0).all()


@given(SEEDS, SEEDS)
def test_rotation_keeps_distances_momenta_and_centroid(seed: int, key: int) -> None:
    jets = toy_jet(seed)
    turned = ROTATING(jax.random.key(key), jets)
    np.testing.assert_allclose(distances(turned), distances(jets), atol=3e-6)
    np.testing.assert_array_equal(turned.pt, jets.pt)
    np.testing.assert_allclose(centroid(turned)[0], centroid(jets)[0], atol=3e-6)
    np.testing.assert_allclose(np.cos(centroid(turned)[1] - centroid(jets)[1]), 1, atol=1e-6)
    assert_padding_is_zero(turned)


def test_rotation_by_a_right_angle_by_hand() -> None:
    jets = make_jets(*(np.array(x, np.float32) for x in ([1, 1, 0], [0.1, -0.1, 0], [0, 0, 0])))
    turned = rotate(jets, jnp.float32(np.pi / 2))
    np.testing.assert_allclose(turned.eta, [0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(turned.phi, [0.1, -0.1, 0], atol=1e-7)


def test_rotation_angles_are_uniform() -> None:
    jets = make_jets(*(np.array(x, np.float32) for x in ([1, 1], [0.1, -0.1], [0, 0])))
    keys = jax.random.split(jax.random.key(0), 4000)
    turned = jax.jit(jax.vmap(Rotate(), (0, None)))(keys, jets)
    angle = np.arctan2(turned.phi[:, 0], turned.eta[:, 0])
    counts = np.histogram(angle, 8, (-np.pi, np.pi))[0]
    assert counts.sum() == 4000
    assert ((counts - 500) ** 2 / 500).sum() < 24.3  # chi2 with 7 degrees of freedom, p = 0.001


@given(SEEDS, SEEDS)
def test_translation_moves_all_alike_and_no_further_than_the_jet_is_wide(seed: int, key: int) -> None:
    jets = toy_jet(seed)
    moved = MOVING(jax.random.key(key), jets)
    np.testing.assert_allclose(distances(moved), distances(jets), atol=3e-6)
    np.testing.assert_array_equal(moved.pt, jets.pt)
    assert_padding_is_zero(moved)
    real = np.asarray(jets.mask)
    local = CENTER(jets)
    for after, before, about in ((moved.eta, jets.eta, local.eta), (moved.phi, jets.phi, local.phi)):
        shift = np.asarray(wrap_phi(after - before))[real]
        np.testing.assert_allclose(shift, shift[0], atol=3e-6)
        assert abs(shift[0]) <= np.ptp(np.asarray(about)[real]) + 3e-6


def test_padding_does_not_widen_translations() -> None:
    """The published code measured the extent with the padding at (0, 0) included."""
    far = make_jets(*(np.array(x, np.float32) for x in ([1, 1, 0, 0], [1.9, 2.0, 0, 0], [1.0, 1.1, 0, 0])))
    moved = jax.jit(jax.vmap(Translate(), (0, None)))(jax.random.split(jax.random.key(0), 500), far)
    assert np.abs(moved.eta[:, 0] - 1.9).max() <= 0.1 + 1e-5


@given(SEEDS, SEEDS)
def test_reflection_mirrors_phi_about_the_centroid(seed: int, key: int) -> None:
    jets = toy_jet(seed)
    seen = CENTER(MIRRORING(jax.random.key(key), jets))
    plain = CENTER(jets)
    np.testing.assert_allclose(seen.eta, plain.eta, atol=3e-6)
    np.testing.assert_allclose(np.abs(seen.phi), np.abs(plain.phi), atol=3e-6)
    np.testing.assert_allclose(distances(seen), distances(plain), atol=3e-6)


def test_a_jet_across_the_phi_edge_is_one_jet() -> None:
    edge = make_jets(*(np.array(x, np.float32) for x in ([1, 1], [0, 0], [np.pi - 0.05, -np.pi + 0.05])))
    turned = rotate(edge, jnp.float32(1.0))
    np.testing.assert_allclose(distances(turned)[0, 1], 0.1, atol=1e-6)


@given(SEEDS, st.floats(-1, 1), st.floats(-3, 3))
def test_translating_moves_the_centroid_by_as_much_and_wraps(seed: int, d_eta: float, d_phi: float) -> None:
    jets = toy_jet(seed)
    moved = TRANSLATE(jets, jnp.float32(d_eta), jnp.float32(d_phi))
    before, after = centroid(jets), centroid(moved)
    np.testing.assert_allclose(after[0] - before[0], d_eta, atol=3e-6)
    np.testing.assert_allclose(np.cos(after[1] - before[1] - d_phi), 1, atol=1e-6)
    np.testing.assert_allclose(distances(moved), distances(jets), atol=3e-6)
    assert_padding_is_zero(moved)


def massless(jets: Jets) -> vector.MomentumNumpy4D:
    """The real constituents in double precision."""
    real = np.asarray(jets.mask)
    pt, eta, phi = (np.asarray(x, np.float64)[real] for x in (jets.pt, jets.eta, jets.phi))
    return vector.array({"pt": pt, "eta": eta, "phi": phi, "mass": np.zeros_like(pt)})


def summed(p: vector.MomentumNumpy4D) -> vector.MomentumObject4D:
    return vector.obj(px=p.px.sum(), py=p.py.sum(), pz=p.pz.sum(), E=p.E.sum())


@given(SEEDS, st.floats(-1, 1))
def test_boosting_is_that_of_vector(seed: int, rapidity: float) -> None:
    jets = toy_jet(seed)
    before = massless(jets)
    axis = summed(before).to_pxpypz().unit() * np.tanh(rapidity)
    expected = before.boost_beta3(vector.obj(x=axis.x, y=axis.y, z=axis.z))
    found = massless(boosted := BOOST(jets, jnp.float32(rapidity)))
    np.testing.assert_allclose(found.pt, expected.pt, rtol=1e-4)
    np.testing.assert_allclose(found.eta, expected.eta, atol=2e-5)
    np.testing.assert_allclose(found.deltaphi(expected), 0, atol=2e-5)
    np.testing.assert_array_equal(boosted.mask, jets.mask)
    assert_padding_is_zero(boosted)


@given(SEEDS, st.floats(-1.5, 1.5), st.booleans())
def test_a_boosted_jet_keeps_mass_and_direction(seed: int, rapidity: float, centred: bool) -> None:
    jets = CENTER(toy_jet(seed)) if centred else toy_jet(seed)
    before, after = summed(massless(jets)), summed(massless(BOOST(jets, jnp.float32(rapidity))))
    np.testing.assert_allclose(after.mass, before.mass, rtol=1e-4)
    cosh, sinh = np.cosh(rapidity), np.sinh(rapidity)
    np.testing.assert_allclose(after.E, cosh * before.E + sinh * before.p, rtol=1e-5)
    along = cosh * before.p + sinh * before.E
    for name in ("px", "py", "pz"):  # beyond its own frame it turns round
        np.testing.assert_allclose(getattr(after, name), getattr(before, name) * along / before.p, atol=1e-4 * after.E)


def test_a_batch_is_boosted_by_one_rapidity_or_one_a_jet() -> None:
    jets = make_jets(**toy_batch(1, 3))
    each = jnp.array([-0.4, 0.0, 0.3], jnp.float32)
    batch = BOOST(jets, each)
    for i in range(3):
        one = BOOST(jax.tree.map(lambda x, i=i: x[i], jets), each[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6), batch, one)
    alike = BOOST(jets, jnp.float32(0.3))
    np.testing.assert_allclose(alike.pt[2], batch.pt[2], rtol=1e-6)
    np.testing.assert_allclose(batch.pt[1], jets.pt[1], rtol=1e-5)


def test_a_constituent_along_the_beam_stays_finite() -> None:
    """Two opposite in azimuth, so that the axis is the beam; one of them is turned round."""
    jets = make_jets(*(np.array(x, np.float32) for x in ([1, 1, 0], [8.0, 8.0, 0], [0.0, np.pi, 0])))
    for rapidity in (-9.0, 3.0):
        out = BOOST(jets, jnp.float32(rapidity))
        assert all(np.isfinite(x).all() for x in (out.pt, out.eta, out.phi))
        assert (np.asarray(out.pt)[:2] > 0).all()


def test_rapidities_are_uniform_up_to_the_limit() -> None:
    one = make_jets(*(np.array(x, np.float32) for x in ([100, 0], [0.3, 0], [0.2, 0])))
    out = jax.jit(jax.vmap(Boost(0.5), (0, None)))(jax.random.split(jax.random.key(0), 4000), one)
    drawn = np.log(np.asarray(out.pt)[:, 0] / 100)  # a single massless constituent is harder by exp(y)
    counts = np.histogram(drawn, 8, (-0.5, 0.5))[0]
    assert counts.sum() == 4000
    assert ((counts - 500) ** 2 / 500).sum() < 24.3  # chi2 with 7 degrees of freedom, p = 0.001
    with pytest.raises(ValueError, match=r"Boost\.rapidity is -1"):
        Boost(-1.0)
