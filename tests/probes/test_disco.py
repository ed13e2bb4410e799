"""The DisCo probe: its penalty against the exact statistic and finite differences, its fit on toy jets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from probes import metrics, tables
from probes.dependence import distance_correlation, mass_sculpting
from probes.disco import DistancePenalty, distance_correlation_squared, fit_disco
from probes.linear import fit_logistic
from probes.training import Training

QUICK = Training(steps=120, batch=256, peak_lr=0.06, weight_decay=0.0, averaged=0.95)

# Compiled whole: operation by operation takes seconds.
SQUARED = jax.jit(jax.value_and_grad(distance_correlation_squared))


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def toy(jets, seed=0):
    """Mass and one thing that knows nothing of it tell signal apart; features mix the two, one is dead."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(jets) % 2)
    heavy = rng.gamma(3, 1, jets) + 3 * labels
    other = rng.normal(size=jets) + 1.5 * labels
    x = np.column_stack([heavy + other, heavy - 0.5 * other, rng.normal(size=jets), np.full(jets, 7.0)])
    return x * [1, 100, 1e-3, 1], labels, 30 * heavy


@pytest.mark.parametrize("weighted", [False, True])
def test_the_penalty_is_the_square_of_the_exact_statistic(weighted):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50))
    y += x**2
    w = rng.integers(0, 2, 50).astype(float) if weighted else np.ones(50)
    found, _ = SQUARED(*(jnp.asarray(v, jnp.float32) for v in (x, y, w)))
    assert float(found) == pytest.approx(distance_correlation(x, y, w) ** 2, rel=1e-4)


def test_signal_jets_and_their_mass_are_no_matter():
    rng = np.random.default_rng(1)
    labels = jnp.asarray(rng.integers(0, 2, 200))
    logits, mass = jnp.asarray(rng.normal(size=(200, 2))), jnp.asarray(rng.normal(size=200))
    penalty = jax.jit(DistancePenalty(3.0))
    score, background = np.asarray(logits[:, 1] - logits[:, 0], np.float64), np.asarray(labels) == 0
    expected = 3 * distance_correlation(score[background], np.asarray(mass, np.float64)[background]) ** 2
    assert float(penalty(logits, labels, mass)) == pytest.approx(expected, rel=1e-4)
    changed = jnp.where(labels == 1, 100.0, mass)
    assert float(penalty(logits, labels, changed)) == pytest.approx(expected, rel=1e-4)


def test_gradient_equals_finite_differences():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 50))
    y += x
    w = np.ones(50)
    _, gradient = SQUARED(*(jnp.asarray(v, jnp.float32) for v in (x, y, w)))
    for i in range(5):
        step = 1e-4 * (np.arange(50) == i)
        slope = (distance_correlation(x + step, y) ** 2 - distance_correlation(x - step, y) ** 2) / 2e-4
        assert float(gradient[i]) == pytest.approx(slope, abs=2e-5)


@pytest.mark.parametrize("case", ["one score for all", "one mass for all", "no background"])
def test_where_there_is_no_dependence_the_gradient_is_finite(case):
    rng = np.random.default_rng(3)
    x, y, w = jnp.asarray(rng.normal(size=50)), jnp.asarray(rng.normal(size=50)), jnp.ones(50)
    x = jnp.zeros(50) if case == "one score for all" else x
    y = jnp.zeros(50) if case == "one mass for all" else y
    w = jnp.zeros(50) if case == "no background" else w
    value, gradient = SQUARED(x, y, w)
    assert float(value) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(gradient).all()


def test_dependence_and_performance_fall_with_kappa():
    x, y, mass = toy(3000)
    x_test, y_test, mass_test = toy(4000, seed=1)
    start = fit_logistic(x, y)
    probes = [start, *(fit_disco(x, y, mass, kappa, start=start, training=QUICK) for kappa in (0.0, 0.3, 10.0))]
    background = y_test == 0
    scores = [probe.score(x_test) for probe in probes]
    aucs = [metrics.auc(s, y_test) for s in scores]
    dependence = [distance_correlation(s[background], mass_test[background]) for s in scores]
    # Without a penalty nothing is lost; with one, mass goes and the rest stays: 1.5 sigma, which is an AUC of 0.856.
    assert aucs[1] == pytest.approx(aucs[0], abs=0.003)
    assert dependence[1] == pytest.approx(dependence[0], abs=0.05)
    assert dependence[0] > dependence[2] > dependence[3]
    assert aucs[0] > aucs[2] > aucs[3]
    assert dependence[3] < 0.15 * dependence[0]
    assert aucs[3] == pytest.approx(0.856, abs=0.02)
    before, after = (mass_sculpting(s[background], mass_test[background], eps_b=(0.2,)) for s in (scores[0], scores[3]))
    assert after.jsd[0] < 0.2 * before.jsd[0]


def test_the_result_is_an_ordinary_probe(monkeypatch):
    x, y, mass = toy(600)
    start = fit_logistic(x, y)
    found = fit_disco(x, y, mass, 1.0, training=QUICK)
    assert found.name == "logistic + DisCo"
    assert found.weights[3] == 0
    assert found.weights.dtype == np.float64
    assert (found.iterations, found.converged, found.l2) == (QUICK.steps, False, start.l2)
    np.testing.assert_array_equal(found.mean, start.mean)
    monkeypatch.setattr(tables, "BLOCK_ENTRIES", 500)
    again = fit_disco(x, y, mass, 1.0, start=start, training=QUICK)
    np.testing.assert_array_equal(again.weights, found.weights)
    assert again.bias == found.bias
    other = fit_disco(x, y, mass, 1.0, start=start, training=dataclasses.replace(QUICK, seed=1))
    assert (other.weights != found.weights).any()
    # The unit of the mass is no matter.
    scaled = fit_disco(x, y, 1000 * mass + 5, 1.0, start=start, training=QUICK)
    np.testing.assert_allclose(scaled.weights, found.weights, rtol=0.02, atol=1e-3)


def test_bad_input_is_refused_in_plain_english():
    x, y, mass = toy(100)
    start = fit_logistic(x, y)
    for kappa in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="kappa must be 0 or more"):
            fit_disco(x, y, mass, kappa, start=start)
    with refused("one finite mass"):
        fit_disco(x, y, mass[1:], 1.0, start=start)
    with refused("one finite mass"):
        fit_disco(x, y, np.where(np.arange(100) == 3, np.nan, mass), 1.0, start=start)
    with refused("same mass"):
        fit_disco(x, y, np.full(100, 80.4), 1.0, start=start)
    with refused("features"):
        fit_disco(x[:, :2], y, mass, 1.0, start=start)
    hole = x.copy()
    hole[2, 0] = np.nan
    with refused("1 jets are NaN"):
        fit_disco(hole, y, mass, 1.0, start=start)
    with refused("all 100 jets are signal"):
        fit_disco(x, np.ones(100, int), mass, 1.0, start=start)
