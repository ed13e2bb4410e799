"""Batches cut by multiplicity, so that short jets are not padded to the length of long ones. Numpy only.

A batch is sorted by number of constituents and cut into `GROUPS` equal groups; each is padded to the smallest length
that holds its largest jet, and neighbours of equal length are one piece. Lengths are chosen once for a run, from
batches as they will be drawn, so that XLA compiles one program. No jet is ever shortened: a rare batch that does not
fit is padded in full, in one piece, by a second program.
"""

import numpy as np
from jaxtyping import Int64

from jetclr.data.store import Store

GROUPS = 8
"""Groups that a batch is cut into: `Config.batch` is a multiple of it if there are buckets."""

Layout = tuple[tuple[int, int], ...]
"""(jets, padded length) of each piece of a batch, shorter jets first."""

# A group's largest multiplicity is an order statistic of the batch, close to normal: so many deviations above its mean
# leave one batch in a thousand that does not fit for this group, at most.
_DEVIATIONS = 3.0


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
