"""Small encoders of every kind, with random parameters, and jets of every kind to compare them on."""

from functools import lru_cache

import jax
import numpy as np

from jetclr import step
from jetclr.config import Config, Data
from jetclr.encoder import Encoder, Head, layer_names
from jetclr.export.graph import Frozen
from jetclr.features import Features
from tests.toys import toy_batch

EXTRAS = ("charge", "d0", "d0_error", "dz", "dz_error", "puppi", "type")
EVERYTHING = (
    *("pt_600", "z", "log_z", "log_pt", "eta", "phi", "r", "r2", "charge", "d0", "d0_error", "dz", "dz_error", "puppi"),
    *("charged_hadron", "neutral_hadron", "photon", "electron", "muon"),
)
SLOTS = 12

CONFIGS = {
    "defaults": Config(
        data=Data(constituents=SLOTS),
        encoder=Encoder(width=8, layers=1, heads=2, feedforward=12, wide=16, dropout=0.25),
        head=Head(hidden=(12,), width=6),
    ),
    "all-features": Config(
        data=Data(constituents=SLOTS, extras=EXTRAS),
        features=Features(EVERYTHING),
        encoder=Encoder(width=12, layers=2, heads=3, feedforward=16, wide=0, pooling=("pt",)),
        head=Head(hidden=(8, 5), width=4),
    ),
    "plain": Config(
        data=Data(constituents=SLOTS, extras=("type", "d0")),
        features=Features(("log_pt", "eta", "phi", "r", "muon"), center=False),
        encoder=Encoder(width=8, layers=1, heads=1, feedforward=8, wide=8, attention="plain", pooling=("mean", "pt")),
        head=Head(hidden=(7,), width=4),
    ),
    "pairwise": Config(
        data=Data(constituents=SLOTS),
        encoder=Encoder(8, 2, 2, 8, wide=4, pooling=("sum", "attention"), pairwise=("ln_m2", "ln_kt", "ln_z", "ln_dr")),
        head=Head(hidden=(5,), width=4),
    ),
    "irc-safe": Config(
        data=Data(constituents=SLOTS),
        features=Features(("eta", "phi", "r2")),
        encoder=Encoder(8, 1, 2, 8, wide=4, pooling=("pt",), pairwise=("ln_dr",), irc_safe=True),
        head=Head(hidden=(5,), width=4),
    ),
    "depths": Config(
        data=Data(constituents=SLOTS),
        encoder=Encoder(8, 2, 2, 8, wide=4, pooling=("mean", "attention"), depth="all"),
        head=Head(hidden=(5,), width=4),
    ),
    "asked": Config(
        data=Data(constituents=SLOTS),
        encoder=Encoder(8, 1, 2, 8, wide=0, pooling=("attention",)),
        head=Head(hidden=(), width=4),
    ),
    "no-layers": Config(
        data=Data(constituents=SLOTS),
        encoder=Encoder(width=8, layers=0, heads=2, wide=0, pooling=("mean",)),
        head=Head(hidden=(5,), width=4),
    ),
}


@lru_cache
def frozen(config: Config, layers: tuple[str, ...] | None = None, seed: int = 0) -> Frozen:
    """An encoder with random parameters: at zero, offsets would hide what padding can do."""
    rng = np.random.default_rng(seed)

    def parameters(x: jax.ShapeDtypeStruct) -> np.ndarray:
        spread = x.shape[0] ** -0.5 if len(x.shape) > 1 else 0.3
        return rng.normal(0, spread, x.shape).astype(np.float32)

    params = jax.tree.map(parameters, jax.eval_shape(lambda: step.init_params(config)))
    return Frozen(config, params, layers or tuple(layer_names(config.encoder, config.head)))


def jets(config: Config, seed: int = 0, count: int = 12) -> dict[str, np.ndarray]:
    """Columns and mask [count, SLOTS]: an empty jet, one constituent, a full one, equally hard ones across the seam."""
    rng = np.random.default_rng(seed)
    found = toy_batch(seed, count, SLOTS)
    found |= {name: rng.normal(0, 1, (count, SLOTS)).astype(np.float32) for name in config.data.extras}
    if "type" in found:
        found["type"] = rng.integers(0, 6, (count, SLOTS)).astype(np.float32)
    found["pt"][3] = 10.0
    found["phi"][3] = np.where(np.arange(SLOTS) % 2, 3.1, -3.1)
    found["mask"] = (found["pt"] > 0).astype(np.float32)
    found["mask"][0] = 0
    found["mask"][1, 1:] = 0
    return found
