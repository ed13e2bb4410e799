"""Normalised autoencoders: chains that follow exp(-U), log Z against quadrature, bounded negatives, files."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from sklearn.metrics import roc_auc_score

from probes.anomaly.files import load, save
from probes.anomaly.head import Detector, Head
from probes.anomaly.image_components import ImageComponentInputs
from probes.anomaly.langevin import langevin, log_partition
from probes.anomaly.normalised import (
    ImageNormalisedAutoEncoder,
    NormalisedAutoEncoder,
    NormalisedDetector,
    SphereCodec,
    _energy,
)
from probes.taggers import Constituents, constituents
from tests.toys import toy_batch

# Compiled once each: steps and rates may differ without another compilation.
HEADS = [
    NormalisedAutoEncoder(
        components=0, latent=3, hidden=(32,), steps=300, normalising_steps=200, batch=64, peak_lr=5e-3
    ),
    ImageNormalisedAutoEncoder(
        components=4, pixels=8, latent=2, hidden=(), steps=60, normalising_steps=40, batch=64, input_steps=3
    ),
]


def refused(message):
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def prongs(count, seed=0):
    """Toy jets of one prong."""
    batch = toy_batch(seed, 2 * count)
    jets = constituents(batch["pt"], batch["eta"], batch["phi"], batch["pt"] > 0)
    return Constituents(*(np.asarray(field)[::2] for field in jets))


def ring(count, seed=0, radius=1.0):
    """Points of the plane near a circle: usual there, strange inside, whither a plain autoencoder may copy them."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, count)
    x = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    return (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)


def inputs_of(head, count=100, seed=0):
    return prongs(count, seed) if head.sees == "constituents" else ring(count, seed)


@pytest.fixture(scope="module")
def detectors():
    return {head.name: head.fit(inputs_of(head, count)) for head, count in zip(HEADS, (2000, 100), strict=True)}


@pytest.fixture(scope="module")
def circle(detectors):
    return detectors[HEADS[0].name]


@pytest.fixture(scope="module")
def partition(circle):
    return circle.log_partition(ring(2000), levels=200)


def double_well(x):
    """exp(-U) in two dimensions, of modes at +-1 along one and a width that is known along the other."""
    return 2 * (x[:, 0] ** 2 - 1) ** 2 + 0.5 * (x[:, 1] / 0.6) ** 2


def quadrature(energy, reach, points=401):
    """log Z and the moments <x_0^2>, <x_1^2> on a grid of the plane."""
    axis = np.linspace(-reach, reach, points)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    u = np.asarray(energy(jnp.asarray(grid, jnp.float32)), np.float64)
    weight = np.exp(-u)
    cell = (axis[1] - axis[0]) ** 2
    return math.log(weight.sum() * cell), (weight[:, None] * grid**2).sum(axis=0) / weight.sum()


def test_chains_follow_the_density():
    _, moments = quadrature(double_well, 4)
    start = jax.random.normal(jax.random.key(0), (1000, 2))
    found = langevin(double_well, start, jax.random.key(1), 150, 0.1)
    x = np.asarray(found.x, np.float64)
    spread = (x**2).std(axis=0) / math.sqrt(len(x))
    assert (np.abs((x**2).mean(axis=0) - moments) < 4 * spread).all()
    assert 0.7 < float(found.accepted) < 1
    np.testing.assert_allclose(found.energy, double_well(found.x), rtol=1e-4, atol=1e-5)


def test_steps_too_large_stand_still():
    start = jnp.ones((50, 2))
    found = langevin(double_well, start, jax.random.key(1), 20, 1e6)
    assert float(found.accepted) == 0
    np.testing.assert_array_equal(found.x, start)


def test_partition_of_a_double_well():
    expected, _ = quadrature(double_well, 4)
    x = np.random.default_rng(0).normal(size=(500, 2))
    found = log_partition(double_well, x, chains=1000, levels=100)
    assert abs(found.log - expected) < 4 * found.error
    assert found.error < 0.05
    assert 100 < found.effective <= 1000


def test_partition_of_a_normal_distribution_is_exact_in_form():
    scale = np.array([0.1, 1, 10])
    x = np.random.default_rng(0).normal(size=(4000, 3)) * scale
    found = log_partition(lambda x: 0.5 * jnp.sum((x / scale) ** 2, axis=1) + 7, x, levels=100)
    assert abs(found.log - (1.5 * math.log(2 * math.pi) + np.log(scale).sum() - 7)) < 4 * found.error + 0.01


def test_partition_refuses():
    x = np.random.default_rng(0).normal(size=(50, 2))
    with pytest.raises(ValueError, match="more points than dimensions"):
        log_partition(double_well, x[:2])
    with pytest.raises(ValueError, match="levels > 1"):
        log_partition(double_well, x, levels=1)
    with pytest.raises(ValueError, match="fewer dimensions"):
        log_partition(double_well, np.ones((50, 2)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        log_partition(lambda x: jnp.where(x[:, 0] > 0, jnp.nan, 0.0), x)
    with pytest.raises(ValueError, match="one step"):
        langevin(double_well, jnp.ones((2, 2)), jax.random.key(0), 0, 0.1)


def test_partition_of_a_fitted_one_agrees_with_quadrature(circle, partition):
    expected, _ = quadrature(_energy(circle.head.objective, circle.params, jnp.float32(circle.variance)), 6)
    assert abs(partition.log - expected) < 4 * partition.error + 0.02
    assert partition.error < 0.1


def test_the_density_is_that_of_the_ring(circle, partition):
    """Its probability sums to one on a grid, and most of it lies near the circle."""
    axis = np.linspace(-3, 3, 201)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)
    per_cell = (axis[1] - axis[0]) ** 2 * abs(np.linalg.det(circle.inputs.whitened.axes))
    mass = np.exp(-circle.score(grid) - partition.log) * per_cell
    r = np.hypot(*grid.T)
    near = np.quantile(np.abs(np.hypot(*ring(2000, 1).T) - 1), 0.9)
    assert mass.sum() == pytest.approx(1, abs=0.05)
    assert mass[np.abs(r - 1) < 1.5 * near].sum() > 0.7


def test_what_lies_inside_the_ring_is_strange(circle):
    usual, strange = circle.score(ring(500, 1)), circle.score(ring(500, 2, radius=0.2))
    assert roc_auc_score(np.repeat([0, 1], 500), np.concatenate([usual, strange])) > 0.98


def test_energies_of_negatives_stay_bounded(circle):
    steps, data, negatives, accepted = np.asarray(circle.history).T
    assert steps[-1] == circle.head.normalising_steps
    assert (np.diff(steps) > 0).all()
    assert negatives.max() < 10 * data.max() < 50
    assert (accepted > 0.1).all()


def test_what_runs_away_is_refused():
    head = replace(HEADS[0], normalising_lr=30.0, steps=20, normalising_steps=200)
    with pytest.raises(ValueError, match="runs away"):
        head.fit(inputs_of(head))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_files_give_the_same_bits(head, detectors, tmp_path):
    detector, others = detectors[head.name], inputs_of(head, 30, 1)
    save(tmp_path / "head.npz", detector)
    again, _, _ = load(tmp_path / "head.npz", {head.name: type(head)})
    assert isinstance(head, Head)
    assert isinstance(again, Detector)
    assert isinstance(again, NormalisedDetector)
    assert again.head == head
    assert again.history == detector.history
    np.testing.assert_array_equal(again.score(others), detector.score(others))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_the_seed_decides(head):
    head, others, steps = replace(head, steps=30, normalising_steps=30), inputs_of(head, 30, 1), []
    first, again = (head.fit(inputs_of(head), progress=steps.append) for _ in range(2))
    assert sum(steps) == 2 * 60
    np.testing.assert_array_equal(again.score(others), first.score(others))
    assert again.history == first.history
    assert not np.array_equal(head.fit(inputs_of(head), seed=1).score(others), first.score(others))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_damaged_states_are_refused(head, detectors):
    state = detectors[head.name].state()
    for name in state:
        with pytest.raises(ValueError, match="missing"):
            head.restore({key: x for key, x in state.items() if key != name})
    with pytest.raises(ValueError, match="variance must be positive"):
        head.restore(state | {"variance": np.asarray(-1.0)})
    with pytest.raises(ValueError, match="history must have the shape"):
        head.restore(state | {"history": np.zeros((3, 2))})


def test_latent_numbers_lie_on_a_sphere():
    codec, x = SphereCodec(3, hidden=(4,)), jnp.asarray(ring(20))
    params = codec.init(jax.random.key(0), x)
    z = jax.jit(codec.encode)(params, x)
    decode = jax.jit(codec.decode)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(decode(params, 5 * z), decode(params, z), rtol=1e-3, atol=1e-5)


def test_components_of_images_have_unit_variance_and_no_correlation():
    jets = prongs(200)
    settings = ImageComponentInputs(components=5, pixels=8, smoothing=1.0)
    prepared = settings.prepare(jets)
    x = prepared(jets)
    np.testing.assert_allclose(np.cov(x, rowvar=False), np.eye(5), atol=1e-3)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-3)
    images = settings.images(jets).astype(np.float64)
    variances = np.linalg.eigvalsh(np.cov(images, rowvar=False))[::-1][:5]
    axes = prepared.state()["axes"]
    np.testing.assert_allclose(np.linalg.norm(axes, axis=0) ** -2, variances, rtol=1e-3)
    np.testing.assert_array_equal(settings.prepared(prepared.state())(jets), x)


def test_too_few_jets_and_numbers_that_are_none():
    head = HEADS[0]
    with pytest.raises(ValueError, match="20 are needed"):
        head.fit(inputs_of(head, 19))
    bad = inputs_of(head, 50)
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        head.fit(bad)
    with pytest.raises(ValueError, match="more jets than 3"):
        HEADS[1].fit(prongs(3))
    same = Constituents(*(np.repeat(np.asarray(field)[:1], 30, axis=0) for field in prongs(1)))
    with pytest.raises(ValueError, match="do not vary"):
        HEADS[1].fit(same)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"latent": 1}, "at least two latent"),
        ({"input_steps": 0}, "must be positive"),
        ({"latent_step": 0.0}, "must be positive"),
        ({"temperature": float("nan")}, "must be positive"),
        ({"fresh": 1.5}, "fresh"),
        ({"restraint": -1.0}, "restraint"),
        ({"components": -1}, "components"),
        ({"steps": 0}, "steps"),
    ],
)
def test_settings_out_of_range(wrong, message):
    for head in HEADS:
        with refused(message):
            replace(head, **wrong)
