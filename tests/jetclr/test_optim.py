import jax.numpy as jnp
import numpy as np
import pytest

from jetclr.optim import Optim


def test_the_schedule_warms_up_then_decays_to_zero() -> None:
    rate = Optim(peak_lr=1.0, warmup_steps=10).learning_rate(110)
    found = np.array([float(rate(step)) for step in range(111)])
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(found[10:], 0.5 * (1 + np.cos(np.pi * np.arange(101) / 100)), atol=1e-6)


def test_the_constant_schedule_stays_at_its_peak() -> None:
    rate = Optim(peak_lr=0.5, warmup_steps=3, schedule="constant").learning_rate(50)
    assert [round(float(rate(step)), 6) for step in (0, 2, 3, 49)] == [0.166667, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_runs_shorter_than_the_warm_up_are_finite_and_above_zero(steps: int) -> None:
    rate = Optim(peak_lr=1.0, warmup_steps=50).learning_rate(steps)
    assert all(0 < float(rate(step)) <= 1 for step in range(steps))


def test_decay_spares_biases_and_norms() -> None:
    optimizer = Optim(peak_lr=0.1, warmup_steps=0, weight_decay=0.5).build(10)
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    zero = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.05, rtol=1e-5)
    np.testing.assert_allclose(updates["b"], 0)


def test_gradients_are_clipped_by_their_common_norm() -> None:
    optimizer = Optim(peak_lr=1.0, warmup_steps=0, weight_decay=0.0, clip_norm=1.0).build(10)
    params = {"w": jnp.zeros(3)}
    state = optimizer.init(params)
    _, small = optimizer.update({"w": jnp.array([3.0, 0.0, 4.0]) / 5}, state, params)
    _, large = optimizer.update({"w": jnp.array([3.0, 0.0, 4.0]) * 100}, state, params)
    np.testing.assert_allclose(small[1][0].mu["w"], large[1][0].mu["w"], rtol=1e-5)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Optim\.peak_lr is 0"):
        Optim(peak_lr=0)
    with pytest.raises(ValueError, match=r"Optim\.clip_norm is 0"):
        Optim(clip_norm=0)
    with pytest.raises(ValueError, match="may not be negative"):
        Optim(warmup_steps=-1)
