"""Variational autoencoders: the bound and its divergence in closed form, and what they find."""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.metrics import roc_auc_score

from probes.anomaly.codec import TableCodec
from probes.anomaly.files import load, save
from probes.anomaly.network_head import fit_codec, values
from probes.anomaly.variational import (
    Bound,
    ConstituentVariational,
    Divergence,
    ImageVariational,
    Variational,
    moments,
)
from probes.training import Training
from tests.probes.anomaly.test_autoencoder import inputs_of, usual_and_strange

# Compiled once each: steps and rates may differ without another compilation.
FAST = {"batch": 64, "peak_lr": 5e-3, "beta": 1e-3}
HEADS = [
    Variational(components=0, steps=500, latent=2, hidden=(32,), **FAST),
    ImageVariational(steps=150, latent=4, hidden=(), pixels=8, **FAST),
    pytest.param(ConstituentVariational(steps=150, latent=4, hidden=(32,), hardest=8, **FAST), marks=pytest.mark.slow),
]


@functools.lru_cache
def fitted(head):
    return head.fit(inputs_of(head))


@dataclass(frozen=True)
class Known:
    """A codec whose moments are the inputs themselves: [mean, log-variance]."""

    latent: int = 1

    def init(self, key, x):
        return {}

    def encode(self, params, x):
        return x

    def decode(self, params, z):
        return jnp.concatenate([z, z], axis=1)


def test_the_divergence_is_the_integral():
    x = jnp.array([[0.3, -1.0], [-2.0, 0.7], [0.0, 0.0]])
    found = values(Divergence(Known()), {}, np.asarray(x))
    for value, (mean, log_variance) in zip(found, np.asarray(x), strict=True):
        latent, prior = stats.norm(mean, np.exp(log_variance / 2)), stats.norm()
        expected, _ = integrate.quad(lambda z, q=latent, p=prior: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -20, 20)
        assert float(value) == pytest.approx(expected, abs=1e-5)


def test_the_bound_is_error_plus_divergence():
    x = jnp.array([[0.3, -1.0], [-2.0, 0.7]])
    bound = Bound(Known(), 0.5)
    divergence = values(Divergence(Known()), {}, np.asarray(x))
    mean = x[:, 0]
    expected = ((mean - x[:, 0]) ** 2 + (mean - x[:, 1]) ** 2) / 2 + 0.5 * divergence
    np.testing.assert_allclose(values(bound, {}, np.asarray(x)), expected, rtol=1e-5)
    # Drawn: E|z - x|^2 is larger by the variance.
    draw = jax.jit(jax.vmap(lambda key: bound.each({}, x, key)))
    drawn = draw(jax.random.split(jax.random.key(0), 4000)).mean(axis=0)
    np.testing.assert_allclose(drawn, expected + np.exp(x[:, 1]), rtol=0.1)


def test_a_linear_one_reaches_the_likelihood_of_probabilistic_principal_components():
    """With linear networks the best bound is the likelihood itself (arXiv:1911.02469), here with unit noise."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(500, 1)) @ [[2.0, -1.0, 2.0]] + rng.normal(size=(500, 3))).astype(np.float32)
    x = np.asarray(x - x.mean(axis=0))
    objective = Bound(TableCodec(1, 2, ()), beta=2 / 3)
    settings = Training(steps=400, batch=500, peak_lr=0.02, weight_decay=0.0, averaged=0.95, patience=10)
    params, _ = fit_codec(objective, x, settings, "linear")
    draw = jax.jit(jax.vmap(lambda key: objective.each(params, jnp.asarray(x), key).mean()))
    drawn = float(draw(jax.random.split(jax.random.key(1), 200)).mean())
    bound = -1.5 * drawn - 1.5 * np.log(2 * np.pi)
    values_, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    best = np.eye(3) + max(0.0, values_[-1] - 1) * np.outer(vectors[:, -1], vectors[:, -1])
    expected = stats.multivariate_normal(np.zeros(3), best).logpdf(x).mean()
    assert bound < expected + 0.01
    assert bound == pytest.approx(expected, abs=0.05)
    _, log_variance = jax.jit(lambda x: moments(objective.codec, params, x))(x)
    # The posterior's variance is 1 / (1 + |w|^2), for all jets the same.
    np.testing.assert_allclose(np.exp(log_variance).mean(), 1 / values_[-1], rtol=0.3)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_what_is_unlike_the_background_is_strange(head):
    scores = np.concatenate([fitted(head).score(x) for x in usual_and_strange(head)])
    assert roc_auc_score(np.repeat([0, 1], 200), scores) > 0.9


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_terms_add_up(head):
    others, state = inputs_of(head, 30, 1), fitted(head).state()
    terms = {
        name: replace(head, scored=name).restore(state).score(others)
        for name in ("bound", "reconstruction", "divergence")
    }
    np.testing.assert_allclose(terms["bound"], terms["reconstruction"] + head.beta * terms["divergence"], rtol=1e-3)
    assert (terms["divergence"] > 0).all()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_files_give_the_same_bits_and_the_seed_decides(head, tmp_path):
    detector, x, others = fitted(head), inputs_of(head), inputs_of(head, 30, 1)
    scores = detector.score(others)
    save(tmp_path / "head.npz", detector)
    again, _, _ = load(tmp_path / "head.npz", {head.name: type(head)})
    np.testing.assert_array_equal(again.score(others), scores)
    np.testing.assert_array_equal(head.fit(x).score(others), scores)
    assert not np.array_equal(replace(head, steps=20).fit(x, seed=1).score(others), scores)


@pytest.mark.parametrize("change", [{"beta": 0.0}, {"beta": np.inf}, {"scored": "mass"}, {"steps": 0}])
def test_settings_out_of_range(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Variational(**change)


def test_a_log_variance_without_bound_is_cut():
    x = np.array([[0.0, 500.0], [0.0, -500.0]], np.float32)
    assert np.isfinite(values(Divergence(Known()), {}, x)).all()
