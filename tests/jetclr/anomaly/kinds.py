"""Stores of jets of one kind."""

from pathlib import Path

import numpy as np

from jetclr.data.chunk import JetChunk
from jetclr.data.store import StoreWriter
from tests.toys import toy_chunk


def write_kind(path: Path, label: int, jets: int, seed: int) -> Path:
    """A store of jets of one kind: label 0 one-pronged, 1 three-pronged."""
    chunk = toy_chunk(np.random.default_rng(seed), 2 * jets)
    with StoreWriter(path, {"labels": {"0": "QCD", "1": "top"}}, block_jets=100) as writer:
        writer.append(chosen(chunk, np.flatnonzero(chunk.jets["label"] == label)))
    return path


def chosen(chunk: JetChunk, rows: np.ndarray) -> JetChunk:
    counts = np.diff(chunk.offsets)[rows]
    at = np.concatenate([np.arange(*chunk.offsets[row : row + 2]) for row in rows])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return JetChunk(
        offsets, {n: x[at] for n, x in chunk.constituents.items()}, {n: x[rows] for n, x in chunk.jets.items()}
    )
