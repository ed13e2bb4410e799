"""Random-looking numbers from numbers."""

import itertools

import numpy as np

from jetclr.data.hashing import STEP, mix, uniform


def test_the_hash_is_uniform_and_independent() -> None:
    draws = [uniform(np.arange(100_000), *key) for key in ((0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1))]
    for x in draws:
        counts, _ = np.histogram(x, 20, (0, 1))
        assert np.sum((counts - 5000) ** 2 / 5000) < 45  # chi^2 of 19: p = 7e-4
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.015
    assert abs(np.corrcoef(draws[0][:-1], draws[0][1:])[0, 1]) < 0.015


def test_the_hash_does_not_depend_on_what_is_asked_with_it() -> None:
    rows = np.array([5, 0, 2**40, 7])
    np.testing.assert_array_equal(uniform(rows, 3)[[2, 0]], uniform(rows[[2, 0]], 3))


def test_the_mixing_is_that_of_splitmix64() -> None:
    """Its published outputs from seed 0: jets chosen by hash must be the same for ever."""
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert mix(np.arange(4, dtype=np.uint64) * STEP).tolist() == expected


def test_a_smaller_fraction_is_part_of_a_larger_one() -> None:
    jets = np.arange(100_000)
    parts = [uniform(jets) < f for f in (0.01, 0.1, 0.2, 1.0)]
    for part, expected in zip(parts, (0.01, 0.1, 0.2, 1.0), strict=True):
        assert abs(part.mean() - expected) < 5 * np.sqrt(expected / len(jets))
    assert all((small <= large).all() for small, large in itertools.pairwise(parts))
