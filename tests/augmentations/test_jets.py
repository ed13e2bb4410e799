import jax.numpy as jnp
import numpy as np
import vector
from hypothesis import given
from hypothesis import strategies as st

from augmentations.jets import center, centroid, keep, make_jets, pt_fraction, total_pt, wrap_phi
from tests.toys import toy_jet

SEEDS = st.integers(0, 10_000)


@given(st.floats(-50, 50))
def test_wrap_phi_stays_in_range_and_keeps_the_direction(phi: float) -> None:
    wrapped = float(wrap_phi(jnp.float32(phi)))
    assert -np.pi - 1e-6 < wrapped <= np.pi + 1e-6
    assert np.cos(wrapped) == np.float32(np.cos(np.float32(phi))) or abs(np.cos(wrapped) - np.cos(phi)) < 1e-4
    assert abs(np.sin(wrapped) - np.sin(phi)) < 1e-4


@given(st.floats(-3, 3, allow_subnormal=False, width=32))
def test_wrap_phi_keeps_every_bit_within_one_turn(phi: float) -> None:
    assert float(wrap_phi(jnp.float32(phi))) == float(np.float32(phi))


@given(SEEDS)
def test_differences_wrap_as_in_vector(seed: int) -> None:
    a, b = np.random.default_rng(seed).uniform(-np.pi, np.pi, 2).astype(np.float32)
    expected = vector.obj(pt=1.0, phi=float(a)).deltaphi(vector.obj(pt=1.0, phi=float(b)))
    np.testing.assert_allclose(np.cos(float(wrap_phi(jnp.float32(a - b)))), np.cos(expected), atol=1e-5)
    np.testing.assert_allclose(abs(float(wrap_phi(jnp.float32(a - b)))), abs(expected), atol=1e-5)


@given(SEEDS)
def test_center_puts_the_centroid_at_the_origin_and_padding_at_zero(seed: int) -> None:
    jets = center(toy_jet(seed))
    np.testing.assert_allclose(np.array(centroid(jets)), 0, atol=2e-6)
    for x in (jets.pt, jets.eta, jets.phi):
        assert (np.asarray(x)[~np.asarray(jets.mask)] == 0).all()


@given(SEEDS, st.floats(-np.pi, np.pi))
def test_center_does_not_see_where_the_jet_points(seed: int, phi: float) -> None:
    jets = toy_jet(seed)
    moved = jets._replace(phi=jnp.where(jets.mask, wrap_phi(jets.phi + jnp.float32(phi)), 0))
    np.testing.assert_allclose(center(moved).phi, center(jets).phi, atol=1e-5)


def test_an_empty_jet_is_finite_everywhere() -> None:
    blank = np.zeros(5, np.float32)
    jets = center(make_jets(blank, blank, blank))
    assert np.isfinite(np.concatenate([jets.pt, jets.eta, jets.phi, pt_fraction(jets)])).all()
    assert float(total_pt(jets)) == 0


def test_keep_zeroes_what_it_drops_extras_too() -> None:
    jets = make_jets(*np.ones((3, 4), np.float32), extras={"charge": np.ones(4, np.float32)})
    kept = keep(jets, jnp.array([True, False, True, False]))
    for x in (kept.pt, kept.eta, kept.phi, kept.extras["charge"], kept.mask):
        np.testing.assert_array_equal(x, [1, 0, 1, 0])
