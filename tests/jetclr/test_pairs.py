"""Features of pairs of constituents; test_encoder.py has their formulas, by four-vectors."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jetclr.features import Features, Inputs
from jetclr.pairs import PairFeature, pair_features
from tests.toys import toy_jet

EVERY = get_args(PairFeature)


def of(inputs: Inputs, names: tuple[PairFeature, ...] = EVERY) -> jax.Array:
    return pair_features(names, inputs.eta, inputs.phi, inputs.z, inputs.mask)


def test_they_are_symmetric_of_order_one_and_zero_for_padding() -> None:
    inputs = Features()(toy_jet(1, 32))
    found = np.asarray(of(inputs))
    np.testing.assert_allclose(found, np.swapaxes(found, 1, 2), atol=1e-5)
    both = np.outer(inputs.mask, inputs.mask)
    assert (found[:, ~both] == 0).all()
    assert (np.abs(found[:, both]) < 8).all()
    assert (found[:, both].std(1) > 0.3).all()
    for i, name in enumerate(EVERY):
        np.testing.assert_allclose(of(inputs, (name,))[0], found[i], atol=1e-5)


def test_absolute_momenta_turns_and_the_seam_do_not_matter() -> None:
    jets = toy_jet(2)
    turned = jets._replace(pt=3 * jets.pt, phi=jnp.where(jets.mask, (jets.phi + 5.0) % (2 * np.pi) - np.pi, 0))
    raw = Features(center=False)
    np.testing.assert_allclose(of(raw(turned)), of(raw(jets)), atol=2e-3)  # angles of 1e-3 keep three digits


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_finite_for_coincident_soft_and_empty_ones(name: PairFeature) -> None:
    inputs = Features()(toy_jet(3))
    same = inputs._replace(eta=inputs.eta * 0, phi=inputs.phi * 0, z=inputs.z.at[0].set(1e-30))
    for one in (same, jax.tree.map(jnp.zeros_like, inputs)):
        total = lambda *x, one=one: jnp.sum(pair_features((name,), *x, one.mask))  # noqa: E731
        value, gradient = jax.value_and_grad(total, (0, 1, 2))(one.eta, one.phi, one.z)
        assert np.isfinite(value)
        assert all(np.isfinite(x).all() for x in gradient)


def test_a_pair_of_coincident_ones_is_as_far_apart_as_each_from_itself() -> None:
    jets = toy_jet(4)
    twice = jets._replace(eta=jets.eta.at[1].set(jets.eta[0]), phi=jets.phi.at[1].set(jets.phi[0]))
    (found,) = np.asarray(of(Features()(twice), ("ln_dr",)))
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0, 0] == found[0, 1] == found[1, 0]
    assert found[0, 0] == pytest.approx((np.log(0.005) + 1.7) / 1.2, rel=1e-5)
