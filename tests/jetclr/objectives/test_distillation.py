from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jetclr.objectives import BYOL, DINO, IBOT, Objective, SimSiam
from jetclr.objectives.protocol import Rows, Sizes
from tests.seen import judge, outputs, rows_of

SIZES = Sizes(width=4, projection=3, features=5)
JETS, SLOTS, PROTOTYPES = 4, 6, 7


def unit(x: Any) -> np.ndarray:
    x = np.float64(x)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def networks(objective: Objective, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """One layer each, of weights and a bias."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.normal(size=(own.inputs, own.width)).astype(np.float32),
            rng.normal(size=own.width).astype(np.float32),
        )
        for name, own in objective.networks(SIZES).items()
    }


def made(objective: Objective, views: int = 2, seed: int = 0, memory: Any = ()) -> tuple[Rows, dict[str, np.ndarray]]:
    """Rows of random outputs, and what they came of."""
    rng = np.random.default_rng(seed)
    shapes = {"projection": (SIZES.projection,), "constituents": (SLOTS, SIZES.width)}
    given = {
        f"{who} {what}": rng.normal(size=(JETS * views, *shape)).astype(np.float32)
        for who in ("student", "teacher")
        for what, shape in shapes.items()
    }
    given["hidden"] = rng.random((JETS * views, SLOTS)) < 0.4
    given["hidden"][1] = False
    student, teacher = (
        outputs(
            jnp.asarray(given[f"{who} projection"]),
            jnp.asarray(given[f"{who} constituents"]),
            **networks(objective, seed),
        )
        for seed, who in enumerate(("student", "teacher"))
    )
    x = jnp.zeros((JETS * views, SLOTS, SIZES.features))
    return rows_of(objective, student, teacher, x, jnp.asarray(given["hidden"]), memory), given


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("objective", [BYOL(), SimSiam()], ids=str)
def test_predictions_of_other_views_equal_a_loop(objective: Objective, views: int) -> None:
    rows, given = made(objective, views)
    w, b = networks(objective, 0)["predictor"]
    by_jet = lambda x: unit(x).reshape(JETS, views, -1)  # noqa: E731
    p = by_jet(given["student projection"] @ w + b)
    t = by_jet(given["teacher projection" if objective.teacher else "student projection"])
    cosines = [p[j, v] @ t[j, u] for j in range(JETS) for v in range(views) for u in range(views) if u != v]
    want = 2 - 2 * np.mean(cosines) if objective.teacher else -np.mean(cosines)
    np.testing.assert_allclose(judge(objective, rows, views=views).value, want, rtol=1e-4)


@pytest.mark.parametrize(("objective", "still"), [(BYOL(), "target"), (SimSiam(), "projection"), (DINO(7), "teacher")])
def test_no_gradient_goes_into_the_target(objective: Objective, still: str) -> None:
    memory = objective.begin(SIZES)
    rows, _ = made(objective, memory=memory)
    gradient = jax.grad(lambda rows, memory: judge(objective, rows, memory).value)(rows, memory)
    assert not np.asarray(gradient[still]).any()
    moves = gradient["student" if still == "teacher" else "prediction"]
    assert np.isfinite(moves).all()
    assert np.abs(moves).max() > 0


@pytest.mark.parametrize("objective", [BYOL(), SimSiam(), DINO(7)], ids=str)
def test_the_order_of_jets_and_of_two_views_makes_no_difference(objective: Objective) -> None:
    memory = objective.begin(SIZES)
    rows, _ = made(objective, memory=memory)
    order = np.random.default_rng(0).permutation(JETS)
    turned = {k: x.reshape(JETS, 2, -1)[order][:, ::-1].reshape(x.shape) for k, x in rows.items()}
    found, want = (judge(objective, x, memory) for x in (turned, rows))
    np.testing.assert_allclose(found.value, want.value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.memory, want.memory)


def cosines(projection: np.ndarray, layer: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return unit(projection) @ unit(layer[0].T).T


def dino(given: dict[str, np.ndarray], objective: DINO, centre: np.ndarray, views: int) -> tuple[float, np.ndarray]:
    """arXiv:2104.14294, algorithm 1, view by view: the loss and the next centre."""
    student, teacher = (
        cosines(given[f"{who} projection"], networks(objective, i)["prototypes"]).reshape(JETS, views, -1)
        for i, who in enumerate(("student", "teacher"))
    )
    losses = []
    for jet in range(JETS):
        for t in (0, 1):
            target = softmax((teacher[jet, t] - centre) / objective.teacher_temperature)
            for s in set(range(views)) - {t}:
                losses.append(-np.sum(target * np.log(softmax(student[jet, s] / objective.student_temperature))))
    mean = teacher[:, :2].reshape(-1, PROTOTYPES).mean(0)
    return float(np.mean(losses)), objective.centre_momentum * centre + (1 - objective.centre_momentum) * mean


@pytest.mark.parametrize("views", [2, 4])
def test_dino_equals_the_paper_s_algorithm_view_by_view(views: int) -> None:
    objective = DINO(PROTOTYPES, 0.2, 0.1)
    memory = {"centre": jnp.linspace(-0.5, 0.5, PROTOTYPES)}
    rows, given = made(objective, views)
    found = judge(objective, rows, memory, views)
    want, centre = dino(given, objective, np.float64(memory["centre"]), views)
    np.testing.assert_allclose(found.value, want, rtol=1e-4)
    np.testing.assert_allclose(found.memory["centre"], centre, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_ibot_adds_the_same_at_hidden_constituents(shared: bool) -> None:
    objective = IBOT(PROTOTYPES, 0.2, 0.1, weight=0.5, shared=shared)
    memory = {"centre": jnp.zeros(PROTOTYPES), "constituent_centre": jnp.linspace(-0.3, 0.3, PROTOTYPES)}
    rows, given = made(objective, memory=memory)
    found = judge(objective, rows, memory)
    layer = "prototypes" if shared else "constituent_prototypes"
    logits = []
    for i, who in enumerate(("student", "teacher")):
        w, b = networks(objective, i)["constituents"]
        logits.append(cosines(given[f"{who} constituents"] @ w + b, networks(objective, i)[layer]))
    student, teacher = logits
    losses, means = [], []
    for m, hidden in enumerate(given["hidden"]):
        if hidden.any():
            each = [
                -np.sum(
                    softmax((teacher[m, n] - np.float64(memory["constituent_centre"])) / 0.1)
                    * np.log(softmax(student[m, n] / 0.2))
                )
                for n in np.flatnonzero(hidden)
            ]
            losses.append(np.mean(each))
            means.append(teacher[m, hidden].mean(0))
    of_jets, _ = dino(given, objective, np.zeros(PROTOTYPES), 2)
    np.testing.assert_allclose(found.metrics["loss_of_constituents"], np.mean(losses), rtol=1e-4)
    np.testing.assert_allclose(found.value, of_jets + 0.5 * np.mean(losses), rtol=1e-4)
    centre = 0.9 * np.float64(memory["constituent_centre"]) + 0.1 * np.mean(means, axis=0)
    np.testing.assert_allclose(found.memory["constituent_centre"], centre, rtol=1e-4, atol=1e-6)


def test_both_ways_to_collapse_show() -> None:
    objective, memory = DINO(4, 1.0, 0.01), {"centre": jnp.zeros(4)}
    z = jnp.zeros((8, 3))
    for teacher, in_use, of_a_view in (
        (jnp.eye(4)[jnp.zeros(8, int)], 1, 1),
        (jnp.ones((8, 4)), 4, 4),
        (jnp.eye(4)[jnp.arange(8) // 2], 4, 1),
    ):
        found = judge(objective, {"projection": z, "student": teacher, "teacher": teacher}, memory).metrics
        np.testing.assert_allclose(found["prototypes_in_use"], in_use, rtol=1e-4)
        np.testing.assert_allclose(found["prototypes_of_a_view"], of_a_view, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: BYOL((8, 0)), r"BYOL\.hidden is \(8, 0\); all must be positive"),
        (lambda: DINO(0), r"DINO\.prototypes is 0"),
        (lambda: DINO(teacher_temperature=0), r"DINO\.teacher_temperature is 0"),
        (lambda: DINO(centre_momentum=1), r"DINO\.centre_momentum is 1; it must lie in \[0, 1\)"),
        (lambda: IBOT(share=0), r"IBOT\.share is 0; it must be positive"),
        (lambda: IBOT(share=1.0), r"IBOT\.share is 1\.0; it must lie in \[0, 1\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
