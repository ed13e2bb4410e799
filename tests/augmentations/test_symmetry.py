import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from augmentations import Jets, Reflect, Rotate, Translate, make_jets, rotate
from augmentations.jets import center, centroid, wrap_phi
from tests.toys import toy_jet

SEEDS = st.integers(0, 10_000)


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
    turned = Rotate()(jax.random.key(key), jets)
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
    turned = jax.vmap(Rotate(), (0, None))(keys, jets)
    angle = np.arctan2(turned.phi[:, 0], turned.eta[:, 0])
    counts = np.histogram(angle, 8, (-np.pi, np.pi))[0]
    assert counts.sum() == 4000
    assert ((counts - 500) ** 2 / 500).sum() < 24.3  # chi2 with 7 degrees of freedom, p = 0.001


@given(SEEDS, SEEDS)
def test_translation_moves_all_alike_and_no_further_than_the_jet_is_wide(seed: int, key: int) -> None:
    jets = toy_jet(seed)
    moved = Translate()(jax.random.key(key), jets)
    np.testing.assert_allclose(distances(moved), distances(jets), atol=3e-6)
    np.testing.assert_array_equal(moved.pt, jets.pt)
    assert_padding_is_zero(moved)
    real = np.asarray(jets.mask)
    local = center(jets)
    for after, before, about in ((moved.eta, jets.eta, local.eta), (moved.phi, jets.phi, local.phi)):
        shift = np.asarray(wrap_phi(after - before))[real]
        np.testing.assert_allclose(shift, shift[0], atol=3e-6)
        assert abs(shift[0]) <= np.ptp(np.asarray(about)[real]) + 3e-6


def test_padding_does_not_widen_translations() -> None:
    """The published code measured the extent with the padding at (0, 0) included."""
    far = make_jets(*(np.array(x, np.float32) for x in ([1, 1, 0, 0], [1.9, 2.0, 0, 0], [1.0, 1.1, 0, 0])))
    moved = jax.vmap(Translate(), (0, None))(jax.random.split(jax.random.key(0), 500), far)
    assert np.abs(moved.eta[:, 0] - 1.9).max() <= 0.1 + 1e-5


@given(SEEDS, SEEDS)
def test_reflection_mirrors_phi_about_the_centroid(seed: int, key: int) -> None:
    jets = toy_jet(seed)
    seen = center(Reflect()(jax.random.key(key), jets))
    plain = center(jets)
    np.testing.assert_allclose(seen.eta, plain.eta, atol=3e-6)
    np.testing.assert_allclose(np.abs(seen.phi), np.abs(plain.phi), atol=3e-6)
    np.testing.assert_allclose(distances(seen), distances(plain), atol=3e-6)


def test_a_jet_across_the_phi_edge_is_one_jet() -> None:
    edge = make_jets(*(np.array(x, np.float32) for x in ([1, 1], [0, 0], [np.pi - 0.05, -np.pi + 0.05])))
    turned = rotate(edge, jnp.float32(1.0))
    np.testing.assert_allclose(distances(turned)[0, 1], 0.1, atol=1e-6)
