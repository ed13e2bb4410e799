"""The solver behind the logistic probes, against scipy's plain L-BFGS and finite differences."""

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize
from scipy.special import logsumexp

from probes import solver
from probes.solver import solve
from probes.tables import InMemory


def problem(jets, features, classes, seed=0):
    """Correlated features, and classes drawn from a softmax of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(jets, features)) @ (rng.normal(size=(features, features)) / np.sqrt(features))
    logits = x @ rng.normal(size=(features, classes))
    return x, np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)


def loss(flat, x, y, classes, l2):
    at = flat.reshape(x.shape[1] + 1, -1)
    logits = x @ at[:-1] + at[-1]
    if classes == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    return (logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).sum() + l2 / 2 * np.sum(at[:-1] ** 2)


@pytest.mark.parametrize(("outputs", "classes"), [(1, 2), (4, 4)])
@pytest.mark.parametrize("l2", [0.3, 30.0])
def test_the_optimum_is_that_of_plain_lbfgs(outputs, classes, l2):
    x, y = problem(150, 4, classes)
    fit = solve(InMemory(x), y, outputs, l2, tight=True)
    options = {"maxiter": 5000, "maxfun": 10**6, "ftol": 1e-15, "gtol": 1e-6}
    plain = minimize(loss, np.zeros(5 * outputs), (x, y, outputs, l2), method="L-BFGS-B", options=options)
    found = fit.coefficients.copy()
    assert loss(found.ravel(), x, y, outputs, l2) <= plain.fun + 1e-9
    if outputs > 1:  # what is common to all intercepts is free, and common to all weights only costs
        found[-1] += plain.x.reshape(found.shape)[-1].mean()
        np.testing.assert_allclose(found[:-1].sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(found.ravel(), plain.x, atol=2e-4)


@pytest.mark.parametrize(("outputs", "classes"), [(1, 2), (3, 3)])
def test_the_gradient_is_that_of_the_loss(outputs, classes):
    x, y = problem(50, 4, classes)
    at = np.random.default_rng(1).normal(size=(5, outputs))
    rounding = solver._Rounding.at(InMemory(x), at, 2.0)
    hidden = solver._Problem(InMemory(x), y, 2.0, np.float64, rounding, at)
    start = np.random.default_rng(2).normal(size=at.size) / 10
    assert hidden.value(start)[0] == pytest.approx(loss(hidden.coefficients(start).ravel(), x, y, outputs, 2.0))
    assert check_grad(lambda u: hidden.value(u)[0], lambda u: hidden.value(u)[1], start) < 1e-5
    slope = rounding.push(hidden.value(start)[1].reshape(at.shape))
    expected = by_differences(hidden.coefficients(start), x, y, outputs, 2.0)
    if outputs > 1:
        expected -= expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(slope, expected, atol=1e-4)


def by_differences(at, x, y, outputs, l2, step=1e-6):
    out = np.zeros(at.size)
    for i, unit in enumerate(np.eye(at.size)):
        up, down = (loss(at.ravel() + sign * step * unit, x, y, outputs, l2) for sign in (1, -1))
        out[i] = (up - down) / (2 * step)
    return out.reshape(at.shape)


def test_two_classes_are_the_binary_problem_of_twice_the_strength():
    x, y = problem(400, 6, 2)
    binary = solve(InMemory(x), y, 1, 2.0, tight=True).coefficients[:, 0]
    both = solve(InMemory(x), y, 2, 4.0, tight=True).coefficients
    np.testing.assert_allclose(both[:, 1] - both[:, 0], binary, atol=1e-6)


def test_the_hessian_saves_iterations_and_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = problem(2000, 30, 2)
    x = x @ np.diag(10.0 ** rng.uniform(-1.5, 1.5, 30))
    fit = solve(InMemory(x), y, 1, 0.1, tight=True)
    monkeypatch.setattr(solver, "LARGEST_HESSIAN", 5)
    slow = solve(InMemory(x), y, 1, 0.1, tight=True)
    assert fit.iterations < 25 < slow.iterations
    np.testing.assert_allclose(slow.coefficients, fit.coefficients, atol=1e-4)


def test_a_start_far_away_reaches_the_same_optimum():
    x, y = problem(500, 8, 2)
    near = solve(InMemory(x), y, 1, 1.0, tight=True).coefficients
    far = solve(InMemory(x), y, 1, 1.0, np.full((9, 1), 30.0), tight=True).coefficients
    np.testing.assert_allclose(far, near, atol=1e-5)


def test_a_loose_fit_is_near_enough_to_compare_by():
    """Within a distance at which the log-likelihood falls by far less than one."""
    x, y = problem(800, 10, 3)
    tight = solve(InMemory(x), y, 3, 1.0, tight=True).coefficients.ravel()
    quick = solve(InMemory(x.astype(np.float32)), y, 3, 1.0, tight=False).coefficients.ravel()
    least = loss(tight, x, y, 3, 1.0)
    assert least <= loss(quick, x, y, 3, 1.0) < least + 0.05
