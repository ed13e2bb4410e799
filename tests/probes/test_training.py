"""The training loop against optax, scikit-learn and closed forms, on models small enough to know the answer."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import TypeCheckError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from probes import training
from probes.training import Trained, Training, count, cross_entropy, fit

PLAIN = Training(steps=60, batch=64, peak_lr=0.05, weight_decay=0.0, averaged=0.0)


@dataclass(frozen=True)
class Straight:
    """Logits linear in a table of features; with `noise` the key moves the features."""

    classes: int = 2
    noise: float = 0.0

    @property
    def name(self):
        return "straight"

    def init(self, key, inputs):
        return {"w": 0.1 * jax.random.normal(key, (inputs.shape[1], self.classes)), "b": jnp.zeros(self.classes)}

    def apply(self, params, inputs, key):
        if key is not None and self.noise:
            inputs = inputs + self.noise * jax.random.normal(key, inputs.shape)
        return inputs @ params["w"] + params["b"]


@dataclass(frozen=True)
class Offset:
    """Logits that come in as they are, and an offset to learn: a `Straight` with its weights frozen."""

    name: str = "offset"

    def init(self, key, inputs):
        return {"b": jnp.zeros(inputs.shape[1])}

    def apply(self, params, inputs, key):
        return inputs + params["b"]


def table(jets, features=5, classes=2, seed=0, signal=0.5):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(jets) % classes)
    centres = np.random.default_rng(99).normal(size=(classes, features))
    return (rng.normal(size=(jets, features)) + signal * centres[y]).astype(np.float32), y


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_reaches_the_optimum_of_logistic_regression():
    x, y = table(400, classes=4)
    settings = replace(PLAIN, steps=600, batch=400, clip=100.0)
    found = fit(Straight(4), x, y, settings).logits(x)
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x.astype(np.float64), y)
    expected = oracle.predict_log_proba(x.astype(np.float64))
    np.testing.assert_allclose(found - np.logaddexp.reduce(found, axis=1, keepdims=True), expected, atol=2e-3)


def test_steps_are_those_of_adamw():
    """Every step on all jets, so the order in which they come does not matter."""
    x, y = table(50)
    settings = Training(steps=40, batch=1000, peak_lr=0.03, weight_decay=0.2, clip=0.1, averaged=0.8)
    start = {"w": jnp.ones((5, 2)), "b": jnp.array([0.5, -1.0])}
    found = fit(Straight(), x, y, settings, start=start).params

    def rate(step):
        rising = 0.03 * (step + 1) / 2
        return jnp.where(step < 2, rising, 0.03 * (1 + jnp.cos(jnp.pi * (step - 2) / 38)) / 2)

    @jax.jit
    @jax.grad
    def slope(params):
        chance = jax.nn.log_softmax(x @ params["w"] + params["b"])
        return -jnp.mean(chance[jnp.arange(50), y])

    optimiser = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(rate, weight_decay=0.2))
    params, mean, state, update = start, start, optimiser.init(start), jax.jit(optimiser.update)
    for step in range(40):
        change, state = update(slope(params), state, params)
        params = optax.apply_updates(params, change)
        keep = min(0.8, (1 + step) / (10 + step))  # early on, most of the mean would be the start
        mean = jax.tree.map(lambda m, p, keep=keep: keep * m + (1 - keep) * p, mean, params)
    for name in mean:
        np.testing.assert_allclose(found[name], mean[name], atol=2e-5)
    assert np.abs(found["w"] - start["w"]).max() > 0.1


def test_same_arguments_same_bits_and_the_seed_decides():
    x, y = table(300)
    model = Straight(noise=0.3)
    first, again = fit(model, x, y, PLAIN), fit(model, x, y, PLAIN)
    assert same(first.params, again.params)
    assert first.history == again.history
    assert not same(first.params, fit(model, x, y, replace(PLAIN, seed=1)).params)
    # The key reaches the model in training and never in scoring.
    assert not same(first.params, fit(Straight(), x, y, PLAIN).params)
    np.testing.assert_array_equal(first.logits(x), first.logits(x))
    np.testing.assert_allclose(first.logits(x), x @ first.params["w"] + first.params["b"], atol=1e-5)


def test_compiled_once_for_all_rates():
    x, y = table(300)
    model = Straight(noise=0.125)
    fit(model, x, y, PLAIN)
    fit(model, x, y, replace(PLAIN, steps=50, peak_lr=1, averaged=0))
    assert training.compiled_step(training._labelled(model, None), PLAIN.weight_decay, PLAIN.clip)[1]._cache_size() == 1


def test_best_moment_on_held_out_jets_is_kept_and_patience_ends_the_fit():
    """Few jets, many features: the held-out loss soon rises."""
    x, y = table(40, features=30)
    held = table(2000, features=30, seed=1)
    settings = replace(PLAIN, steps=200, checks=20, patience=4)
    found = fit(Straight(), x, y, settings, held_out=held)
    losses = [loss for _, _, loss in found.history]
    assert cross_entropy(found.logits(held[0]), held[1]) == pytest.approx(min(losses), rel=1e-6)
    assert len(losses) == int(np.argmin(losses)) + 1 + 4 < 20
    whole = fit(Straight(), x, y, replace(settings, patience=20), held_out=held)
    assert same(whole.params, found.params)
    assert [step for step, _, _ in whole.history] == list(range(10, 201, 10))
    last = fit(Straight(), x, y, settings)
    assert cross_entropy(last.logits(held[0]), held[1]) > 1.2 * min(losses)
    assert all(np.isnan(loss) for _, _, loss in last.history)


def test_training_loss_in_the_history():
    x, y = table(50)
    start = {"w": np.ones((5, 2), np.float32), "b": np.array([1.0, 0.0], np.float32)}
    found = fit(Straight(), x, y, replace(PLAIN, peak_lr=1e-12, checks=3, steps=7), start=start)
    assert [step for step, _, _ in found.history] == [2, 5, 7]
    for _, seen, _ in found.history:
        assert seen == pytest.approx(log_loss(y, 1 / (1 + np.exp(-np.full(50, -1.0)))), rel=1e-5)


def test_frozen_parameters_stay_and_do_not_count():
    """With its weights frozen, a straight model learns what a mere offset learns, clipping included."""
    x, y = table(64)
    start = {"w": 3 * np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32), "b": np.zeros(2, np.float32)}
    settings = replace(PLAIN, weight_decay=0.1, clip=0.05)
    found = fit(Straight(), x, y, settings, start=start, rates={"w": 0.0, "b": 1.0}).params
    np.testing.assert_array_equal(found["w"], start["w"])
    expected = fit(Offset(), x @ start["w"], y, settings).params
    np.testing.assert_allclose(found["b"], expected["b"], atol=1e-6)
    assert np.abs(found["b"]).max() > 0.1
    # Half the rate everywhere is half the peak rate.
    half = fit(Straight(), x, y, settings, start=start, rates={"w": 0.5, "b": 0.5}).params
    slow = fit(Straight(), x, y, replace(settings, peak_lr=settings.peak_lr / 2), start=start).params
    np.testing.assert_allclose(half["w"], slow["w"], atol=1e-6)


def test_rows_are_the_jets_learned_from():
    """As if the others had been cut out."""
    x, y = table(200)
    rows = np.arange(150, 20, -3)
    found = fit(Straight(), x, y, PLAIN, rows=rows)
    assert same(found.params, fit(Straight(), x[rows], y[rows], PLAIN).params)


def test_start_survives():
    x, y = table(64)
    start = {"w": jnp.ones((5, 2)), "b": jnp.zeros(2)}
    fit(Straight(), x, y, PLAIN, start=start)
    np.testing.assert_array_equal(start["w"], 1)


def follow(logits, labels, aux):
    """Beside a large factor, the cross-entropy does not count: the score must become aux."""
    return 1e4 * jnp.mean((logits[:, 1] - logits[:, 0] - aux) ** 2)


def test_penalty_sees_the_same_jets():
    x, y = table(300)
    aux = x @ np.array([1.0, -2.0, 0.5, 0.0, 3.0], np.float32)
    settings = replace(PLAIN, steps=500, clip=1e6)
    found = fit(Straight(), x, y, settings, penalty=follow, aux=aux)
    np.testing.assert_allclose(found.score(x), aux, atol=0.02)


@pytest.mark.parametrize("jets", [1, 20])
def test_few_jets(jets):
    x, y = table(jets)
    held = table(50, seed=1)
    found = fit(Straight(), x, y, Training(steps=30), held_out=held)
    assert np.isfinite(found.score(held[0])).all()


def test_every_jet_once_in_a_pass():
    rows = np.concatenate(list(training.batches(10, 4, 15, seed=3)))
    for end in range(20, 61, 20):  # where five steps end, two passes do
        assert (np.bincount(rows[:end], minlength=10) == end / 10).all()
    assert len(set(rows[:8])) == 8


@pytest.mark.parametrize("jets", [0, 1, training.SCORED_JETS + 1])
def test_scores_do_not_depend_on_how_many_come_at_once(jets):
    x, _ = table(max(jets, 1))
    params = {"w": np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32), "b": np.ones(3, np.float32)}
    found = Trained(Straight(3), params).logits(x[:jets])
    assert found.shape == (jets, 3)
    np.testing.assert_allclose(found, x[:jets] @ params["w"] + 1, atol=1e-5)


def test_score_is_the_difference_of_logits():
    x, y = table(100)
    trained = fit(Straight(), x, y, PLAIN)
    logits = trained.logits(x)
    np.testing.assert_array_equal(trained.score(x), (logits[:, 1] - logits[:, 0]).astype(np.float64))
    assert trained.score(x).dtype == np.float64
    with pytest.raises(ValueError, match="two classes; straight has 3"):
        Trained(Straight(3), {"w": np.ones((5, 3)), "b": np.ones(3)}).score(x)


def test_cross_entropy_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(200, 4)) * 5, rng.integers(4, size=200)
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert cross_entropy(logits, y) == pytest.approx(log_loss(y, chance), rel=1e-6)
    assert cross_entropy(logits + 1e4, y) == pytest.approx(log_loss(y, chance), rel=1e-6)


def test_progress_counts_steps():
    x, y = table(64)
    seen = []
    fit(Straight(), x, y, replace(PLAIN, steps=13), progress=seen.append)
    assert sum(seen) == 13


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def test_bad_input_is_refused():
    x, y = table(64)
    with pytest.raises(ValueError, match="64 labelled jets for straight, but 63 labels"):
        fit(Straight(), x, y[:-1], PLAIN)
    with pytest.raises(ValueError, match=r"labels of labelled jets for straight must lie in 0\.\.1, got 0\.\.2"):
        fit(Straight(), x, np.where(y, 2, 0), PLAIN)
    with pytest.raises(ValueError, match=r"held-out jets for straight must lie in 0\.\.1, got -1\.\.0"):
        fit(Straight(), x, y, PLAIN, held_out=(x, -y))
    with pytest.raises(ValueError, match="3 held-out jets for straight, but 64 labels"):
        fit(Straight(), x, y, PLAIN, held_out=(x[:3], y))
    with pytest.raises(ValueError, match="no jets"):
        fit(Straight(), x[:0], y[:0], PLAIN)
    with pytest.raises(ValueError, match=r"equally many jets, got \[63, 64\]"):
        count((x, x[1:]))
    with refused("aux must be one number a jet, got 63 for 64 jets"):
        fit(Straight(), x, y, PLAIN, aux=x[1:, 0])
    with pytest.raises(ValueError, match="no jets"):
        fit(Straight(), x, y, PLAIN, rows=np.arange(0))
    with refused("labels"):
        fit(Straight(), x, y.astype(np.float32), PLAIN)


def test_what_is_not_finite_is_refused():
    x, y = table(64)
    spoilt = x.copy()
    spoilt[5, 2] = np.nan
    with pytest.raises(ValueError, match="straight is NaN or infinite by step 6: so are some of the inputs"):
        fit(Straight(), spoilt, y, PLAIN)
    with pytest.raises(ValueError, match="gives NaN or infinity for 1 of 64 jets"):
        fit(Straight(), x, y, PLAIN, held_out=(spoilt, y))
    with pytest.raises(ValueError, match="by step 6; lower its peak_lr"):
        fit(Straight(), x, y, PLAIN, penalty=diverge)


def diverge(logits, labels, aux):
    return jnp.exp(1e3 * jnp.abs(logits).max() + 100)


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0}, {"batch": 0}, {"checks": 0}, {"patience": 0}, {"peak_lr": 0.0}, {"peak_lr": np.nan},
        {"averaged": 1.0}, {"averaged": -0.1}, {"clip": 0.0}, {"weight_decay": -1.0},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=r"positive|needed"):
        Training(**bad)
