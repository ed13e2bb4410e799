"""Metrics of many classes against scikit-learn and explicit resampling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from probes import metrics, multiclass
from probes.delong import auc_interval, auc_variance


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def sample(jets, classes=4, seed=0, decimals=None):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), np.arange(classes), rng.integers(0, classes, jets - 2 * classes)])
    logits = rng.normal(size=(jets, classes)) + 1.2 * np.eye(classes)[labels]
    return (logits if decimals is None else np.round(logits, decimals)), labels


def resampled(labels, rng):
    """Jets drawn again within each class."""
    return np.concatenate([rng.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in np.unique(labels)])


@given(st.integers(0, 10_000), st.integers(3, 6), st.integers(12, 80), st.sampled_from([None, 0]))
def test_metrics_equal_scikit_learn(seed, classes, jets, decimals):
    logits, labels = sample(jets, classes, seed, decimals)
    # Rounded, so that scikit-learn too sees what ties in exact arithmetic as ties.
    chance = np.round(softmax(logits, axis=1), 12)
    expected = roc_auc_score(labels, chance / chance.sum(axis=1, keepdims=True), multi_class="ovo", average="macro")
    if decimals is None:
        assert multiclass.macro_auc(logits, labels) == pytest.approx(expected, abs=1e-12)
    assert multiclass.accuracy(logits, labels) == accuracy_score(labels, logits.argmax(axis=1))
    np.testing.assert_array_equal(
        multiclass.confusion_matrix(logits, labels),
        sklearn_confusion_matrix(labels, logits.argmax(axis=1), labels=range(classes)),
    )
    shifted = logits + np.random.default_rng(seed).normal(size=(jets, 1))
    assert multiclass.macro_auc(log_softmax(logits, axis=1), labels) == pytest.approx(
        multiclass.macro_auc(shifted, labels), abs=1e-12 if decimals is None else 0.1
    )


def test_ties_count_half():
    # Class 0 against 1 by the probability of 0: above, tied; and so on, pair by pair.
    chance = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5], [0.25, 0.25, 0.5]])
    labels = np.array([0, 1, 2, 1])
    pairs = {(0, 1): 1, (0, 2): 1, (1, 0): 0.75, (1, 2): 0.75, (2, 0): 1, (2, 1): 0.75}
    assert multiclass.macro_auc(np.log(chance), labels) == pytest.approx(np.mean(list(pairs.values())))
    assert roc_auc_score(labels, chance, multi_class="ovo") == pytest.approx(np.mean(list(pairs.values())))


def test_sure_answers_are_still_ranked():
    """Probabilities that all round to 1 tie; the log-odds behind them do not."""
    labels = np.repeat([0, 1, 2], 50)
    logits = np.zeros((150, 3))
    # All jets look like class 0, its own the most.
    logits[:, 0] = np.where(labels == 0, 80.0, 60.0)
    assert len(np.unique(softmax(logits, axis=1)[:, 0])) == 1
    # Pairs with class 0 first are in order, and by the other two classes' probabilities as well; 1 and 2 tie.
    assert multiclass.macro_auc(logits, labels) == pytest.approx((4 * 1.0 + 2 * 0.5) / 6)


def test_interval_agrees_with_the_bootstrap():
    logits, labels = sample(1200)
    found = multiclass.macro_auc_interval(logits, labels)
    rng = np.random.default_rng(5)
    drawn = []
    for _ in range(300):
        jets = resampled(labels, rng)
        drawn.append(multiclass.macro_auc(logits[jets], labels[jets]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.value == multiclass.macro_auc(logits, labels)
    assert found.low == pytest.approx(low, abs=0.15 * (high - low))
    assert found.high == pytest.approx(high, abs=0.15 * (high - low))


def test_two_classes_are_the_binary_case():
    logits, labels = sample(3000, 2)
    score = logits[:, 1] - logits[:, 0]
    found = multiclass.macro_auc_interval(logits, labels, confidence=0.68)
    auc, variance = auc_variance(score, labels)
    assert found.value == pytest.approx(auc, abs=1e-12)
    assert found.high - found.low == pytest.approx(2 * 0.99445788 * np.sqrt(variance), rel=1e-6)
    # The binary interval is made in log-odds; with so many jets that is no matter.
    assert auc_interval(score, labels, confidence=0.68).low == pytest.approx(found.low, abs=1e-3)
    assert multiclass.class_rejection(logits, labels, 1, 0) == metrics.background_rejection(score, labels, 0.5)


def test_class_rejection_equals_that_of_probabilities():
    logits, labels = sample(3000)
    chance = softmax(logits, axis=1)
    for signal, background, eps_s in ((1, 0, 0.5), (3, 2, 0.3)):
        pair = np.isin(labels, (signal, background))
        ratio = (chance[:, signal] / (chance[:, signal] + chance[:, background]))[pair]
        expected = metrics.background_rejection(ratio, labels[pair] == signal, eps_s)
        found = multiclass.class_rejection(logits, labels, signal, background, eps_s)
        assert found.value == pytest.approx(expected.value, rel=1e-12)
        assert found.is_lower_bound == expected.is_lower_bound
    sure = multiclass.class_rejection(1000 * np.eye(4)[labels], labels, 1, 0)
    assert sure.is_lower_bound
    assert np.isfinite(sure.value)


def test_evaluation_has_all_keys_and_intervals_like_an_explicit_bootstrap():
    logits, labels = sample(1500)
    found = multiclass.evaluate_logits(logits, labels, ["QCD", "top", "W", "Z"], background=1, resamples=500)
    assert list(found) == ["auc", "accuracy", "r50 QCD", "r50 W", "r50 Z"]
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(500):
        jets = resampled(labels, rng)
        drawn.append(multiclass.accuracy(logits[jets], labels[jets]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found["accuracy"].value == multiclass.accuracy(logits, labels)
    assert found["accuracy"].low == pytest.approx(low, abs=0.15 * (high - low))
    assert found["accuracy"].high == pytest.approx(high, abs=0.15 * (high - low))
    assert found["r50 W"].value == multiclass.class_rejection(logits, labels, 2, 1).value
    assert found["auc"] == multiclass.macro_auc_interval(logits, labels)
    again, other = (
        multiclass.evaluate_logits(logits, labels, "abcd", background=1, resamples=50, seed=seed) for seed in (0, 1)
    )
    assert again == multiclass.evaluate_logits(logits, labels, "abcd", background=1, resamples=50)
    assert again["r50 a"] != other["r50 a"]


def test_perfect_tagger_has_bounds_and_no_infinity():
    labels = np.arange(300) % 3
    found = multiclass.evaluate_logits(100 * np.eye(3)[labels], labels, "abc", resamples=20)
    assert found["auc"] == auc_interval(np.arange(200.0), np.arange(200) >= 100)
    assert (found["accuracy"].low, found["accuracy"].high) == (1, 1)
    assert found["r50 b"].is_lower_bound


def test_bad_input_is_refused_in_plain_english():
    logits, labels = sample(40)
    hole = logits.copy()
    hole[3, 1] = np.inf
    for call in (
        multiclass.accuracy,
        multiclass.confusion_matrix,
        multiclass.macro_auc,
        multiclass.macro_auc_interval,
        lambda x, y: multiclass.class_rejection(x, y, 1, 0),
        lambda x, y: multiclass.evaluate_logits(x, y, "abcd"),
    ):
        with refused("the logits of 1 jets are NaN or infinite"):
            call(hole, labels)
        with refused("one label for each jet"):
            call(logits, labels[1:])
        for wrong in (labels - 1, labels + 1):
            with refused("number of a column"):
                call(logits, wrong)
        with refused("table"):
            call(logits[:, :1], 0 * labels)
    with pytest.raises(ValueError, match=r"no jets of class \[3\]"):
        multiclass.macro_auc(logits[labels < 3], labels[labels < 3])
    one = np.concatenate([np.flatnonzero(labels < 3), np.flatnonzero(labels == 3)[:1]])
    with pytest.raises(ValueError, match="class 3 has 1 jet"):
        multiclass.macro_auc_interval(logits[one], labels[one])
    for signal, background in ((1, 1), (4, 0), (0, -1)):
        with pytest.raises(ValueError, match="two of the 4 classes"):
            multiclass.class_rejection(logits, labels, signal, background)
    with pytest.raises(ValueError, match="no jets of classes 1 and 0"):
        multiclass.class_rejection(logits[labels > 1], labels[labels > 1], 1, 0)
    for names in ("abc", "abca"):
        with pytest.raises(ValueError, match="as many different names"):
            multiclass.evaluate_logits(logits, labels, names)
    with pytest.raises(ValueError, match="resample"):
        multiclass.evaluate_logits(logits, labels, "abcd", resamples=0)
    with pytest.raises(ValueError, match="confidence"):
        multiclass.evaluate_logits(logits, labels, "abcd", confidence=0.0)
