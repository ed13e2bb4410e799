"""The closed form of a counting experiment against pyhf and against limits that are known."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson

from probes.anomaly.counting import discovery_statistic, local_p_value
from tests.probes.anomaly.pyhf_model import pyhf_p_value

EXPERIMENTS = [
    (10, 3.0, 1.0),
    (1, 0.01, 0.01),
    (5, 0.3, 0.25),
    (1, 0.05, 0.2),
    (100, 80.0, 4.0),
    (40, 3.0, 2.0),
    (30, 3.0, 0.001),
    (12_000, 11_000.0, 100.0),
    (200_000, 198_000.0, 300.0),
]


def statistic(counted, background, error):
    return discovery_statistic(*(np.asarray(v, np.float64) for v in (counted, background, error)))


@pytest.mark.parametrize(("counted", "background", "error"), EXPERIMENTS)
def test_closed_form_is_that_of_pyhf(counted, background, error):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = pyhf_p_value(counted, background, error)
    # pyhf stops where its minimiser does.
    assert float(local_p_value(statistic(counted, background, error))) == pytest.approx(expected, rel=1e-4)


def test_without_an_excess_there_is_no_evidence():
    q0 = statistic([3.0, 0.0, 5.0], [3.0, 0.5, 9.0], [1.0, 0.1, 2.0])
    assert q0.tolist() == [0, 0, 0]
    assert local_p_value(q0).tolist() == [0.5, 0.5, 0.5]
    assert pyhf_p_value(5, 9.0, 2.0) == pytest.approx(0.5, abs=1e-3)


def test_a_known_background_leaves_the_poisson_likelihood_ratio():
    n, b = 30.0, 11.0
    ratio = 2 * (poisson.logpmf(30, n) - poisson.logpmf(30, b))
    assert float(statistic(n, b, 1e-6)) == pytest.approx(ratio, rel=1e-9)


def test_many_events_leave_the_excess_over_its_error():
    n, b, error = 1_002_000.0, 1_000_000.0, 1500.0
    assert np.sqrt(statistic(n, b, error)) == pytest.approx((n - b) / np.hypot(np.sqrt(b), error), rel=1e-3)


@given(st.floats(0.01, 1e6), st.floats(1e-4, 2), st.integers(0, 10**6))
def test_more_events_or_a_better_known_background_are_more_significant(background, relative, counted):
    error = relative * background
    q0 = statistic([counted, counted + 1, counted], [background] * 3, [error, error, error / 2])
    assert np.isfinite(q0).all()
    assert q0[1] >= q0[0]
    assert q0[2] >= q0[0] * (1 - 1e-9)


def test_a_background_known_far_too_well_or_hardly_at_all_gives_a_number():
    """Squares of what is known overflow, and of what is not vanish: neither is a NaN, nor a warning."""
    exact, unknown = statistic([30.0, 30.0], [11.0, 11.0], [1e-200, 1e12])
    assert exact == pytest.approx(float(statistic(30.0, 11.0, 1e-6)), rel=1e-6)
    assert 0 <= unknown < 1e-6
    assert statistic([0.0], [11.0], [1e12]).tolist() == [0]


def test_p_values_of_many_events_are_uniform_above_one_half():
    rng = np.random.default_rng(0)
    background = rng.normal(40_000, 300, 20_000)
    counted = rng.poisson(np.full(20_000, 40_000)).astype(float)
    p = local_p_value(statistic(counted, background, np.full(20_000, 300.0)))
    for level in (0.3, 0.05, 0.01):
        assert np.mean(p <= level) == pytest.approx(level, abs=3.5 * np.sqrt(level / 20_000))


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="counted events must be finite and not negative"):
        statistic([-1.0], [1.0], [1.0])
    for background, error in ((0.0, 1.0), (1.0, 0.0), (np.nan, 1.0), (1.0, np.inf)):
        with pytest.raises(ValueError, match="must be finite and positive"):
            statistic([1.0], [background], [error])
