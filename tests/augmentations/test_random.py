import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from augmentations import random

WORDS = 512
ROW = jax.jit(jax.vmap(lambda key: random.bits(key, (WORDS,))))


def keys_of(first: np.ndarray, second: np.ndarray) -> jax.Array:
    """Keys with these words."""
    words = np.stack(np.broadcast_arrays(first, second), axis=-1).astype(np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


COUNT = np.arange(1024)
FAMILIES = {
    "first word": keys_of(COUNT, np.array(0)),
    "second word": keys_of(np.array(0), COUNT),
    "high digits": keys_of(np.array(7), COUNT << 22),
    "jax.random.split": jax.random.split(jax.random.key(0), 1024),
    "split": random.split(jax.random.key(0), 1024),
    "split twice": jax.vmap(lambda key: random.split(key, 3)[1])(random.split(jax.random.key(0), 1024)),
    "rbg": random.split(jax.random.key(0, impl="rbg"), 1024),
}


def chance_of_bytes(words: np.ndarray) -> float:
    """Smallest of four p-values that each byte of the words is uniform, by chi-square."""
    counts = [np.bincount(((words >> shift) & 255).ravel(), minlength=256) for shift in (0, 8, 16, 24)]
    return min(float(stats.chisquare(count).pvalue) for count in counts)


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_uniform_and_know_nothing_of_their_neighbours(family: str) -> None:
    words = np.asarray(ROW(FAMILIES[family]))
    before, after = words[:-1], words[1:]  # of neighbouring keys
    left, right = words[:, :-1], words[:, 1:]  # at neighbouring places
    for found in (words, before ^ after, after - before, left ^ right, right - left, before[:, 1:] - after[:, :-1]):
        assert chance_of_bytes(found) > 1e-5
    ones = np.unpackbits(words.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(32 * words.size)
    # Half a million words of 2^32 meet about 32 times; words that keys share would meet far more often.
    assert words.size - len(np.unique(words)) < 70
    for means in (words.mean(0), words.mean(1)):
        deviation = (means / 2**32 - 0.5) * np.sqrt(12 * words.size / means.size)
        assert stats.kstest(deviation, "norm").pvalue > 1e-4


def test_every_bit_of_a_key_turns_half_of_the_words_over() -> None:
    one = np.array([12345, 678], np.uint32)
    flipped = np.stack([one ^ np.array([bit, 0], np.uint32) for bit in 2 ** np.arange(32)])
    flipped = np.concatenate([flipped, np.stack([one ^ np.array([0, bit], np.uint32) for bit in 2 ** np.arange(32)])])
    rows = np.asarray(ROW(keys_of(flipped[:, 0], flipped[:, 1])))
    turned = np.bitwise_count(rows ^ np.asarray(ROW(keys_of(one[:1], one[1:])))) / 32
    np.testing.assert_allclose(turned.mean(1), 0.5, atol=5 * 0.5 / np.sqrt(32 * WORDS))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_a_key_gives_the_same_numbers_alone_jitted_and_in_a_batch(impl: str) -> None:
    keys = jax.random.split(jax.random.key(3, impl=impl), 4)
    together = jax.jit(jax.vmap(lambda key: random.normal(key, (2, 5))))(keys)
    for key, row in zip(keys, np.asarray(together), strict=True):
        np.testing.assert_allclose(random.normal(key, (2, 5)), row, rtol=1e-6)
    np.testing.assert_array_equal(random.bits(keys[0], (2, 5)).ravel(), random.bits(keys[0], (10,)))
    assert jax.random.key_impl(random.split(keys[0])) == jax.random.key_impl(keys[0])
    assert random.split(keys[0], 0).shape == (0,)
    assert len({int(random.bits(key)) for key in [keys[0], *random.split(keys[0], 3)]}) == 4


def test_uniform_numbers_are_uniform_on_a_grid_within_their_range() -> None:
    draw = jax.jit(lambda key: random.uniform(key, (200_000,)))
    numbers = np.asarray(draw(jax.random.key(0)))
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    assert numbers.min() >= 0
    assert numbers.max() < 1
    np.testing.assert_array_equal(numbers * 2**24, np.floor(numbers * 2**24))
    np.testing.assert_array_equal(random.uniform_at(jax.random.key(0), jnp.array([9, 3])), numbers[[9, 3]])
    for low, high in ((-1, 1), (2.0, 2.0), (1e8, 1e8 + 8)):  # the last has no numbers between
        wide = np.asarray(random.uniform(jax.random.key(1), (50_000,), jnp.float32, low, high))
        assert wide.min() >= low
        assert wide.max() < high or low == high


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_numbers_do_not_reach_the_end(dtype: type) -> None:
    numbers = random.uniform(jax.random.key(0), (5000,), dtype)
    assert numbers.dtype == dtype
    assert float(numbers.max()) < 1
    normal = random.normal(jax.random.key(0), (5000,), dtype)
    assert normal.dtype == dtype
    assert np.isfinite(np.asarray(normal, np.float32)).all()


def test_other_distributions_are_what_they_are_called() -> None:
    shape = (200_000,)
    normal = np.asarray(jax.jit(lambda key: random.normal(key, shape))(jax.random.key(0)), np.float64)
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(normal)) < 0.05
    assert np.isfinite(normal).all()
    exponential = np.asarray(random.exponential(jax.random.key(1), shape), np.float64)
    assert stats.kstest(exponential, "expon").pvalue > 1e-3
    whole = np.asarray(random.randint(jax.random.key(2), shape, -3, jnp.int32(4)))
    assert whole.dtype == np.int32
    assert stats.chisquare(np.bincount(whole + 3, minlength=7)).pvalue > 1e-3
    assert len(np.unique(whole)) == 7
