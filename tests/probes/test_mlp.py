"""The small perceptron."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from sklearn.metrics import roc_auc_score

from probes import mlp
from probes.linear import fit_logistic
from probes.mlp import default_training, fit_mlp
from probes.probe import ManyClassProbe, Probe
from probes.training import Training

QUICK = Training(steps=150, batch=64, peak_lr=6e-3, averaged=0.9, checks=6)


def refused(message):
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def jets(count, classes=2, seed=0, dtype=np.float32):
    """Rings around each other: no straight cut tells them apart. Units differ, one feature is constant."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(count) % classes)
    angle, radius = rng.uniform(0, 2 * np.pi, count), 1 + y + 0.2 * rng.normal(size=count)
    x = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), rng.normal(size=count), np.full(count, 0.1)])
    return (x * [1e3, 1e-3, 1, 1] + [1e4, 0, 0, 0]).astype(dtype), y


@pytest.fixture(scope="module")
def probe():
    return fit_mlp(*jets(800), training=QUICK)


def test_it_sees_what_a_straight_cut_does_not(probe):
    x, y = jets(500, seed=1)
    assert roc_auc_score(y, fit_logistic(*jets(800)).score(x)) < 0.6
    assert roc_auc_score(y, probe.score(x)) > 0.97
    assert isinstance(probe, Probe)
    assert probe.parameters == (4 + 1) * 256 + (256 + 1) * 2
    assert 0 < probe.steps <= QUICK.steps


def test_features_are_standardised_and_constant_ones_are_not_read(probe):
    x, _ = jets(800)
    np.testing.assert_allclose(probe.trained.params["mean"], x.mean(axis=0, dtype=np.float64), rtol=1e-6)
    expected = [1 / x[:, i].std(dtype=np.float64) for i in range(3)]
    np.testing.assert_allclose(probe.trained.params["unit"], [*expected, 0], rtol=1e-5)
    moved = x.copy()
    moved[:, 3] = 50
    np.testing.assert_array_equal(probe.score(moved), probe.score(x))


def test_same_seed_same_bits(probe):
    x, y = jets(800)
    np.testing.assert_array_equal(fit_mlp(x, y, training=QUICK).score(x), probe.score(x))
    assert not np.array_equal(fit_mlp(x, y, training=QUICK, seed=1).score(x), probe.score(x))


def test_many_classes_and_validation_jets():
    x, y = jets(900, 3)
    probe = fit_mlp(x, y, classes=3, validation=jets(200, 3, seed=1), training=QUICK)
    test, truth = jets(300, 3, seed=2)
    assert np.mean(probe.logits(test).argmax(axis=1) == truth) > 0.9
    assert isinstance(probe, ManyClassProbe)
    with pytest.raises(ValueError, match="two classes"):
        probe.score(test)


def test_it_stops_where_held_out_jets_are_fitted_best():
    """Labels without meaning can only be learned by heart: an early check is the best."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 40)).astype(np.float32), rng.permutation(np.arange(100) % 2)
    probe = fit_mlp(x, y, training=QUICK)
    losses = [held for _, _, held in probe.trained.history]
    assert probe.steps == probe.trained.history[int(np.argmin(losses))][0] < QUICK.steps
    assert np.isfinite(probe.score(x)).all()


def test_steps_grow_with_the_jets_within_bounds():
    steps = [default_training(n).steps for n in (20, 1000, 5000, 20_000, 10**6)]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (mlp.FEWEST_STEPS, mlp.MOST_STEPS)
    seen = []
    fit_mlp(*jets(800), progress=seen.append, training=Training(steps=7, batch=64))
    assert len(seen) == 7


def test_bad_input_is_refused_in_plain_english(probe):
    x, y = jets(40)
    broken = x.copy()
    broken[3, 2] = np.nan
    for features, labels, message in (
        (broken, y, "1 jets are NaN or infinite"),
        (x, np.zeros(40, int), "no jet is of class 1"),
        (x, y[:-1], "40 jets but labels"),
        (np.ones((40, 3), np.float32), y, "collapsed"),
    ):
        with refused(message):
            fit_mlp(features, labels)
    with refused("NaN or infinity for 1 of 40"):
        probe.score(broken)
    with refused("takes features"):
        probe.logits(x[:, :2])
