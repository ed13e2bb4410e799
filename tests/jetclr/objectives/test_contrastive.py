import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.objectives import AnomCLR, NTXent, Objective
from jetclr.objectives.monitors import alignment, effective_rank, normalize, uniformity
from probes import geometry
from tests.seen import compare


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
    np.testing.assert_allclose(compare(NTXent(temperature), a, b).value, naive(a, b, temperature), rtol=2e-5, atol=2e-5)


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.5]))
def test_nt_xent_and_its_gradient_equal_optax(seed: int, temperature: float) -> None:
    a, b = pair(seed)

    def reference(a: jax.Array, b: jax.Array) -> jax.Array:
        labels = jnp.concatenate([jnp.arange(6), jnp.arange(6)])
        return optax.losses.ntxent(jnp.concatenate([a, b]), labels, temperature).mean()

    ours = jax.value_and_grad(lambda a, b: compare(NTXent(temperature), a, b).value, (0, 1))(a, b)
    theirs = jax.value_and_grad(reference, (0, 1))(a, b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), ours, theirs)


def triple(seed: int, jets: int = 6, width: int = 5) -> tuple[jax.Array, jax.Array, jax.Array]:
    return *pair(seed, jets, width), jax.random.normal(jax.random.key(seed + 1), (jets, width))


def with_anomalies(objective: Objective, z_a: np.ndarray, z_b: np.ndarray, z_anomalous: np.ndarray) -> float:
    """arXiv:2301.04660 and NT-Xent with more negatives, view by view and in double precision."""
    a, b, c = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in map(np.float64, (z_a, z_b, z_anomalous)))
    jets, losses = len(a), []
    for mine, theirs in ((a, b), (b, a)):
        for i in range(jets):
            s = lambda z: np.exp(mine[i] @ z / objective.temperature)  # noqa: B023, E731
            others = sum(s(z) for k in range(jets) if k != i for z in (a[k], b[k]))
            if isinstance(objective, NTXent):
                losses.append(-np.log(s(theirs[i]) / (others + s(theirs[i]) + sum(s(z) for z in c))))
            else:
                losses.append(-np.log(s(theirs[i]) / s(c[i]) / (others if objective.others else 1)))
    return float(np.mean(losses))


EVERY = [NTXent(0.1), NTXent(0.5), AnomCLR(0.1), AnomCLR(0.5), AnomCLR(0.1, others=True), AnomCLR(0.5, others=True)]


@given(st.integers(0, 1000), st.sampled_from(EVERY), st.sampled_from([2, 7]))
def test_losses_with_anomalous_views_equal_a_naive_loop(seed: int, objective: Objective, jets: int) -> None:
    a, b, c = triple(seed, jets)
    want = with_anomalies(objective, *(np.asarray(z) for z in (a, b, c)))
    np.testing.assert_allclose(compare(objective, a, b, anomalous=c).value, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("objective", EVERY[::2], ids=str)
def test_their_gradients_are_those_of_finite_differences(objective: Objective) -> None:
    views = triple(3)
    loss = jax.jit(lambda *z: compare(objective, z[0], z[1], anomalous=z[2]).value)
    gradient = jax.grad(loss, (0, 1, 2))(*views)
    step = 1e-5
    for view, found in enumerate(gradient):
        for at in ((0, 1), (4, 3)):
            ends = []
            for sign in (1, -1):
                moved = [np.asarray(z, np.float64).copy() for z in views]
                moved[view][at] += sign * step
                ends.append(with_anomalies(objective, *moved))
            np.testing.assert_allclose(found[at], (ends[0] - ends[1]) / (2 * step), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("objective", EVERY[::2], ids=str)
def test_a_step_down_the_gradient_turns_anomalous_views_away(objective: Objective) -> None:
    views = triple(7, 20, 6)

    def loss(views: tuple[jax.Array, ...]) -> jax.Array:
        return compare(objective, views[0], views[1], anomalous=views[2]).value

    begun, descend = views, jax.jit(lambda z: jax.tree.map(lambda x, g: x - 0.5 * g, z, jax.grad(loss)(z)))
    for _ in range(20):
        views = descend(views)
    before, after = (compare(objective, z[0], z[1], anomalous=z[2]).metrics for z in (begun, views))
    assert after["anomaly_similarity"] < before["anomaly_similarity"] - 0.01
    assert after["alignment"] < before["alignment"]


def test_anomaly_similarity_equals_a_loop_and_is_told_only_of_anomalies() -> None:
    a, b, c = triple(2)
    unit = [np.asarray(normalize(z), np.float64) for z in (a, b, c)]
    want = np.mean([(unit[0][i] @ unit[2][i] + unit[1][i] @ unit[2][i]) / 2 for i in range(6)])
    for objective in (NTXent(), AnomCLR(), AnomCLR(others=True)):
        found = compare(objective, a, b, anomalous=c).metrics
        np.testing.assert_allclose(found["anomaly_similarity"], want, rtol=1e-5)
        assert found.keys() - compare(NTXent(), a, b).metrics.keys() == {"anomaly_similarity"}
        for name, value in compare(NTXent(), a, b).metrics.items():
            np.testing.assert_array_equal(value, found[name])


def test_opposite_anomalies_are_the_best_that_pairs_can_reach() -> None:
    same = jnp.eye(8)
    np.testing.assert_allclose(compare(AnomCLR(0.25), same, same, anomalous=-same).value, -8, rtol=1e-6)
    blind = jnp.ones((8, 3))
    np.testing.assert_allclose(compare(AnomCLR(0.25), blind, blind, anomalous=blind).value, 0, atol=1e-5)
    np.testing.assert_allclose(compare(NTXent(0.1), blind, blind, anomalous=blind).value, np.log(23), rtol=1e-6)


def test_anomclr_without_anomalies_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs them, from Config\.anomalies"):
        compare(AnomCLR(), *pair(0))


def test_perfect_and_blind_encoders_give_the_limits() -> None:
    same = jnp.eye(8)
    np.testing.assert_allclose(compare(NTXent(0.01), same, same).value, 0, atol=1e-6)
    blind = jnp.ones((8, 3))
    np.testing.assert_allclose(compare(NTXent(0.1), blind, blind).value, np.log(15), rtol=1e-6)


def test_a_zero_projection_gives_finite_loss_and_gradient() -> None:
    a, b = pair(0)
    value, gradient = jax.value_and_grad(lambda a: compare(NTXent(0.1), a, b).value)(a.at[2].set(0))
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
    assert not np.isfinite(compare(NTXent(0.1), a.at[3, 1].set(jnp.nan), b).value)


def test_a_temperature_of_zero_is_refused() -> None:
    for kind in (NTXent, AnomCLR):
        with pytest.raises(ValueError, match=rf"{kind.__name__}\.temperature is 0"):
            kind(0)
