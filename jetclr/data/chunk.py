"""Jagged runs of jets: what readers and the generator make, and what may enter a store."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from jetclr.errors import UserError

COORDINATES = ("pt", "eta", "phi")


class JetChunk(NamedTuple):
    """A jagged run of jets: what readers and the generator hand to the store.

    `offsets` is int64 [J+1] from 0; `constituents` maps names (at least pt [GeV], eta, phi, as float32) to numbers
    [offsets[-1]]; `jets` maps names of jet-level columns to numbers [J]. `jetclr.data.names` has the common names.
    """

    offsets: np.ndarray
    constituents: dict[str, np.ndarray]
    jets: dict[str, np.ndarray]


def check_chunk(chunk: JetChunk, first_jet: int = 0, source: str = "") -> None:
    """Refuse jets that no later step could make sense of.

    Raises UserError naming the first bad jet (by its column `row`, or counted from `first_jet`) for: lengths that
    disagree, jets without constituents, constituents whose pT is not a positive finite number, eta or phi that is not
    finite, phi out of [-pi, pi], jet-level columns that are not finite.
    """
    place = f" of {source}" if source else ""

    def number(jet: int) -> int:
        return int(chunk.jets["row"][jet]) if "row" in chunk.jets else first_jet + jet

    counts = np.diff(chunk.offsets)
    missing = [name for name in COORDINATES if name not in chunk.constituents]
    if missing:
        raise UserError(f"constituent columns {missing} are missing{place}; there are {sorted(chunk.constituents)}")
    for name, values in chunk.constituents.items():
        if len(values) != chunk.offsets[-1]:
            raise UserError(f"column {name!r}{place} has {len(values)} constituents where {chunk.offsets[-1]} belong")
    for name, values in chunk.jets.items():
        if len(values) != len(counts):
            raise UserError(f"column {name!r}{place} has {len(values)} jets where {len(counts)} belong")
        if not np.isfinite(values).all():
            jet = int(np.argmin(np.isfinite(values)))
            raise UserError(f"jet {number(jet)}{place} has {name} = {values[jet]}")
    if (counts <= 0).any():
        raise UserError(f"jet {number(int(np.argmax(counts <= 0)))}{place} has no constituents")
    pt, phi = chunk.constituents["pt"], chunk.constituents["phi"]
    good = {"pt": np.isfinite(pt) & (pt > 0), "phi": np.abs(phi) <= np.float32(np.pi)}
    for name, values in chunk.constituents.items():
        ok = good.get(name, np.isfinite(values))
        if not ok.all():
            worst = int(np.argmin(ok))
            jet = int(np.searchsorted(chunk.offsets, worst, side="right")) - 1
            raise UserError(
                f"jet {number(jet)}{place} has a constituent with {name} = {values[worst]}; "
                "pT must be positive, phi within [-pi, pi] and every number finite"
            )


def sort_by_pt(chunk: JetChunk) -> JetChunk:
    """The same jets with each jet's constituents hardest first (order carries no meaning; truncation needs it)."""
    pt = chunk.constituents["pt"]
    inner = np.ones(len(pt), bool)
    inner[chunk.offsets[:-1]] = False  # the first constituent of a jet may be harder than the one before it
    if (inner[1:] & (pt[1:] > pt[:-1])).any():
        jet = np.repeat(np.arange(len(chunk.offsets) - 1), np.diff(chunk.offsets))
        order = np.lexsort((-pt, jet))
        return chunk._replace(constituents={k: v[order] for k, v in chunk.constituents.items()})
    return chunk


def join_chunks(chunks: Sequence[JetChunk]) -> JetChunk:
    """Chunks one after the other, as one chunk; they must have the same columns."""
    offsets = [np.zeros(1, np.int64)]
    for chunk in chunks:
        offsets.append(np.asarray(chunk.offsets[1:], np.int64) + offsets[-1][-1])
    return JetChunk(
        np.concatenate(offsets),
        {name: np.concatenate([c.constituents[name] for c in chunks]) for name in chunks[0].constituents},
        {name: np.concatenate([c.jets[name] for c in chunks]) for name in chunks[0].jets},
    )


def slice_chunk(chunk: JetChunk, start: int, stop: int) -> JetChunk:
    """Jets start:stop of a chunk."""
    low, high = int(chunk.offsets[start]), int(chunk.offsets[stop])
    return JetChunk(
        chunk.offsets[start : stop + 1] - low,
        {name: values[low:high] for name, values in chunk.constituents.items()},
        {name: values[start:stop] for name, values in chunk.jets.items()},
    )


def select(chunk: JetChunk, keep: Bool[np.ndarray, " J"]) -> JetChunk:
    """The jets of a chunk where `keep` is true."""
    counts = np.diff(chunk.offsets)
    each = np.repeat(keep, counts)
    return JetChunk(
        np.concatenate([[0], np.cumsum(counts[keep])]).astype(np.int64),
        {name: v[each] for name, v in chunk.constituents.items()},
        {name: v[keep] for name, v in chunk.jets.items()},
    )
