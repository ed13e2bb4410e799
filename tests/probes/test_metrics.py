"""Metrics against scikit-learn, scipy, hand-computed values and explicit resampling loops."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.stats import beta
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from probes import metrics
from probes.metrics import Estimate
from probes.resampling import bootstrap


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def sample(jets, separation=1.5, seed=0, decimals=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, jets)
    scores = rng.normal(size=jets) + separation * labels
    return (scores if decimals is None else np.round(scores, decimals)), labels


def drawn_loop(scores, labels, resamples, seed, metric):
    """The bootstrap as a textbook writes it: index, sort again, measure."""
    rng = np.random.default_rng(seed)
    signal, background = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    out = []
    for _ in range(resamples):
        jets = np.concatenate([rng.choice(c, len(c)) for c in (signal, background)])
        out.append(metric(scores[jets], labels[jets]))
    return np.array(out)


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_roc_curve_and_auc_agree_with_scikit_learn(decimals):
    scores, labels = sample(2000, decimals=decimals)
    eps_s, eps_b = metrics.roc_curve(scores, labels)
    fpr, tpr, _ = sklearn_roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(eps_s, tpr, atol=1e-12)
    np.testing.assert_allclose(eps_b, fpr, atol=1e-12)
    assert metrics.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_hand_computed_values():
    # Highest first: S B S (S B tied) B. Pairs: 3 x 3; right 3 + 2 + 1.5 of 9.
    scores = np.array([6.0, 5.0, 4.0, 3.0, 3.0, 1.0])
    labels = np.array([1, 0, 1, 1, 0, 0])
    assert metrics.auc(scores, labels) == pytest.approx(6.5 / 9)
    eps_s, eps_b = metrics.roc_curve(scores, labels)
    np.testing.assert_allclose(eps_s, np.array([0, 1, 1, 2, 3, 3]) / 3)
    np.testing.assert_allclose(eps_b, np.array([0, 0, 1, 1, 2, 3]) / 3)
    assert metrics.accuracy(scores, labels, 3.5) == pytest.approx(4 / 6)
    # At the threshold is not above it.
    scores, labels = np.array([1.0, 1.0, 1.0, 0.0]), np.array([1, 1, 0, 0])
    for threshold, right in ((1.0, 2 / 4), (0.9, 3 / 4), (0.0, 3 / 4), (-0.1, 2 / 4), (1.1, 2 / 4)):
        assert metrics.accuracy(scores, labels, threshold) == right
        assert metrics.evaluate_scores(scores, labels, threshold=threshold, resamples=5)["accuracy"].value == right


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_is_a_rank_statistic(jets):
    scores = np.array([s for s, _ in jets], float)
    labels = np.array([label for _, label in jets])
    if labels.all() or not labels.any():
        with pytest.raises(ValueError, match=r"all .* jets are"):
            metrics.auc(scores, labels)
        return
    value = metrics.auc(scores, labels)
    pairs = np.sign(scores[labels][:, None] - scores[~labels][None])
    assert value == pytest.approx((pairs.mean() + 1) / 2, abs=1e-12)
    assert metrics.auc(-scores, labels) == pytest.approx(1 - value, abs=1e-12)
    assert metrics.auc(np.exp(scores) * 3 - 7, labels) == pytest.approx(value, abs=1e-12)
    eps_s, eps_b = metrics.roc_curve(scores, labels)
    assert value == pytest.approx(np.trapezoid(eps_s, eps_b), abs=1e-12)
    assert (np.diff(eps_s) >= 0).all()
    assert (np.diff(eps_b) >= 0).all()


def test_rejection_by_hand_and_inside_a_tie():
    # 4 signal jets; 40 background jets, of which 20 lie above the second signal jet.
    scores = np.concatenate([[10, 8, 6, 4], np.full(20, 9.0), np.full(20, 5.0)])
    labels = np.array([1] * 4 + [0] * 40)
    found = metrics.background_rejection(scores, labels, 0.5)
    assert (found.value, found.background_jets_left, found.is_lower_bound) == (2.0, 20.0, False)
    # All tied: half of the signal takes half of the background with it.
    flat = metrics.background_rejection(np.zeros(44), labels, 0.25)
    assert flat.value == pytest.approx(4)
    assert flat.background_jets_left == pytest.approx(10)
    assert metrics.background_rejection(scores, labels, 1.0).value == pytest.approx(1.0)


@pytest.mark.parametrize("eps_s", [0.07, 0.3, 0.5, 0.9])
def test_rejection_follows_the_roc_curve(eps_s):
    scores, labels = sample(3000, decimals=1)
    fpr, tpr, _ = sklearn_roc_curve(labels, scores, drop_intermediate=False)
    after = np.flatnonzero(tpr >= eps_s - 1e-12)[0]
    share = (eps_s - tpr[after - 1]) / (tpr[after] - tpr[after - 1])
    eps_b = fpr[after - 1] + share * (fpr[after] - fpr[after - 1])
    found = metrics.background_rejection(scores, labels, eps_s)
    assert found.background_jets_left == pytest.approx(eps_b * (labels == 0).sum(), rel=1e-9)
    assert found.is_lower_bound or found.value == pytest.approx(1 / eps_b, rel=1e-9)


def test_efficiency_that_is_a_whole_number_of_jets_takes_no_jet_more():
    # 0.07 * 100 rounds to a little above 7; the eighth signal jet lies below all background.
    scores = np.concatenate([np.full(7, 3.0), np.full(93, 1.0), np.full(50, 2.0)])
    labels = np.array([1] * 100 + [0] * 50)
    assert 0.07 * 100 > 7
    assert metrics.background_rejection(scores, labels, 0.07).background_jets_left == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("left", range(12))
def test_few_background_jets_give_a_lower_bound(left):
    total = 5000
    scores = np.concatenate([np.linspace(1, 2, 100), np.full(left, 3.0), np.full(total - left, 0.0)])
    labels = np.array([1] * 100 + [0] * total)
    found = metrics.background_rejection(scores, labels, 0.5)
    assert found.background_jets_left == pytest.approx(left)
    assert found.is_lower_bound == (left < 10)
    expected = 1 / beta.ppf(0.95, left + 1, total - left) if left < 10 else total / left
    assert found.value == pytest.approx(expected, rel=1e-8)
    assert math.isfinite(found.value)


def test_bound_with_hardly_any_background_is_one():
    found = metrics.background_rejection(np.array([1.0, 2.0, 3.0]), np.array([1, 0, 0]), 0.5)
    assert (found.value, found.is_lower_bound) == (1.0, True)


def test_bound_covers_the_truth():
    """Of many small test sets, at most 5 % may claim a bound above the true rejection."""
    rng = np.random.default_rng(1)
    true_eps_b, wrong, bounds = 0.004, 0, 400
    for _ in range(bounds):
        background = np.where(rng.random(1000) < true_eps_b, 3.0, 0.0)
        labels = np.concatenate([np.ones(10, int), np.zeros(1000, int)])
        found = metrics.background_rejection(np.concatenate([np.full(10, 2.0), background]), labels, 0.5)
        wrong += found.is_lower_bound and found.value > 1 / true_eps_b
    assert 0 < wrong <= 0.05 * bounds + 3 * math.sqrt(0.05 * bounds)


def test_significance_improvement_by_hand():
    scores, labels = sample(4000, 2.0)
    found = metrics.significance_improvement(scores, labels)
    cuts = np.unique(scores)[::-1]
    n_b = (labels == 0).sum()
    best = 0.0
    for cut in cuts:
        eps_s, passed = np.mean(scores[labels == 1] >= cut), np.sum(scores[labels == 0] >= cut)
        if passed and math.sqrt((1 - passed / n_b) / passed) <= 0.2:
            best = max(best, eps_s / math.sqrt(passed / n_b))
    assert found.maximum == pytest.approx(best, rel=1e-12)
    assert np.isfinite(found.sic).all()
    assert found.sic[-1] == pytest.approx(1)
    assert found.sic[found.eps_s == found.eps_s_at_maximum].max() == pytest.approx(found.maximum)
    # The tail has higher, but unknown, values: the maximum must not take them.
    assert found.sic.max() > found.maximum


def test_perfect_tagger_has_a_finite_maximum():
    found = metrics.significance_improvement(np.arange(20.0), np.arange(20) >= 10)
    assert math.isfinite(found.maximum)
    assert found.maximum >= 1


@pytest.mark.parametrize("decimals", [None, 0])
def test_bootstrap_agrees_with_an_explicit_loop(decimals):
    scores, labels = sample(800, 1.0, decimals=decimals)
    found = metrics.evaluate_scores(scores, labels, threshold=0.5, resamples=4000)
    loops = {
        "auc": metrics.auc,
        "accuracy": lambda s, y: np.mean((s > 0.5) == y),
        "r30": lambda s, y: metrics.background_rejection(s, y, 0.3).value,
        "r50": lambda s, y: metrics.background_rejection(s, y, 0.5).value,
    }
    for key, metric in loops.items():
        drawn = drawn_loop(scores, labels, 800, 7, metric)
        low, high = np.quantile(drawn, [0.025, 0.975])
        width = high - low
        assert found[key].value == pytest.approx(metric(scores, labels), rel=1e-12)
        assert found[key].low == pytest.approx(low, abs=0.15 * width)
        assert found[key].high == pytest.approx(high, abs=0.15 * width)


def test_every_resample_is_exact():
    """Same draws, measured by scikit-learn: not statistics, equality."""
    scores, labels = sample(60, 1.0, decimals=0)
    is_signal = labels == 1
    distinct, rank = np.unique(scores, return_inverse=True)
    found = bootstrap([len(distinct) - 1 - rank], is_signal, 20, 3, targets=(0.5,), above=2)
    rng = np.random.default_rng(3)
    classes = np.flatnonzero(is_signal), np.flatnonzero(~is_signal)
    draws = [c[rng.integers(0, len(c), size=(20, len(c)), dtype=np.int32)] for c in classes]
    for r in range(20):
        jets = np.concatenate([d[r] for d in draws])
        assert found.auc[0, r] == pytest.approx(roc_auc_score(labels[jets], scores[jets]), abs=1e-12)
        right = np.mean((scores[jets] > np.sort(distinct)[-3]) == is_signal[jets])
        assert found.accuracy[0, r] == pytest.approx(right)
        left = metrics.background_rejection(scores[jets], labels[jets], 0.5).background_jets_left
        assert found.eps_b[0, 0, r] == pytest.approx(left / len(classes[1]))


def test_interval_has_the_width_of_the_binomial():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 5000)
    scores = np.where(rng.random(10_000) < 0.9, labels, 1 - labels).astype(float)
    found = metrics.evaluate_scores(scores, labels, threshold=0.5)["accuracy"]
    expected = 2 * 1.96 * math.sqrt(0.9 * 0.1 / 10_000)
    assert found.high - found.low == pytest.approx(expected, rel=0.1)
    narrow = metrics.evaluate_scores(scores, labels, threshold=0.5, confidence=0.68)["accuracy"]
    assert narrow.high - narrow.low == pytest.approx(expected / 1.96, rel=0.12)


def test_chunks_do_not_change_what_a_resample_is(monkeypatch):
    scores, labels = sample(300)
    whole = metrics.evaluate_scores(scores, labels, threshold=0, resamples=2000)
    monkeypatch.setattr("probes.resampling.CHUNK_ELEMENTS", 1)
    small = metrics.evaluate_scores(scores, labels, threshold=0, resamples=2000)
    assert small["auc"].value == whole["auc"].value
    assert small["auc"].low == pytest.approx(whole["auc"].low, abs=0.005)
    assert small["auc"].high == pytest.approx(whole["auc"].high, abs=0.005)


def test_evaluation_repeats_and_follows_its_seed():
    scores, labels = sample(500)
    first = metrics.evaluate_scores(scores, labels, threshold=0.7, resamples=200, seed=1)
    assert first == metrics.evaluate_scores(scores, labels, threshold=0.7, resamples=200, seed=1)
    assert first != metrics.evaluate_scores(scores, labels, threshold=0.7, resamples=200, seed=2)


def test_perfect_tagger_has_bounds_and_no_infinity():
    found = metrics.evaluate_scores(np.arange(400.0), np.arange(400) >= 200, threshold=199.5, resamples=100)
    assert found["auc"] == Estimate(1.0, 1.0, 1.0)
    assert found["r50"].is_lower_bound
    assert found["r50"].high is None
    assert found["r50"].low == found["r50"].value == pytest.approx(1 / (1 - 0.05 ** (1 / 200)))
    assert str(found["r50"]) == ">67"


def test_paired_bootstrap_sees_through_common_noise():
    scores, labels = sample(4000, 1.2)
    worse = scores + np.random.default_rng(5).normal(size=4000) * 0.35
    found = metrics.paired_bootstrap(scores, worse, labels, resamples=500)
    assert found.auc.value == pytest.approx(metrics.auc(scores, labels) - metrics.auc(worse, labels))
    assert found.auc_p_value == pytest.approx(1 / 501)
    assert 0 < found.auc.low < found.auc.value < found.auc.high
    alone = metrics.evaluate_scores(scores, labels, threshold=0, resamples=500)["auc"]
    assert found.auc.high - found.auc.low < 0.7 * (alone.high - alone.low)
    back = metrics.paired_bootstrap(worse, scores, labels, resamples=500)
    assert back.auc.value == -found.auc.value
    assert back.auc_p_value == pytest.approx(1.0)
    a, b = (metrics.background_rejection(s, labels, 0.5).value for s in (scores, worse))
    assert found.log_r50.value == pytest.approx(math.log(a / b))
    assert back.log_r50.low == pytest.approx(-found.log_r50.high)


def test_paired_bootstrap_of_a_tagger_with_itself_claims_nothing():
    scores, labels = sample(1000)
    found = metrics.paired_bootstrap(scores, 2 * scores + 1, labels, resamples=100)
    assert found.auc == Estimate(0.0, 0.0, 0.0)
    assert (found.auc_p_value, found.log_r50_p_value) == (1.0, 1.0)


def test_paired_p_value_is_fair_without_a_difference():
    """Two equally good taggers: small p-values come about as often as they should."""
    small = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        labels = np.repeat([0, 1], 100)
        a, b = (labels + rng.normal(size=200) for _ in range(2))
        small += metrics.paired_bootstrap(a, b, labels, resamples=99, seed=seed).auc_p_value <= 0.1
    assert 3 <= small <= 24


def test_paired_bootstrap_without_background_leaves_the_rejection_open():
    found = metrics.paired_bootstrap(np.arange(40.0), np.arange(40.0), np.arange(40) >= 20, resamples=50)
    assert found.log_r50 is None
    assert found.log_r50_p_value is None


BAD = [
    (np.array([1.0, 2.0]), np.array([1, 1]), "all 2 jets are signal"),
    (np.array([1.0, 2.0]), np.array([0, 0]), "all 2 jets are background"),
    (np.array([1.0, np.nan, 2.0]), np.array([1, 0, 1]), "1 of 3 scores are NaN or infinite"),
    (np.array([1.0, np.inf]), np.array([1, 0]), "NaN or infinite"),
    (np.array([1.0, 2.0]), np.array([1, 0, 1]), "2 scores but 3 labels"),
    (np.array([]), np.array([], int), "empty"),
    (np.array([1.0, 2.0, 3.0]), np.array([0, 1, 2]), "labels must be 0"),
    (np.ones((2, 2)), np.array([0, 1]), "one-dimensional"),
]


@pytest.mark.parametrize(("scores", "labels", "message"), BAD)
def test_bad_input_is_refused_in_plain_english(scores, labels, message):
    for call in (
        metrics.roc_curve,
        metrics.auc,
        metrics.significance_improvement,
        lambda s, y: metrics.accuracy(s, y, 0.0),
        lambda s, y: metrics.background_rejection(s, y, 0.5),
        lambda s, y: metrics.evaluate_scores(s, y, threshold=0.0),
        lambda s, y: metrics.paired_bootstrap(s, s, y),
    ):
        with refused(message):
            call(scores, labels)


def test_bad_settings_are_refused():
    scores, labels = sample(50)
    for eps_s in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="signal efficiency"):
            metrics.background_rejection(scores, labels, eps_s)
    with pytest.raises(ValueError, match="resample"):
        metrics.evaluate_scores(scores, labels, threshold=0, resamples=0)
    with pytest.raises(ValueError, match="confidence"):
        metrics.evaluate_scores(scores, labels, threshold=0, confidence=1.0)
    with pytest.raises(ValueError, match="threshold"):
        metrics.accuracy(scores, labels, math.nan)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.97832, 0.97614, 0.98031), "0.9783 [0.9761, 0.9803]"),
        (Estimate(103.4, 94.6, 112.2), "103 [95, 112]"),
        (Estimate(17.74, 15.61, 20.08), "17.7 [15.6, 20.1]"),
        (Estimate(412.9, 412.9, None, is_lower_bound=True), ">412"),
        (Estimate(1000.0, 400.0, None), "1000 [400, -]"),
    ],
)
def test_estimates_read_well(estimate, text):
    assert str(estimate) == f"{estimate}" == text


def test_estimate_takes_a_format_and_cannot_be_changed():
    assert f"{Estimate(0.5, 0.25, 0.75):.1%}" == "50.0% [25.0%, 75.0%]"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Estimate(1.0, 0.0, 2.0).value = 3.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_estimates_enclose_their_value(seed):
    scores, labels = sample(200, 0.8, seed=seed)
    for e in metrics.evaluate_scores(scores, labels, threshold=0.4, resamples=200).values():
        assert e.low <= e.value
        assert e.high is None or e.value <= e.high


def test_import_is_light():
    """Metrics must load where neither scikit-learn nor matplotlib nor an accelerator library is wanted."""
    code = (
        "import sys, probes, probes.metrics, probes.baselines;"
        "print([m for m in ('sklearn', 'matplotlib', 'scipy', 'jax', 'jetclr', 'augmentations') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
