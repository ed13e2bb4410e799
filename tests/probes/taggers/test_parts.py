"""The parts of the taggers against independent implementations and closed forms."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from probes.taggers import Constituents, constituents
from probes.taggers.image import aligned, image
from probes.taggers.network import features, fraction, turn
from probes.taggers.particlenet import edge_convolution, nearest
from probes.taggers.transformer import Transformer
from tests.probes.taggers.jets import SMALL, toy_jets

PFN, EFN = SMALL[:2]


def distances(jets):
    return np.hypot(jets.eta[:, :, None] - jets.eta[:, None, :], jets.phi[:, :, None] - jets.phi[:, None, :])


def test_turning_keeps_distances_and_pt():
    jets = toy_jets(200)
    turned = turn(jax.random.key(0), jets)
    np.testing.assert_allclose(distances(turned), distances(jets), atol=1e-5)
    np.testing.assert_array_equal(turned.pt, jets.pt)
    # Directions from the fourth constituent to the first three: by how much a jet was turned, whether it was mirrored.
    before, after = (np.arctan2(j.phi[:, :3] - j.phi[:, 3:4], j.eta[:, :3] - j.eta[:, 3:4]) for j in (jets, turned))
    steps = [np.sin(np.diff(x, axis=1)) for x in (before, after)]
    kept = np.array([np.allclose(a, b, atol=1e-3) for a, b in zip(*steps, strict=True)])
    flipped = np.array([np.allclose(a, -b, atol=1e-3) for a, b in zip(*steps, strict=True)])
    assert (kept | flipped).all()
    assert 70 < kept.sum() < 130
    angle = (after - before)[kept, 0] % (2 * np.pi)
    assert np.histogram(angle, 4, (0, 2 * np.pi))[0].min() > 10


def test_features_of_a_known_jet():
    pt = np.array([[300.0, 100.0, 0.0]], np.float32)
    jets = Constituents(pt, np.array([[0.3, -0.3, 7]], np.float32), np.array([[0.0, 0.4, 7]], np.float32), pt > 0)
    z, log_z, log_pt, eta, phi, r, r2 = np.asarray(features(jets))[0].T
    np.testing.assert_allclose(z, [3, 1, 0])
    np.testing.assert_allclose(log_z, [(np.log(0.75) + 5) / 2, (np.log(0.25) + 5) / 2, 0], rtol=1e-6)
    np.testing.assert_allclose(log_pt, [(np.log(300) - 1.5) / 2, (np.log(100) - 1.5) / 2, 0], rtol=1e-6)
    np.testing.assert_allclose(eta, [1, -1, 0], rtol=1e-6)
    np.testing.assert_allclose(phi, [0, 4 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(r, [1, 5 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(r2, [1, 25 / 9, 0], rtol=1e-6)
    np.testing.assert_allclose(fraction(jets), [[0.75, 0.25, 0]])


def emitted(jets, soft, seed=0):
    """Every constituent split in two at its place, and as many of `soft` GeV anywhere."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.1, 0.9, jets.pt.shape).astype(np.float32)
    pt = np.concatenate([jets.pt * share, jets.pt * (1 - share), np.full_like(jets.pt, soft)], axis=1)
    away = [rng.uniform(-0.6, 0.6, jets.pt.shape).astype(np.float32) for _ in range(2)]
    eta, phi = (np.concatenate([x, x, y], axis=1) for x, y in zip((jets.eta, jets.phi), away, strict=True))
    return Constituents(pt, eta, phi, np.concatenate([jets.mask, jets.mask, np.ones_like(jets.mask)], axis=1))


def test_energy_flow_is_infrared_and_collinear_safe():
    jets = toy_jets(20)
    change = {}
    for tagger in (EFN, PFN):
        params = tagger.init(jax.random.key(0), jets)
        before, after = (np.asarray(jax.jit(tagger.apply)(params, j, None)) for j in (jets, emitted(jets, 1e-5)))
        change[tagger.name] = np.abs(after - before).max() / np.ptp(before)
    assert change["EFN"] < 1e-4
    assert change["PFN"] > 0.1, "a network that counts constituents must notice"


def test_nearest_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.normal(size=(5, 12, 3)), jnp.float32)
    mask = jnp.arange(12) < jnp.array([12, 9, 5, 2, 1])[:, None]
    found = np.asarray(nearest(points, mask, 4))
    assert found.shape == (5, 12, 4, 12)
    for i, real in enumerate([12, 9, 5, 2, 1]):
        others = min(4, real - 1)
        assert not found[i, :real, others:].any()
        assert not found[i, :, :, real:].any()
        if others:
            near = NearestNeighbors(n_neighbors=others).fit(points[i, :real]).kneighbors(return_distance=False)
            np.testing.assert_array_equal(found[i, :real, :others].argmax(axis=-1), near)
            assert (found[i, :real, :others].sum(axis=-1) == 1).all()


def test_edge_convolution_edge_by_edge():
    """The first layer on (x_i, x_j - x_i), written out; ours applies it to constituents."""
    rng = np.random.default_rng(0)
    h, points = (jnp.asarray(rng.normal(size=(2, 6, d)), jnp.float32) for d in (5, 2))
    mask = jnp.arange(6) < jnp.array([6, 3])[:, None]
    run = hk.without_apply_rng(hk.transform(lambda *x: edge_convolution(*x, 3, (4, 4), "block")))
    shapes = jax.eval_shape(run.init, jax.random.key(0), h, points, mask)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    found = np.asarray(jax.jit(run.apply)(params, h, points, mask))
    h, points, mask = (np.asarray(x) for x in (h, points, mask))
    own, other, direct = (params[f"block_{part}"] for part in ("own", "other", "direct"))
    edge, scale = params["block_edge/~/linear_0"], params["block_sum_norm"]
    for i in range(2):
        for n in np.flatnonzero(mask[i]):
            order = sorted(set(np.flatnonzero(mask[i])) - {n}, key=lambda m: np.sum((points[i, n] - points[i, m]) ** 2))
            messages = []
            for m in order[:3]:
                difference, at = h[i, m] - h[i, n], h[i, n]
                first = at @ (own["w"] + other["w"]) + difference @ other["w"] + own["b"]
                messages.append(np.maximum(np.maximum(first, 0) @ edge["w"] + edge["b"], 0))
            total = np.mean(messages, axis=0) + h[i, n] @ direct["w"] + direct["b"]
            total = (total - total.mean()) / np.sqrt(total.var() + 1e-5)
            expected = np.maximum(total * scale["scale"] + scale["offset"], 0)
            np.testing.assert_allclose(found[i, n], expected, atol=1e-4)


def test_attention_is_that_of_haiku():
    tagger = Transformer(width=12, heads=3)
    rng = np.random.default_rng(0)
    h = jnp.asarray(rng.normal(size=(4, 7, 12)), jnp.float32)
    mask = jnp.arange(7) < jnp.array([7, 5, 2, 1])[:, None]
    ours = hk.without_apply_rng(hk.transform(lambda h, mask: tagger._attend(h, mask, "block")))
    params = ours.init(jax.random.key(0), h, mask.astype(jnp.float32))
    theirs = hk.without_apply_rng(
        hk.transform(
            lambda h, mask: hk.MultiHeadAttention(3, 4, w_init=hk.initializers.Constant(0))(
                h, h, h, mask[:, None, None, :]
            )
        )
    )
    inputs = dict(zip(("query", "key", "value"), np.split(params["block_qkv"]["w"], 3, axis=1), strict=True))
    named = {f"multi_head_attention/{name}": {"w": w, "b": np.zeros(12)} for name, w in inputs.items()}
    expected = theirs.apply(named | {"multi_head_attention/linear": params["block_out"]}, h, mask)
    found = ours.apply(params, h, mask.astype(jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def turned_by(jets, angle, sign=1):
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return jets._replace(eta=cos * jets.eta - sin * jets.phi, phi=sign * (sin * jets.eta + cos * jets.phi))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("angle", [0.4, 2.0, 4.5])
def test_an_image_does_not_depend_on_rotation_and_reflection(angle, sign):
    jets = toy_jets(30)
    first, other = (np.asarray(image(j, 16, 1.0)) for j in (jets, turned_by(jets, angle, sign)))
    np.testing.assert_allclose(other, first, atol=1e-3)


def test_alignment():
    jets = toy_jets(30)
    along, across = (np.asarray(x) for x in aligned(jets))
    z = np.asarray(fraction(jets))
    np.testing.assert_allclose((z * along * across).sum(axis=1), 0, atol=1e-5)
    assert ((z * along**2).sum(axis=1) >= (z * across**2).sum(axis=1) - 1e-6).all()
    for x in (along, across):
        assert ((z * np.sign(x)).sum(axis=1) > -1e-6).all()
    np.testing.assert_allclose(np.hypot(along, across), np.hypot(jets.eta, jets.phi), atol=1e-5)


def test_image_of_a_known_jet():
    """Two constituents on the axis: one in the middle of a pixel, one between two."""
    pt, flat = np.array([[30.0, 10.0]], np.float32), np.zeros((1, 2), np.float32)
    jets = Constituents(pt, np.array([[0.25, -0.5]], np.float32), flat, pt > 0)
    found = np.asarray(image(jets, 4, 1.0))[0]
    expected = np.zeros((4, 4))
    expected[2, 1:3] = 0.75 / 2
    expected[0:2, 1:3] = 0.25 / 4
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_image_holds_the_pt_within_it():
    jets = toy_jets(30)
    np.testing.assert_allclose(np.asarray(image(jets, 16, 2.0)).sum(axis=(1, 2)), 1, atol=1e-5)
    far = constituents(*(np.array([[x, y]]) for x, y in ((1.0, 1.0), (-5.0, 5.0), (0.0, 0.0))), np.ones((1, 2), bool))
    np.testing.assert_allclose(image(far, 16, 1.0), 0)
