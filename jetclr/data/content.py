"""Which jets are the same jet: a hash of a jet's constituents, and what two sets of hashes share.

The hash is for finding copies, not for security: who wants two jets with one hash can make them. Among n different
jets some two have one hash with probability about n^2 / 2^65: 3e-8 for a million jets, 3e-4 for a hundred million.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from jetclr.data.chunk import JetChunk
from jetclr.data.hashing import STEP, mix

NO_CONTENT = np.uint64(0)
"""The hash of a jet without constituents; such jets are no copies of each other."""


class Copies(NamedTuple):
    """Jets that are elsewhere too: how many, the first of them, and where its like is."""

    jets: int
    first: int
    like: int


def content_hash(chunk: JetChunk) -> UInt64[np.ndarray, " J"]:
    """A 64-bit number for each jet, of the bits of its constituents' pt, eta and phi as float32.

    It is a sum over constituents, so their order does not matter, how often each is there does. One changed bit in one
    constituent always changes it. Zero and minus zero differ, and a jet that was truncated, turned or shifted is
    another jet.
    """
    with np.errstate(over="ignore"):  # a float64 too large for float32 is infinite, and flagged as what it is
        pt, eta, phi = (_bits(chunk.constituents[name]) for name in ("pt", "eta", "phi"))
    eta <<= np.uint64(32)
    eta |= phi
    mixed = mix(eta)  # each step can be undone while the other input is fixed, so no single change gets lost
    mixed ^= pt
    mixed = mix(mixed)
    # Differences of a running sum, because reduceat gives a jet without constituents those of the next one.
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed)])
    sums = total[chunk.offsets[1:]] - total[chunk.offsets[:-1]]
    counts = np.diff(chunk.offsets).astype(np.uint64)
    hashes = mix(sums + counts * STEP)
    return np.where(counts > 0, hashes, NO_CONTENT)


def _bits(values: np.ndarray) -> UInt64[np.ndarray, " M"]:
    return values.astype(np.float32).view(np.uint32).astype(np.uint64)


def copies(hashes: UInt64[np.ndarray, " J"]) -> Copies | None:
    """The jets that are there earlier in the same sequence, or None; takes another 16 bytes a jet while it runs."""
    order = np.argsort(hashes, kind="stable")  # equal hashes stay in the order of their jets
    arranged = hashes[order]
    again = (arranged[1:] == arranged[:-1]) & (arranged[1:] != NO_CONTENT)
    if not again.any():
        return None
    repeated = order[1:][again]
    first = int(repeated.min())
    return Copies(len(repeated), first, int(np.argmax(hashes == hashes[first])))


def shared(hashes: UInt64[np.ndarray, " J"], others: UInt64[np.ndarray, " K"]) -> Copies | None:
    """The jets of `hashes` that are among `others` too, or None; `like` counts in `others`."""
    if len(hashes) == 0 or len(others) == 0:
        return None
    arranged = np.sort(others)
    at = np.minimum(np.searchsorted(arranged, hashes), len(arranged) - 1)
    found = np.flatnonzero((arranged[at] == hashes) & (hashes != NO_CONTENT))
    if len(found) == 0:
        return None
    first = int(found[0])
    return Copies(len(found), first, int(np.argmax(others == hashes[first])))
