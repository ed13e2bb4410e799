"""A store's jets in pieces of a few thousand, with their constituents about the axis: for looks at a whole store.

Shapes: J jets, M constituents, of one piece.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from jetclr.data.chunk import COORDINATES, JetChunk, slice_chunk
from jetclr.data.store import Store
from jetclr.errors import UserError

PIECE_JETS = 4096


class Piece(NamedTuple):
    """Some jets in a row, the number of the first, and their constituents about the axis."""

    first: int
    chunk: JetChunk
    owner: np.ndarray  # int64 [M]: the jet, counted from 0 in this piece
    eta: np.ndarray  # float64 [M], relative to the axis
    phi: np.ndarray  # float64 [M], relative to the axis, in [-pi, pi]


def pieces(store: Store) -> Iterator[Piece]:
    """The jets of a store in order, few at a time however large its blocks are.

    The axis is jet_eta, jet_phi, or the sum of the constituents as massless particles where these are not in the store.
    Raises UserError if pt, eta or phi are missing or no numbers, or a jet points outside its block.
    """
    for name in COORDINATES:
        if name not in store.constituents or not all(is_number(b.constituents[name]) for b in store.blocks):
            raise UserError(f"{store.paths[0]} has no numbers {name!r} of constituents; it has {store.constituents}")
    first = 0
    for block in store.chunks():
        counts, jets = np.diff(block.offsets), len(block.offsets) - 1
        if (counts < 0).any() or block.offsets[0] < 0 or block.offsets[-1] > len(block.constituents["pt"]):
            raise UserError(f"{store.paths[0]} is damaged: a jet points outside its block; make the store again")
        for start in range(0, jets, PIECE_JETS):
            chunk = slice_chunk(block, start, min(start + PIECE_JETS, jets))
            yield _piece(first + start, chunk)
        first += jets


def _piece(first: int, chunk: JetChunk) -> Piece:
    counts = np.diff(chunk.offsets)
    owner = np.repeat(np.arange(len(counts)), counts)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is flagged, and stays so here
        axis = _axis(chunk, owner)
        eta, phi = (
            chunk.constituents[name].astype(np.float64) - centre[owner]
            for name, centre in zip(("eta", "phi"), axis, strict=True)
        )
        phi -= 2 * np.pi * np.rint(phi / (2 * np.pi))
    return Piece(first, chunk, owner, eta, phi)


def _axis(chunk: JetChunk, owner: Int64[np.ndarray, " M"]) -> tuple[Float64[np.ndarray, " J"], ...]:
    if all(name in chunk.jets and is_number(chunk.jets[name]) for name in ("jet_eta", "jet_phi")):
        return tuple(chunk.jets[name].astype(np.float64) for name in ("jet_eta", "jet_phi"))
    pt, eta, phi = (chunk.constituents[name].astype(np.float64) for name in COORDINATES)
    momenta = (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta))
    px, py, pz = (np.bincount(owner, p, len(chunk.offsets) - 1) for p in momenta)
    across = np.hypot(px, py)
    return np.arcsinh(pz / np.where(across > 0, across, 1)), np.arctan2(py, px)


def is_number(values: np.ndarray) -> bool:
    """Whether a column holds integers or floating-point numbers; a stranger's store may hold dates."""
    return values.dtype.kind in "iuf"
