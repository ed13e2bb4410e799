import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augmentations import Jets
from jetclr.encoder import Encoder, Head, Network, Params, build, layer_names
from jetclr.features import Features
from jetclr.kernels import BY_HAND, FORMULAS, Kernels
from tests.toys import toy_jet

FEATURES = Features()
SETTINGS = [
    Encoder(width=16, layers=2, heads=2, feedforward=32, wide=24),
    Encoder(width=16, layers=1, heads=4, feedforward=16, attention="plain", pooling=("mean",), wide=0),
    Encoder(width=8, layers=2, heads=1, feedforward=8, pooling=("pt",), wide=8),
]
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


@pytest.mark.parametrize("settings", SETTINGS, ids=["pt", "plain", "one-head"])
def test_permuting_constituents_changes_no_layer(settings: Encoder) -> None:
    network, params = made(settings)
    apply = jax.jit(lambda jets: network.apply(params, FEATURES(jets), None))
    for seed in range(8):
        jets = toy_jet(seed)
        order = np.random.default_rng(seed).permutation(24)
        for name, x in apply(jets).items():
            shuffled = apply(jax.tree.map(lambda v, order=order: v[order], jets))[name]
            np.testing.assert_allclose(shuffled, x, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("settings", SETTINGS, ids=["pt", "plain", "one-head"])
def test_more_padding_changes_no_layer(settings: Encoder) -> None:
    network, params = made(settings)
    apply = jax.jit(lambda jets: network.apply(params, FEATURES(jets), None))
    for seed in range(4):
        jets = toy_jet(seed)
        for name, x in apply(jets).items():
            np.testing.assert_allclose(apply(pad(jets, 40))[name], x, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("settings", SETTINGS, ids=["pt", "plain", "one-head"])
def test_padding_gets_no_gradient(settings: Encoder) -> None:
    network, params = made(settings)
    inputs = FEATURES(toy_jet(3, slots=40))
    gradient = jax.grad(lambda x: (network.apply(params, inputs._replace(x=x), None)["projection"] ** 2).sum())(
        inputs.x
    )
    padding = ~np.asarray(inputs.mask)
    assert padding.any()
    assert (np.asarray(gradient)[padding] == 0).all()
    assert (np.asarray(gradient)[~padding] != 0).any()


@pytest.mark.parametrize("settings", SETTINGS, ids=["pt", "plain", "one-head"])
def test_a_jet_without_constituents_is_finite_and_so_is_its_gradient(settings: Encoder) -> None:
    network, params = made(settings)
    inputs = jax.tree.map(jnp.zeros_like, FEATURES(toy_jet(0)))

    def loss(params: Params) -> jax.Array:
        return sum(((x**2).sum() for x in network.apply(params, inputs, None).values()), start=jnp.zeros(()))

    value, gradient = jax.value_and_grad(loss)(params)
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


def test_attention_matches_a_plain_loop() -> None:
    """One block against an independent numpy reading of the same parameters."""
    settings = Encoder(width=8, layers=1, heads=2, feedforward=8, pooling=("mean", "pt"), wide=0)
    network, params = made(settings)
    inputs = FEATURES(toy_jet(2))
    found = network.apply(params, inputs, None)["layer_1"]
    p = {k: {n: np.asarray(v, np.float64) for n, v in d.items()} for k, d in params.items()}
    x, z, mask = (np.asarray(v, np.float64) for v in inputs)
    real = mask > 0
    h = x[real] @ p["embed"]["w"] + p["embed"]["b"]

    def norm(name: str, v: np.ndarray) -> np.ndarray:
        v = (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)
        return v * p[name]["scale"] + p[name]["offset"]

    qkv = norm("attention_norm_0", h) @ p["block_0_qkv"]["w"] + p["block_0_qkv"]["b"]
    q, k, v = (part.reshape(len(h), 2, 4) for part in np.split(qkv, 3, axis=1))
    mixed = np.zeros((len(h), 2, 4))
    for i in range(len(h)):
        for head in range(2):
            scores = np.array([q[i, head] @ k[j, head] / 2 + 0.5 * np.log(z[real][j]) for j in range(len(h))])
            weights = np.exp(scores - scores.max())
            mixed[i, head] = (weights / weights.sum()) @ v[:, head]
    h = h + mixed.reshape(len(h), 8) @ p["block_0_out"]["w"] + p["block_0_out"]["b"]
    up = norm("feedforward_norm_0", h) @ p["block_0_up"]["w"] + p["block_0_up"]["b"]
    up = up * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
    h = h + up @ p["block_0_down"]["w"] + p["block_0_down"]["b"]
    np.testing.assert_allclose(found, np.concatenate([h.mean(0), z[real] @ h]), atol=2e-5)


def test_both_ways_of_computing_give_one_network_and_one_gradient() -> None:
    settings = Encoder(width=16, layers=2, heads=2, feedforward=32, dropout=0.3, wide=24)
    _, params = made(settings)
    inputs = jax.tree.map(lambda *x: jnp.stack(x), *(FEATURES(toy_jet(seed)) for seed in range(5)))
    keys = jax.random.split(jax.random.key(2), 5)

    def loss(params: Params, way: Kernels) -> jax.Array:
        return jnp.mean(build(settings, HEAD, kernels=way).apply(params, inputs, keys)["projection"] ** 2)

    ours, theirs = (jax.value_and_grad(loss)(params, way) for way in (BY_HAND, FORMULAS))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    for x, y in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(theirs[1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * max(float(jnp.abs(y).max()), 1e-3))


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
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Encoder(**setting)  # type: ignore[arg-type]
