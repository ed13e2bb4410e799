"""Jets to measure with: those of stores, or made on the spot with as many constituents as real ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from jetclr.data.chunk import COORDINATES, JetChunk
from jetclr.data.store import Store, StoreWriter

JETS = 8192
"""Jets that are made, and as many, from all over a store, that a peer or an encoder gets in memory."""

# Anti-kT jets of radius 0.8 and 550 to 650 GeV, tops and QCD alike: 66 constituents on average.
_MEAN, _DEVIATION, _FEWEST, _MOST = 66, 24, 5, 200


def open_jets(stores: Sequence[Path], folder: Path, jets: int = JETS) -> Store:
    """The stores as one, or jets made on the spot, in a store that is written into `folder`."""
    if stores:
        return Store(*stores)
    made = folder / "made"
    if not made.exists():
        with StoreWriter(made, {"made_by": "jetclr bench"}) as writer:
            writer.append(made_chunk(jets))
    return Store(made)


def made_chunk(jets: int, seed: int = 0) -> JetChunk:
    """Jets of one prong and of three, of 600 GeV, whose constituents are as many and fall as steeply as real ones."""
    rng = np.random.default_rng(seed)
    counts = np.clip(np.round(rng.normal(_MEAN, _DEVIATION, jets)), _FEWEST, _MOST).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    jet = np.repeat(np.arange(jets), counts)
    label = np.arange(jets) % 2
    prong = np.where(label[jet] == 1, rng.integers(0, 3, len(jet)), 0)
    axes = rng.uniform((-1.5, -np.pi), (1.5, np.pi), (jets, 2))[:, None] + rng.normal(0, 0.3, (jets, 3, 2))
    angles = axes[jet, prong] + rng.normal(0, 0.05, (len(jet), 2))
    pt = rng.exponential(1.0, len(jet)) ** 2 + 1e-3
    pt *= 600 / np.add.reduceat(pt, offsets[:-1])[jet]
    columns = {"pt": pt, "eta": angles[:, 0], "phi": np.angle(np.exp(1j * angles[:, 1]))}
    constituents = {name: x.astype(np.float32) for name, x in columns.items()}
    return JetChunk(offsets, constituents, {"label": label.astype(np.int32)})


def in_memory(store: Store, jets: int, constituents: int) -> dict[str, Float32[np.ndarray, "B N"]]:
    """pt, eta and phi of `jets` jets from all over the store, zero-padded; from its start again if it has fewer."""
    rows = np.linspace(0, len(store) - 1, min(jets, len(store))).astype(np.int64)
    read = store.gather(np.resize(rows, jets), constituents)
    return {name: read[name] for name in COORDINATES}


def about_axis(
    jets: dict[str, Float32[np.ndarray, "B N"]],
) -> Float32[np.ndarray, "B N 3"]:
    """pt, and eta and phi from the pT-weighted centroid of each jet: what a peer is given."""
    real = jets["pt"] > 0
    eta = jets["eta"] - _mean(jets["eta"].astype(np.float64), jets["pt"])
    # The hardest constituent comes first, and is never far from the others.
    from_hardest = np.angle(np.exp(1j * (jets["phi"].astype(np.float64) - jets["phi"][:, :1])))
    phi = from_hardest - _mean(from_hardest, jets["pt"])
    return np.stack([jets["pt"], np.where(real, eta, 0), np.where(real, phi, 0)], axis=-1).astype(np.float32)


def _mean(values: Float64[np.ndarray, "B N"], pt: Float32[np.ndarray, "B N"]) -> Float64[np.ndarray, "B 1"]:
    return np.sum(values * pt, axis=1, keepdims=True) / np.sum(pt, axis=1, keepdims=True, dtype=np.float64)
