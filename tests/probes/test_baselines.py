"""Raw constituents against hand-computed values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from probes.baselines import raw_constituents


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def test_sorted_flattened_and_padded_by_hand():
    pt = np.array([[10.0, 30.0, 20.0, 99.0], [5.0, 0.0, 0.0, 0.0]])
    eta = np.array([[0.1, 0.2, 0.3, 9.0], [-0.5, 9.0, 9.0, 9.0]])
    phi = np.array([[1.0, 2.0, 3.0, 9.0], [-1.5, 9.0, 9.0, 9.0]])
    mask = np.array([[True, True, True, False], [True, False, False, False]])
    np.testing.assert_array_equal(
        raw_constituents(pt, eta, phi, mask, 2),
        [[30.0, 0.2, 2.0, 20.0, 0.3, 3.0], [5.0, -0.5, -1.5, 0.0, 0.0, 0.0]],
    )
    long = raw_constituents(pt, eta, phi, mask, 6)
    assert long.shape == (2, 18)
    np.testing.assert_array_equal(long[0, 6:9], [10.0, 0.1, 1.0])
    np.testing.assert_array_equal(long[:, 9:], 0)


def test_mask_and_not_pt_says_what_is_padding():
    """A real constituent of zero pT keeps its angles, and comes before padding."""
    one = np.array([[7.0, 0.0, 3.0]])
    found = raw_constituents(one, one + 1, one + 2, np.array([[False, True, True]]), 3)
    np.testing.assert_array_equal(found, [[3.0, 4.0, 5.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0]])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 15))
def test_order_of_constituents_and_padding_carry_no_meaning(seed, width, n):
    rng = np.random.default_rng(seed)
    pt, eta, phi = rng.random((3, 4, width)).astype(np.float32)
    mask = rng.random((4, width)) < 0.6
    found = raw_constituents(pt, eta, phi, mask, n)
    order = rng.permutation(width)
    np.testing.assert_array_equal(raw_constituents(*(a[:, order] for a in (pt, eta, phi, mask)), n), found)
    junk = [np.where(mask, a, np.nan).astype(np.float32) for a in (pt, eta, phi)]
    np.testing.assert_array_equal(raw_constituents(*junk, mask, n), found)
    assert found.dtype == np.float32
    for jet, row in enumerate(found.reshape(4, n, 3)):
        kept = min(n, mask[jet].sum())
        np.testing.assert_array_equal(row[:kept, 0], np.sort(pt[jet][mask[jet]])[::-1][:kept])
        assert not row[kept:].any()


def test_bad_input_is_refused():
    good = np.ones((2, 3))
    mask = np.ones((2, 3), bool)
    with refused("one shape"):
        raw_constituents(good, good[:, :2], good, mask, 2)
    with refused("one shape"):
        raw_constituents(good[0], good[0], good[0], mask[0], 2)
    with refused("at least one"):
        raw_constituents(good, good, good, mask, 0)
    broken = good.copy()
    broken[1, 2] = np.nan
    with refused("eta of a constituent is NaN or infinite in 1 jets"):
        raw_constituents(good, broken, good, mask, 2)
