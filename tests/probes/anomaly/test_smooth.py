"""Fits of many spectra at once against a minimiser that fits one, and what becomes of empty bins."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import kstest

from probes.anomaly.smooth import FallingSpectrum, deviance

EDGES = np.linspace(2800.0, 4800.0, 17)
ENERGY = 14_000.0
X = np.sqrt(EDGES[1:] * EDGES[:-1]) / ENERGY


def falling(total, power=-6.0, beam=8.0):
    shape = X**power * (1 - X) ** beam * np.diff(EDGES)
    return total * shape / shape.sum()


def by_minimiser(counts, kept, order):
    """Expected counts and their covariance, by BFGS in powers of the logarithm shifted to the middle bin."""
    log_x = np.log(X / X[8])
    terms = np.stack([np.ones(16), log_x, np.log((1 - X) / (1 - X[8])), log_x**2, log_x**3], axis=1)[:, :order]
    terms /= np.abs(terms).max(axis=0)

    def loss(p):
        log_expected = terms[kept] @ p + np.log(counts.mean())
        return np.sum(np.exp(log_expected) - counts[kept] * log_expected)

    def slope(p):
        return terms[kept].T @ (np.exp(terms[kept] @ p) * counts.mean() - counts[kept])

    found = minimize(loss, np.zeros(order), jac=slope, method="BFGS", options={"gtol": 1e-5, "maxiter": 2000}).x
    expected = np.exp(terms @ found) * counts.mean()
    covariance = np.linalg.inv(terms[kept].T @ (expected[kept, None] * terms[kept]))
    return expected, (expected[:, None] * terms) @ covariance @ (expected[:, None] * terms).T


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_fits_and_errors_are_those_of_a_minimiser(order):
    counts = np.random.default_rng(order).poisson(falling(50_000), (2, 16)).astype(float)
    windows = np.zeros((2, 16), bool)
    windows[0, 2:5], windows[1, 9:11] = True, True
    spectrum = FallingSpectrum.of(EDGES, order, ENERGY)
    parameters = spectrum.fit(counts)
    everywhere = spectrum.expected(parameters)
    background, error = spectrum.sidebands(parameters, counts, windows)
    for t in range(2):
        np.testing.assert_allclose(everywhere[t], by_minimiser(counts[t], np.ones(16, bool), order)[0], rtol=1e-4)
        for w, window in enumerate(windows):
            expected, covariance = by_minimiser(counts[t], ~window, order)
            assert background[t, w] == pytest.approx(expected[window].sum(), rel=1e-4)
            assert error[t, w] == pytest.approx(np.sqrt(covariance[window][:, window].sum()), rel=1e-3)
        across = spectrum.across(parameters[:, t : t + 1], counts[t : t + 1], windows[0])
        expected, covariance = by_minimiser(counts[t], ~windows[0], order)
        np.testing.assert_allclose(across.background[0], expected, rtol=1e-4)
        np.testing.assert_allclose(across.error[0], np.sqrt(np.diag(covariance)), rtol=1e-3)


def test_many_spectra_are_fitted_as_each_alone(monkeypatch):
    counts = np.random.default_rng(0).poisson(falling(300), (7, 16)).astype(float)
    windows = np.eye(16, dtype=bool)[3:9]
    spectrum = FallingSpectrum.of(EDGES, 4, ENERGY)
    monkeypatch.setattr("probes.anomaly.smooth.AT_ONCE", 3 * windows.size)
    together = spectrum.sidebands(spectrum.fit(counts), counts, windows)
    for t in range(7):
        alone = spectrum.sidebands(spectrum.fit(counts[t : t + 1]), counts[t : t + 1], windows)
        np.testing.assert_allclose(together.background[t], alone.background[0], rtol=1e-6)
        np.testing.assert_allclose(together.error[t], alone.error[0], rtol=1e-6)


def test_what_is_in_a_window_does_not_move_its_background():
    counts = falling(20_000).round()[None]
    window = np.zeros((1, 16), bool)
    window[0, 6:8] = True
    spectrum = FallingSpectrum.of(EDGES, 4, ENERGY)
    before = spectrum.sidebands(spectrum.fit(counts), counts, window)
    bumped = counts + 3000 * window
    after = spectrum.sidebands(spectrum.fit(bumped), bumped, window)
    np.testing.assert_allclose(after.background, before.background, rtol=1e-5)


@pytest.mark.parametrize("order", [2, 4])
def test_pulls_and_deviances_have_their_distributions(order):
    truth = falling(20_000, beam=0.0 if order == 2 else 8.0)
    counts = np.random.default_rng(5).poisson(truth, (2000, 16)).astype(float)
    window = np.zeros((1, 16), bool)
    window[0, 5:9] = True
    spectrum = FallingSpectrum.of(EDGES, order, ENERGY)
    parameters = spectrum.fit(counts)
    background, error = spectrum.sidebands(parameters, counts, window)
    pull = (background[:, 0] - truth[window[0]].sum()) / error[:, 0]
    assert kstest(pull, "norm").pvalue > 0.01
    assert kstest(deviance(counts, spectrum.expected(parameters)), "chi2", args=(16 - order,)).pvalue > 0.01


@given(st.lists(st.sampled_from([0, 0, 0, 1, 5, 30]), min_size=16, max_size=16), st.sampled_from([2, 3, 4, 5]))
@example([0] * 10 + [16] + [0] * 5, 3)
@example([0] * 6 + [19, 28, 2, 0, 0, 12] + [0] * 4, 5)
def test_any_counts_give_finite_backgrounds(counts, order):
    """With empty bins a fit without a prior runs away; one event in the last bin alone turns it round."""
    counts = np.array(counts, float)[None]
    windows = np.eye(16, dtype=bool)[1:-1] | np.eye(16, k=1, dtype=bool)[1:-1]
    spectrum = FallingSpectrum.of(EDGES, order, ENERGY)
    found = spectrum.sidebands(spectrum.fit(counts), counts, windows)
    assert np.isfinite(found.background).all()
    assert np.isfinite(found.error).all()
    assert (found.background > 0).all()
    assert (found.error > 0).all()
    if counts.sum() > 0:
        assert spectrum.expected(spectrum.fit(counts)).sum() == pytest.approx(counts.sum(), rel=1e-3)


def test_steep_spectra_converge():
    """With 1e8 events that all lie in the first bins a step may not be cut by what happens in the empty ones."""
    edges = np.linspace(1500.0, 3900.0, 29)
    counts = np.random.default_rng(0).poisson(1e8 * np.exp(-np.arange(28) * 2.5), (1, 28)).astype(float)
    for order in (2, 3, 5):
        spectrum = FallingSpectrum.of(edges, order, ENERGY)
        expected = spectrum.expected(spectrum.fit(counts))[0]
        # The score equations: events, and their mean in each term that varies, up to the prior.
        np.testing.assert_allclose(spectrum.basis.T @ (counts[0] - expected), 0, atol=1e-2 * np.sqrt(counts.sum()))


def test_a_fit_that_does_not_converge_is_refused(monkeypatch):
    monkeypatch.setattr("probes.anomaly.smooth.MOST_STEPS", 2)
    with pytest.raises(ValueError, match="no background of 4 parameters settles"):
        FallingSpectrum.of(EDGES, 4, ENERGY).fit(np.eye(16)[3:4] * 1000)


def test_deviance_of_empty_bins_of_which_nothing_is_expected():
    np.testing.assert_array_equal(deviance(np.array([[4.0, 0.0]]), np.array([[4.0, 0.0]])), [0.0])
