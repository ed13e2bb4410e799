"""All objectives in real steps: at once, since every one of them would compile a program of its own."""

import dataclasses
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from augmentations import Chain, Rotate
from jetclr import config as configs
from jetclr import sharding, step
from jetclr.checkpoint import Checkpoints
from jetclr.config import Config
from jetclr.objectives import (
    BYOL,
    DINO,
    IBOT,
    BarlowTwins,
    Combined,
    MaskedParticles,
    MoCo,
    NTXent,
    Objective,
    SimSiam,
    SupCon,
    Term,
    VICReg,
)
from jetclr.run import open_run
from jetclr.sharding import Devices
from jetclr.train import pretrain
from tests.conftest import CONFIG
from tests.toys import toy_batch

EVERY: list[Objective] = [
    NTXent(0.2),
    VICReg(),
    BarlowTwins(),
    BYOL((8,)),
    SimSiam((8,)),
    DINO(16),
    IBOT(16, hidden=(8,)),
    MaskedParticles(codes=16, hidden=(8,)),
    MaskedParticles(target="values", hidden=(8,)),
    SupCon(0.2),
    MoCo(0.2, queue=48),
]
# IBOT is DINO and more.
ALL = Combined(tuple(Term(0.1, objective) for objective in EVERY if type(objective) is not DINO))
STEPS = 4


def tiny(objective: Objective, **changes: Any) -> Config:
    """With views that compile quickly."""
    chosen: dict[str, Any] = {"views": (Chain(Rotate()),) * 2, "average": 0.9, "steps": STEPS} | changes
    return dataclasses.replace(configs.load(CONFIG), objective=objective, **chosen)


def train(config: Config, mesh: jax.sharding.Mesh, steps: int = STEPS) -> tuple[list[dict[str, float]], step.State]:
    shapes = jax.eval_shape(lambda: step.init_state(config))
    state: step.State = jax.device_put(step.init_state(config), sharding.of_state(mesh, shapes))
    train_step: Any = step.make_train_step(config, mesh)
    metrics = []
    for number in range(steps):
        batch = toy_batch(number, config.batch, config.data.constituents)
        batch[step.LABEL] = (np.arange(config.batch) % 2).astype(np.float32)
        state, found = train_step(state, (sharding.place(mesh, config.batch, batch),))
        metrics.append({name: float(value) for name, value in found.items()})
    return metrics, state


@lru_cache
def alone() -> tuple[list[dict[str, float]], step.State]:
    config = tiny(ALL)
    return train(config, sharding.make_mesh(Devices(1), config.batch))


@pytest.mark.parametrize(("shape", "chunks"), [(Devices(2), 2), pytest.param(Devices(2, 2), 1, marks=pytest.mark.slow)])
def test_neither_devices_nor_chunks_change_what_is_learnt(shape: Devices, chunks: int) -> None:
    config = tiny(ALL, chunks=chunks)
    metrics, state = train(config, sharding.make_mesh(shape, config.batch, chunks))
    want, state_alone = alone()
    assert {f"loss_{type(term.objective).__name__}" for term in ALL.terms} <= want[0].keys()
    for number, (x, y) in enumerate(zip(metrics, want, strict=True)):
        for name in (name for name in y if name.startswith(("loss", "gradient_norm", "codes", "prototypes"))):
            np.testing.assert_allclose(x[name], y[name], rtol=2e-4, atol=1e-5, err_msg=f"{name} of step {number}")
    for (path, x), (_, y) in zip(
        *(jax.tree_util.tree_leaves_with_path(s.memory) for s in (state, state_alone)), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=jax.tree_util.keystr(path))


def test_every_part_of_the_state_is_trained() -> None:
    state, begun = alone()[1], step.init_state(tiny(ALL))
    for name in ("own", "memory", "average"):
        for (path, x), (_, y) in zip(
            *(jax.tree_util.tree_leaves_with_path(getattr(s, name)) for s in (state, begun)), strict=True
        ):
            where = f"{name}{jax.tree_util.keystr(path)}"
            # The bias of prototypes is left out of their cosines.
            if "prototypes" not in where or "'b'" not in where:
                assert (np.asarray(x) != np.asarray(y)).any(), where


@pytest.mark.slow  # a program to compile for each
@pytest.mark.parametrize("objective", EVERY, ids=str)
def test_the_loss_falls(objective: Objective) -> None:
    if isinstance(objective, DINO):  # whose target moves away while the centre finds the mean
        objective = dataclasses.replace(objective, centre_momentum=0.999)
    config = tiny(objective, steps=40, average=0.999)
    metrics, _ = train(config, sharding.make_mesh(Devices(1), config.batch), 40)
    losses = [found["loss"] for found in metrics]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path, stores: dict[str, Path]) -> None:
    """Running mean, networks and memories of objectives, and the labels of jets, are where they were."""
    data = dataclasses.replace(configs.load(CONFIG).data, train=(str(stores["train"]),))
    checkpoint = dataclasses.replace(configs.load(CONFIG).checkpoint, every=100)
    mesh = {"mesh": Devices(1), "probe": configs.Probe(every=0), "checkpoint": checkpoint}
    config = tiny(ALL, data=data, **mesh)
    pretrain(config, tmp_path / "whole")
    pretrain(config, tmp_path / "parts", stop_at=2)
    pretrain(config, tmp_path / "parts")
    like = sharding.abstract(
        sharding.make_mesh(Devices(1), config.batch), jax.eval_shape(lambda: step.init_state(config))
    )
    states = []
    for run in ("whole", "parts"):
        with Checkpoints(tmp_path / run) as checkpoints:
            states.append(checkpoints.restore(like))
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert int(states[0].step) == STEPS
    jax.tree.map(np.testing.assert_array_equal, open_run(tmp_path / "parts").params, states[0].frozen)
    logged = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "loss_SupCon", "codes_in_use"} <= logged[-1].keys()


def test_a_plain_run_s_checkpoint_holds_what_it_held_when_there_was_nothing_else(run: Path) -> None:
    """So those that were written then can be read."""
    config = open_run(run).config
    like = sharding.abstract(sharding.local_mesh(), jax.eval_shape(lambda: step.init_state(config)))
    with Checkpoints(run) as checkpoints:
        state = checkpoints.restore(like)
    assert (state.own, state.average, state.memory) == ({}, None, ())
    kept = (run / "checkpoints" / "8" / "training" / "_METADATA").read_text()
    assert [name for name in ("opt_state", "own", "trained", "memory", "average_of_own") if f"'{name}'" in kept] == [
        "opt_state"
    ]
