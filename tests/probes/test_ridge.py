"""Ridge regression against scikit-learn and closed forms."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from probes import tables
from probes.ridge import L2_GRID, fit_ridge, regression_quality


def refused(message):
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def jets(count, features, seed=0, noise=1.0, dtype=np.float64):
    """A mass near 170 and a pT near 600 that are linear in features of very different units, with noise."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(count, features)) @ rng.normal(size=(features, features))
    targets = z @ rng.normal(size=(features, 2)) * [3.0, 20.0] / features
    targets += noise * rng.normal(size=(count, 2)) * [3.0, 20.0] + [170.0, 600.0]
    units = 10.0 ** np.random.default_rng(99).integers(-3, 4, features)
    return (z * units + 5 * units).astype(dtype), targets


@pytest.mark.parametrize(("count", "features"), [(400, 10), (50, 80)])
def test_ridge_agrees_with_scikit_learn(count, features):
    x, targets = jets(count, features)
    probe = fit_ridge(x, targets)
    z = (x - x.mean(0)) / x.std(0)
    unit = (targets - targets.mean(0)) / targets.std(0)
    oracle = Ridge(alpha=np.array(probe.l2)).fit(z, unit)
    test, _ = jets(30, features, seed=1)
    expected = oracle.predict((test - x.mean(0)) / x.std(0)) * targets.std(0) + targets.mean(0)
    np.testing.assert_allclose(probe.predict(test), expected, rtol=1e-6)
    assert probe.parameters == 2 * (features + 1)


def test_generalised_cross_validation_is_that_of_the_hat_matrix():
    x, targets = jets(60, 8, noise=3.0)
    probe = fit_ridge(x, targets)
    z = (x - x.mean(0)) / x.std(0)
    unit = (targets - targets.mean(0)) / targets.std(0)

    def cost(l2):
        hat = z @ np.linalg.solve(z.T @ z + l2 * np.eye(8), z.T) + 1 / 60
        return np.mean((unit - hat @ unit) ** 2, axis=0) / (1 - np.trace(hat) / 60) ** 2

    costs = np.array([cost(l2) for l2 in sorted(L2_GRID)])
    assert probe.l2 == tuple(np.array(sorted(L2_GRID))[costs.argmin(axis=0)])
    assert probe.l2_at_edge == tuple(bool(b) for b in np.isin(costs.argmin(axis=0), (0, len(L2_GRID) - 1)))


def test_each_target_gets_the_strength_that_is_best_on_validation_jets():
    x, targets = jets(240, 60, noise=4.0)
    x, others, targets, truth = x[:80], x[80:], targets[:80], targets[80:]
    probe = fit_ridge(x, targets, validation=(others, truth))
    z, z_others = ((a - x.mean(0)) / x.std(0) for a in (x, others))
    for i in range(2):
        errors = [np.mean((Ridge(alpha=a).fit(z, targets[:, i]).predict(z_others) - truth[:, i]) ** 2) for a in L2_GRID]
        assert probe.l2[i] == pytest.approx(sorted(L2_GRID)[int(np.argmin(errors))])
    alone = fit_ridge(x, targets[:, 0], validation=(others, truth[:, 0]))
    assert alone.l2 == probe.l2[:1]
    np.testing.assert_allclose(alone.predict(others)[:, 0], probe.predict(others)[:, 0])


def test_blocks_and_constant_features_change_nothing(monkeypatch):
    x, targets = jets(200, 6, dtype=np.float32)
    probe = fit_ridge(x, targets)
    monkeypatch.setattr(tables, "BLOCK_ENTRIES", 64)
    wide = np.column_stack([np.full(200, 0.1, np.float32), x])
    again = fit_ridge(wide, targets)
    np.testing.assert_array_equal(again.weights[0], 0)
    np.testing.assert_allclose(again.predict(wide), probe.predict(x), rtol=1e-6)


def test_quality_is_that_of_scikit_learn_and_its_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    true = rng.normal(170, 30, 20_000)
    predicted = true + rng.normal(5, 10, 20_000)
    found = regression_quality(predicted[:2000], true[:2000])
    assert found["r2"].value == pytest.approx(r2_score(true[:2000], predicted[:2000]))
    assert found["resolution"].value == pytest.approx(np.std((predicted - true)[:2000]))
    inside = 0
    for i in range(10):
        part = slice(2000 * i, 2000 * (i + 1))
        found = regression_quality(predicted[part], true[part], resamples=200, seed=i)
        assert found["resolution"].high is not None
        inside += found["resolution"].low < 10 < found["resolution"].high
        # Of a normal sample's standard deviation the error is sigma / sqrt(2 n).
        assert found["resolution"].high - found["resolution"].low == pytest.approx(2 * 1.96 * 10 / 4000**0.5, rel=0.3)
    assert inside >= 8
    again = regression_quality(predicted[:100], true[:100], resamples=50)
    assert regression_quality(predicted[:100], true[:100], resamples=50) == again


def test_bad_input_is_refused_in_plain_english():
    x, targets = jets(40, 3)
    broken, missing = x.copy(), targets.copy()
    broken[3, 2], missing[5, 1] = np.inf, np.nan
    for features, truth, message in (
        (broken, targets, "1 jets are NaN or infinite"),
        (x, missing, "targets of 1 jets"),
        (x, targets[:-1], "for 40 jets"),
        (x, np.ones(40), "does not vary"),
        (np.ones((40, 3)), targets, "collapsed"),
    ):
        with refused(message):
            fit_ridge(features, truth)
    with refused("l2_grid"):
        fit_ridge(x, targets, l2_grid=(0.0, 1.0))
    with refused("no validation jets"):
        fit_ridge(x, targets, validation=(x[:0], targets[:0]))
    with refused("takes features"):
        fit_ridge(x, targets).predict(x[:, :1])
    for predicted, true, message in (
        ([1.0, 2.0], [1.0], "one prediction"),
        ([1.0, np.nan], [1.0, 2.0], "NaN"),
        ([1.0, 2.0], [1.0, 1.0], "do not vary"),
    ):
        with refused(message):
            regression_quality(np.array(predicted), np.array(true))
    with refused("resamples must be positive"):
        regression_quality(x[:, 0], x[:, 1], resamples=0)
