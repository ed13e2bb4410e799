import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vector
from hypothesis import given
from hypothesis import strategies as st

from augmentations.jets import (
    center,
    centroid,
    hardest,
    in_disc,
    keep,
    make_jets,
    overlaid,
    padded,
    pt_fraction,
    total_pt,
    trimmed,
    wrap_phi,
)
from tests.toys import toy_batch, toy_jet

SEEDS = st.integers(0, 10_000)
TRIMMED = jax.jit(trimmed, static_argnums=1)
OVERLAID = jax.jit(overlaid)


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


@given(SEEDS, st.sampled_from([1, 9, 24]))
def test_trimming_keeps_the_hardest_in_order(seed: int, constituents: int) -> None:
    batch = toy_batch(seed, 3)
    marks = np.where(batch["pt"] > 0, 1 + np.arange(24, dtype=np.float32), 0).astype(np.float32)
    jets = TRIMMED(make_jets(**batch, extras={"mark": marks}), constituents)
    for b in range(3):
        order = sorted(range(24), key=lambda i, b=b: -batch["pt"][b, i])[:constituents]
        for name in ("pt", "eta", "phi"):
            np.testing.assert_array_equal(getattr(jets, name)[b], batch[name][b, order])
        np.testing.assert_array_equal(jets.extras["mark"][b], marks[b, order])
        np.testing.assert_array_equal(jets.mask[b], batch["pt"][b, order] > 0)


@pytest.mark.parametrize("constituents", [0, 25])
def test_trimming_to_what_is_not_there_is_refused(constituents: int) -> None:
    with pytest.raises(ValueError, match=f"{constituents} constituents were asked of jets with 24 slots"):
        trimmed(toy_jet(0), constituents)


@given(SEEDS, st.sampled_from([6, 60]))
def test_overlaying_is_the_hardest_of_both(seed: int, slots: int) -> None:
    one, other = toy_jet(seed, slots), toy_jet(seed + 1, 30)
    both = OVERLAID(one._replace(extras={"mark": jnp.where(one.mask, 7.0, 0)}), other)
    together = np.concatenate([np.asarray(one.pt), np.asarray(other.pt)])
    np.testing.assert_array_equal(both.pt, np.sort(together)[::-1][:slots])
    np.testing.assert_array_equal(both.mask, np.asarray(both.pt) > 0)
    marks = np.asarray(both.extras["mark"])
    assert set(marks.tolist()) <= {0.0, 7.0}
    if slots >= 30 + int(one.mask.sum()):  # all fit in
        assert (marks == 7).sum() == one.mask.sum()
        np.testing.assert_allclose(total_pt(both), together.sum(), rtol=1e-6)


def test_padding_adds_empty_slots_behind() -> None:
    jets = make_jets(**toy_batch(0, 2, slots=5), extras={"charge": np.ones((2, 5), np.float32)})
    more = padded(jets, 3)
    for before, after in zip(jax.tree.leaves(jets), jax.tree.leaves(more), strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after[:, :5], before)
        np.testing.assert_array_equal(after[:, 5:], np.zeros((2, 3)))


def test_one_constituent_is_the_hardest_and_none_of_an_empty_jet() -> None:
    pt = np.array([[1, 3, 3, 0], [0, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(hardest(make_jets(pt, pt, pt)), [[False, True, False, False], [False] * 4])


def test_places_are_uniform_over_the_disc_about_the_centroid() -> None:
    edge = make_jets(*(np.array(x, np.float32) for x in ([1, 1, 0], [0.2, 0.4, 0], [3.1, 3.1, 0])))
    eta, phi = (np.asarray(x) for x in in_disc(jax.random.key(0), edge, 0.5, 4000))
    assert (np.abs(phi) <= np.pi + 1e-6).all()
    x, y = eta - 0.3, np.asarray(wrap_phi(jnp.asarray(phi - 3.1)))
    square = (x**2 + y**2) / 0.25
    assert square.max() <= 1 + 1e-4
    for values in (square, np.arctan2(y, x) / (2 * np.pi) + 0.5):
        counts = np.histogram(values, 8, (0, 1 + 1e-4))[0]
        assert ((counts - 500) ** 2 / 500).sum() < 24.3  # chi2 with 7 degrees of freedom, p = 0.001
