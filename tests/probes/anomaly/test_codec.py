"""Codecs of tables, images and points, and pieces of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.stats import energy_distance as energy_distance_of_lines

from probes.anomaly.codec import OUTPUT, Codec, ImageCodec, TableCodec
from probes.anomaly.pieces import in_pieces
from probes.anomaly.points import SOFT, PointCodec, energy_distance
from probes.training import SCORED_JETS

CODECS = [
    TableCodec(3, hidden=(8, 5)),
    TableCodec(3, 2, ()),
    ImageCodec(3, hidden=(8,), pixels=4),
    PointCodec(3, 2, (8,)),
]
WIDTH = {TableCodec: 7, ImageCodec: 16, PointCodec: 15}


def points(jets, count=5, seed=0):
    """[jets, 3 count]: fractions that sum to one and angles of order one."""
    rng = np.random.default_rng(seed)
    z = rng.dirichlet(np.ones(count), jets)
    return np.concatenate([z[..., None], rng.normal(size=(jets, count, 2))], axis=-1).reshape(jets, -1).astype("f4")


def inputs(codec, jets=6):
    width = WIDTH[type(codec)]
    if isinstance(codec, PointCodec):
        return jnp.asarray(points(jets, width // 3))
    return jnp.asarray(np.random.default_rng(0).uniform(size=(jets, width)), jnp.float32)


def copied(codec, params, x):
    return codec.decode(params, codec.encode(params, x))


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_shapes_and_seeds(codec):
    x = inputs(codec)
    params = codec.init(jax.random.key(0), x)
    z = jax.eval_shape(codec.encode, params, x)
    assert isinstance(codec, Codec)
    assert z.shape == (6, 3 * codec.moments)
    assert jax.eval_shape(codec.decode, params, jnp.ones((6, 3))).shape == x.shape
    again, other = (codec.init(jax.random.key(seed), 5 * x[:1]) for seed in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True))
    assert not np.array_equal(other["latent"]["w"], params["latent"]["w"])


def test_without_hidden_layers_it_is_two_matrices():
    codec = TableCodec(3, hidden=())
    x = inputs(codec)
    params = codec.init(jax.random.key(1), x)
    down, up = params["latent"], params[OUTPUT]
    made = jax.jit(copied, static_argnums=0)(codec, params, x)
    np.testing.assert_allclose(made, (x @ down["w"] + down["b"]) @ up["w"] + up["b"], atol=1e-5)
    assert set(params) == {"latent", OUTPUT}


def test_images_have_no_negative_pixels_and_one_size():
    codec = ImageCodec(2, hidden=(4,), pixels=4)
    params = codec.init(jax.random.key(0), inputs(codec))
    assert np.asarray(jax.jit(codec.decode)(params, 30.0 * jnp.eye(2))).min() >= 0
    with pytest.raises(ValueError, match="4 x 4 pixels"):
        codec.encode(params, jnp.ones((1, 25)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TableCodec(0),
        lambda: TableCodec(2, 3),
        lambda: TableCodec(2, hidden=(4, 0)),
        lambda: ImageCodec(2, pixels=0),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(ValueError, match=r"needed|need|needs"):
        make()


def test_points_know_no_order():
    codec, x = PointCodec(4, hidden=(8,)), jnp.asarray(points(3))
    params = codec.init(jax.random.key(0), x)
    shuffled = x.reshape(3, 5, 3)[:, [3, 0, 4, 1, 2]].reshape(3, -1)
    encode = jax.jit(codec.encode)
    np.testing.assert_allclose(encode(params, shuffled), encode(params, x), atol=1e-5)
    np.testing.assert_allclose(jax.jit(codec.decode)(params, encode(params, x))[:, ::3].sum(axis=1), 1, rtol=1e-5)
    padded = jnp.pad(x, ((0, 0), (0, 6)))
    np.testing.assert_allclose(encode(params, padded), encode(params, x), atol=1e-5)


distance = jax.jit(energy_distance)


@given(st.integers(0, 10_000))
def test_energy_distance_is_one(seed):
    p, q = (points(2, seed=seed + i) for i in (0, 1))
    there = np.asarray(distance(p, q))
    assert (there > 0).all()
    np.testing.assert_allclose(distance(q, p), there, rtol=1e-4)
    order = np.random.default_rng(seed).permutation(5)
    np.testing.assert_allclose(distance(p.reshape(2, 5, 3)[:, order].reshape(2, -1), q), there, rtol=1e-4)
    np.testing.assert_allclose(distance(p, p), 0, atol=1e-5)


def test_a_collinear_splitting_or_nothing_at_all_is_no_distance():
    p = points(4).reshape(4, 5, 3)
    halves = p.copy()
    halves[..., 0] /= 2
    soft = np.zeros_like(p)
    soft[..., 1:] = 3
    for same in (np.concatenate([halves, halves], axis=1), np.concatenate([p, soft], axis=1)):
        padded = np.concatenate([p, np.zeros_like(p)], axis=1)
        found = distance(*(x.reshape(4, -1) for x in (padded, same)))
        np.testing.assert_allclose(found, 0, atol=1e-5)


def test_energy_distance_agrees_with_that_of_scipy_on_a_line():
    p, q = (points(1, 6, seed).reshape(6, 3) for seed in (1, 2))
    for x in (p, q):
        x[:, 2] = 0
        x[:, 1] *= 50_000 * SOFT  # far apart beside the softening
    expected = energy_distance_of_lines(p[:, 1], q[:, 1], p[:, 0], q[:, 0]) ** 2
    found = distance(*(x.reshape(1, -1) for x in (p, q)))
    assert float(found[0]) == pytest.approx(expected, rel=1e-3)


def test_slopes_are_finite_where_points_meet_and_where_there_are_none():
    codec = PointCodec(2, hidden=(4,))
    x = np.zeros((2, 15), np.float32)
    x[0, ::3] = 0.2
    x = jnp.asarray(x)
    params = codec.init(jax.random.key(0), x)
    slope = jax.jit(jax.grad(lambda p: energy_distance(x, copied(codec, p, x)).sum()))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(slope))


@pytest.mark.parametrize("jets", [0, 1, SCORED_JETS, SCORED_JETS + 3])
def test_pieces_are_all_the_jets(jets):
    x = np.arange(2.0 * jets, dtype=np.float32).reshape(jets, 2)
    seen = []

    def squares(part):
        seen.append(len(part["x"]))
        return part["x"] ** 2

    np.testing.assert_array_equal(in_pieces(squares, {"x": x}), x**2)
    assert len(set(seen)) <= 1
    assert max(seen, default=0) <= SCORED_JETS


def test_pieces_of_arrays_that_do_not_agree():
    with pytest.raises((ValueError, TypeCheckError), match="equally many"):
        in_pieces(lambda part: part[0], (np.zeros(3), np.zeros(4)))
