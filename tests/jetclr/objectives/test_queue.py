import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jetclr.objectives import MoCo
from jetclr.objectives.protocol import Sizes
from tests.seen import judge, outputs, rows_of

SIZES = Sizes(width=8, projection=3, features=5)


def rows(seed: int, views: int = 2) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    query, key = rng.normal(size=(2, 4 * views, 3)).astype(np.float32)
    return rows_of(MoCo(), outputs(jnp.asarray(query)), outputs(jnp.asarray(key)))


def unit(x: np.ndarray) -> np.ndarray:
    return np.float64(x) / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("views", [2, 3])
def test_it_equals_the_paper_s_formula_view_by_view(views: int) -> None:
    objective = MoCo(0.2, queue=6)
    given, queue = rows(0, views), objective.begin(SIZES)
    q, k = (unit(np.asarray(given[name]).reshape(4, views, 3)) for name in ("projection", "key"))
    losses = []
    for jet in range(4):
        for v in range(views):
            for w in set(range(views)) - {v}:
                partner = np.exp(q[jet, v] @ k[jet, w] / 0.2)
                losses.append(-np.log(partner / (partner + sum(np.exp(q[jet, v] @ e / 0.2) for e in unit(queue)))))
    np.testing.assert_allclose(judge(objective, given, queue, views).value, np.mean(losses), rtol=1e-5)


def test_the_newest_jets_push_the_oldest_out() -> None:
    objective = MoCo(queue=6)
    queue = objective.begin(SIZES)
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1, rtol=1e-6)
    first, second = rows(1), rows(2)
    for given in (first, second):
        queue = judge(objective, given, queue).memory
    keys = [unit(given["key"])[::2] for given in (second, first)]  # of each jet that of its first view
    np.testing.assert_allclose(queue, np.concatenate(keys)[:6], rtol=1e-5)
    short = MoCo(queue=3)
    np.testing.assert_allclose(judge(short, first, short.begin(SIZES)).memory, keys[1][:3], rtol=1e-5)


def test_the_teacher_takes_no_gradient() -> None:
    objective, given = MoCo(queue=6), rows(0)
    queue = objective.begin(SIZES)
    gradient = jax.grad(lambda rows, queue: judge(objective, rows, queue).value, (0,))(given, queue)[0]
    assert np.abs(gradient["projection"]).max() > 0
    assert not np.asarray(gradient["key"]).any()


@pytest.mark.parametrize("setting", ["temperature", "queue"])
def test_what_is_not_positive_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=rf"MoCo\.{setting} is 0; it must be positive"):
        MoCo(**{setting: 0})
