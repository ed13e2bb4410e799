from dataclasses import replace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augmentations import Jets
from augmentations.jets import trimmed
from jetclr.encoder import Encoder, Head, Network, Params, build, build_head, check_irc_safe, layer_names
from jetclr.features import Features, Inputs
from jetclr.kernels import BY_HAND, FORMULAS, Kernels
from jetclr.pairs import PairFeature
from jetclr.weights import Pooling
from tests.toys import toy_jet

FEATURES = Features()
EVERY_PAIR = get_args(PairFeature)
SETTINGS = [
    Encoder(width=16, layers=2, heads=2, feedforward=32, wide=24),
    Encoder(width=16, layers=1, heads=4, feedforward=16, attention="plain", pooling=("mean",), wide=0),
    Encoder(width=8, layers=2, heads=1, feedforward=8, pooling=("pt",), wide=8),
    Encoder(width=8, layers=1, heads=2, feedforward=8, pooling=("sum", "attention"), wide=0, pairwise=EVERY_PAIR),
    Encoder(width=8, layers=1, heads=2, feedforward=8, pooling=("attention",), wide=8),
    Encoder(width=8, layers=3, heads=2, feedforward=8, pooling=("mean", "attention"), wide=4, depth="all"),
]
NAMES = ["pt", "plain", "one-head", "pairwise", "attention", "depths"]
HEAD = Head(hidden=(12,), width=6)


def made(settings: Encoder, slots: int = 24) -> tuple[Network, Params]:
    network = build(settings, HEAD)
    params = network.init(jax.random.key(0), FEATURES(toy_jet(0, slots)))
    # Random biases as well: at zero they would hide what padding can do.
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return network, jax.tree.unflatten(
        tree, [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


def pad(jets: Jets, slots: int) -> Jets:
    return jax.tree.map(lambda x: jnp.pad(x, (0, slots - x.shape[0])), jets)


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_permuting_constituents_changes_no_layer(settings: Encoder) -> None:
    network, params = made(settings)
    apply = jax.jit(lambda jets: network.apply(params, FEATURES(jets), None))
    for seed in range(8):
        jets = toy_jet(seed)
        order = np.random.default_rng(seed).permutation(24)
        for name, x in apply(jets).items():
            shuffled = apply(jax.tree.map(lambda v, order=order: v[order], jets))[name]
            np.testing.assert_allclose(shuffled, x, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_more_padding_changes_no_layer(settings: Encoder) -> None:
    network, params = made(settings)
    apply = jax.jit(lambda jets: network.apply(params, FEATURES(jets), None))
    for seed in range(4):
        jets = toy_jet(seed)
        for name, x in apply(jets).items():
            np.testing.assert_allclose(apply(pad(jets, 40))[name], x, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_padding_gets_no_gradient(settings: Encoder) -> None:
    network, params = made(settings)
    inputs = FEATURES(toy_jet(3, slots=40))

    @jax.jit
    @jax.grad
    def gradient_of(x: jax.Array) -> jax.Array:
        return (network.apply(params, inputs._replace(x=x), None)["projection"] ** 2).sum()

    gradient = gradient_of(inputs.x)
    padding = ~np.asarray(inputs.mask)
    assert padding.any()
    assert (np.asarray(gradient)[padding] == 0).all()
    assert (np.asarray(gradient)[~padding] != 0).any()


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_a_jet_without_constituents_is_finite_and_so_is_its_gradient(settings: Encoder) -> None:
    network, params = made(settings)
    inputs = jax.tree.map(jnp.zeros_like, FEATURES(toy_jet(0)))

    def loss(params: Params) -> jax.Array:
        return sum(((x**2).sum() for x in network.apply(params, inputs, None).values()), start=jnp.zeros(()))

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


@given(st.integers(0, 1000))
def test_soft_emissions_fade_out_under_the_continuous_mask(seed: int) -> None:
    """With pT-weighted attention and pooling an emission of relative pT 1e-7 moves the embedding by about as much."""
    network, params = made(SETTINGS[2])
    jets = toy_jet(seed)
    slot = int(np.argmin(jets.mask))
    if bool(jets.mask[slot]):
        return
    place = jnp.arange(24) == slot
    softer = Jets(
        jnp.where(place, 6e-5, jets.pt),
        jnp.where(place, jets.eta[0] + 0.3, jets.eta),
        jnp.where(place, jets.phi[0], jets.phi),
        jets.mask | place,
        {},
    )
    features = Features(("eta", "phi", "r"))
    network = build(SETTINGS[2], HEAD)
    params = network.init(jax.random.key(0), features(jets))
    a, b = (network.apply(params, features(j), None)["embedding"] for j in (jets, softer))
    assert float(jnp.abs(a - b).max()) < 2e-3 * float(jnp.abs(a).max())


def pair_bias(p: dict[str, dict[str, np.ndarray]], inputs: Inputs) -> np.ndarray:
    """[i, j, head], by adding four-vectors of massless constituents."""
    eta, phi, z = (np.asarray(x, np.float64)[np.asarray(inputs.mask)] for x in (inputs.eta, inputs.phi, inputs.z))
    momenta = z * np.array([np.cosh(eta), np.cos(phi), np.sin(phi), np.sinh(eta)])
    features = np.zeros((len(z), len(z), 4))
    for i in range(len(z)):
        for j in range(len(z)):
            energy, *momentum = momenta[:, i] + momenta[:, j]
            turn = abs(phi[i] - phi[j])
            distance = np.sqrt((eta[i] - eta[j]) ** 2 + min(turn, 2 * np.pi - turn) ** 2 + 0.005**2)
            softer = min(z[i], z[j])
            mass = max(energy**2 - np.sum(np.square(momentum)), 0) + z[i] * z[j] * 0.005**2
            values = np.log([distance, softer * distance, softer / (z[i] + z[j]), mass])
            features[i, j] = (values - [-1.7, -6.5, -1.5, -12.0]) / [1.2, 1.3, 0.9, 2.5]
    return np.concatenate([features, np.minimum(features**2, 9)], axis=-1) @ p["pairs"]["w"]


@pytest.mark.parametrize("pairwise", [(), EVERY_PAIR], ids=["by itself", "pairwise"])
def test_attention_matches_a_plain_loop(pairwise: tuple[PairFeature, ...]) -> None:
    """One block and all poolings against an independent numpy reading of the same parameters."""
    poolings = ("mean", "pt", "sum", "attention")
    settings = Encoder(width=8, layers=1, heads=2, feedforward=8, pooling=poolings, wide=0, pairwise=pairwise)
    network, params = made(settings)
    inputs = FEATURES(toy_jet(2))
    found = jax.jit(network.apply)(params, inputs, None)
    p = {k: {n: np.asarray(v, np.float64) for n, v in d.items()} for k, d in params.items()}
    x, z, mask = (np.asarray(v, np.float64) for v in inputs[:3])
    real = mask > 0
    z = z[real]
    h = x[real] @ p["embed"]["w"] + p["embed"]["b"]
    pairs = pair_bias(p, inputs) if pairwise else np.zeros((len(h), len(h), 2))

    def norm(name: str, v: np.ndarray) -> np.ndarray:
        v = (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)
        return v * p[name]["scale"] + p[name]["offset"]

    qkv = norm("attention_norm_0", h) @ p["block_0_qkv"]["w"] + p["block_0_qkv"]["b"]
    q, k, v = (part.reshape(len(h), 2, 4) for part in np.split(qkv, 3, axis=1))
    mixed = np.zeros((len(h), 2, 4))
    for i in range(len(h)):
        for head in range(2):
            scores = [q[i, head] @ k[j, head] / 2 + 0.5 * np.log(z[j]) + pairs[i, j, head] for j in range(len(h))]
            weights = np.exp(np.array(scores) - max(scores))
            mixed[i, head] = (weights / weights.sum()) @ v[:, head]
    h = h + mixed.reshape(len(h), 8) @ p["block_0_out"]["w"] + p["block_0_out"]["b"]
    up = norm("feedforward_norm_0", h) @ p["block_0_up"]["w"] + p["block_0_up"]["b"]
    up = up * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
    h = h + up @ p["block_0_down"]["w"] + p["block_0_down"]["b"]
    np.testing.assert_allclose(found["layer_1"], np.concatenate([h.mean(0), z @ h, h.sum(0) / 50]), atol=5e-5)
    h = norm("final_norm", h)
    scores = h @ p["pool_query"]["w"] + 0.5 * np.log(z)[:, None]
    shares = np.exp(scores) / np.exp(scores).sum(0)
    values = h @ p["pool_value"]["w"] + p["pool_value"]["b"]
    asked = np.concatenate([shares[:, head] @ values[:, 4 * head : 4 * head + 4] for head in range(2)])
    np.testing.assert_allclose(found["embedding"], np.concatenate([h.mean(0), z @ h, h.sum(0) / 50, asked]), atol=5e-5)


def test_both_ways_of_computing_give_one_network_and_one_gradient() -> None:
    settings = Encoder(
        width=16,
        layers=2,
        heads=2,
        feedforward=32,
        dropout=0.3,
        wide=24,
        pooling=("pt", "attention"),
        pairwise=EVERY_PAIR,
    )
    _, params = made(settings)
    inputs = jax.tree.map(lambda *x: jnp.stack(x), *(FEATURES(toy_jet(seed)) for seed in range(5)))
    keys = jax.random.split(jax.random.key(2), 5)

    def loss(params: Params, way: Kernels) -> jax.Array:
        return jnp.mean(build(settings, HEAD, kernels=way).apply(params, inputs, keys)["projection"] ** 2)

    ours, theirs = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, way) for way in (BY_HAND, FORMULAS))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    for x, y in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(theirs[1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * max(float(jnp.abs(y).max()), 1e-2))


def test_every_named_layer_is_returned_with_the_head_last() -> None:
    network, params = made(SETTINGS[0])
    layers = network.apply(params, FEATURES(toy_jet(0)), None)
    assert sorted(layers) == sorted(layer_names(SETTINGS[0], HEAD))
    assert layer_names(SETTINGS[0], HEAD) == ["layer_0", "layer_1", "layer_2", "embedding", "head_1", "projection"]
    assert {name: x.shape for name, x in layers.items()}["embedding"] == (2 * 16 + 24,)


def test_dropout_acts_in_training_only_and_follows_its_key() -> None:
    settings = Encoder(width=8, layers=1, heads=1, feedforward=8, wide=0, dropout=0.5)
    network, params = made(settings)
    inputs = FEATURES(toy_jet(0))
    calm = [network.apply(params, inputs, None)["embedding"] for _ in range(2)]
    np.testing.assert_array_equal(*calm)
    wild = [network.apply(params, inputs, jax.random.key(i))["embedding"] for i in (0, 0, 1)]
    np.testing.assert_array_equal(wild[0], wild[1])
    assert (np.asarray(wild[0]) != np.asarray(wild[2])).any()
    assert (np.asarray(wild[0]) != np.asarray(calm[0])).any()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"width": 10, "heads": 4}, "width 10 is not a multiple of Encoder.heads 4"),
        ({"pooling": ()}, "pooling is empty"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"heads": 0}, "Encoder.heads is 0; it must be positive"),
        ({"layers": -1}, "neither may be negative"),
        (
            {"pooling": ("mean", "mean")},
            "Encoder.pooling is .*; it takes each of pt, mean, sum, attention at most once",
        ),
        ({"pairwise": ("ln_z", "ln_z")}, "Encoder.pairwise is .*; it takes each of ln_dr, ln_kt, ln_z, ln_m2 at most"),
        ({"irc_safe": True}, r"safe are attention 'pt', pooling \('pt',\) and pairwise"),
        ({"irc_safe": True, "pooling": ("pt",), "attention": "plain"}, "with attention 'plain'"),
        ({"irc_safe": True, "pooling": ("pt",), "pairwise": ("ln_dr", "ln_kt")}, "and pairwise .*'ln_kt'"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Encoder(**setting)  # type: ignore[arg-type]


def test_features_of_momenta_are_refused_where_all_is_to_be_safe() -> None:
    safe = Encoder(pooling=("pt",), irc_safe=True)
    check_irc_safe(safe, Features(("eta", "phi", "r", "r2")))
    check_irc_safe(Encoder(), Features())
    with pytest.raises(ValueError, match=r"Features\.columns has z, log_z; with Encoder\.irc_safe"):
        check_irc_safe(safe, Features())


@pytest.mark.parametrize(
    ("pooling", "fixed"),
    [(("pt", "mean"), ("pt", "mean")), (("sum", "attention"), ("sum",)), (("attention",), ("pt",))],
)
def test_every_depth_is_pooled_as_the_last_of_a_shallower_network(
    pooling: tuple[Pooling, ...], fixed: tuple[Pooling, ...]
) -> None:
    settings = Encoder(width=8, layers=3, heads=2, feedforward=8, pooling=pooling, wide=0, depth="all")
    network, params = made(settings)
    params |= {"final_norm": {"scale": jnp.ones(8), "offset": jnp.zeros(8)}}
    inputs = FEATURES(toy_jet(3))
    embedding = network.apply(params, inputs, None)["embedding"]
    assert embedding.shape == (settings.pooled_width,)

    def alone(layers: int, pooling: tuple[Pooling, ...]) -> jax.Array:
        shallower = replace(settings, layers=layers, pooling=pooling, depth="last")
        head = {"head_1": {"w": jnp.zeros((shallower.pooled_width, 12)), "b": jnp.zeros(12)}}
        return build(shallower, HEAD).apply(params | head, inputs, None)["embedding"]

    expected = jnp.concatenate([alone(3, pooling), alone(1, fixed), alone(2, fixed)])
    np.testing.assert_allclose(embedding, expected, rtol=1e-6, atol=1e-6)


TOKENS = [SETTINGS[0], SETTINGS[3], Encoder(width=6, heads=2, layers=1, feedforward=8, pooling=("mean",), wide=0)]


@pytest.mark.parametrize("settings", TOKENS, ids=["pt", "pairwise", "mean"])
def test_of_hidden_constituents_only_the_rank_is_seen(settings: Encoder) -> None:
    network = build(settings, HEAD, tokens=True)
    inputs = FEATURES(trimmed(toy_jet(5), 24))  # the hardest first
    params = jax.tree.map(lambda x: x + 0.1, network.init(jax.random.key(0), inputs))
    hidden = jnp.zeros(24, bool).at[jnp.asarray([0, 3, 4])].set(True)
    between = jnp.where(hidden, 0.5 * (inputs.z + jnp.append(inputs.z[1:], 0)), inputs.z)  # ranks stay

    def junk(x: jax.Array) -> jax.Array:
        return jnp.where(hidden.reshape(-1, *[1] * (x.ndim - 1)), 7.0, x)

    other = inputs._replace(x=junk(inputs.x), z=between, eta=junk(inputs.eta), phi=junk(inputs.phi))
    tokens = jax.jit(network.tokens)
    (layers, found), (same, again) = (tokens(params, one, None, hidden) for one in (inputs, other))
    np.testing.assert_array_equal(found, again)
    for name, x in layers.items():
        np.testing.assert_array_equal(x, same[name], err_msg=name)
    assert found.shape == (24, settings.width)
    distance = np.abs(np.asarray(found)[:, None] - np.asarray(found)).max(-1)[np.ix_(hidden, hidden)]
    assert (distance + np.eye(3) > 1e-3).all()  # each has a rank of its own
    swapped = inputs._replace(z=inputs.z.at[jnp.asarray([0, 3])].set(inputs.z[jnp.asarray([3, 0])]))
    np.testing.assert_allclose(tokens(params, swapped, None, hidden)[1][3], found[0], atol=1e-5)
    order = jnp.asarray(np.random.default_rng(0).permutation(24))
    turned = tokens(params, jax.tree.map(lambda x: x[order], inputs), None, hidden[order])
    np.testing.assert_allclose(turned[1], found[order], atol=1e-5)
    np.testing.assert_allclose(turned[0]["embedding"], layers["embedding"], atol=1e-5)


def test_where_nothing_is_hidden_tokens_are_those_of_the_embedding() -> None:
    settings = TOKENS[2]
    network, params = made(settings)
    inputs = FEATURES(toy_jet(1))
    layers, constituents = network.tokens(params, inputs, None, None)
    for name, x in network.apply(params, inputs, None).items():
        np.testing.assert_array_equal(x, layers[name])
    np.testing.assert_allclose(constituents[inputs.mask].mean(0), layers["embedding"], atol=1e-5)
    more = build(settings, HEAD, tokens=True).init(jax.random.key(0), inputs)
    plain = network.init(jax.random.key(0), inputs)
    assert set(more) - set(plain) == {"mask_token"}
    jax.tree.map(np.testing.assert_array_equal, {name: more[name] for name in plain}, plain)


def test_hiding_in_training_gives_every_parameter_a_finite_gradient() -> None:
    """Rows of jets, of which one is empty and one is hidden as a whole, in both ways of computing."""
    inputs = jax.tree.map(lambda *x: jnp.stack(x), *(FEATURES(toy_jet(seed)) for seed in range(4)))
    inputs = jax.tree.map(lambda x: x.at[0].set(jnp.zeros_like(x[0])), inputs)
    hidden = jax.random.bernoulli(jax.random.key(1), 0.4, (4, 24)).at[1].set(True)
    keys = jax.random.split(jax.random.key(2), 4)
    params = build(SETTINGS[3], HEAD, tokens=True).init(jax.random.key(0), FEATURES(toy_jet(0)))

    def loss(params: Params, way: Kernels) -> jax.Array:
        layers, tokens = build(SETTINGS[3], HEAD, kernels=way).tokens(params, inputs, keys, hidden)
        return jnp.mean(layers["projection"] ** 2) + jnp.mean(jnp.where(hidden[..., None], tokens, 0) ** 2)

    ours, theirs = (jax.jit(jax.grad(loss), static_argnums=1)(params, way) for way in (BY_HAND, FORMULAS))
    for name, own in ours.items():
        for kind, x in own.items():
            assert np.isfinite(x).all()
            assert (np.asarray(x) != 0).any(), (name, kind)
            np.testing.assert_allclose(x, theirs[name][kind], rtol=1e-3, atol=1e-5)


def test_a_head_of_an_objective_is_its_own_small_network() -> None:
    network = build_head(Head(hidden=(5,), width=3), "predictor")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 6)), jnp.float32)
    params = network.init(jax.random.key(0), x[0, 0])
    assert {name: own["w"].shape for name, own in params.items()} == {"predictor_1": (6, 5), "predictor": (5, 3)}
    units = jax.nn.gelu(x @ params["predictor_1"]["w"] + params["predictor_1"]["b"])
    expected = units @ params["predictor"]["w"] + params["predictor"]["b"]
    np.testing.assert_allclose(network.apply(params, x), expected, atol=1e-5)
    assert list(build_head(Head((), 3), "prototypes").init(jax.random.key(0), x)) == ["prototypes"]
