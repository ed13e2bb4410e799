"""Toy jets: one prong or three, with a falling spectrum of constituents. Fast, seeded, and separable by eye."""

import numpy as np

from augmentations import Jets, make_jets
from jetclr.data.chunk import JetChunk, sort_by_pt
from jetclr.data.kinematics import jet_columns


def toy_constituents(rng: np.random.Generator, prongs: int) -> np.ndarray:
    """[n, 3] pt, eta, phi of one jet near a random axis; n between 4 and 30."""
    n = int(rng.integers(4, 31))
    axis = np.array([rng.uniform(-1.5, 1.5), rng.uniform(-np.pi, np.pi)])
    centres = rng.normal(0, 0.3 if prongs > 1 else 0.02, (prongs, 2))
    angles = axis + centres[rng.integers(prongs, size=n)] + rng.normal(0, 0.05, (n, 2))
    pt = rng.exponential(1.0, n) ** 2 + 1e-3
    angles[:, 1] = np.clip((angles[:, 1] + np.pi) % (2 * np.pi) - np.pi, -3.14159, 3.14159)
    return np.column_stack([pt * 600 / pt.sum(), angles])


def toy_chunk(rng: np.random.Generator, jets: int) -> JetChunk:
    """Jets with labels 0 (one prong) and 1 (three prongs) in random order, hardest constituent first."""
    label = rng.permutation(np.arange(jets) % 2)
    found = [toy_constituents(rng, 3 if top else 1) for top in label]
    offsets = np.concatenate([[0], np.cumsum([len(jet) for jet in found])]).astype(np.int64)
    pt, eta, phi = np.concatenate(found).T
    momenta = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)])
    sums = np.add.reduceat(momenta, offsets[:-1], axis=1)
    constituents = {"pt": pt, "eta": eta, "phi": phi}
    return sort_by_pt(
        JetChunk(
            offsets,
            {name: x.astype(np.float32) for name, x in constituents.items()},
            jet_columns(sums) | {"label": label.astype(np.int32)},
        )
    )


def _padded(seed: int, slots: int, prongs: int) -> np.ndarray:
    jet = toy_constituents(np.random.default_rng(seed), prongs)[:slots].astype(np.float32)
    padded = np.zeros((slots, 3), np.float32)
    padded[: len(jet)] = jet
    return padded


def toy_jet(seed: int, slots: int = 24, prongs: int = 3) -> Jets:
    """One padded jet about its own axis region, as jax sees it [slots]."""
    return make_jets(*_padded(seed, slots, prongs).T)


def toy_batch(seed: int, jets: int, slots: int = 24) -> dict[str, np.ndarray]:
    """A padded batch as the pipeline makes it: name -> [jets, slots]."""
    made = np.stack([_padded(1000 * seed + i, slots, 1 + 2 * (i % 2)) for i in range(jets)])
    return {name: made[:, :, i].copy() for i, name in enumerate(("pt", "eta", "phi"))}
