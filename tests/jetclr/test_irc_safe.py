"""An encoder that is infrared and collinear safe by construction: what is split off or emitted moves it in proportion.

All in float64, where emissions of 1e-9 are far from rounding; and in float32 once, to rounding.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augmentations import make_jets
from jetclr.encoder import Encoder, Head, build
from jetclr.features import Features
from jetclr.kernels import BY_HAND, FORMULAS
from tests.toys import toy_constituents

SLOTS = 46  # 30 constituents at most, and 15 of their splittings or 5 emissions
SAFE = Encoder(width=16, layers=2, heads=4, feedforward=24, pooling=("pt",), wide=24, irc_safe=True)
PAIRED = Encoder(16, 2, 4, 24, pooling=("pt",), wide=24, irc_safe=True, pairwise=("ln_dr",), depth="all")
ANGLES, MOMENTA = Features(("eta", "phi", "r", "r2")), Features()
STRENGTHS = 10.0 ** -np.arange(1, 10)

TRAINED_PAIRS = 0.32
"""Spread of the weights of pairs; as large as others, they would make attention all of the nearest pair."""

MOST = {SAFE: 60.0, PAIRED: 100.0}
"""No layer moves by more than so many times what was emitted, in units of its own size.

Found: 10 in 150 jets, and with pairs 25 in 10,000.
"""

Embed = Callable[[np.ndarray], dict[str, np.ndarray]]


@lru_cache
def embed(encoder: Encoder, features: Features, by_hand: bool = False, dtype: str = "float64") -> Embed:
    """Jets [B, SLOTS, 3] of pt, eta, phi -> layers, with random weights as large as training makes them."""
    with jax.enable_x64(True):
        network = build(encoder, Head((8,), 4), kernels=BY_HAND if by_hand else FORMULAS)
        blank = jnp.zeros(SLOTS)
        params = jax.eval_shape(lambda: network.init(jax.random.key(0), features(make_jets(blank, blank, blank))))
        rng = np.random.default_rng(0)

        def random(path: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> jax.Array:
            # Twice what 2,000 steps of top tagging gave: 0.9 of the root of the inputs, and 0.16 for pairs.
            spread = 2 * x.shape[0] ** -0.5 if len(x.shape) > 1 else 0.5
            return jnp.asarray(rng.normal(0, TRAINED_PAIRS if path[0].key == "pairs" else spread, x.shape), dtype)

        params = jax.tree_util.tree_map_with_path(random, params)

    @jax.jit
    def apply(jets: jax.Array) -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.key(0), len(jets)) if by_hand else None  # as in training, without dropout
        return network.apply(params, features(make_jets(*jnp.moveaxis(jets, -1, 0))), keys)

    def call(jets: np.ndarray) -> dict[str, np.ndarray]:
        with jax.enable_x64(True):
            return {name: np.asarray(x) for name, x in apply(jnp.asarray(jets, dtype)).items()}

    return call


def padded(jet: np.ndarray) -> np.ndarray:
    return np.pad(jet, ((0, SLOTS - len(jet)), (0, 0)))


def split(rng: np.random.Generator, jet: np.ndarray, angle: float = 0.0) -> np.ndarray:
    """Every other constituent in two, of which one has a share down to 1e-9 and is `angle` away."""
    parents = jet[::2]
    share, turn = 10.0 ** -rng.uniform(0, 9, len(parents)), rng.uniform(0, 2 * np.pi, len(parents))
    child, rest = parents.copy(), parents.copy()
    child[:, 0] *= share
    rest[:, 0] -= child[:, 0]
    child[:, 1:] += angle * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return np.concatenate([jet[1::2], child, rest])


def emit(rng: np.random.Generator, jet: np.ndarray, strength: float, number: int = 5) -> np.ndarray:
    """Constituents with `strength` of the jet's pT between them, up to 0.8 from the hardest."""
    pt = strength * jet[:, 0].sum() * rng.dirichlet(np.ones(number))
    place = jet[np.argmax(jet[:, 0]), 1:] + rng.uniform(-0.8, 0.8, (number, 2)) / np.sqrt(2)
    return np.concatenate([jet, np.column_stack([pt, place])])


def moved(apply: Embed, jet: np.ndarray, others: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Of each layer how far it is from that of the jet, for each of the others, in units of its own size."""
    layers = apply(np.stack([padded(one) for one in (jet, *others)]))
    return {name: np.abs(x[1:] - x[0]).max(1) / np.abs(x[0]).max() for name, x in layers.items()}


def same_jet(change: Callable[..., np.ndarray], seed: int, jet: np.ndarray) -> list[np.ndarray]:
    """The jet changed in the same way at every strength."""
    return [change(np.random.default_rng(seed), jet, strength) for strength in STRENGTHS]


ENCODERS = {
    "formulas": (SAFE, False),
    "by hand": (SAFE, True),
    "pairwise": (PAIRED, False),
    "pairwise, by hand": (PAIRED, True),
}


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), prongs=st.sampled_from([1, 3]))
def test_layers_move_in_proportion_to_what_is_emitted_or_split(name: str, seed: int, prongs: int) -> None:
    encoder, by_hand = ENCODERS[name]
    jet = toy_constituents(np.random.default_rng(seed), prongs)
    exact = [split(np.random.default_rng(seed + i), jet) for i in range(3)]
    changed = exact + same_jet(emit, seed, jet) + same_jet(split, seed, jet)
    for layer, distance in moved(embed(encoder, ANGLES, by_hand), jet, changed).items():
        assert distance[:3].max() < 1e-12, layer
        for found in distance[3:].reshape(2, -1):
            assert (found < MOST[encoder] * STRENGTHS + 1e-13).all(), layer
            # Far below one, where nothing but the first order is left; nothing is where a jet happens to be symmetric.
            assert np.log10(found[4] / found[6]) / 2 > 0.9 or found[4] < 1e-9, layer


def test_the_order_is_one() -> None:
    """Over many jets the mean moves by a tenth where the emission is a tenth, to the last digit that float64 has."""
    jets = [toy_constituents(np.random.default_rng(seed), 3) for seed in range(8)]
    found = [moved(embed(PAIRED, ANGLES), jet, same_jet(emit, 0, jet))["embedding"] for jet in jets]
    slopes = -np.diff(np.log10(np.mean(found, axis=0)))
    np.testing.assert_allclose(slopes[3:], 1, atol=0.01)


@pytest.mark.parametrize(
    ("encoder", "features"),
    [
        (Encoder(16, 2, 4, 24, wide=24), MOMENTA),
        (Encoder(16, 2, 4, 24, wide=24, pooling=("pt",)), ANGLES),  # the continuous mask: a root of the momentum
        (Encoder(16, 2, 4, 24, wide=24, pooling=("pt",), attention="plain"), ANGLES),
    ],
    ids=["defaults", "continuous mask", "plain"],
)
def test_other_encoders_do_not_pass(encoder: Encoder, features: Features) -> None:
    jet = toy_constituents(np.random.default_rng(1), 3)
    apply = embed(encoder, features)
    assert moved(apply, jet, [split(np.random.default_rng(0), jet)])["embedding"].max() > 1e-3
    assert (moved(apply, jet, same_jet(emit, 0, jet))["embedding"] > MOST[PAIRED] * STRENGTHS)[-1]


def test_in_float32_to_rounding() -> None:
    apply = embed(PAIRED, ANGLES, by_hand=True, dtype="float32")
    for seed in range(5):
        jet = toy_constituents(np.random.default_rng(seed), 3)
        others = [split(np.random.default_rng(seed), jet), emit(np.random.default_rng(seed), jet, 1e-9)]
        for layer, distance in moved(apply, jet, others).items():
            assert distance.max() < 2e-4, layer


def test_a_constituent_without_momentum_is_none() -> None:
    jet = toy_constituents(np.random.default_rng(0), 3)
    nothing = jet[:3] * [0, 1, 1] + [0, 0.5, 0.5]
    assert moved(embed(SAFE, ANGLES), jet, [np.concatenate([jet, nothing])])["embedding"].max() < 1e-13
