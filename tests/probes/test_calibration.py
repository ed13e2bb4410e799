"""Calibration against scikit-learn, closed forms and samples that are calibrated by construction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from probes.calibration import (
    brier_score,
    expected_error_of_calibrated,
    fit_temperature,
    negative_log_likelihood,
    probabilities,
    reliability,
)


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def binary(jets, seed=0):
    """Log-odds that are true."""
    rng = np.random.default_rng(seed)
    scores = 2 * rng.normal(size=jets)
    return scores, (rng.random(jets) < expit(scores)).astype(int)


def multi(jets, classes=4, seed=0):
    """Logits that are true."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(jets, classes))
    up_to = softmax(logits, axis=1).cumsum(axis=1)
    return logits, (rng.random((jets, 1)) > up_to[:, :-1]).sum(axis=1)


def test_probabilities_likelihood_and_brier_score_equal_scikit_learn():
    for scores, labels in (binary(500), multi(500)):
        for temperature in (1.0, 0.5, 3.0):
            chance = probabilities(scores, temperature)
            expected = expit(scores / temperature) if scores.ndim == 1 else softmax(scores / temperature, axis=1)
            np.testing.assert_allclose(chance, expected, rtol=1e-12)
            likelihood = negative_log_likelihood(scores, labels, temperature)
            assert likelihood == pytest.approx(log_loss(labels, chance), rel=1e-10)
            # scikit-learn halves the score of several classes if asked, and not by itself.
            whole = {} if scores.ndim == 1 else {"scale_by_half": False}
            assert brier_score(chance, labels) == pytest.approx(brier_score_loss(labels, chance, **whole), rel=1e-10)


def test_likelihood_of_extreme_scores_is_finite():
    assert negative_log_likelihood(np.array([2000.0, -3000.0]), np.array([0, 0])) == pytest.approx(1000)
    logits = np.array([[0.0, 5000.0, 1e6]])
    assert negative_log_likelihood(logits, np.array([1])) == pytest.approx(1e6 - 5000)


@given(st.integers(0, 10_000), st.booleans())
def test_temperature_is_the_minimum(seed, many):
    scores, labels = multi(60, 3, seed) if many else binary(60, seed)

    def loss(log_temperature):
        scaled = scores / np.exp(log_temperature)
        wide = scaled if many else np.stack([0 * scaled, scaled], axis=1)
        return -log_softmax(wide, axis=1)[np.arange(60), labels].mean()

    found = fit_temperature(scores, labels)
    expected = minimize_scalar(loss, bracket=(-1, 1), tol=1e-10)
    assert loss(np.log(found)) <= expected.fun + 1e-12
    assert found == pytest.approx(np.exp(expected.x), rel=1e-4)


@pytest.mark.parametrize("make", [binary, multi])
def test_a_known_factor_is_recovered(make):
    scores, labels = make(40_000)
    base = fit_temperature(scores, labels)
    assert base == pytest.approx(1, abs=0.03)
    for factor in (1e-6, 0.3, 4.0, 1e9):
        assert fit_temperature(factor * scores, labels) == pytest.approx(factor * base, rel=1e-9)
    scaled = probabilities(4 * scores, 4 * base)
    raw = reliability(probabilities(4 * scores), labels).expected_error
    assert reliability(scaled, labels).expected_error < 0.15 * raw


def test_two_classes_are_the_same_as_log_odds_or_as_logits():
    scores, labels = binary(300)
    wide = np.stack([1 - scores / 2, 1 + scores / 2], axis=1)
    assert fit_temperature(wide, labels) == pytest.approx(fit_temperature(scores, labels), rel=1e-9)
    assert negative_log_likelihood(wide, labels) == pytest.approx(negative_log_likelihood(scores, labels))
    assert brier_score(probabilities(wide), labels) == pytest.approx(2 * brier_score(probabilities(scores), labels))


def test_temperature_without_a_minimum_ends_in_a_sentence():
    scores = np.array([-2.0, -1.0, 1.0, 3.0])
    for values in (scores, 1e-8 * scores, np.stack([-scores, scores], axis=1)):
        with pytest.raises(ValueError, match="all 4 jets"):
            fit_temperature(values, np.array([0, 0, 1, 1]))
    for values in (-scores, 0 * scores, np.ones((4, 3))):
        with pytest.raises(ValueError, match="no better than chance"):
            fit_temperature(values, np.array([0, 0, 1, 1]))
    # One wrong jet, however close, and there is a minimum.
    assert fit_temperature(np.array([-2.0, 1e-3, 1.0, 3.0]), np.array([0, 0, 1, 1])) > 0


@pytest.mark.parametrize(("equal_mass", "strategy"), [(False, "uniform"), (True, "quantile")])
def test_reliability_equals_scikit_learn(equal_mass, strategy):
    scores, labels = binary(3000)
    chance = expit(1.7 * scores)
    found = reliability(chance, labels, bins=12, equal_mass=equal_mass)
    observed, predicted = calibration_curve(labels, chance, n_bins=12, strategy=strategy)
    np.testing.assert_allclose(found.observed, observed, atol=1e-12)
    np.testing.assert_allclose(found.predicted, predicted, atol=1e-12)
    assert found.jets.sum() == 3000
    assert found.expected_error == pytest.approx(np.abs(observed - predicted) @ found.jets / 3000)
    assert found.maximum_error == pytest.approx(np.abs(observed - predicted).max())
    if equal_mass:
        np.testing.assert_allclose(found.jets, 250, atol=1)


def test_reliability_in_closed_form():
    # 10 jets at 0.2 of which 4 are signal, 30 at 0.9 of which 24 are.
    chance = np.repeat([0.2, 0.9], [10, 30])
    labels = np.concatenate([np.arange(10) < 4, np.arange(30) < 24])
    found = reliability(chance, labels, bins=5)
    np.testing.assert_allclose(found.predicted, [0.2, 0.9])
    np.testing.assert_allclose(found.observed, [0.4, 0.8])
    assert found.jets.tolist() == [10, 30]
    assert found.expected_error == pytest.approx((10 * 0.2 + 30 * 0.1) / 40)
    assert found.maximum_error == pytest.approx(0.2)
    # Three classes: the likeliest one counts, right in 1 of 2 jets at 0.6 and in the jet at 1.
    chance = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.0, 1.0, 0.0]])
    found = reliability(chance, np.array([0, 1, 1]), bins=10)
    np.testing.assert_allclose(found.predicted, [0.6, 1.0])
    np.testing.assert_allclose(found.observed, [0.5, 1.0])
    assert found.expected_error == pytest.approx(2 / 3 * 0.1)


@pytest.mark.parametrize("make", [binary, multi])
@pytest.mark.parametrize("equal_mass", [False, True])
def test_error_of_true_probabilities_is_what_finite_jets_give(make, equal_mass):
    inside = 0
    for seed in range(40):
        scores, labels = make(400, seed=seed)
        chance = probabilities(scores)
        expected = expected_error_of_calibrated(chance, equal_mass=equal_mass, draws=100)
        assert 0 < expected.low < expected.value < expected.high
        inside += expected.low <= reliability(chance, labels, equal_mass=equal_mass).expected_error <= expected.high
    assert inside >= 33
    wrong = probabilities(3 * scores)
    found = reliability(wrong, labels, equal_mass=equal_mass).expected_error
    assert found > expected_error_of_calibrated(wrong, equal_mass=equal_mass).high


def test_expected_error_of_calibrated_in_closed_form():
    """One bin of B jets at 1/2: the mean of |binomial / B - 1/2| is sqrt(1 / (2 pi B)), nearly."""
    found = expected_error_of_calibrated(np.full(1000, 0.5), bins=1, draws=4000)
    assert found.value == pytest.approx(np.sqrt(1 / (2 * np.pi * 1000)), rel=0.03)
    assert found == expected_error_of_calibrated(np.full(1000, 0.5), bins=1, draws=4000)
    assert found != expected_error_of_calibrated(np.full(1000, 0.5), bins=1, draws=4000, seed=1)


def test_probabilities_of_zero_and_one_have_their_bins():
    found = reliability(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 1, 1, 1]))
    assert found.jets.tolist() == [2, 2]
    assert found.expected_error == pytest.approx(0.25)
    assert reliability(np.full(9, 0.3), np.ones(9, bool), equal_mass=True).jets.tolist() == [9]


def test_bad_input_is_refused_in_plain_english():
    scores, labels = binary(30)
    logits, classes = multi(30)
    hole = np.where(np.arange(30) == 2, np.nan, scores)
    for call in (fit_temperature, negative_log_likelihood):
        for values, truth, message in (
            (hole, labels, "1 of 30 scores are NaN"),
            (scores[:0], labels[:0], "shape"),
            (scores, labels[:-1], "one label for each jet"),
            (scores, labels + 1, "between 0 and 1"),
            (logits, classes - 1, "between 0 and 3"),
            (logits[:, :1], classes, "classes >= 2"),
        ):
            with refused(message):
                call(values, truth)
    for call in (reliability, brier_score):
        with refused("between 0 and 1"):
            call(scores, labels)
        with refused("sum to 1"):
            call(np.full((30, 4), 0.5), classes)
        with refused("between 0 and 1"):
            call(np.where(np.arange(30) == 2, np.nan, 0.5), labels)
        with refused("one label"):
            call(expit(scores), labels[1:])
    chance = expit(scores)
    for temperature in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="temperature must be positive"):
            probabilities(scores, temperature)
        with pytest.raises(ValueError, match="temperature must be positive"):
            negative_log_likelihood(scores, labels, temperature)
    with pytest.raises(ValueError, match="one bin"):
        reliability(chance, labels, bins=0)
    with pytest.raises(ValueError, match="one draw"):
        expected_error_of_calibrated(chance, draws=0)


def test_log_odds_survive_the_way_there_and_back():
    scores, _ = binary(100)
    np.testing.assert_allclose(logit(probabilities(scores)), scores, atol=1e-9)
