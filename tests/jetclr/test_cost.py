import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import pytest

from augmentations import AngularScale, Chain
from jetclr import sharding, step
from jetclr.cli import main
from jetclr.config import Config, Data, load
from jetclr.cost import Machine, efficiency, step_cost, step_flops, step_time
from jetclr.encoder import Encoder, Head
from jetclr.errors import UserError
from jetclr.features import Features
from jetclr.objectives import BYOL, AnomCLR, NTXent, Objective
from jetclr.pairs import PairFeature
from jetclr.sharding import Devices
from jetclr.step import init_state, make_train_step
from tests.conftest import CONFIG
from tests.cost_check import measure, small

TINY = small(width=64, batch=256, constituents=20, layers=1)


@pytest.mark.parametrize(
    ("data", "fsdp", "chunks"),
    [
        (1, 1, 1),
        (8, 1, 1),
        (8, 1, 4),
        (4, 2, 1),
    ],
)
def test_the_model_agrees_with_what_xla_makes_of_the_step(data: int, fsdp: int, chunks: int) -> None:
    config = replace(TINY, chunks=chunks)
    found, cost = measure(config, data, fsdp), step_cost(config, data, fsdp)
    assert sum(cost.flops) == pytest.approx(found.flops, rel=1e-9)
    if chunks == 1:  # XLA's own count takes loops once
        assert 1 < found.all_flops / found.flops < 1.1
    batch = 3 * 4 * config.batch * config.data.constituents / (data * fsdp)
    assert cost.memory.parameters + cost.memory.optimizer + batch == pytest.approx(found.state, rel=1e-3)
    assert 0.9 < cost.memory.peak / (found.state + found.temporary) < 1.35
    if fsdp == 1:
        assert cost.wire.projections + cost.wire.parameters == found.gathered
        assert 0 <= found.summed - cost.wire.gradients < 64  # metrics
    else:  # here XLA also moves activations, and sums biases for every constituent
        assert cost.wire.projections + cost.wire.parameters == pytest.approx(found.gathered, rel=0.3)
        assert cost.wire.gradients == pytest.approx(found.summed, rel=0.25)


@pytest.mark.parametrize("depth", ["last", "all"])
def test_the_model_agrees_with_xla_on_pairs_and_pooling_by_attention(depth: Literal["last", "all"]) -> None:
    pairwise: tuple[PairFeature, ...] = ("ln_dr", "ln_kt", "ln_z", "ln_m2")
    encoder = replace(TINY.encoder, layers=2, pooling=("pt", "attention"), pairwise=pairwise, depth=depth)
    config = replace(TINY, encoder=encoder)
    found, cost = measure(config, 1, 1), step_cost(config)
    assert sum(cost.flops) == pytest.approx(found.flops, rel=1e-9)
    assert 0.9 < cost.memory.peak / (found.state + found.temporary) < 1.35


def test_a_teacher_goes_forwards_once_and_its_weights_take_memory() -> None:
    config = replace(TINY, objective=BYOL(hidden=(4,)), average=0.99)
    found, cost = measure(config, 1, 1), step_cost(config)
    assert 0.98 < sum(cost.flops) / found.flops < 1  # but for a predictor of 4 units
    assert 0.9 < cost.memory.peak / (found.state + found.temporary) < 1.35
    alone = step_cost(replace(TINY, average=0.99))
    assert cost.flops.encoder > 1.3 * alone.flops.encoder
    assert alone.memory.optimizer - step_cost(TINY).memory.optimizer == 4 * alone.parameters


def test_the_jetclass_config_fits_sixteen_devices() -> None:
    """A dry run: shapes of the whole state and of a step, and what the model says of memory."""
    config = load(Path(__file__).parents[2] / "configs/jetclass.py")
    state = jax.eval_shape(lambda: init_state(config))
    jets, slots = config.batch, config.data.constituents
    batch = {
        name: jax.ShapeDtypeStruct((jets, slots), np.float32) for name in ("pt", "eta", "phi", *config.data.extras)
    }
    mesh = sharding.make_mesh(Devices(8), config.batch, config.chunks)
    after, metrics = jax.eval_shape(make_train_step(config, mesh), state, (batch,))
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    assert metrics["loss"].shape == ()
    cost = step_cost(config, 16)
    assert 40e6 < cost.parameters < 50e6
    assert cost.memory.peak < 60e9


@pytest.mark.parametrize(
    ("objective", "chunks"),
    [(NTXent(), 1), (NTXent(), 4), (AnomCLR(), 1), (AnomCLR(others=True), 1)],
    ids=str,
)
def test_the_model_agrees_with_xla_on_anomalous_views_too(objective: Objective, chunks: int) -> None:
    config = replace(TINY, anomalies=(AngularScale(),), objective=objective, chunks=chunks)
    found, cost = measure(config, 8, 1), step_cost(config, 8, 1)
    assert sum(cost.flops) == pytest.approx(found.flops, rel=1e-9)
    assert 0.9 < cost.memory.peak / (found.state + found.temporary) < 1.35
    assert cost.wire.projections == found.gathered
    assert 0 <= found.summed - cost.wire.gradients < 64


@pytest.mark.parametrize("chunks", [1, 2])
def test_flops_of_a_batch_in_pieces_are_what_xla_makes_of_it(chunks: int) -> None:
    config, layout = replace(TINY, chunks=chunks), ((192, 12), (64, 20))
    assert step_flops(config, layout) == pytest.approx(measure(config, 1, 1, layout).flops, rel=1e-9)
    assert step_flops(config, layout) < 0.8 * step_flops(config)
    assert step_flops(config, ((256, 20),)) == step_flops(config)


def test_flops_of_a_network_that_can_be_counted_by_hand() -> None:
    config = Config(
        data=Data(constituents=3, slots=5),
        views=(Chain(), Chain()),
        features=Features(("z", "eta")),
        encoder=Encoder(width=4, layers=1, heads=2, feedforward=6, pooling=("pt",), wide=8),
        head=Head(hidden=(7,), width=2),
        batch=16,
    )
    products = {
        "embed": 5 * 2 * 4,
        "qkv": 5 * 4 * 12,
        "scores": 5 * 5 * 4,
        "mixed": 5 * 5 * 4,
        "out": 5 * 4 * 4,
        "up and down": 2 * 5 * 4 * 6,
        "wide": 4 * 8,
        "head": (4 + 8) * 7,
        "projection": 7 * 2,
    }
    view = 2 * (3 * sum(products.values()) - products["embed"]) + 2 * 5 * 4
    # 32 views: their similarities and what goes back; 16 jets: uniformity, and a Gram matrix of 2 x 2.
    objective = 2 * 2 * 32 * 32 * 2 + 2 * 16 * 16 * 2 + 2 * 2 * 2 * 16
    assert step_flops(config) == 32 * view + objective
    again = 2 * (sum(products.values()) - products["projection"]) + 2 * 5 * 4
    assert step_flops(replace(config, chunks=4)) == 32 * (view + again) + objective


def test_memory_and_bytes_sent_follow_the_mesh() -> None:
    params = jax.eval_shape(lambda: step.init_params(TINY))
    count = sum(x.size for x in jax.tree.leaves(params))
    alone, eight, shared = step_cost(TINY), step_cost(TINY, 8), step_cost(TINY, 2, 4)
    assert alone.parameters == eight.parameters == count
    assert sum(alone.wire) == 0
    assert eight.wire.projections == 512 * (128 + 1) * 4 * 7 / 8
    assert eight.wire.gradients == 2 * count * 4 * 7 / 8
    assert alone.memory.parameters == eight.memory.parameters == 4 * count
    assert shared.memory.parameters == pytest.approx(count, rel=0.01)  # all but five inputs divide by four
    assert shared.memory.optimizer == pytest.approx(2 * count, rel=0.01)
    assert eight.memory.activations == alone.memory.activations / 8
    assert step_cost(replace(TINY, chunks=4)).memory.activations == alone.memory.activations / 4
    twice = step_cost(replace(TINY, batch=512))
    assert twice.memory.activations == 2 * alone.memory.activations
    assert 3 < twice.flops.objective / alone.flops.objective < 4


def test_time_is_work_over_rate() -> None:
    cost = step_cost(TINY, 8)
    time = step_time(cost, Machine(2.0, 4.0, 8.0))
    assert time.encoder == cost.flops.encoder / 2
    assert time.objective == cost.flops.objective / 4
    assert time.gather + time.reduce == sum(cost.wire) / 8
    assert time.step == sum(time)
    never_waits = Machine(1.0, 1.0, float("inf"))
    assert efficiency(step_cost(TINY), never_waits) == 1
    assert efficiency(cost, never_waits) == pytest.approx(step_flops(TINY) / (8 * sum(cost.flops)))
    assert efficiency(cost, never_waits) < 1  # a monitor is every device's own work


def test_a_batch_that_does_not_divide_names_sizes_that_would() -> None:
    with pytest.raises(UserError, match="batch 256 does not divide over 3 devices in 2 chunks; 252 or 258 would"):
        step_cost(replace(TINY, chunks=2), 3)
    with pytest.raises(UserError, match="a mesh of 0 x 1"):
        step_cost(TINY, 0)


def test_the_table_tells_all(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--devices 8 --fsdp 2 --chunks 2 --jets 1000 --tflops 1 --link-gb-per-s 1"
    assert main(["cost", str(CONFIG), *flags.split()]) == 0
    said = capsys.readouterr().out
    assert "8 device(s) (4 x 2, data x fsdp), batch 32 in 2 chunks" in said
    assert "32 steps, 1,024 jets" in said
    assert "jets/s" in said
    for row in ("encoder and head", "objective and monitors", "gather of projections", "gather of parameters",
                "sum of gradients", "optimizer", "activations", "similarities", "gathering", "summing"):  # fmt: skip
        assert f"\n  {row}" in said
    assert main(["cost", str(CONFIG)]) == 0
    said = capsys.readouterr().out
    assert "1 device(s)" in said
    assert "8 steps, 256 jets" in said
    assert "jets/s" not in said
    assert "sent" not in said


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([CONFIG, "--devices", "8", "--fsdp", "3"], "--fsdp 3 does not divide the 8 devices"),
        ([CONFIG, "--devices", "5"], "batch 32 does not divide over 5 devices; 30 or 35 would"),
        ([CONFIG, "--devices", "2", "--tflops", "1"], "give --link-gb-per-s too"),
        ([CONFIG, "--share", "2"], "Plan.share is 2.0; it must lie in (0, 1]"),
        ([CONFIG, "--jets", "0"], "Plan.jets is 0; it must be positive"),
        ([CONFIG, "--batch", "0"], "Config.batch is 0; a contrastive loss needs at least 2 jets"),
        ([], "cost needs a config file: jetclr cost CONFIG.py"),
        (["none.py"], "there is no config file none.py"),
    ],
)
def test_mistakes_get_one_sentence(command: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", *map(str, command)]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1


def test_no_accelerator_is_touched() -> None:
    """JAX finds no device at all here, and is not asked for one."""
    root = Path(__file__).parent.parent.parent
    command = [
        sys.executable,
        "-m",
        "jetclr.cli",
        "cost",
        "configs/jetclr_paper.py",
        "--devices",
        "256",
        "--batch",
        "65536",
    ]
    environment = os.environ | {"JAX_PLATFORMS": "nothing"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "26,048,000 parameters" in done.stdout
