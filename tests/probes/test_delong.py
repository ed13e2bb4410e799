"""DeLong's method against published examples, placements counted pair by pair, and the bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.stats import chi2
from sklearn.metrics import roc_auc_score

from probes.delong import auc_interval, auc_variance, delong_test
from probes.metrics import evaluate_scores, paired_bootstrap

# Patients with ovarian cancer from DeLong et al. (1988) as printed in the SAS/STAT User's Guide, The LOGISTIC
# Procedure, "Comparing Receiver Operating Characteristic Curves": albumin, total protein, K-G score, outcome.
OVARIAN = np.fromstring(
    """
    3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
    3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
    4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
    4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
    2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
    """,
    sep=" ",
).reshape(-1, 4)

# 113 patients with aneurysmal subarachnoid haemorrhage (aSAH): Turck et al., Intensive Care Med. 36 (2010) 107, in the
# package pROC: WFNS grade, and the rank of S100b, of patients with poor, then with good outcome. The ranks follow from
# the placements that pROC's own tests list.
WFNS_POOR = "32455552521254425552525245441442255225555"
WFNS_GOOD = "111151221221112121134141551124112212122111121211324214115422111312244111"
S100B_POOR = [8, 5, 11, 7, 25, 30, 28, 2, 19, 4, 2, 23, 21, 27, 30, 15, 30, 30, 30, 2, 30, 17, 0, 4, 13, 30, 15, 30, 3,
              15, 8, 5, 6, 13, 30, 9, 30, 18, 30, 30, 25]  # fmt: skip
S100B_GOOD = [8, 9, 5, 1, 26, 12, 5, 5, 1, 3, 1, 4, 6, 2, 12, 2, 6, 8, 12, 1, 11, 9, 20, 4, 29, 26, 11, 2, 24, 26, 6, 3,
              4, 3, 1, 8, 5, 9, 10, 1, 1, 4, 1, 4, 3, 11, 4, 3, 19, 6, 16, 2, 5, 18, 2, 1, 14, 22, 5, 10, 3, 9, 5, 2, 1,
              12, 10, 26, 12, 10, 29, 27]  # fmt: skip


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def sample(jets, seed=0, decimals=None, separation=1.2):
    """Two correlated scores, the first one better."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 0, 1, 1], rng.integers(0, 2, jets - 4)])
    a = rng.normal(size=jets) + separation * labels
    b = a + rng.normal(size=jets)
    return (a, b, labels) if decimals is None else (np.round(a, decimals), np.round(b, decimals), labels)


def placements(scores, labels):
    """Pair by pair, as the paper defines them."""
    signal, background = scores[labels == 1], scores[labels == 0]
    right = (np.sign(signal[:, None] - background) + 1) / 2
    return right.mean(axis=1), right.mean(axis=0)


def test_ovarian_cancer_as_published():
    albumin, protein, kg, outcome = OVARIAN.T
    # The guide models low K-G scores as the good ones.
    kg, outcome = 10 - kg, outcome.astype(int)
    for scores, area, error in ((albumin, 0.7366, 0.0927), (protein, 0.6478, 0.1000), (kg, 0.7258, 0.1028)):
        auc, variance = auc_variance(scores, outcome)
        assert auc == pytest.approx(area, abs=5e-5)
        assert np.sqrt(variance) == pytest.approx(error, abs=5e-5)
    for scores, difference, error, chi_square, p_value in (
        (albumin, 0.0108, 0.0953, 0.0127, 0.9102),
        (protein, -0.0780, 0.1046, 0.5554, 0.4561),
    ):
        found = delong_test(scores, kg, outcome)
        assert found.difference == pytest.approx(difference, abs=5e-5)
        assert found.standard_error == pytest.approx(error, abs=5e-5)
        assert found.z**2 == pytest.approx(chi_square, abs=5e-5)
        assert found.p_value == pytest.approx(p_value, abs=5e-5)


def test_subarachnoid_haemorrhage_as_published():
    """pROC's roc.test(wfns, s100b) prints Z = 2.209, p-value = 0.02718; its tests hold fifteen digits."""
    outcome = np.repeat([1, 0], [41, 72])
    wfns = np.array([int(grade) for grade in WFNS_POOR + WFNS_GOOD], float)
    s100b = np.array(S100B_POOR + S100B_GOOD, float)
    found = delong_test(wfns, s100b, outcome)
    assert found.auc_a == pytest.approx(0.823678861788618, rel=1e-13)
    assert found.auc_b == pytest.approx(0.731368563685637, rel=1e-13)
    assert found.z == pytest.approx(2.20898359144091, rel=1e-13)
    assert found.p_value == pytest.approx(0.0271757822291882, rel=1e-13)
    half = 1.959963984540054 * found.standard_error
    assert found.difference - half == pytest.approx(0.0104061769564846, rel=1e-12)
    assert found.difference + half == pytest.approx(0.174214419249478, rel=1e-12)


@given(st.integers(0, 10_000), st.integers(4, 60), st.sampled_from([None, 1, 0]))
def test_equals_placements_counted_pair_by_pair(seed, jets, decimals):
    a, b, labels = sample(jets, seed, decimals)
    in_signal, in_background = (np.stack(p) for p in zip(placements(a, labels), placements(b, labels), strict=True))
    covariance = np.cov(in_signal) / in_signal.shape[1] + np.cov(in_background) / in_background.shape[1]
    for scores, i in ((a, 0), (b, 1)):
        auc, variance = auc_variance(scores, labels)
        assert auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert variance == pytest.approx(covariance[i, i], abs=1e-12)
    of_difference = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if of_difference < 1e-12:
        return
    found = delong_test(a, b, labels)
    assert found.difference == pytest.approx(found.auc_a - found.auc_b, abs=1e-12)
    assert found.standard_error == pytest.approx(np.sqrt(of_difference), abs=1e-10)
    assert found.p_value == pytest.approx(chi2.sf(found.z**2, 1), rel=1e-9)
    back = delong_test(b, a, labels)
    assert (back.difference, back.z, back.p_value) == (-found.difference, -found.z, found.p_value)


@pytest.mark.parametrize("decimals", [None, 0])
def test_agrees_with_the_bootstrap(decimals):
    a, b, labels = sample(3000, 3, decimals)
    interval, drawn = auc_interval(a, labels), evaluate_scores(a, labels, threshold=0)["auc"]
    assert interval.value == pytest.approx(drawn.value, abs=1e-12)
    width = drawn.high - drawn.low
    assert interval.low == pytest.approx(drawn.low, abs=0.12 * width)
    assert interval.high == pytest.approx(drawn.high, abs=0.12 * width)
    found, paired = delong_test(a, b, labels), paired_bootstrap(a, b, labels).auc
    assert 2 * 1.96 * found.standard_error == pytest.approx(paired.high - paired.low, rel=0.1)


def test_interval_covers_the_truth():
    """Two normals one apart have AUC 0.76025; 95 % of intervals must hold it, here of small samples."""
    held = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        labels = np.repeat([0, 1], 40)
        found = auc_interval(rng.normal(size=80) + labels, labels)
        held += found.low <= 0.76025 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_p_value_is_fair_without_a_difference():
    small = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        labels = np.repeat([0, 1], 100)
        a, b = labels + rng.normal(size=(2, 200))
        small += delong_test(a, b, labels).p_value <= 0.1
    assert 0.055 <= small / 400 <= 0.15


def test_same_order_of_jets_is_no_difference():
    a, _, labels = sample(500)
    for other in (a, 3 * a - 7, np.exp(a)):
        found = delong_test(a, other, labels)
        assert (found.difference, found.standard_error, found.z, found.p_value) == (0, 0, 0, 1)
    perfect = np.arange(500) >= 250
    found = delong_test(np.arange(500.0), np.arange(500.0), perfect)
    assert (found.auc_a, found.z, found.p_value) == (1, 0, 1)


def test_interval_stays_inside_and_is_no_point_without_overlap():
    few = auc_interval(np.array([1.0, 2.0, 3.0, 5.0, 4.0, 6.0]), np.array([0, 0, 0, 0, 1, 1]))
    assert 0 < few.low < few.value < few.high < 1
    scores, labels = np.arange(300.0), np.arange(300) >= 200
    found = auc_interval(scores, labels)
    # With 3 % of the 100 signal jets below all background, all of 100 would lie above it with a chance of 5 %.
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(0.05**0.01)
    wrong = auc_interval(-scores, labels)
    assert (wrong.value, wrong.low) == (0, 0)
    assert wrong.high == pytest.approx(1 - found.low)
    flat = auc_interval(np.zeros(300), labels)
    assert (flat.value, flat.low, flat.high) == (0.5, 0.5, 0.5)
    wide, narrow = (auc_interval(sample(300)[0], sample(300)[2], confidence=c) for c in (0.95, 0.68))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_bad_input_is_refused_in_plain_english():
    a, b, labels = sample(50)
    for call in (auc_variance, auc_interval, lambda s, y: delong_test(s, s, y)):
        with refused("50 scores but 49 labels"):
            call(a, labels[:-1])
        with refused("all 50 jets are signal"):
            call(a, np.ones(50, int))
        with refused("NaN"):
            call(np.where(np.arange(50) == 3, np.nan, a), labels)
        with refused("two jets of each class are needed, got 1 signal"):
            call(a, (np.arange(50) == 7).astype(int))
    with refused("scores but"):
        delong_test(a, b[:-1], labels)
    with pytest.raises(ValueError, match="confidence"):
        auc_interval(a, labels, confidence=1.0)
    with pytest.raises(ValueError, match="no error"):
        delong_test(np.arange(50.0), -np.arange(50.0), np.arange(50) >= 25)
