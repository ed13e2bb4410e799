"""Random numbers that cost little: the bits of a key are a hash of it and of each number's place.

JAX's own generators are made for streams of any length and run as loops over rounds; a jet needs a few hundred numbers,
and a training step draws them anew for each. Here a number is a handful of operations that fuse with what uses it.
For simulation, not for secrets.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Key, UInt32

# An odd number without pattern.
_STRIDE = 0x9E3779B9


def bits(key: Key[Array, ""], shape: tuple[int, ...] = ()) -> UInt32[Array, "*shape"]:
    """Random 32-bit words of the given shape, a function of the key and of each word's place in row-major order.

    The words of a key repeat after 2^32, and two keys give unrelated words; any kind of key will do.
    """
    return _bits_at(key, jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape))


def row_bits(words: UInt32[Array, "*R 2"], number: int) -> UInt32[Array, "*R {number}"]:
    """Random words for rows that have two random words each, in half the operations of `bits`: for masks."""
    x = jnp.arange(number, dtype=jnp.uint32) * jnp.uint32(_STRIDE) + words[..., :1]
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) + words[..., 1:]
    x = x * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def split(key: Key[Array, ""], number: int = 2) -> Key[Array, " number"]:
    """As many new keys of the same kind: the first draws from them are those of no other key that is in use."""
    return _keys(key, jnp.arange(number, dtype=jnp.uint32))


def uniform(
    key: Key[Array, ""], shape: tuple[int, ...] = (), dtype: Any = jnp.float32, low: float = 0, high: float = 1
) -> Float[Array, "*shape"]:
    """Numbers uniform in [low, high): multiples of 2^-24 of that range in float32, as fine as `dtype` in others."""
    return _uniform(bits(key, shape), dtype, low, high)


def uniform_at(
    key: Key[Array, ""], places: Int32[Array, "*shape"], dtype: Any = jnp.float32, low: float = 0, high: float = 1
) -> Float[Array, "*shape"]:
    """The numbers that `uniform` has at these places of one long row, none of which need be made for the others."""
    return _uniform(_bits_at(key, places.astype(jnp.uint32)), dtype, low, high)


def normal(key: Key[Array, ""], shape: tuple[int, ...] = (), dtype: Any = jnp.float32) -> Float[Array, "*shape"]:
    """Numbers of the standard normal distribution, by the inverse of its cumulative distribution; all are finite."""
    digits = _digits(dtype)
    # The middles of 2^digits equal steps from -1 to 1: as many above zero as below, and never an end.
    odd = ((bits(key, shape) >> (32 - digits)).astype(jnp.int32) * 2 + (1 - 2**digits)).astype(dtype)
    return math.sqrt(2) * jax.lax.erf_inv(odd * 2.0**-digits)


def exponential(key: Key[Array, ""], shape: tuple[int, ...] = (), dtype: Any = jnp.float32) -> Float[Array, "*shape"]:
    """Numbers of the exponential distribution of mean one."""
    return -jnp.log1p(-uniform(key, shape, dtype))


def randint(key: Key[Array, ""], shape: tuple[int, ...], low: Array | int, high: Array | int) -> Int32[Array, "*shape"]:
    """Whole numbers from low to high - 1, equally often to one part in 2^24 / (high - low)."""
    return low + jnp.floor(uniform(key, shape) * (high - low)).astype(jnp.int32)


def _uniform(words: UInt32[Array, "*shape"], dtype: Any, low: float, high: float) -> Float[Array, "*shape"]:
    digits = _digits(dtype)
    # By way of a signed integer, since few processors convert an unsigned one in one instruction.
    steps = (words >> (32 - digits)).astype(jnp.int32).astype(dtype)
    if (low, high) == (0, 1):
        return steps * 2.0**-digits
    # What is rounded up to the upper end goes back.
    below = float(np.nextafter(np.asarray(high, dtype), np.asarray(low, dtype)))
    return jnp.minimum(steps * ((high - low) * 2.0**-digits) + low, below)


def _digits(dtype: Any) -> int:
    """Binary digits of a random number: as many as the type holds exactly, and no more than a word can give."""
    return min(jnp.finfo(dtype).nmant + 1, 30)


def _bits_at(key: Key[Array, ""], places: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """The words of a key at these places: place and first word mixed, then the others with it, one after the other."""
    first, *others = _words(key)
    # Places are far apart, so that those of a key whose first word is a neighbour are none of these.
    mixed = _mixed((places + 1) * jnp.uint32(_STRIDE) + first)
    for word in others:
        mixed = _mixed(mixed + word)
    return mixed


def _words(key: Key[Array, ""]) -> list[UInt32[Array, ""]]:
    data = jax.random.key_data(key)
    return [data[i] for i in range(data.shape[0])]


def _mixed(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """The mixer triple32 (Wellons, "Hash Prospector", 2018): a bijection of 32-bit words, so none comes twice."""
    x = (x ^ (x >> 17)) * jnp.uint32(0xED5AD4BB)
    x = (x ^ (x >> 11)) * jnp.uint32(0xAC4C1B51)
    x = (x ^ (x >> 15)) * jnp.uint32(0x31848BAB)
    return x ^ (x >> 14)


def _keys(key: Key[Array, ""], place: UInt32[Array, "*shape"]) -> Key[Array, "*shape"]:
    """Keys of the same kind, one for each place."""
    size = jax.random.key_data(key).shape[0]
    # From the far end, where nobody's numbers are.
    places = ~(place[..., None] * size + jnp.arange(size, dtype=jnp.uint32))
    return jax.random.wrap_key_data(_bits_at(key, places), impl=jax.random.key_impl(key))
