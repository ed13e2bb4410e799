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

from augmentations import Jets, OneOf, Transform, batched, make_jets, random
from jetclr import encoder, sharding
from jetclr.config import Config
from jetclr.features import Features, Inputs
from jetclr.objectives.protocol import Memory, Metrics, Outputs, Own, Rows, Seen, Sizes, Views

LABEL = "label"
"""The column of a batch [B] that objectives with labels see."""


class Role(IntEnum):
    """What a random stream is for. Views beyond the second have the streams from MORE_VIEWS on."""

    INIT = 0
    VIEW_A = 1
    VIEW_B = 2
    DROPOUT = 3
    ANOMALY = 4
    HIDE = 5
    MORE_VIEWS = 16


class State(NamedTuple):
    """All that training changes: one pytree."""

    params: encoder.Params
    opt_state: Any
    step: Int[Array, ""]  # steps done
    own: encoder.Params  # of the objective's own networks, and of what the encoder has for it alone
    average: encoder.Params | None  # running mean of params and own, with Config.average
    memory: Memory  # of the objective

    @property
    def frozen(self) -> Any:  # parameters, or their shapes
        """The network's parameters that are probed, embedded with and exported: the running mean if there is one."""
        if self.average is None:
            return self.params
        return {name: self.average[name] for name in self.params}


Batch = Mapping[str, Array | np.ndarray]
TrainStep = Callable[[State, tuple[Batch, ...]], tuple[State, dict[str, Float[Array, ""]]]]


def stream(seed: int, step: Int[Array, ""] | int, role: int, piece: int = 0) -> Key[Array, ""]:
    """The random key of one role at one step of a run, for one piece of the batch."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), role)
    return jax.random.fold_in(key, piece) if piece else key


def to_jets(batch: Batch) -> Jets:
    """A padded batch of the pipeline as Jets; columns of constituents beyond pt, eta and phi become extras."""
    extras = {name: values for name, values in batch.items() if name not in ("pt", "eta", "phi", LABEL)}
    return make_jets(batch["pt"], batch["eta"], batch["phi"], extras)


def sizes(config: Config) -> Sizes:
    """What the objective's own networks and memory are made for."""
    return Sizes(config.encoder.width, config.head.width, len(config.features.columns))


def init_params(config: Config) -> encoder.Params:
    """The untrained parameters of a run's network: a function of its seed."""
    return encoder.build(config.encoder, config.head).init(stream(config.seed, 0, Role.INIT), _blank(config))


def init_state(config: Config) -> State:
    """The state before the first step."""
    params, key = init_params(config), stream(config.seed, 0, Role.INIT)
    own: encoder.Params = {}
    if config.objective.hides:
        whole = encoder.build(config.encoder, config.head, tokens=True).init(key, _blank(config))
        own = {name: values for name, values in whole.items() if name not in params}
    for i, (name, network) in enumerate(config.objective.networks(sizes(config)).items()):
        own |= _own_network(name, network).init(jax.random.fold_in(key, i + 1), jnp.zeros(network.inputs))
    trained = params | own
    return State(
        params,
        config.optim.build(config.steps).init(trained),
        jnp.zeros((), jnp.int32),
        own,
        jax.tree.map(jnp.copy, trained) if config.average else None,  # the state is donated: no array may be in twice
        config.objective.begin(sizes(config)),
    )


def _own_network(name: str, network: Own) -> Any:
    return encoder.build_head(encoder.Head(network.hidden, network.width), name)


def _blank(config: Config) -> Inputs:
    blank = jnp.zeros(config.data.constituents)
    return config.features(make_jets(blank, blank, blank, dict.fromkeys(config.data.extras, blank)))


def make_train_step(config: Config, mesh: Mesh) -> TrainStep:
    """The jitted step (state, pieces [B_k, N_k]) -> (state, metrics): pieces split over the mesh, the state donated.

    The objective sees the rows of all pieces. With `config.chunks` above 1 they come from encoding the batch piece
    by piece (GradCache, arXiv:2101.06983), with the same loss and gradient.
    """
    optimizer = config.optim.build(config.steps)
    learning_rate = config.optim.learning_rate(config.steps)
    whole, split = sharding.everywhere(mesh), sharding.split(mesh)

    def gather(x: Array) -> Array:
        # Rows first, or XLA lets the copies spread backwards and has every device take all similarities.
        return jax.lax.with_sharding_constraint(jax.lax.with_sharding_constraint(x, split), whole)

    def train_step(state: State, batch: tuple[Batch, ...]) -> tuple[State, dict[str, Array]]:
        views = tuple(_augmented(config, state.step, piece, jets) for piece, jets in enumerate(batch))
        label = sharding.join_pieces(mesh, [jnp.asarray(b[LABEL]) for b in batch]) if config.objective.labels else None
        logged = ((state.step + 1) % config.log.every == 0) | (state.step + 1 == config.steps)

        def loss_of(rows: Rows) -> tuple[Array, tuple[Metrics, Memory]]:
            loss = config.objective(_seen(config, rows, label), gather, logged, state.memory)
            return loss.value, (loss.metrics, jax.lax.stop_gradient(loss.memory))

        trained = state.params | state.own
        rows, pull_back = _encode(config, mesh, trained, (state.average, state.memory), views)
        (loss, (metrics, memory)), gradient_of_rows = jax.value_and_grad(loss_of, has_aux=True)(rows)
        gradient = pull_back(gradient_of_rows)
        updates, opt_state = optimizer.update(gradient, state.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        metrics |= {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradient),
            "learning_rate": jnp.asarray(learning_rate(state.step)),
        }
        params, own = ({name: trained[name] for name in tree} for tree in (state.params, state.own))
        average = _averaged(config, state, trained)
        return State(params, opt_state, state.step + 1, own, average, memory), metrics

    placed = sharding.of_state(mesh, jax.eval_shape(lambda: init_state(config)))
    return jax.jit(train_step, in_shardings=(placed, split), out_shardings=(placed, whole), donate_argnums=0)


def _averaged(config: Config, state: State, trained: encoder.Params) -> encoder.Params | None:
    """The running mean after a step; how much of it stays rises to all of it at the last step (arXiv:2006.07733)."""
    if state.average is None:
        return None
    new = (1 - config.average) * (1 + jnp.cos(jnp.pi * state.step / config.steps)) / 2
    return jax.tree.map(lambda mean, x: mean + new * (x - mean), state.average, trained)


def _seen(config: Config, rows: Rows, label: Array | None) -> Seen:
    of_jet = {name: x.reshape(-1, config.views_a_jet, *x.shape[1:]) for name, x in rows.items()}
    if not config.anomalies:
        return Seen(of_jet, None, label)
    return Seen({name: x[:, :-1] for name, x in of_jet.items()}, {name: x[:, -1] for name, x in of_jet.items()}, label)


class _Augmented(NamedTuple):
    """M = B V views, with anomalies one more of each jet; each one's dropout key, and what of it is hidden.

    Those of a jet are side by side, so that they stay on its device.
    """

    jets: Jets
    keys: Key[Array, " M"]
    hidden: Bool[Array, "M N"] | None


def _augmented(config: Config, step: Int[Array, ""], piece: int, batch: Batch) -> _Augmented:
    jets = to_jets(batch)
    drawn: list[tuple[Transform, int]] = list(zip(config.views, view_roles(config), strict=True))
    if config.anomalies:
        drawn.append((OneOf(config.anomalies), Role.ANOMALY))
    apart = [batched(view)(stream(config.seed, step, role, piece), jets) for view, role in drawn]
    views = jax.tree.map(lambda *x: jnp.stack(x, axis=1).reshape(-1, *x[0].shape[1:]), *apart)
    hidden = None
    if config.objective.hides:
        chance = random.uniform(stream(config.seed, step, Role.HIDE, piece), views.pt.shape)
        hidden = views.mask & (chance < config.objective.hides)
    keys = jax.random.split(stream(config.seed, step, Role.DROPOUT, piece), views.pt.shape[0])
    return _Augmented(views, keys, hidden)


def view_roles(config: Config) -> list[int]:
    """The random stream of each view."""
    more = range(Role.MORE_VIEWS, Role.MORE_VIEWS + len(config.views) - 2)
    return [Role.VIEW_A, Role.VIEW_B, *more]


PullBack = Callable[[Rows], encoder.Params]


def _encode(
    config: Config, mesh: Mesh, trained: encoder.Params, fixed: Any, views: tuple[_Augmented, ...]
) -> tuple[Rows, PullBack]:
    """The objective's rows of all pieces' views, and the function from the gradient by them to that by `trained`.

    `fixed` are the teacher's weights and the objective's memory, which take no gradient. In chunks, both encode: the
    first keeps nothing but the rows, the second repeats a chunk at a time.
    """
    rows_of = _make_rows(config)

    def rows_of_chunks(trained: encoder.Params, fixed: Any, views: _Augmented) -> Rows:
        rows = jax.lax.map(lambda chunk: rows_of(trained, fixed, chunk), _chunked(config, views))
        return jax.tree.map(lambda x: _unchunked(config, x), rows)

    def rows_of_pieces(trained: encoder.Params, fixed: Any, views: tuple[_Augmented, ...]) -> tuple[Rows, ...]:
        return tuple((rows_of if config.chunks == 1 else rows_of_chunks)(trained, fixed, piece) for piece in views)

    def gradient_of_chunks(
        trained: encoder.Params, fixed: Any, views: tuple[_Augmented, ...], cotangents: tuple[Rows, ...]
    ) -> encoder.Params:
        def add(total: encoder.Params, chunk: tuple[_Augmented, Rows]) -> tuple[encoder.Params, None]:
            _, pull_back = jax.vjp(lambda trained: rows_of(trained, fixed, chunk[0]), trained)
            return jax.tree.map(jnp.add, total, pull_back(chunk[1])[0]), None

        total = jax.tree.map(jnp.zeros_like, trained)
        for piece in zip(views, cotangents, strict=True):
            total, _ = jax.lax.scan(add, total, _chunked(config, piece))
        return sharding.sum_over_devices(mesh, total)

    def join(pieces: tuple[Rows, ...]) -> Rows:
        return jax.tree.map(lambda *x: sharding.join_pieces(mesh, x), *pieces)

    # The devices encode apart, each the views it has, so that gradients meet once, as sums over all views of a device.
    # Left to itself XLA adds them up over devices in every turn of the loop, and biases for every constituent.
    encode = sharding.on_each_device(mesh, rows_of_pieces, (False, False, True), True)
    if config.chunks == 1:
        rows, pull_back = jax.vjp(lambda trained: join(encode(trained, fixed, views)), trained)
        return rows, lambda cotangent: pull_back(cotangent)[0]
    gradient = sharding.on_each_device(mesh, gradient_of_chunks, (False, False, True, True), False)
    rows, apart = jax.vjp(join, encode(trained, fixed, views))
    return rows, lambda cotangent: gradient(trained, fixed, views, *apart(cotangent))


def _make_rows(config: Config) -> Callable[[encoder.Params, Any, _Augmented], Rows]:
    """The function (trained, (teacher, memory), views) -> rows of the objective, for some views alone."""
    objective = config.objective
    network = encoder.build(config.encoder, config.head, config.precision, tokens=bool(objective.hides))
    own = {name: _own_network(name, network) for name, network in objective.networks(sizes(config)).items()}

    def outputs(params: encoder.Params, inputs: Inputs, keys: Key[Array, " M"] | None, hidden: Array | None) -> Outputs:
        def apply(name: str, x: Array) -> Array:
            return own[name].apply(params, x)

        if not objective.hides:
            return Outputs(network.apply(params, inputs, keys), None, apply)
        return Outputs(*network.tokens(params, inputs, keys, hidden), apply)

    def rows_of(trained: encoder.Params, fixed: Any, views: _Augmented) -> Rows:
        average, memory = fixed
        inputs = config.features(views.jets)
        student = outputs(trained, inputs, views.keys, views.hidden)
        teacher = None
        if objective.teacher:  # sees everything, and drops nothing
            teacher = outputs(average, inputs, None, None)
        return objective.rows(student, teacher, Views(inputs, views.hidden), memory)

    return rows_of


def _chunked(config: Config, tree: Any) -> Any:
    """Arrays [M, ...] as [chunks, M / chunks, ...]: the views of jet i go to chunk i mod `chunks`, on their device."""
    chunks, views = config.chunks, config.views_a_jet

    def cut(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(-1, chunks, views, *x.shape[1:]), 1, 0).reshape(chunks, -1, *x.shape[1:])

    return jax.tree.map(cut, tree)


def _unchunked(config: Config, x: Float[Array, "chunks rows *_"]) -> Float[Array, "M *_"]:
    by_jet = x.reshape(config.chunks, -1, config.views_a_jet, *x.shape[2:])
    return jnp.moveaxis(by_jet, 0, 1).reshape(-1, *x.shape[2:])


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
