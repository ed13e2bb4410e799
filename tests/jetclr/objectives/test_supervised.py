import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.objectives import NTXent, SupCon
from tests.seen import compare


def views_of(seed: int, views: int, jets: int = 5, width: int = 4) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(views, jets, width)).astype(np.float32))


def supcon(views: list[np.ndarray], label: np.ndarray, temperature: float) -> float:
    """arXiv:2004.11362, eq. 2, anchor by anchor in double precision."""
    z = np.concatenate([np.float64(v) / np.linalg.norm(v, axis=1, keepdims=True) for v in views])
    jet = np.tile(np.arange(len(label)), len(views))
    losses = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        partners = [p for p in others if jet[p] == jet[i] or label[jet[p]] == label[jet[i]]]
        total = sum(np.exp(z[i] @ z[a] / temperature) for a in others)
        losses.append(-np.mean([np.log(np.exp(z[i] @ z[p] / temperature) / total) for p in partners]))
    return float(np.mean(losses))


@given(st.integers(0, 1000), st.sampled_from([2, 3]), st.sampled_from([0.1, 0.5]))
def test_it_equals_the_paper_s_formula_anchor_by_anchor(seed: int, views: int, temperature: float) -> None:
    z = views_of(seed, views)
    label = np.random.default_rng(seed).integers(3, size=5).astype(np.float32)
    found = compare(SupCon(temperature), *z, label=jnp.asarray(label)).value
    np.testing.assert_allclose(found, supcon(z, label, temperature), rtol=2e-5, atol=2e-5)


def test_its_gradient_is_that_of_finite_differences() -> None:
    z, label = views_of(3, 3), np.float32([0, 1, 0, 0, np.nan])
    gradient = jax.grad(lambda z: compare(SupCon(0.3), *z, label=jnp.asarray(label)).value)(z)
    for view, jet, number in ((0, 0, 1), (1, 4, 2), (2, 3, 0), (1, 1, 3)):
        ends = []
        for sign in (1, -1):
            moved = [np.float64(v) for v in z]
            moved[view][jet, number] += sign * 1e-5
            ends.append(supcon(moved, label, 0.3))
        np.testing.assert_allclose(gradient[view][jet, number], (ends[0] - ends[1]) / 2e-5, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("label", [[0, 1, 2, 3, 4], [np.nan] * 5], ids=["all different", "none known"])
def test_without_common_labels_it_is_nt_xent(label: list[float]) -> None:
    z = views_of(1, 2)
    found, want = (
        compare(objective, *z, label=jnp.asarray(label, jnp.float32)) for objective in (SupCon(0.2), NTXent(0.2))
    )
    np.testing.assert_allclose(found.value, want.value, rtol=1e-6)


def test_jets_without_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="SupCon compares jets by their labels"):
        compare(SupCon(), *views_of(0, 2))
    with pytest.raises(ValueError, match=r"SupCon\.temperature is 0"):
        SupCon(0)
