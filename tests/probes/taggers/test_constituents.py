"""From any jet to what the taggers take."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from augmentations import center, make_jets
from probes.taggers import constituents
from tests.toys import toy_batch


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def fields(jets=6, seed=0):
    batch = toy_batch(seed, jets)
    return batch["pt"], batch["eta"], batch["phi"], batch["pt"] > 0


def test_agrees_with_the_augmentations():
    pt, eta, phi, mask = fields()
    found = constituents(pt, eta, phi, mask)
    for i in range(len(pt)):
        expected = center(make_jets(pt[i], eta[i], phi[i]))
        np.testing.assert_allclose(found.eta[i], np.where(mask[i], expected.eta, 0), atol=1e-5)
        np.testing.assert_allclose(found.phi[i], np.where(mask[i], expected.phi, 0), atol=1e-5)
    np.testing.assert_array_equal(found.pt, pt)
    assert {field.dtype for field in found[:3]} == {np.dtype(np.float32)}


@given(st.floats(-3, 3), st.floats(-10, 10), st.integers(0, 100))
def test_where_the_jet_points_does_not_matter(eta_shift, phi_shift, seed):
    """Also across phi = +-pi."""
    pt, eta, phi, mask = fields(seed=seed)
    first = constituents(pt, eta, phi, mask)
    eta, phi = eta + np.float32(eta_shift), (phi + np.float32(phi_shift) + np.pi) % (2 * np.pi) - np.pi
    moved = constituents(pt, eta, phi, mask)
    np.testing.assert_allclose(moved.eta, first.eta, atol=2e-5)
    np.testing.assert_allclose(moved.phi, first.phi, atol=2e-5)
    weight = first.pt / first.pt.sum(axis=1, keepdims=True)
    np.testing.assert_allclose((weight * first.eta).sum(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose((weight * first.phi).sum(axis=1), 0, atol=1e-5)


def test_padding_is_never_read_and_comes_out_as_zero():
    pt, eta, phi, mask = fields()
    spoilt = [np.where(mask, field, np.nan) for field in (pt, eta, phi)]
    for found, expected in zip(constituents(*spoilt, mask), constituents(pt, eta, phi, mask), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert not found[~mask].any()


def test_a_jet_of_nothing_stays():
    mask = np.array([[True, False], [False, False]])
    found = constituents(np.zeros((2, 2)), np.full((2, 2), 0.5), np.zeros((2, 2)), mask)
    np.testing.assert_array_equal(found.eta, [[0.5, 0], [0, 0]])


def test_bad_input_is_refused():
    pt, eta, phi, mask = fields()
    with refused("share one shape"):
        constituents(pt, eta[:, 1:], phi, mask)
    for i, name in enumerate(("pt", "eta", "phi")):
        spoilt = [pt.copy(), eta.copy(), phi.copy()]
        spoilt[i][2:4, 0] = np.inf
        with pytest.raises(ValueError, match=f"{name} of a constituent is NaN or infinite in 2 jets"):
            constituents(*spoilt, mask)
    with pytest.raises(ValueError, match="pt of a constituent is negative in 6 jets"):
        constituents(-pt, eta, phi, mask)
