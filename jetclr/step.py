"""One training step: augment, encode, compare, update. Pure functions of (state, batch), jitted over a mesh.

Randomness is a function of (seed, step, role) alone, so nothing random is ever saved.
"""

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from augmentations import Jets, batched, make_jets
from jetclr import encoder, sharding
from jetclr.config import Config


class Role(IntEnum):
    """What a random stream is for."""

    INIT = 0
    VIEW_A = 1
    VIEW_B = 2
    DROPOUT = 3


class State(NamedTuple):
    """All that training changes: one pytree."""

    params: encoder.Params
    opt_state: Any
    step: Int[Array, ""]  # steps done


Batch = Mapping[str, Array | np.ndarray]
TrainStep = Callable[[State, Batch], tuple[State, dict[str, Float[Array, ""]]]]


def stream(seed: int, step: Int[Array, ""] | int, role: Role) -> Key[Array, ""]:
    """The random key of one role at one step of a run."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), role)


def to_jets(batch: Batch) -> Jets:
    """A padded batch of the pipeline as Jets; columns beyond pt, eta and phi become extras."""
    extras = {name: values for name, values in batch.items() if name not in ("pt", "eta", "phi")}
    return make_jets(batch["pt"], batch["eta"], batch["phi"], extras)


def init_params(config: Config) -> encoder.Params:
    """The untrained parameters of a run: a function of its seed."""
    network = encoder.build(config.encoder, config.head)
    blank = jnp.zeros(config.data.constituents)
    return network.init(stream(config.seed, 0, Role.INIT), config.features(make_jets(blank, blank, blank)))


def init_state(config: Config) -> State:
    """The state before the first step."""
    params = init_params(config)
    return State(params, config.optim.build(config.steps).init(params), jnp.zeros((), jnp.int32))


def make_train_step(config: Config, mesh: Mesh) -> TrainStep:
    """The jitted step (state, batch [B, N]) -> (state, metrics): the batch split over the mesh, the state donated."""
    network = encoder.build(config.encoder, config.head)
    optimizer = config.optim.build(config.steps)
    learning_rate = config.optim.learning_rate(config.steps)

    def project(params: encoder.Params, jets: Jets, key: Key[Array, ""]) -> Float[Array, "B P"]:
        keys = jax.random.split(key, jets.pt.shape[0])
        return jax.vmap(network.apply, (None, 0, 0))(params, config.features(jets), keys)["projection"]

    def loss_of(params: encoder.Params, views: Jets, key: Key[Array, ""]) -> tuple[Array, dict[str, Array]]:
        # Both views in one batch of 2B: one pass over the parameters.
        z = project(params, views, key)
        return config.objective(*jnp.split(z, 2))

    def train_step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        jets = to_jets(batch)
        a, b = (
            batched(view)(stream(config.seed, state.step, role), jets)
            for view, role in zip(config.views, (Role.VIEW_A, Role.VIEW_B), strict=True)
        )
        views = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), a, b)
        dropout = stream(config.seed, state.step, Role.DROPOUT)
        (loss, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params, views, dropout)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        metrics |= {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradient),
            "learning_rate": jnp.asarray(learning_rate(state.step)),
        }
        return State(optax.apply_updates(state.params, updates), opt_state, state.step + 1), metrics

    whole, split = sharding.everywhere(mesh), sharding.split(mesh)
    return jax.jit(train_step, in_shardings=(whole, split), out_shardings=whole, donate_argnums=0)


def make_embed(config: Config, layers: tuple[str, ...]) -> Callable[[encoder.Params, Batch], dict[str, Array]]:
    """The jitted frozen encoder: (params, batch [B, N]) -> the asked-for layers, each [B, width]; no dropout."""
    network = encoder.build(config.encoder, config.head)

    def embed(params: encoder.Params, batch: Batch) -> dict[str, Array]:
        outputs = jax.vmap(lambda inputs: network.apply(params, inputs, None))(config.features(to_jets(batch)))
        return {name: outputs[name] for name in layers}

    return jax.jit(embed)
