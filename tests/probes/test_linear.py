"""Linear probes against scipy, scikit-learn and closed forms."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from probes import discriminant, metrics, solver, strength, tables
from probes.linear import LinearProbe, fit_lda, fit_logistic
from probes.probe import Probe
from probes.strength import Fold


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def jets(count, features, seed=0, signal=1.0, dtype=np.float64):
    """Two shifted normal classes with correlated features of very different sizes."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(count) % 2)
    mix = rng.normal(size=(features, features)) / np.sqrt(features)
    x = (rng.normal(size=(count, features)) + signal * y[:, None] * rng.normal(size=features)) @ mix
    return (x * 10.0 ** rng.integers(-3, 4, features) + rng.normal(size=features)).astype(dtype), y


def optimum(x, y, l2):
    """The same objective, written out and minimised by scipy's trust region."""
    t = 2 * y - 1

    def loss(p):
        margin = t * (x @ p[:-1] + p[-1])
        slope = -t * expit(-margin)
        gradient = np.append(x.T @ slope + l2 * p[:-1], slope.sum())
        return np.logaddexp(0, -margin).sum() + l2 / 2 * p[:-1] @ p[:-1], gradient

    def hessian(p):
        chance = expit(x @ p[:-1] + p[-1])
        wide = np.column_stack([x, np.ones(len(x))])
        out = wide.T @ (wide * (chance * (1 - chance))[:, None])
        out[np.arange(x.shape[1]), np.arange(x.shape[1])] += l2
        return out

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, hess=hessian, method="trust-exact", tol=1e-10)
    return found.x


@pytest.mark.parametrize(("count", "features"), [(400, 12), (40, 90)])
@pytest.mark.parametrize("l2", [0.1, 30.0])
def test_logistic_reaches_the_optimum(count, features, l2):
    """Also with fewer jets than features, where the fit runs in the space the jets span."""
    x, y = jets(count, features, signal=0.3)
    probe = fit_logistic(x, y, l2_grid=[l2 * 1.0001, l2])
    expected = optimum((x - x.mean(0)) / x.std(0), y, probe.l2)
    np.testing.assert_allclose(np.append(probe.weights, probe.bias), expected, atol=1e-6 * max(1, abs(expected).max()))
    assert probe.converged
    assert probe.threshold == 0.0


def test_strength_is_the_best_on_held_out_jets():
    """Noise in most features: weak regularisation must lose, and the choice must be near the best possible."""
    rng = np.random.default_rng(0)
    y = np.arange(6300) % 2
    x = rng.normal(size=(6300, 150))
    x[:, :5] += 0.6 * y[:, None]
    probe = fit_logistic(x[:300], y[:300])
    test = x[300:], y[300:]

    def held_out(l2):
        oracle = LogisticRegression(C=1 / l2).fit((x[:300] - probe.mean) / probe.scale, y[:300])
        return roc_auc_score(test[1], oracle.decision_function((test[0] - probe.mean) / probe.scale))

    possible = {l2: held_out(l2) for l2 in (1e-2, 1.0, 1e2, 1e3)}
    found = roc_auc_score(test[1], probe.score(test[0]))
    assert possible[1e-2] < max(possible.values()) - 0.02, "the example must punish a weak penalty"
    assert found > max(possible.values()) - 0.01


def test_grid_is_extended_beyond_both_ends():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    noisy = rng.normal(size=(300, 150))
    noisy[:, :5] += 0.6 * y[:, None]
    strong = fit_logistic(noisy, y, l2_grid=[0.01])
    assert strong.l2 > 0.01
    # One weak direction under a strong common one: only weak regularisation finds the difference of two features.
    common = rng.normal(size=2000)
    y = (rng.random(2000) < 0.5).astype(int)
    thin = np.column_stack([common, common + 0.02 * (y + 0.3 * rng.normal(size=2000))])
    weak = fit_logistic(thin, y, l2_grid=[10.0, 1.0])
    assert weak.l2 < 1.0
    assert roc_auc_score(y, weak.score(thin)) > 0.9


def test_edge_is_reported(monkeypatch):
    x, y = jets(200, 4)
    monkeypatch.setattr(strength, "MOST_EXTENSIONS", 0)
    assert fit_logistic(x, y, l2_grid=[7.0]).l2_at_edge
    assert fit_logistic(x, y, l2_grid=[7.0]).l2 == 7.0


def test_folds_are_disjoint_fair_and_as_many_as_needed():
    for count, expected in ((50, 5), (2000, 5), (4000, 3), (10_000, 1), (60_000, 1)):
        signal = np.arange(count) % 4 == 0
        folds = strength.split(signal.astype(int), 0.2, np.random.default_rng(0))
        assert len(folds) == expected
        assert np.sum(folds, axis=0).max() == 1
        for held in folds:
            assert held.mean() == pytest.approx(0.2, abs=0.03)
            assert signal[held].mean() == pytest.approx(0.25, abs=0.06)
    few = strength.split(np.array([1, 1, 0, 0, 0]), 0.2, np.random.default_rng(0))
    assert len(few) == 2
    for held in few:
        for part in (held, ~held):
            assert len(set(np.array([1, 1, 0, 0, 0])[part])) == 2


def test_seed_decides_the_split_and_nothing_else():
    x, y = jets(300, 30, signal=0.2)
    first, again = fit_logistic(x, y, seed=3), fit_logistic(x, y, seed=3)
    np.testing.assert_array_equal(first.weights, again.weights)
    assert first.l2 == again.l2
    order = np.random.default_rng(0).permutation(300)
    fixed, shuffled = (fit_logistic(x[i], y[i], l2_grid=[5.0, 5.0001]) for i in (np.arange(300), order))
    np.testing.assert_allclose(shuffled.weights, fixed.weights, atol=1e-3)


@settings(max_examples=5, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-100, 100), st.integers(0, 5))
def test_probes_do_not_depend_on_units(factor, shift, column):
    x, y = jets(120, 6)
    other = x.copy()
    other[:, column] = (other[:, column] - x[:, column].mean()) / x[:, column].std() * factor + shift
    for fit in (lambda a: fit_logistic(a, y, l2_grid=[1.0, 3.0, 10.0]), lambda a: fit_lda(a, y)):
        np.testing.assert_allclose(fit(other).score(other), fit(x).score(x), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("fit", [fit_logistic, fit_lda])
def test_constant_features_get_no_weight_and_do_no_harm(fit):
    x, y = jets(300, 5, dtype=np.float32)
    rng = np.random.default_rng(0)
    flat = np.column_stack([np.zeros(300), x, np.full(300, 0.1), 1e3 * (1 + 1e-8 * rng.normal(size=300))])
    probe = fit(flat.astype(np.float32), y)
    np.testing.assert_array_equal(probe.weights[[0, 6, 7]], 0)
    np.testing.assert_allclose(probe.weights[1:6], fit(x, y).weights, rtol=1e-4, atol=1e-5)
    # Such a feature may move on test jets; it must not move the score.
    moved = flat.copy()
    moved[:, 0] = 1e6
    np.testing.assert_array_equal(probe.score(moved), probe.score(flat))


@pytest.mark.parametrize(("count", "features"), [(500, 8), (60, 100)])
def test_lda_agrees_with_scikit_learn(count, features):
    x, y = jets(count, features, signal=0.5)
    probe = fit_lda(x, y, parts=(1.0,))
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit((x - x.mean(0)) / x.std(0), y)
    test, _ = jets(200, features, seed=1)
    z = (test - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(probe.score(test), oracle.decision_function(z), rtol=1e-6, atol=1e-6)
    assert np.mean((probe.score(test) > probe.threshold) == oracle.predict(z)) > 0.99


def test_lda_finds_the_best_direction_and_bayes_threshold():
    """Two normal classes, shares 3 : 1: the optimal weights are known in closed form."""
    rng = np.random.default_rng(0)
    covariance = np.array([[2.0, 0.8], [0.8, 1.0]])
    shift = np.array([1.0, -0.5])
    y = (np.arange(40_000) % 4 == 0).astype(int)
    x = rng.multivariate_normal([3.0, -2.0], covariance, 40_000) + y[:, None] * shift
    probe = fit_lda(x, y, parts=(1.0,))
    best = np.linalg.solve(covariance, shift)
    np.testing.assert_allclose(probe.weights / probe.scale, best, rtol=0.08)
    middle = np.array([3.0, -2.0]) + shift / 2
    assert probe.score(middle[None])[0] == pytest.approx(np.log(1 / 3), abs=0.05)


@pytest.mark.parametrize("fit", [fit_logistic, fit_lda])
def test_collinear_features_and_fewer_jets_than_features(fit):
    rng = np.random.default_rng(0)
    y = np.arange(600) % 2
    hidden = rng.normal(size=(600, 6)) + 0.5 * y[:, None]
    x = (hidden @ rng.normal(size=(6, 200))).astype(np.float32)
    for count, loss in ((100, 0.08), (400, 0.03)):
        scores = fit(x[:count], y[:count]).score(x[400:])
        best = roc_auc_score(y[400:], hidden[400:].sum(axis=1))
        assert roc_auc_score(y[400:], scores) > best - loss


def test_separable_jets_still_converge():
    x = np.linspace(-1, 1, 100)[:, None]
    probe = fit_logistic(x, x[:, 0] > 0)
    assert probe.converged
    assert np.isfinite(probe.weights).all()
    assert ((probe.score(x) > probe.threshold) == (x[:, 0] > 0)).mean() > 0.95


def test_a_solver_that_gives_up_is_an_error(monkeypatch):
    x, y = jets(100, 3)
    monkeypatch.setattr(solver, "TIGHT", 1e-30)
    with pytest.raises(RuntimeError, match="did not converge"):
        fit_logistic(x, y)


def test_convergence_is_shown_by_the_gradient_of_the_mean_loss():
    x, y = jets(400, 8, signal=0.3)
    probe = fit_logistic(x, y)
    z = (x - probe.mean) / probe.scale
    residual = expit(z @ probe.weights + probe.bias) - y
    slope = np.append(z.T @ residual + probe.l2 * probe.weights, residual.sum()) / len(y)
    assert abs(slope).max() < 1e-8
    assert probe.gradient == pytest.approx(abs(slope).max(), rel=0.1, abs=1e-12)


@pytest.mark.parametrize(("count", "features"), [(3000, 20), (40, 90)])
def test_logistic_agrees_with_scikit_learn(count, features):
    x, y = jets(count, features, signal=0.1, dtype=np.float32)
    probe = fit_logistic(x, y)
    z = (x.astype(np.float64) - probe.mean) / probe.scale
    oracle = LogisticRegression(C=1 / probe.l2, tol=1e-12, solver="newton-cholesky").fit(z, y)
    np.testing.assert_allclose(probe.weights, oracle.coef_[0], atol=1e-5)
    assert probe.bias == pytest.approx(oracle.intercept_[0], abs=1e-5)


def test_strength_is_chosen_on_validation_jets_where_they_are_given():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    x = rng.normal(size=(400, 30))  # noise but for one feature
    x[:, 0] += 0.6 * y
    honest = fit_logistic(x[:200], y[:200], validation=(x[200:], y[200:]))
    fooled = fit_logistic(x[:200], y[:200], validation=(x[:200], y[:200]))
    assert fooled.l2 < honest.l2, "the jets of the fit ask for no penalty"
    few = fit_logistic(x[:20], y[:20], validation=(x[200:], y[200:]))  # in the space that 20 jets span
    assert roc_auc_score(y[20:200], few.score(x[20:200])) > 0.5
    with refused("features \\[jets, 30\\]"):
        fit_logistic(x, y, validation=(x[:, :5], y))
    with refused("all 200 jets are signal"):
        fit_logistic(x, y, validation=(x[:200], np.ones(200, int)))
    broken = x.copy()
    broken[7, 3] = np.nan
    with refused("1 jets are NaN"):
        fit_logistic(x, y, validation=(broken, y))


def test_a_memory_mapped_table_in_many_blocks_gives_the_same_probe(tmp_path, monkeypatch):
    x, y = jets(900, 12, signal=0.3, dtype=np.float32)
    whole = [fit(x, y) for fit in (fit_logistic, fit_lda)]
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr(tables, "BLOCK_ENTRIES", 1000)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for probe, other in zip(whole, [fit(mapped, y) for fit in (fit_logistic, fit_lda)], strict=True):
        assert other.l2 == probe.l2
        np.testing.assert_allclose(other.weights, probe.weights, atol=1e-6)
        np.testing.assert_allclose(other.score(mapped), probe.score(x), atol=1e-5)


def test_a_part_of_many_jets_chooses_the_strength(monkeypatch):
    x, y = jets(3000, 10, signal=0.3)
    monkeypatch.setattr(strength, "PATH_ENTRIES", 5000)
    monkeypatch.setattr(strength, "MOST_HELD_OUT", 200)
    sizes = []
    monkeypatch.setattr(strength, "Fold", lambda *fold: sizes.append([len(part) for part in fold]) or Fold(*fold))
    probe = fit_logistic(x, y)
    assert sizes == [[500, 500, 200, 200]] * 4
    expected = optimum((x - x.mean(0)) / x.std(0), y, probe.l2)
    np.testing.assert_allclose(probe.weights, expected[:-1], atol=1e-5)


def test_parameters_are_the_numbers_fitted():
    x, y = jets(100, 4)
    assert fit_lda(np.column_stack([x, np.ones(100)]), y).parameters == 5
    assert isinstance(fit_lda(x, y), Probe)


def test_score_is_the_decision_value_in_any_batch(monkeypatch):
    probe = LinearProbe("x", np.array([2.0, -1.0]), 0.5, np.array([1.0, 10.0]), np.array([4.0, 5.0]), 1.0, 1, True)
    x = np.array([[5.0, 20.0], [1.0, 10.0], [-3.0, 0.0]])
    np.testing.assert_allclose(probe.score(x), [0.5, 0.5, 0.5])
    np.testing.assert_allclose(probe.score(np.array([[9.0, 10.0]], np.float32)), [4.5])
    monkeypatch.setattr(tables, "BLOCK_ENTRIES", 4)
    np.testing.assert_allclose(probe.score(x * 2), (x * 2 - [1, 10]) / [4, 5] @ [2, -1] + 0.5)
    assert probe.score(np.zeros((0, 2))).shape == (0,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        probe.bias = 1.0


def test_larger_scores_mean_signal():
    x, y = jets(300, 4)
    for fit in (fit_logistic, fit_lda):
        assert roc_auc_score(y, fit(x, y).score(x)) > 0.8
        assert roc_auc_score(1 - y, fit(x, 1 - y).score(x)) > 0.8


def test_fault_in_test_features_is_not_scored():
    x, y = jets(100, 3)
    probe = fit_lda(x, y, parts=(1.0,))
    x[4, 1] = np.nan
    with refused("1 jets are NaN"):
        probe.score(x)
    with refused("takes features"):
        probe.score(x[:, :2])


@pytest.mark.parametrize("fit", [fit_logistic, fit_lda])
def test_bad_input_is_refused_in_plain_english(fit):
    x, y = jets(40, 3)
    broken = x.copy()
    broken[3, 2] = np.inf
    for features, labels, message in (
        (broken, y, "1 jets are NaN or infinite"),
        (x, np.ones(40, int), "all 40 jets are signal"),
        (x, y[:-1], "40 scores but 39 labels|40 jets but 39 labels"),
        (x[:0], y[:0], "empty"),
        (x[:, 0], y, "table"),
        (np.ones((40, 3)), y, "collapsed"),
        (np.where(np.arange(40)[:, None] == 7, [1e300, 1, 1], x), y, "1 features are too large"),
        (x, y * 2, "labels must be 0"),
    ):
        with refused(message):
            fit(features, labels)


def test_bad_settings_are_refused():
    x, y = jets(40, 3)
    for grid in ([], [0.0, 1.0], [-1.0], [np.inf], [np.nan]):
        with refused("l2_grid"):
            fit_logistic(x, y, l2_grid=grid)
    for fraction in (0.0, 1.0):
        with refused("validation_fraction"):
            fit_logistic(x, y, validation_fraction=fraction)
    with refused("two jets of each class"):
        fit_logistic(x[:5], np.array([1, 0, 0, 0, 0]))


def test_lda_keeps_small_differences_of_nearly_equal_features() -> None:
    """Ledoit and Wolf's shrinkage would take away what tells the classes apart; held-out jets keep it from that."""
    rng = np.random.default_rng(3)
    y = np.arange(4000) % 2
    common = rng.normal(size=(4000, 1))
    x = common + 1e-3 * (rng.normal(size=(4000, 12)) + 0.8 * y[:, None] * (np.arange(12) == 0))
    fitted, rest = (x[:3000], y[:3000]), (x[3000:], y[3000:])
    whole = fit_lda(*fitted, parts=(1.0,))
    chosen = fit_lda(*fitted, validation=rest)
    folded = fit_lda(*fitted)
    assert metrics.auc(whole.score(rest[0]), rest[1]) < 0.6
    for probe in (chosen, folded):
        assert probe.shrinkage < 1
        assert metrics.auc(probe.score(rest[0]), rest[1]) > 0.68  # 0.714 is the best there is


def test_lda_shrinks_where_jets_are_few() -> None:
    rng = np.random.default_rng(4)
    y = np.arange(120) % 2
    x = rng.normal(size=(120, 100)) + 0.4 * y[:, None] * (np.arange(100) < 10)
    assert fit_lda(x, y).shrinkage == 1.0


def test_lda_takes_the_part_that_is_best_on_validation_jets(monkeypatch) -> None:
    """Of all of them: a file sorted by class begins with one class alone."""
    x, y = jets(400, 60, signal=0.15)
    rest = np.argsort(y[150:], kind="stable") + 150
    fitted, held = (x[:150], y[:150]), (x[rest], y[rest])
    parts = (1.0, 0.3, 0.0)
    aucs = [metrics.auc(fit_lda(*fitted, parts=(part,)).score(held[0]), held[1]) for part in parts]
    assert fit_lda(*fitted, parts=parts, validation=held).shrinkage == parts[int(np.argmax(aucs))]
    monkeypatch.setattr(discriminant, "MOST_HELD_OUT", 100)
    assert fit_lda(*fitted, parts=parts, validation=held).shrinkage in parts


@pytest.mark.parametrize("signal", [2, 3])
def test_lda_of_too_few_jets_for_folds_takes_the_largest_part(signal) -> None:
    x = np.random.default_rng(0).normal(size=(signal + 2, 3))
    probe = fit_lda(x, np.arange(signal + 2) < signal)
    assert probe.shrinkage == 1.0
    assert np.isfinite(probe.score(x)).all()


def test_lda_refuses_parts_of_its_shrinkage_that_cannot_be() -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    for parts in ((), (1.5,), (0.1, -0.1)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            fit_lda(x, y, parts=parts)


def test_a_constant_feature_never_varies_whatever_rounding_says() -> None:
    """The mean of 400 copies of 0.1 is not 0.1 in float64."""
    x = np.random.default_rng(0).normal(size=(400, 3))
    x[:, 1] = 0.1
    assert tables.Standardised.of(x).varies.tolist() == [True, False, True]
