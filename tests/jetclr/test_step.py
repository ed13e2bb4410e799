import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jetclr import config as configs
from jetclr import sharding
from jetclr.config import Config
from jetclr.errors import UserError
from jetclr.step import Role, State, init_params, init_state, make_embed, make_train_step, stream
from tests.conftest import CONFIG
from tests.toys import toy_batch


@pytest.fixture(scope="module")
def config() -> Config:
    return configs.load(CONFIG)


def one_step(config: Config, devices: int) -> tuple[State, dict[str, jax.Array]]:
    mesh = jax.make_mesh((devices,), (sharding.DATA,), axis_types=(jax.sharding.AxisType.Auto,),
                         devices=jax.devices()[:devices])  # fmt: skip
    state = jax.device_put(init_state(config), sharding.everywhere(mesh))
    batch = jax.device_put(toy_batch(0, config.batch, config.data.constituents), sharding.split(mesh))
    return make_train_step(config, mesh)(state, batch)


def test_the_gradient_does_not_depend_on_the_number_of_devices(config: Config) -> None:
    assert jax.device_count() == 2
    (one, metrics_one), (two, metrics_two) = one_step(config, 1), one_step(config, 2)
    assert int(one.step) == int(two.step) == 1
    for name in metrics_one:
        np.testing.assert_allclose(metrics_one[name], metrics_two[name], rtol=2e-4, err_msg=name)
    # Adam's first step is +-lr whatever the gradient's size, so compare its first moment: the gradient itself.
    moments = [jax.tree.leaves(jax.tree.map(np.asarray, s.opt_state)) for s in (one, two)]
    for a, b in zip(*moments, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6)


def test_two_views_of_a_jet_differ_and_streams_do_not_meet() -> None:
    seen = {
        tuple(np.asarray(jax.random.key_data(stream(seed, step, role))).tolist())
        for seed in (0, 1)
        for step in (0, 1, 2)
        for role in Role
    }
    assert len(seen) == 2 * 3 * len(Role)


def test_same_seed_same_parameters(config: Config) -> None:
    a, b = init_params(config), init_params(config)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_frozen_encoder_returns_what_is_asked(config: Config) -> None:
    embed = make_embed(config, ("layer_0", "embedding"))
    batch = toy_batch(0, 4, config.data.constituents) | {"pt": np.zeros((4, 16), np.float32)}
    layers = embed(init_params(config), batch)
    assert sorted(layers) == ["embedding", "layer_0"]
    assert all(bool(jnp.isfinite(x).all()) for x in layers.values())  # jets without constituents


def test_a_batch_that_does_not_divide_names_sizes_that_would() -> None:
    with pytest.raises(UserError, match="batch 7 does not divide over 2 devices; 6 or 8 would"):
        sharding.make_mesh(7)
