import dataclasses
import re
import subprocess
import sys
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augmentations import AngularScale, Chain, OneOf, PtPower, Rotate, batched
from jetclr import config as configs
from jetclr import encoder, sharding
from jetclr.config import Config
from jetclr.data.buckets import Layout
from jetclr.objectives import AnomCLR, NTXent, Objective
from jetclr.sharding import Devices
from jetclr.step import Role, State, init_params, init_state, make_embed, make_train_step, stream, to_jets
from tests.conftest import CONFIG
from tests.cost_check import compile_step
from tests.seen import compare
from tests.toys import toy_batch, toy_jet

STEPS = 20
QUICK = (Chain(Rotate()), Chain(Rotate()))  # to compile


def tiny(**changes: Any) -> Config:
    return dataclasses.replace(configs.load(CONFIG), **changes)


class Trajectory(NamedTuple):
    metrics: list[dict[str, float]]
    gradient: list[np.ndarray]  # the first step's, leaf by leaf
    state: State


@lru_cache
def batch_of(config: Config, number: int) -> dict[str, np.ndarray]:
    return toy_batch(number, config.batch, config.data.constituents)


def train(config: Config, mesh: jax.sharding.Mesh, steps: int) -> Trajectory:
    """`steps` steps on the same batches whatever the mesh."""
    shapes = jax.eval_shape(lambda: init_state(config))
    state: State = jax.device_put(init_state(config), sharding.of_state(mesh, shapes))
    train_step: Any = make_train_step(config, mesh)
    metrics, gradient = [], []
    for number in range(steps):
        batch = batch_of(config, number)
        rows = sharding.local_rows(mesh, config.batch)
        placed = sharding.place(mesh, config.batch, {k: x[rows] for k, x in batch.items()})
        state, found = train_step(state, (placed,))
        metrics.append({name: float(value) for name, value in found.items()})
        # Adam's first moment after one step is a tenth of the (clipped) gradient.
        gradient = gradient or [np.asarray(x) for x in jax.tree.leaves(state.opt_state)]
    return Trajectory(metrics, gradient, state)


@lru_cache
def alone(steps: int = STEPS) -> Trajectory:
    config = tiny(steps=STEPS)
    return train(config, sharding.make_mesh(Devices(data=1), config.batch), steps)


def assert_same(a: Trajectory, b: Trajectory, rtol: float) -> None:
    for x, y in zip(a.gradient, b.gradient, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * max(np.abs(x).max(), 1e-30))
    for step, (x, y) in enumerate(zip(a.metrics, b.metrics, strict=True)):
        for name in ("loss", "gradient_norm"):
            np.testing.assert_allclose(x[name], y[name], rtol=rtol, err_msg=f"{name} of step {step}")
        for name in ("alignment", "uniformity", "effective_rank", "learning_rate"):
            np.testing.assert_allclose(x[name], y[name], rtol=1e-3, err_msg=f"{name} of step {step}")


@pytest.mark.parametrize(
    "shape", [Devices(2), Devices(8), Devices(2, 4), pytest.param(Devices(1, 8), marks=pytest.mark.slow)], ids=str
)
def test_loss_and_gradient_do_not_depend_on_the_devices(shape: Devices) -> None:
    config = tiny(steps=STEPS)
    mesh = sharding.make_mesh(shape, config.batch)
    assert mesh.size == shape.data * shape.fsdp
    assert_same(alone(), train(config, mesh, STEPS), 1e-5)


@pytest.mark.parametrize("shape", [Devices(1), Devices(2), Devices(1, 2)], ids=str)
def test_chunks_give_the_whole_batch_s_loss_and_gradient(shape: Devices) -> None:
    """GradCache (arXiv:2101.06983) at four chunks, dropout and all."""
    config = tiny(steps=STEPS, chunks=4)
    mesh = sharding.make_mesh(shape, config.batch, config.chunks)
    assert_same(alone(3), train(config, mesh, 3), 1e-5)


LAYOUT = ((32, 18), (32, 24))


def in_pieces(
    shape: Devices, layout: Layout, chunks: int = 1, **changes: Any
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Metrics and first gradient of a step on 64 jets in rising order of multiplicity, cut into the pieces of a layout.

    By default with views that draw nothing, and no dropout.
    """
    deterministic: dict[str, Any] = {"views": (Chain(), Chain())}
    plain = dataclasses.replace(tiny().encoder, dropout=0.0)
    data = dataclasses.replace(tiny().data, constituents=24)
    config = tiny(**deterministic | {"encoder": plain} | changes, batch=64, chunks=chunks, data=data)
    batch = toy_batch(0, 64)
    order = np.argsort((batch["pt"] > 0).sum(1), kind="stable")
    batch = {name: x[order] for name, x in batch.items()}
    ends = np.cumsum([jets for jets, _ in layout])
    pieces = [
        {k: x[end - n : end, :slots] for k, x in batch.items()} for end, (n, slots) in zip(ends, layout, strict=True)
    ]
    assert sum((piece["pt"] > 0).sum() for piece in pieces) == (batch["pt"] > 0).sum()  # none is cut short
    mesh = sharding.make_mesh(shape, config.batch, chunks)
    shapes = jax.eval_shape(lambda: init_state(config))
    state: State = jax.device_put(init_state(config), sharding.of_state(mesh, shapes))
    placed = tuple(sharding.place(mesh, n, piece) for piece, (n, _) in zip(pieces, layout, strict=True))
    after, metrics = make_train_step(config, mesh)(state, placed)
    return {k: float(x) for k, x in metrics.items()}, [np.asarray(x) for x in jax.tree.leaves(after.opt_state)]


@lru_cache
def padded() -> tuple[dict[str, float], list[np.ndarray]]:
    return in_pieces(Devices(1), ((64, 24),))


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [(Devices(8), 1), (Devices(2, 2), 1), (Devices(2), 4)],
    ids=str,
)
def test_loss_and_gradient_of_pieces_are_those_of_the_padded_batch(shape: Devices, chunks: int) -> None:
    metrics, gradient = in_pieces(shape, LAYOUT, chunks)
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(metrics[name], padded()[0][name], rtol=1e-5)
    for x, y in zip(gradient, padded()[1], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * max(np.abs(y).max(), 1e-30))


@pytest.mark.slow
def test_random_views_of_pieces_do_not_depend_on_the_devices() -> None:
    random: dict[str, Any] = {"views": QUICK, "encoder": tiny().encoder}
    first, second = (in_pieces(shape, LAYOUT, **random) for shape in (Devices(1), Devices(2)))
    np.testing.assert_allclose(first[0]["loss"], second[0]["loss"], rtol=1e-5)
    assert first[0]["loss"] != padded()[0]["loss"]


ANOMALIES: dict[str, Any] = {"views": QUICK, "anomalies": (AngularScale(), PtPower())}
SPREAD = AnomCLR(0.2, others=True)


@lru_cache
def alone_with_anomalies(objective: Objective) -> Trajectory:
    config = tiny(steps=STEPS, **ANOMALIES, objective=objective)
    return train(config, sharding.make_mesh(Devices(data=1), config.batch), 3)


@pytest.mark.parametrize(
    ("objective", "shape", "chunks"),
    [
        (NTXent(0.2), Devices(2), 4),
        pytest.param(SPREAD, Devices(8), 1, marks=pytest.mark.slow),
        pytest.param(NTXent(0.2), Devices(8), 1, marks=pytest.mark.slow),
        pytest.param(SPREAD, Devices(2, 2), 1, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_nor_do_they_with_anomalous_views(objective: Objective, shape: Devices, chunks: int) -> None:
    config = tiny(steps=STEPS, **ANOMALIES, objective=objective, chunks=chunks)
    found = train(config, sharding.make_mesh(shape, config.batch, chunks), 3)
    assert_same(alone_with_anomalies(objective), found, 1e-5)
    for x, y in zip(alone_with_anomalies(objective).metrics, found.metrics, strict=True):
        np.testing.assert_allclose(x["anomaly_similarity"], y["anomaly_similarity"], rtol=1e-4)


def test_anomalous_views_of_pieces_are_those_of_the_padded_batch() -> None:
    chosen: dict[str, Any] = {"anomalies": (AngularScale(2, 2),), "objective": AnomCLR(0.2)}  # draws nothing
    whole, pieces = (in_pieces(Devices(1), layout, **chosen) for layout in (((64, 24),), LAYOUT))
    for name in ("loss", "gradient_norm", "anomaly_similarity"):
        np.testing.assert_allclose(pieces[0][name], whole[0][name], rtol=1e-5)
    for x, y in zip(pieces[1], whole[1], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * max(np.abs(y).max(), 1e-30))


def test_every_step_draws_other_anomalies_for_the_same_two_views() -> None:
    """The loss of a step is that of its views and anomalies, each augmented and encoded by itself."""
    config = tiny(**ANOMALIES, encoder=dataclasses.replace(tiny().encoder, dropout=0.0), objective=AnomCLR(0.2))
    state, batch = init_state(config), batch_of(config, 0)
    network = encoder.build(config.encoder, config.head)

    @jax.jit
    def loss_at(number: jax.Array) -> jax.Array:
        z = []
        drawn = (
            (config.views[0], Role.VIEW_A),
            (config.views[1], Role.VIEW_B),
            (OneOf(config.anomalies), Role.ANOMALY),
        )
        for view, role in drawn:
            inputs = config.features(batched(view)(stream(config.seed, number, role), to_jets(batch)))
            z.append(jax.vmap(network.apply, (None, 0, None))(state.params, inputs, None)["projection"])
        return compare(config.objective, z[0], z[1], anomalous=z[2]).value

    want = [float(loss_at(jnp.int32(number))) for number in range(2)]
    mesh = sharding.make_mesh(Devices(1), config.batch)
    train_step: Any = make_train_step(config, mesh)
    for number in range(2):
        given = state._replace(step=jnp.int32(number))
        found = train_step(jax.tree.map(jnp.copy, given), (batch,))[1]["loss"]
        np.testing.assert_allclose(found, want[number], rtol=1e-5, atol=1e-5)
    assert want[0] != want[1]


def test_a_split_of_parameters_is_a_split() -> None:
    mesh = sharding.make_mesh(Devices(2, 4), 32)
    state = train(tiny(steps=STEPS), mesh, 1).state
    for x in jax.tree.leaves((state.params, state.opt_state)):
        whole = not any(size % 4 == 0 for size in x.shape)
        assert x.addressable_shards[0].data.size == (x.size if whole else x.size // 4)


COLLECTIVES = r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("


def collectives(config: Config, mesh: jax.sharding.Mesh, layout: Layout | None = None) -> dict[str, list[int]]:
    """Of each kind in the compiled step, and inside its loops as "loop": how many elements it gives."""
    text = compile_step(config, mesh.shape[sharding.DATA], mesh.shape[sharding.FSDP], layout).as_text()
    found: dict[str, list[int]] = {}
    for computation in text.split("\n\n"):
        kind_of = "main" if "ENTRY" in computation else "loop"
        for result, kind in re.findall(COLLECTIVES, computation):
            sizes = [
                np.prod([int(d) for d in dims.split(",") if d], dtype=int)
                for dims in re.findall(r"\[([\d,]*)\]", result)
            ]
            found.setdefault(kind if kind_of == "main" else "loop", []).append(int(sum(sizes)))
    return found


@pytest.mark.parametrize("layout", [None, ((16, 8), (16, 16))], ids=["whole", "pieces"])
def test_the_compiled_step_gathers_embeddings_once_and_reduces_gradients_once(layout: Layout | None) -> None:
    config = tiny() if layout is None else tiny(views=QUICK)
    found = collectives(config, sharding.make_mesh(Devices(8), config.batch), layout)
    parameters = sum(x.size for x in jax.tree.leaves(init_params(config)))
    views, few = 2 * config.batch, 4
    assert set(found) == {"all-gather", "all-reduce"}
    # One gather of all embeddings; and, for the backward pass, of one number a view.
    assert sorted(found["all-gather"]) == [views, views * config.head.width]
    large = [size for size in found["all-reduce"] if size > few]
    assert len(large) == 1
    assert parameters <= large[0] <= parameters + few
    assert len(found["all-reduce"]) <= 4  # the others are single numbers of the loss and the monitors


@pytest.mark.parametrize("layout", [None, ((16, 8), (16, 16))], ids=["whole", "pieces"])
def test_in_chunks_too(layout: Layout | None) -> None:
    config = tiny(chunks=2) if layout is None else tiny(chunks=2, views=QUICK)
    found = collectives(config, sharding.make_mesh(Devices(8), config.batch, 2), layout)
    assert "loop" not in found
    parameters = sum(x.size for x in jax.tree.leaves(init_params(config)))
    assert [size >= parameters for size in found["all-reduce"]].count(True) == 1
    assert [size >= config.batch * config.head.width for size in found["all-gather"]].count(True) == 1


@pytest.mark.parametrize(
    ("objective", "gathers"),
    [
        (NTXent(), [96, 96, 96 * 8]),
        pytest.param(AnomCLR(others=True), [64, 64 * 8], marks=pytest.mark.slow),
        pytest.param(AnomCLR(), [64 * 8], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_anomalous_views_are_gathered_only_where_they_are_negatives_of_all(
    objective: Objective, gathers: list[int]
) -> None:
    config = tiny(**ANOMALIES, objective=objective)
    assert (config.batch, config.head.width) == (32, 8)
    assert sorted(collectives(config, sharding.make_mesh(Devices(8), config.batch))["all-gather"]) == gathers


def test_the_step_compiles_for_256_devices() -> None:
    """In a process of its own: the number of devices is fixed once JAX has started."""
    program = """
import jax
import tests.jetclr.test_step as t
jax.config.update("jax_num_cpu_devices", 256)
for shape in (t.Devices(256), t.Devices(64, 4)):
    config = t.tiny(batch=256)
    found = t.collectives(config, t.sharding.make_mesh(shape, config.batch))
    gathers = [size for size in found["all-gather"] if size == 512 * config.head.width]
    assert len(gathers) == 1 or shape.fsdp > 1, found
print("compiled")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=400)
    assert done.stdout.strip() == "compiled", done.stderr[-2000:]


def products(config: Config) -> set[str]:
    """Element types of the operands of all matrix products of the lowered step."""
    mesh = sharding.make_mesh(Devices(1), config.batch)
    batch = toy_batch(0, config.batch, config.data.constituents)
    lowered: Any = make_train_step(config, mesh)
    text = lowered.lower(init_state(config), (batch,)).as_text()
    return set(re.findall(r"dot_general.*?: \(tensor<[\dx]*x?(\w+)>, tensor", text))


def test_bfloat16_computes_short_and_keeps_long() -> None:
    long, short = tiny(steps=STEPS), tiny(steps=STEPS, precision="bfloat16")
    assert products(long) == {"f32"}
    assert products(short) == {"f32", "bf16"}  # pooling, loss and monitors stay long
    mesh = sharding.make_mesh(Devices(2), short.batch)
    found = train(short, mesh, 3)
    assert {x.dtype for x in jax.tree.leaves(found.state.params)} == {jnp.dtype("float32")}
    for x, y in zip(alone(3).metrics, found.metrics, strict=True):
        assert x["loss"] != y["loss"]
        np.testing.assert_allclose(x["loss"], y["loss"], rtol=0.02)


@pytest.mark.parametrize(("precision", "told"), [("float32", "HIGHEST"), ("tensorfloat32", "HIGH")])
def test_float32_products_are_not_left_to_the_chip(precision: encoder.Precision, told: str) -> None:
    network = encoder.build(tiny().encoder, tiny().head, precision)
    params = init_params(tiny())
    inputs = tiny().features(Chain(Rotate())(jax.random.key(0), toy_jet(0, 16)))
    text = jax.jit(lambda p, x: network.apply(p, x, None)["projection"]).lower(params, inputs).as_text()
    asked = set(re.findall(r"precision = \[(\w+), (\w+)\]", text))
    assert asked == {(told, told)}
    assert text.count("dot_general") == text.count("precision = [")


def test_two_views_of_a_jet_differ_and_streams_do_not_meet() -> None:
    seen = {
        tuple(np.asarray(jax.random.key_data(stream(seed, step, role, piece))).tolist())
        for seed in (0, 1)
        for step in (0, 1, 2)
        for role in Role
        for piece in (0, 1, 2)
    }
    assert len(seen) == 2 * 3 * len(Role) * 3


def test_streams_keep_the_numbers_that_runs_were_made_with() -> None:
    assert {role.name: role.value for role in Role} == {
        "INIT": 0, "VIEW_A": 1, "VIEW_B": 2, "DROPOUT": 3, "ANOMALY": 4, "HIDE": 5, "MORE_VIEWS": 16,
    }  # fmt: skip


def test_same_seed_same_parameters() -> None:
    a, b = init_params(tiny()), init_params(tiny())
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_frozen_encoder_returns_what_is_asked() -> None:
    config = tiny(precision="bfloat16")  # which touches training only
    embed = make_embed(config, ("layer_0", "embedding"), sharding.local_mesh())
    batch = toy_batch(0, 8, config.data.constituents) | {"pt": np.zeros((8, 16), np.float32)}
    layers = embed(init_params(config), batch)
    assert sorted(layers) == ["embedding", "layer_0"]
    assert all(bool(jnp.isfinite(x).all()) for x in layers.values())  # jets without constituents
    full = toy_batch(1, 8, config.data.constituents)
    one_device = make_embed(tiny(), ("embedding",), sharding.make_mesh(Devices(1), 8))
    np.testing.assert_allclose(
        embed(init_params(config), full)["embedding"], one_device(init_params(config), full)["embedding"], atol=1e-5
    )
