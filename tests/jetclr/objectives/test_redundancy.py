import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.objectives import BarlowTwins, Objective, VICReg
from tests.seen import compare


def projections(seed: int, views: int = 2, jets: int = 9, width: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(jets, width)) @ rng.normal(size=(width, width))
    return [(base + 0.5 * rng.normal(size=base.shape)).astype(np.float32) for _ in range(views)]


def vicreg(a: np.ndarray, b: np.ndarray) -> float:
    """arXiv:2105.04906 with the means of the authors' program, number by number in double precision."""
    jets, width = a.shape
    total = 25 * sum((a[i, p] - b[i, p]) ** 2 for i in range(jets) for p in range(width)) / (jets * width)
    for z in (a, b):
        covariance = np.cov(z.T)
        total += 25 / 2 * np.mean([max(0, 1 - np.sqrt(covariance[p, p] + 1e-4)) for p in range(width)])
        total += sum(covariance[p, q] ** 2 for p in range(width) for q in range(width) if p != q) / width
    return float(total)


def barlow(a: np.ndarray, b: np.ndarray) -> float:
    """arXiv:2103.03230, eq. 1 and 2."""
    width = a.shape[1]
    c = np.corrcoef(a.T, b.T)[:width, width:]
    return float(
        sum((1 - c[p, q]) ** 2 if p == q else 0.005 * c[p, q] ** 2 for p in range(width) for q in range(width))
    )


@given(st.integers(0, 1000), st.sampled_from([0.3, 1.0, 3.0]))
def test_both_equal_their_papers_number_by_number(seed: int, scale: float) -> None:
    a, b = (scale * z for z in projections(seed))
    want = vicreg(np.float64(a), np.float64(b)), barlow(np.float64(a), np.float64(b))
    np.testing.assert_allclose(compare(VICReg(), a, b).value, want[0], rtol=1e-4)
    np.testing.assert_allclose(compare(BarlowTwins(), a, b).value, want[1], rtol=1e-3, atol=1e-3)


EVERY: list[Objective] = [VICReg(), BarlowTwins()]


@pytest.mark.parametrize("objective", EVERY, ids=str)
def test_more_views_are_the_mean_of_pairs_in_any_order(objective: Objective) -> None:
    a, b, c = projections(1, 3)
    pairs = [compare(objective, *pair).value for pair in ((a, b), (b, c), (a, c))]
    np.testing.assert_allclose(compare(objective, a, b, c).value, np.mean(pairs), rtol=1e-5)
    order = np.random.default_rng(0).permutation(len(a))
    np.testing.assert_allclose(compare(objective, c[order], a[order], b[order]).value, np.mean(pairs), rtol=1e-5)


def test_what_a_collapse_costs() -> None:
    alike = jnp.ones((16, 5)) * 0.3
    np.testing.assert_allclose(compare(VICReg(), alike, alike).value, 25 * (1 - 0.01), rtol=1e-5)
    np.testing.assert_allclose(compare(BarlowTwins(), alike, alike).value, 5, rtol=1e-5)
    for objective in EVERY:
        gradient = jax.grad(lambda z: compare(objective, z, z).value)(alike)  # noqa: B023
        assert np.isfinite(gradient).all()


def test_independent_numbers_of_spread_one_cost_nothing() -> None:
    corners = np.float32([[i >> p & 1 for p in range(4)] for i in range(16)]) * 2.2 - 1.1
    assert float(compare(VICReg(), corners, corners).value) < 1e-6
    assert float(compare(BarlowTwins(), corners, corners).value) < 1e-6


@pytest.mark.parametrize("setting", ["invariance", "variance", "covariance"])
def test_weights_that_are_not_positive_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=rf"VICReg\.{setting} is 0; it must be positive"):
        VICReg(**{setting: 0})
