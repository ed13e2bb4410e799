from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jetclr.objectives import MaskedParticles
from jetclr.objectives.masked import SAMPLED
from jetclr.objectives.protocol import Rows, Sizes
from tests.seen import judge, outputs, rows_of

SIZES = Sizes(width=4, projection=3, features=2)
VIEWS, SLOTS = 8, 6


def made(objective: MaskedParticles, memory: Any, seed: int = 0) -> tuple[Rows, dict[str, np.ndarray]]:
    """Rows of random outputs and features, and what they came of."""
    rng = np.random.default_rng(seed)
    (own,) = objective.networks(SIZES).values()
    shapes = {"z": (VIEWS, 3), "constituents": (VIEWS, SLOTS, SIZES.width), "x": (VIEWS, SLOTS, SIZES.features)}
    given = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    given |= {"w": rng.normal(size=(own.inputs, own.width)), "b": rng.normal(size=own.width)}
    given["hidden"] = rng.random((VIEWS, SLOTS)) < 0.4
    given["hidden"][2] = False
    student = outputs(jnp.asarray(given["z"]), jnp.asarray(given["constituents"]), hidden=(given["w"], given["b"]))
    return rows_of(objective, student, None, jnp.asarray(given["x"]), jnp.asarray(given["hidden"]), memory), given


@pytest.mark.parametrize("target", ["codes", "values"])
def test_the_loss_equals_a_loop_over_hidden_constituents(target: Any) -> None:
    objective = MaskedParticles(target=target, codes=5)
    memory = objective.begin(SIZES)
    rows, given = made(objective, memory)
    told = given["constituents"] @ given["w"] + given["b"]
    views = []
    for m, hidden in enumerate(given["hidden"]):
        each = []
        for n in np.flatnonzero(hidden):
            if target == "codes":
                code = np.argmin([np.sum((given["x"][m, n] - c) ** 2) for c in np.float64(memory["centres"])])
                each.append(np.log(np.sum(np.exp(told[m, n]))) - told[m, n, code])
            else:
                sizes = np.abs(told[m, n] - given["x"][m, n])
                each.append(np.mean([s**2 / 2 if s < 1 else s - 0.5 for s in sizes]))
        if each:
            views.append(np.mean(each))
    np.testing.assert_allclose(judge(objective, rows, memory).value, np.mean(views), rtol=1e-4)


def test_what_is_not_hidden_and_the_order_of_constituents_make_no_difference() -> None:
    objective = MaskedParticles(codes=5)
    memory = objective.begin(SIZES)
    rows, given = made(objective, memory)
    order = np.random.default_rng(1).permutation(SLOTS)
    x = np.where(given["hidden"][..., None], given["x"], 7.0)[:, order].astype(np.float32)
    student = outputs(
        jnp.asarray(given["z"]), jnp.asarray(given["constituents"][:, order]), hidden=(given["w"], given["b"])
    )
    again = rows_of(objective, student, None, jnp.asarray(x), jnp.asarray(given["hidden"][:, order]), memory)
    for name in ("loss", "some", "taken"):
        np.testing.assert_allclose(again[name], rows[name], atol=1e-5)
    there = np.asarray(rows["taken"])[..., None]  # of what there is not, anything may be told
    np.testing.assert_array_equal(again["sampled"] * there, rows["sampled"] * there)


def test_only_hidden_constituents_are_sampled() -> None:
    objective = MaskedParticles(codes=5)
    rows, given = made(objective, objective.begin(SIZES))
    for m, hidden in enumerate(given["hidden"]):
        taken = np.asarray(rows["sampled"][m])[np.asarray(rows["taken"][m]) > 0]
        assert len(taken) == min(hidden.sum(), SAMPLED)
        there = {tuple(x) for x in given["x"][m][hidden]}
        assert {tuple(x) for x in taken} <= there
        assert len({tuple(x) for x in taken}) == len(taken)


def samples(x: np.ndarray) -> dict[str, jax.Array]:
    """Rows with these constituents sampled; the loss is of no account."""
    x = x.reshape(8, -1, x.shape[1])
    none = jnp.zeros((8, 1))
    taken = jnp.ones(x.shape[:2])
    return {
        "projection": jnp.eye(8),
        "loss": none,
        "some": none,
        "sampled": jnp.asarray(x, jnp.float32),
        "taken": taken,
    }


def test_centres_find_clusters_wherever_they_begin() -> None:
    objective = MaskedParticles(codes=8, keep=0.9)
    rng = np.random.default_rng(0)
    clusters = np.array([[30.0, 30.0], [-3.0, 1.0], [0.0, -4.0]])
    memory = objective.begin(SIZES)
    for _ in range(30):
        chosen = rng.choice(3, size=64, p=[0.1, 0.45, 0.45])
        memory = judge(objective, samples(clusters[chosen] + 0.1 * rng.normal(size=(64, 2))), memory).memory
    distances = np.linalg.norm(clusters[:, None] - np.asarray(memory["centres"]), axis=2)
    assert distances.min(axis=1).max() < 0.15
    assert distances.min(axis=0).max() < 1  # none stays where nothing is
    np.testing.assert_allclose(np.sum(memory["counts"]), 8, rtol=0.5)


def test_centres_are_running_means() -> None:
    objective = MaskedParticles(codes=2, keep=0.75)
    memory = {"centres": jnp.float32([[1, 0], [-1, 0]]), "counts": jnp.float32([1.0, 1.0])}
    near = np.array([[2.0, 0]] * 8 + [[-1.0, 1]] * 24)
    found = judge(objective, samples(near), memory)
    # Each is worth as much as the average: 8 of 32 samples for two centres are half of an average count.
    np.testing.assert_allclose(found.memory["counts"], [0.75 + 0.25 * 0.5, 0.75 + 0.25 * 1.5], rtol=1e-6)
    want = [[(0.75 * 1 + 0.125 * 2) / 0.875, 0], [-1, 0.375 / 1.125]]
    np.testing.assert_allclose(found.memory["centres"], want, rtol=1e-5)
    share = np.array([0.875, 1.125]) / 2
    np.testing.assert_allclose(found.metrics["codes_in_use"], np.exp(-np.sum(share * np.log(share))), rtol=1e-5)


def test_without_constituents_nothing_is_learnt_and_nothing_breaks() -> None:
    objective = MaskedParticles(codes=4)
    memory = objective.begin(SIZES)
    found = judge(objective, samples(np.ones((16, 2))) | {"taken": jnp.zeros((8, 2))}, memory)
    jax.tree.map(np.testing.assert_array_equal, found.memory, memory)
    assert float(found.value) == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"share": 1.0}, r"MaskedParticles\.share is 1\.0; it must lie in \[0, 1\)"),
        ({"codes": 0}, r"MaskedParticles\.codes is 0; it must be positive"),
        ({"hidden": (0,)}, r"MaskedParticles\.hidden is \(0,\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        MaskedParticles(**settings)
