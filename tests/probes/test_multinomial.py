"""Probes of many classes against scikit-learn."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from probes import strength, tables
from probes.linear import fit_lda, fit_logistic
from probes.multinomial import fit_multiclass_lda, fit_multinomial
from probes.probe import ManyClassProbe, Probe


def refused(message):
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def jets(count, features, classes, seed=0, apart=0.5, dtype=np.float64):
    """Shifted normal classes of unequal size, features of very different units."""
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, count, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))
    mix = rng.normal(size=(features, features)) / np.sqrt(features)
    x = (rng.normal(size=(count, features)) + apart * rng.normal(size=(classes, features))[y]) @ mix
    return (x * 10.0 ** rng.integers(-3, 4, features) + rng.normal(size=features)).astype(dtype), y


@pytest.mark.parametrize(("count", "features", "classes"), [(900, 8, 4), (60, 80, 3)])
def test_multinomial_agrees_with_scikit_learn(count, features, classes):
    x, y = jets(count, features, classes, apart=0.3)
    probe = fit_multinomial(x, y, l2_grid=[1.0, 3.0, 10.0])
    z = (x - x.mean(0)) / x.std(0)
    oracle = LogisticRegression(C=1 / probe.l2, tol=1e-10, solver="newton-cg", max_iter=1000).fit(z, y)
    np.testing.assert_allclose(probe.weights.T, oracle.coef_, atol=1e-5)
    np.testing.assert_allclose(probe.bias, oracle.intercept_ - oracle.intercept_.mean(), atol=1e-5)
    assert probe.gradient < 1e-7
    assert probe.parameters == (features + 1) * classes
    assert isinstance(probe, ManyClassProbe)


def test_two_classes_agree_with_the_binary_probe(monkeypatch):
    x, y = jets(500, 6, 2)
    monkeypatch.setattr(strength, "MOST_EXTENSIONS", 0)
    binary, probe = fit_logistic(x, y, l2_grid=[5.0]), fit_multinomial(x, y, l2_grid=[10.0])
    np.testing.assert_allclose(probe.score(x), binary.score(x), atol=1e-4)
    assert isinstance(probe, Probe)
    lda, many = fit_lda(x, y, parts=(1.0,)), fit_multiclass_lda(x, y, parts=(1.0,))
    np.testing.assert_allclose(many.score(x), lda.score(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("count", "features", "classes"), [(800, 7, 5), (60, 90, 3)])
def test_lda_agrees_with_scikit_learn(count, features, classes):
    x, y = jets(count, features, classes)
    probe = fit_multiclass_lda(x, y, parts=(1.0,))
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit((x - x.mean(0)) / x.std(0), y)
    test, _ = jets(100, features, classes, seed=1)
    expected = oracle.decision_function((test - x.mean(0)) / x.std(0))
    np.testing.assert_allclose(probe.logits(test), expected, rtol=1e-6, atol=1e-6 * abs(expected).max())


def test_strength_is_that_of_the_lowest_cross_entropy_on_validation_jets():
    x, y = jets(400, 60, 3, apart=0.15)
    probe = fit_multinomial(x[:150], y[:150], validation=(x[150:], y[150:]))
    z = (x - x[:150].mean(0)) / x[:150].std(0)

    def cost(l2):
        model = LogisticRegression(C=1 / l2, tol=1e-8, max_iter=2000).fit(z[:150], y[:150])
        return -model.predict_log_proba(z[150:])[np.arange(250), y[150:]].mean()

    assert cost(probe.l2) <= min(cost(probe.l2 * f) for f in (0.1, 10**-0.5, 10**0.5, 10.0))


def test_part_of_the_shrinkage_is_that_of_the_lowest_cross_entropy_on_validation_jets():
    x, y = jets(500, 60, 3, apart=0.15)
    parts = (1.0, 0.3, 0.0)
    alone = [fit_multiclass_lda(x[:200], y[:200], parts=(part,)).logits(x[200:]) for part in parts]
    costs = [log_loss(y[200:], softmax(logits, axis=1)) for logits in alone]
    probe = fit_multiclass_lda(x[:200], y[:200], parts=parts, validation=(x[200:], y[200:]))
    assert probe.shrinkage == parts[int(np.argmin(costs))]
    few = fit_multiclass_lda(x[:20], np.arange(20) % 10)
    assert few.shrinkage == 1.0
    assert np.isfinite(few.logits(x)).all()


def test_blocks_constant_features_and_units_change_nothing(monkeypatch):
    x, y = jets(300, 5, 3, dtype=np.float32)
    probe, lda = fit_multinomial(x, y), fit_multiclass_lda(x, y)
    monkeypatch.setattr(tables, "BLOCK_ENTRIES", 500)
    wide = np.column_stack([x, np.full(300, 0.1, np.float32)])
    for fit, before in ((fit_multinomial, probe), (fit_multiclass_lda, lda)):
        after = fit(wide, y)
        np.testing.assert_array_equal(after.weights[5], 0)
        np.testing.assert_allclose(after.logits(wide), before.logits(x), atol=1e-4)
    assert probe.logits(x[:0]).shape == (0, 3)


def test_bad_input_is_refused_in_plain_english():
    x, y = jets(40, 3, 3)
    broken = x.copy()
    broken[3, 2] = np.nan
    for fit in (fit_multinomial, fit_multiclass_lda):
        for features, labels, classes, message in (
            (broken, y, None, "1 jets are NaN or infinite"),
            (x, np.zeros(40, int), None, "all 40 jets are of one class"),
            (x, y, 4, "no jet is of class 3"),
            (x, y * 10**12, None, "no jet is of class 1, of 2000000000001 classes"),  # numbers that are no labels
            (x, y - 1, 3, "labels must lie in 0 ... 2"),
            (x, y[:-1], None, "40 jets but labels of shape"),
            (x, y / 2, None, "labels must be whole numbers"),
            (np.ones((40, 3)), y, None, "collapsed"),
        ):
            with refused(message):
                fit(features, labels, classes=classes)
    probe = fit_multiclass_lda(x, y, parts=(1.0,))
    with refused("two classes; this probe has 3"):
        probe.score(x)
    with refused("takes features"):
        probe.logits(x[:, :2])
    with refused("1 jets are NaN"):
        probe.logits(broken)
    with refused("two jets of each class"):
        fit_multinomial(x[:4], np.array([0, 0, 1, 1]) + np.array([0, 0, 0, 1]))
    with refused("no feature varies within a class"):
        fit_multiclass_lda(y[:, None].astype(float), y)
