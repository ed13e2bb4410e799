"""What a training step may cost, in numbers that are the same on every machine: the step of size "small", narrower.

A change that makes XLA keep another copy, compute a thing twice or compile again is seen here before it is felt. A
bound may be moved for a gain that was measured.
"""

from collections import Counter
from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jetclr import cost, sharding, step
from jetclr.bench.sizes import config_of
from jetclr.config import Config, Data
from tests.cost_check import instructions
from tests.toys import toy_batch

JETS, SLOTS, WIDTH = 16, 24, 64

FLOPS = (1.0, 1.2)
"""All that XLA counts, elementwise work included, over the matrix products that `cost` knows: least and most."""

BYTES_A_FLOP = 0.3
"""Bytes that XLA sees move, caches left out of account, over those products; falls with the width."""

A_LAYER = {"fusion": 320, "dot": 20, "transpose": 26, "copy": 420}
"""Operations that one more layer may add, forwards and back together."""

ALL = {"fusion": 1150, "while": 28}
"""Operations of a step of two layers."""

TEMPORARY = 1.1
"""Bytes needed besides state and batch, over what `cost` says is kept for the way back."""


def config(layers: int) -> Config:
    """Size small with fewer, narrower layers, and a batch that is soon done."""
    small = config_of("small")
    narrow = replace(small.encoder, width=WIDTH, feedforward=2 * WIDTH, layers=layers)
    data = Data(constituents=SLOTS, slots=SLOTS)
    head = replace(small.head, hidden=(WIDTH,), width=WIDTH)
    return replace(small, encoder=narrow, head=head, data=data, batch=JETS)


def mesh_of(settings: Config) -> Mesh:
    return sharding.make_mesh(sharding.Devices(1, 1), settings.batch)


@lru_cache
def compiled(layers: int) -> jax.stages.Compiled:
    """The step for one device, from shapes alone."""
    settings = config(layers)
    mesh = mesh_of(settings)
    state = sharding.abstract(mesh, jax.eval_shape(lambda: step.init_state(settings)))
    column = jax.ShapeDtypeStruct((JETS, SLOTS), jnp.float32, sharding=sharding.split(mesh))
    train_step = step.make_train_step(settings, mesh)
    return train_step.lower(state, (dict.fromkeys(("pt", "eta", "phi"), column),)).compile()  # type: ignore[attr-defined]


@lru_cache
def operations(layers: int) -> Counter[str]:
    """How often a step comes to each operation, those inside fusions and loops included."""
    found: Counter[str] = Counter()
    for one in instructions(compiled(layers).as_text()):
        found[one.operation] += one.times
    return found


def test_nothing_is_computed_twice() -> None:
    counted = compiled(2).cost_analysis()["flops"]
    least, most = FLOPS
    assert least < counted / cost.step_flops(config(2)) < most


def test_bytes_are_moved_as_seldom_as_before() -> None:
    assert compiled(2).cost_analysis()["bytes accessed"] / cost.step_flops(config(2)) < BYTES_A_FLOP


def test_memory_is_what_the_way_back_needs() -> None:
    temporary = compiled(2).memory_analysis().temp_size_in_bytes
    assert temporary / cost.step_cost(config(2)).memory.activations < TEMPORARY


@pytest.mark.parametrize("operation", A_LAYER)
def test_a_layer_adds_its_operations_and_no_more(operation: str) -> None:
    first, second = (operations(layers + 1)[operation] - operations(layers)[operation] for layers in (1, 2))
    assert second <= A_LAYER[operation]
    assert abs(first - second) <= max(2, 0.2 * second)  # linear in the layers


@pytest.mark.parametrize("operation", ALL)
def test_a_step_has_few_operations(operation: str) -> None:
    assert operations(2)[operation] <= ALL[operation]


def test_the_next_step_compiles_nothing_moves_nothing_and_takes_the_old_state() -> None:
    settings = config(2)
    mesh = mesh_of(settings)
    shapes = jax.eval_shape(lambda: step.init_state(settings))
    make = jax.jit(lambda: step.init_state(settings), out_shardings=sharding.of_state(mesh, shapes))
    train_step = step.make_train_step(settings, mesh)
    batches = [(sharding.place(mesh, JETS, toy_batch(seed, JETS, SLOTS)),) for seed in range(3)]
    state, _ = train_step(make(), batches[0])
    for batch in batches[1:]:
        old = state
        with jax.transfer_guard("disallow"):
            state, metrics = train_step(old, batch)
        assert all(x.is_deleted() for x in jax.tree.leaves(old))
    assert train_step._cache_size() == 1  # type: ignore[attr-defined]
    assert np.isfinite(metrics["loss"])
