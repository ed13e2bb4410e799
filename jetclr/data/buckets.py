"""Batches cut by multiplicity, so that short jets are not padded to the length of long ones. Numpy only.

In training a batch is sorted by number of constituents and cut into `GROUPS` equal groups; each is padded to the
smallest length that holds its largest jet, and neighbours of equal length are one piece. Lengths are chosen once for a
run, from batches as they will be drawn, so that XLA compiles one program. No jet is ever shortened: a rare batch that
does not fit is padded in full, in one piece, by a second program.

Where jets are only encoded, those of a batch are cut, longest first, into pieces of about as many slots, so a
piece of short jets has more of them. Each length is a program of its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from jetclr.data.store import Store

GROUPS = 8
"""Groups that a batch is cut into: `Config.batch` is a multiple of it if there are buckets."""

Layout = tuple[tuple[int, int], ...]
"""(jets, padded length) of each piece of a batch, shorter jets first."""

# A group's largest multiplicity is an order statistic of the batch, close to normal: so many deviations above its mean
# leave one batch in a thousand that does not fit for this group, at most.
_DEVIATIONS = 3.0


STEP = 8
"""Padded lengths of pieces that are only encoded are multiples of this, but for the longest."""

PROGRAM_SLOTS = 30_000
"""What one more length must save, in slots: those that are encoded while its program is loaded from the compilation
cache, 0.12 s on two cores for a network 128 wide; to compile it the first time takes 0.4 s."""


class Piece(NamedTuple):
    """Jets that are encoded at once: `rows` of a batch, padded to `length`, with empty jets up to `size` of them."""

    rows: Int64[np.ndarray, " jets"]
    size: int
    length: int


def multiplicities(store: Store, jets: Int64[np.ndarray, " J"], most: int) -> Int64[np.ndarray, " J"]:
    """Constituents of the jets, counted up to `most`."""
    found = np.zeros(len(jets), np.int64)
    block_of = np.searchsorted(store.starts, jets, side="right") - 1
    for block in np.unique(block_of):
        b, mine = store.blocks[block], block_of == block
        b.check()
        local = jets[mine] - store.starts[block]
        found[mine] = b.offsets[local + 1] - b.offsets[local]
    return np.minimum(found, most)


def choose_layout(counts: Int64[np.ndarray, "batches jets"], lengths: tuple[int, ...]) -> Layout:
    """The layout for batches such as those with `counts` constituents a jet; `lengths` increase, the last holds all.

    All of `counts` fit into it. The number of jets is a multiple of `GROUPS`.
    """
    size = counts.shape[1] // GROUPS
    largest = np.sort(counts, axis=1)[:, size - 1 :: size]
    needed = np.maximum(largest.max(0), largest.mean(0) + _DEVIATIONS * largest.std(0))
    chosen = np.minimum(np.searchsorted(lengths, needed), len(lengths) - 1)  # groups are sorted, and so is this
    return tuple((int((chosen == i).sum()) * size, int(lengths[i])) for i in np.unique(chosen))


def fits(counts: Int64[np.ndarray, " jets"], layout: Layout) -> bool:
    """Whether jets of `counts` constituents, in rising order, fit into the pieces of a layout."""
    ends = np.cumsum([jets for jets, _ in layout])
    return all(int(counts[end - 1]) <= length for end, (_, length) in zip(ends, layout, strict=True))


def padding(layout: Layout) -> int:
    """Slots of a layout, filled or not: what its batches cost where every slot does."""
    return sum(jets * length for jets, length in layout)


def filled(pt: Float32[np.ndarray, "B N"]) -> Int64[np.ndarray, " B"]:
    """Slots of padded jets up to the last that is not empty."""
    there = pt != 0
    return np.where(there.any(1), pt.shape[1] - np.argmax(there[:, ::-1], axis=1), 0)


def choose_lengths(counts: Int64[np.ndarray, " sample"], most: int, jets: int) -> tuple[int, ...]:
    """Increasing padded lengths for `jets` jets with as many constituents as a sample of them; the last is `most`.

    Those with the fewest slots in all, where each length costs `PROGRAM_SLOTS`; so few jets are all padded to `most`.
    """
    lengths = [*range(STEP, most, STEP), most]
    within = np.searchsorted(np.sort(counts), lengths, side="right") * (jets / max(len(counts), 1))
    # The cheapest way to hold all jets up to each length: what it costs, and the lengths that it takes.
    best: list[tuple[float, tuple[int, ...]]] = []
    for i, length in enumerate(lengths):
        ways = [(within[i] * length, (length,))]
        ways += [(best[j][0] + (within[i] - within[j]) * length, (*best[j][1], length)) for j in range(i)]
        slots, chosen = min(ways)
        best.append((slots + PROGRAM_SLOTS, chosen))
    return best[-1][1]


def cut(counts: Int64[np.ndarray, " B"], lengths: Sequence[int], slots: int, unit: int) -> list[Piece]:
    """Jets of so many constituents in pieces of about `slots` slots each, the longest first.

    A piece is as long as its first jet asks for, and shorter ones fill it up: only the last may have empty jets. The
    jets in it are a multiple of `unit`. The last of `lengths`, which increase, holds all jets.
    """
    order = np.argsort(-counts, kind="stable")
    pieces, start = [], 0
    while start < len(order):
        length = lengths[int(np.searchsorted(lengths, counts[order[start]]))]
        size = max(slots // length // unit, 1) * unit
        pieces.append(Piece(order[start : start + size], size, length))
        start += size
    return pieces
