import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.objectives import NTXent, alignment, effective_rank, normalize, uniformity
from probes import geometry


def pair(seed: int, jets: int = 6, width: int = 5) -> tuple[jax.Array, jax.Array]:
    a, b = jax.random.normal(jax.random.key(seed), (2, jets, width))
    return a, a + 0.3 * b


def naive(z_a: np.ndarray, z_b: np.ndarray, temperature: float) -> float:
    """arXiv:2002.05709, view by view and in double precision."""
    z = np.concatenate([z_a, z_b]).astype(np.float64)
    jets = len(z_a)
    total = 0.0
    for i in range(2 * jets):
        j = i + jets if i < jets else i - jets
        s = [z[i] @ z[k] / np.linalg.norm(z[i]) / np.linalg.norm(z[k]) / temperature for k in range(2 * jets)]
        total -= s[j] - np.log(sum(np.exp(s[k]) for k in range(2 * jets) if k != i))
    return total / (2 * jets)


@given(st.integers(0, 1000), st.sampled_from([0.05, 0.1, 0.5, 2.0]), st.integers(2, 9))
def test_nt_xent_equals_a_naive_loop(seed: int, temperature: float, jets: int) -> None:
    a, b = pair(seed, jets)
    np.testing.assert_allclose(NTXent(temperature)(a, b)[0], naive(a, b, temperature), rtol=2e-5, atol=2e-5)


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.5]))
def test_nt_xent_and_its_gradient_equal_optax(seed: int, temperature: float) -> None:
    a, b = pair(seed)

    def reference(a: jax.Array, b: jax.Array) -> jax.Array:
        labels = jnp.concatenate([jnp.arange(6), jnp.arange(6)])
        return optax.losses.ntxent(jnp.concatenate([a, b]), labels, temperature).mean()

    ours = jax.value_and_grad(lambda a, b: NTXent(temperature)(a, b)[0], (0, 1))(a, b)
    theirs = jax.value_and_grad(reference, (0, 1))(a, b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), ours, theirs)


def test_perfect_and_blind_encoders_give_the_limits() -> None:
    same = jnp.eye(8)
    np.testing.assert_allclose(NTXent(0.01)(same, same)[0], 0, atol=1e-6)
    blind = jnp.ones((8, 3))
    np.testing.assert_allclose(NTXent(0.1)(blind, blind)[0], np.log(15), rtol=1e-6)


def test_a_zero_projection_gives_finite_loss_and_gradient() -> None:
    a, b = pair(0)
    value, gradient = jax.value_and_grad(lambda a: NTXent(0.1)(a, b)[0])(a.at[2].set(0))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_unit_length() -> None:
    np.testing.assert_allclose(jnp.linalg.norm(normalize(pair(0)[0]), axis=1), 1, rtol=1e-6)


def test_alignment_and_uniformity_equal_loops() -> None:
    a, b = (np.asarray(normalize(x), np.float64) for x in pair(1))
    np.testing.assert_allclose(alignment(jnp.float32(a), jnp.float32(b)), ((a - b) ** 2).sum(1).mean(), rtol=1e-5)
    pairs = [np.exp(-2 * ((a[i] - a[j]) ** 2).sum()) for i in range(6) for j in range(6) if i != j]
    np.testing.assert_allclose(uniformity(jnp.float32(a)), np.log(np.mean(pairs)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_effective_rank_equals_the_singular_value_route(shape: tuple[int, int]) -> None:
    z = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(effective_rank(jnp.asarray(z)), geometry.effective_rank(z), rtol=1e-3)


def test_effective_rank_of_a_line_is_one() -> None:
    line = jnp.linspace(-1, 1, 30)[:, None] * jnp.array([[1.0, 2.0, -1.0]])
    np.testing.assert_allclose(effective_rank(line), 1, atol=1e-2)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_effective_rank_sees_a_collapse(noise: float) -> None:
    """Equal rows up to rounding: their noise has full rank, and must not be mistaken for a spread."""
    rng = np.random.default_rng(0)
    alike = rng.normal(size=(1, 32)) + noise * rng.normal(size=(64, 32))
    assert float(effective_rank(normalize(jnp.asarray(alike, jnp.float32)))) == 0


def test_what_is_not_finite_stays_so() -> None:
    a, b = pair(0)
    assert not np.isfinite(NTXent(0.1)(a.at[3, 1].set(jnp.nan), b)[0])


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"NTXent\.temperature is 0"):
        NTXent(0)
