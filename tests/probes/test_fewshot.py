"""Draws of labelled jets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.fewshot import label_draws


@given(st.integers(0, 100), st.integers(2, 4), st.integers(30, 150))
def test_draws_are_fair_nested_and_reproducible(seed, classes, count):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes).repeat(60), rng.integers(0, classes, 200)])
    draws = label_draws(labels, count, 3, seed)
    share = np.bincount(labels) / len(labels)
    for rows, more in zip(draws, label_draws(labels, count + 40, 3, seed), strict=True):
        assert len(rows) == count == len(set(rows.tolist()))
        assert (np.diff(rows) > 0).all()
        assert np.isin(rows, more).all()
        assert abs(np.bincount(labels[rows], minlength=classes) - count * share).max() <= 1 + classes / 2
    for rows, again in zip(draws, label_draws(labels, count, 3, seed), strict=True):
        np.testing.assert_array_equal(rows, again)
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], label_draws(labels, count, 1, seed + 1)[0])


def test_all_jets_are_a_draw_and_every_jet_is_as_likely():
    labels = np.arange(200) % 2 == 0
    np.testing.assert_array_equal(label_draws(labels, 200, 1)[0], np.arange(200))
    drawn = np.bincount(np.concatenate(label_draws(labels, 50, 800)), minlength=200)
    assert drawn.std() == pytest.approx(np.sqrt(800 * 0.25 * 0.75), rel=0.25)


def test_too_few_jets_are_refused():
    labels = np.array([0] * 95 + [1] * 5)
    with pytest.raises(ValueError, match=r"leave 1 of class 1.*ask for more"):
        label_draws(labels, 20, 1)
    with pytest.raises(ValueError, match="101 labelled jets were asked for, of 100"):
        label_draws(labels, 101, 1)
    with pytest.raises(ValueError, match="asked for"):
        label_draws(labels, 0, 1)
    with pytest.raises(ValueError, match="at least one draw"):
        label_draws(labels, 50, 0)
