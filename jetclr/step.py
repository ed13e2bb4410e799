"""One training step: augment, encode, compare, update. Pure functions of (state, batch), jitted over a mesh.

A batch is a tuple of pieces, padded apart: each is augmented and encoded by itself, and the objective sees all of them.
Randomness is a function of (seed, step, role, piece) alone, so nothing random is ever saved.
"""

from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from augmentations import Jets, OneOf, Transform, batched, make_jets
from jetclr import encoder, sharding
from jetclr.config import Config
from jetclr.features import Features


class Role(IntEnum):
    """What a random stream is for."""

    INIT = 0
    VIEW_A = 1
    VIEW_B = 2
    DROPOUT = 3
    ANOMALY = 4


class State(NamedTuple):
    """All that training changes: one pytree."""

    params: encoder.Params
    opt_state: Any
    step: Int[Array, ""]  # steps done


Batch = Mapping[str, Array | np.ndarray]
TrainStep = Callable[[State, tuple[Batch, ...]], tuple[State, dict[str, Float[Array, ""]]]]


def stream(seed: int, step: Int[Array, ""] | int, role: Role, piece: int = 0) -> Key[Array, ""]:
    """The random key of one role at one step of a run, for one piece of the batch."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), role)
    return jax.random.fold_in(key, piece) if piece else key


def to_jets(batch: Batch) -> Jets:
    """A padded batch of the pipeline as Jets; columns beyond pt, eta and phi become extras."""
    extras = {name: values for name, values in batch.items() if name not in ("pt", "eta", "phi")}
    return make_jets(batch["pt"], batch["eta"], batch["phi"], extras)


def init_params(config: Config) -> encoder.Params:
    """The untrained parameters of a run: a function of its seed."""
    network = encoder.build(config.encoder, config.head)
    blank = jnp.zeros(config.data.constituents)
    jets = make_jets(blank, blank, blank, dict.fromkeys(config.data.extras, blank))
    return network.init(stream(config.seed, 0, Role.INIT), config.features(jets))


def init_state(config: Config) -> State:
    """The state before the first step."""
    params = init_params(config)
    return State(params, config.optim.build(config.steps).init(params), jnp.zeros((), jnp.int32))


def make_train_step(config: Config, mesh: Mesh) -> TrainStep:
    """The jitted step (state, pieces [B_k, N_k]) -> (state, metrics): pieces split over the mesh, the state donated.

    The objective sees the projections of all pieces. With `config.chunks` above 1 they come from encoding the
    batch piece by piece (GradCache, arXiv:2101.06983), with the same loss and gradient.
    """
    optimizer = config.optim.build(config.steps)
    learning_rate = config.optim.learning_rate(config.steps)
    whole, split = sharding.everywhere(mesh), sharding.split(mesh)

    def gather(x: Array) -> Array:
        # Rows first, or XLA lets the copies spread backwards and has every device take all similarities.
        return jax.lax.with_sharding_constraint(jax.lax.with_sharding_constraint(x, split), whole)

    def loss_of(z: Float[Array, "M P"], logged: Bool[Array, ""]) -> tuple[Array, dict[str, Array]]:
        of_jet = z.reshape(-1, config.views_a_jet, z.shape[1])
        anomalous = of_jet[:, 2] if config.anomalies else None
        return config.objective(of_jet[:, 0], of_jet[:, 1], gather, logged, anomalous)

    def train_step(state: State, batch: tuple[Batch, ...]) -> tuple[State, dict[str, Array]]:
        views = tuple(_views(config, state.step, piece, to_jets(jets)) for piece, jets in enumerate(batch))
        z, pull_back = _encode(config, mesh, state.params, views)
        logged = ((state.step + 1) % config.log.every == 0) | (state.step + 1 == config.steps)
        (loss, metrics), gradient_of_z = jax.value_and_grad(loss_of, has_aux=True)(z, logged)
        gradient = pull_back(gradient_of_z)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        metrics |= {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradient),
            "learning_rate": jnp.asarray(learning_rate(state.step)),
        }
        return State(optax.apply_updates(state.params, updates), opt_state, state.step + 1), metrics

    placed = sharding.of_state(mesh, jax.eval_shape(lambda: init_state(config)))
    return jax.jit(train_step, in_shardings=(placed, split), out_shardings=(placed, whole), donate_argnums=0)


class _Views(NamedTuple):
    """M = 2B views, or 3B with anomalies, and each one's dropout key.

    Those of a jet are side by side, so that they stay on its device.
    """

    jets: Jets
    keys: Key[Array, " M"]


def _views(config: Config, step: Int[Array, ""], piece: int, jets: Jets) -> _Views:
    drawn: list[tuple[Transform, Role]] = [(config.views[0], Role.VIEW_A), (config.views[1], Role.VIEW_B)]
    if config.anomalies:
        drawn.append((OneOf(config.anomalies), Role.ANOMALY))
    apart = [batched(view)(stream(config.seed, step, role, piece), jets) for view, role in drawn]
    views = jax.tree.map(lambda *x: jnp.stack(x, axis=1).reshape(-1, *x[0].shape[1:]), *apart)
    return _Views(views, jax.random.split(stream(config.seed, step, Role.DROPOUT, piece), views.pt.shape[0]))


PullBack = Callable[[Float[Array, "M P"]], encoder.Params]


def _encode(
    config: Config, mesh: Mesh, params: encoder.Params, views: tuple[_Views, ...]
) -> tuple[Float[Array, "M P"], PullBack]:
    """Projections of all pieces' views, and the function from the loss's gradient by them to that by the parameters.

    In chunks, both encode: the first keeps nothing but the projections, the second repeats a chunk at a time.
    """
    network = encoder.build(config.encoder, config.head, config.precision)

    def project(params: encoder.Params, views: _Views) -> Float[Array, "M P"]:
        inputs = config.features(views.jets)
        return network.apply(params, inputs, views.keys)["projection"]

    def project_chunks(params: encoder.Params, views: _Views) -> Float[Array, "M P"]:
        z = jax.lax.map(lambda chunk: project(params, chunk), _chunked(views, config.chunks))
        return jnp.moveaxis(z, 0, 1).reshape(-1, z.shape[-1])

    def project_pieces(params: encoder.Params, views: tuple[_Views, ...]) -> tuple[Array, ...]:
        return tuple((project if config.chunks == 1 else project_chunks)(params, piece) for piece in views)

    def gradient_of_chunks(
        params: encoder.Params, views: tuple[_Views, ...], cotangents: tuple[Array, ...]
    ) -> encoder.Params:
        def add(total: encoder.Params, chunk: tuple[_Views, Array]) -> tuple[encoder.Params, None]:
            _, pull_back = jax.vjp(lambda params: project(params, chunk[0]), params)
            return jax.tree.map(jnp.add, total, pull_back(chunk[1])[0]), None

        total = jax.tree.map(jnp.zeros_like, params)
        for piece in zip(views, cotangents, strict=True):
            total, _ = jax.lax.scan(add, total, _chunked(piece, config.chunks))
        return sharding.sum_over_devices(mesh, total)

    # The devices encode apart, each the views it has, so that gradients meet once, as sums over all views of a device.
    # Left to itself XLA adds them up over devices in every turn of the loop, and biases for every constituent.
    encode = sharding.on_each_device(mesh, project_pieces, (False, True), True)
    if config.chunks == 1:
        z, pull_back = jax.vjp(lambda params: sharding.join_pieces(mesh, encode(params, views)), params)
        return z, lambda cotangent: pull_back(cotangent)[0]
    gradient = sharding.on_each_device(mesh, gradient_of_chunks, (False, True, True), False)
    z, apart = jax.vjp(lambda pieces: sharding.join_pieces(mesh, pieces), encode(params, views))
    return z, lambda cotangent: gradient(params, views, *apart(cotangent))


def _chunked(tree: Any, chunks: int) -> Any:
    """Arrays [M, ...] as [chunks, M / chunks, ...]: view i goes to chunk i mod `chunks`, and stays on its device."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, chunks, *x.shape[1:]), 1, 0), tree)


def make_embed(
    config: Config, layers: tuple[str, ...], mesh: Mesh
) -> Callable[[encoder.Params, Batch], dict[str, Array]]:
    """The jitted frozen encoder: (params, batch [B, N]) -> the asked-for layers, each [B, width]; no dropout.

    The batch is split over the mesh. Always in float32: what is measured and exported does not depend on `precision`.
    """
    return _jitted_embed(config.features, config.encoder, config.head, layers, mesh)


@lru_cache(maxsize=8)  # or every probe during training would compile it again
def _jitted_embed(
    features: Features, settings: encoder.Encoder, head: encoder.Head, layers: tuple[str, ...], mesh: Mesh
) -> Callable[[encoder.Params, Batch], dict[str, Array]]:
    network = encoder.build(settings, head)

    def embed(params: encoder.Params, batch: Batch) -> dict[str, Array]:
        outputs = network.apply(params, features(to_jets(batch)), None)
        return {name: outputs[name] for name in layers}

    split = sharding.split(mesh)
    return jax.jit(embed, in_shardings=(sharding.everywhere(mesh), split), out_shardings=split)
