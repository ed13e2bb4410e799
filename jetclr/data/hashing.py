"""Numbers that look random and are not: the same for the same jet in every process, on every machine."""

import numpy as np
from jaxtyping import Float64, Integer, UInt64

# Constants of SplitMix64 (Steele, Lea and Flood, doi:10.1145/2660193.2660195).
STEP, _FIRST, _SECOND = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def mix(x: UInt64[np.ndarray, " M"]) -> UInt64[np.ndarray, " M"]:
    """Every bit of the result depends on every bit of `x`, which is overwritten; different numbers stay different."""
    x += STEP
    x ^= x >> np.uint64(30)
    x *= _FIRST
    x ^= x >> np.uint64(27)
    x *= _SECOND
    x ^= x >> np.uint64(31)
    return x


def uniform(numbers: Integer[np.ndarray, " M"], *key: int) -> Float64[np.ndarray, " M"]:
    """A number in [0, 1) for each of `numbers`; another `key` gives others, which have nothing to do with these."""
    start = np.random.SeedSequence(key or (0,)).generate_state(1, np.uint64)
    return (mix(numbers.astype(np.uint64) + start) >> np.uint64(11)) * 2.0**-53
