"""The parts of the encoder that cost time, in two ways: as formulas, and for CPUs with gradients laid out by hand.

XLA makes good code for accelerators of the formulas. For a CPU it leaves copies that are walked across memory in
strides, broadcasts written out, and products of shapes for which it has no fast routine; `BY_HAND` gives every product
the layout that is fast, keeps less for the backward pass, and computes the rest anew. Both agree to rounding, forwards
and back. docs/performance.md has what each choice gained.

Shape glossary: *B jets, N constituents, D model width, H heads, K head width = D / H, I and O sizes of a linear layer.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from augmentations import random

Keys = Key[Array, "*B"] | None
Bias = Float[Array, "*B N"] | Float[Array, "*B H N N"]

# Haiku's LayerNorm has the same.
_EPSILON = 1e-5


class Kernels(NamedTuple):
    """One way of computing: `FORMULAS`, or `BY_HAND`."""

    linear: Callable[[Float[Array, "*B I"], Float[Array, "I O"]], Float[Array, "*B O"]]
    """x @ w."""
    normalize: Callable[[Float[Array, "*B D"]], Float[Array, "*B D"]]
    """Layer normalisation (arXiv:1607.06450) without scale and offset."""
    gelu: Callable[[Float[Array, "*B D"]], Float[Array, "*B D"]]
    """The tanh form of arXiv:1606.08415."""
    attend: Callable[[float, Float[Array, "*B N 3 H K"], Bias, Keys], Float[Array, "*B N H K"]]
    """Dropout rate, (query, key, value), what is added to the scores, random keys -> mixed values.

    Added is a number for each key, of which no gradient is taken by hand, or one for each head, query and key.
    """
    keep: Callable[[Float[Array, "*S"]], Float[Array, "*S"]]
    """The same array, for what should be kept until the backward pass and not be computed again."""


def choose(training: bool, short: bool) -> Kernels:
    """The faster way on this machine: by hand where a CPU will take gradients, unless products are `short`."""
    return BY_HAND if training and not short and jax.default_backend() == "cpu" else FORMULAS


def dropout(rate: float, x: Float[Array, "*S"], keys: Keys) -> Float[Array, "*S"]:
    """x with a share `rate` of the numbers of each jet zero and the others scaled up (arXiv:1207.0580).

    The rows of x are those of the jets, one jet after the other; `keys` has one key for each jet, None is no dropout.
    """
    if not rate or keys is None:
        return x
    return jnp.where(_kept(rate, x.shape, keys), x * jnp.asarray(1 / (1 - rate), x.dtype), 0)


def _kept(rate: float, shape: tuple[int, ...], keys: Key[Array, "*B"]) -> Array:
    """Which numbers stay, in an array of jets or of all rows of all jets: of each jet a function of its key alone.

    Every row gets a key from JAX's generator, and hashes it for its numbers. XLA computes cheap things again for each
    that uses them, and here one turns them around: then a row's key is read, and not worked out for each number.
    """
    rows = math.prod(shape[:-1]) // max(keys.size, 1)
    words = jax.vmap(lambda key: jax.random.bits(key, (rows, 2), jnp.uint32))(keys.reshape(-1))
    words = random.row_bits(words.reshape(*shape[:-1], 2), shape[-1])
    return words >= np.uint32(rate * 2**32)


def _of_pairs(qkv: Float[Array, "*B N 3 H K"], bias: Bias) -> bool:
    """Whether there is a number for each head, query and key."""
    return bias.ndim == qkv.ndim - 1


def _swap(x: Array) -> Array:
    """The last two axes exchanged in memory, and not by a product that reads in strides."""
    return jax.lax.optimization_barrier(jnp.swapaxes(x, -1, -2))


# ---- formulas


def _attend(rate: float, qkv: Float[Array, "*B N 3 H K"], bias: Bias, keys: Keys) -> Float[Array, "*B N H K"]:
    query, key, value = jnp.moveaxis(qkv, -3, 0)
    whole = jnp.promote_types(query.dtype, jnp.float32)
    products = jnp.einsum("...qhk,...nhk->...hqn", query, key, preferred_element_type=whole)
    scores = products / jnp.sqrt(query.shape[-1]) + (bias if _of_pairs(qkv, bias) else bias[..., None, None, :])
    shares = dropout(rate, jax.nn.softmax(scores), keys)
    return jnp.einsum("...hqn,...nhk->...qhk", shares.astype(value.dtype), value)


def _normalize(h: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    return _normalized(h)[0]


def _normalized(h: Float[Array, "*B D"]) -> tuple[Float[Array, "*B D"], Float[Array, "*B 1"]]:
    """The numbers of each row with mean zero and variance one, and one over its deviation."""
    off = h - jnp.mean(h, axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.mean(off * off, axis=-1, keepdims=True) + _EPSILON)
    return off * scale, scale


def _linear(x: Float[Array, "*B I"], w: Float[Array, "I O"]) -> Float[Array, "*B O"]:
    return x @ w


def _as_it_is(x: Array) -> Array:
    return x


FORMULAS = Kernels(_linear, _normalize, jax.nn.gelu, _attend, _as_it_is)


# ---- by hand


@jax.custom_vjp
def _linear_by_hand(x: Float[Array, "*B I"], w: Float[Array, "I O"]) -> Float[Array, "*B O"]:
    return x @ w


def _linear_backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = kept
    # With x turned around first: XLA would turn the wider of the two, and slowly.
    return g @ w.T, _swap(x.reshape(-1, x.shape[-1])) @ g.reshape(-1, g.shape[-1])


_linear_by_hand.defvjp(lambda x, w: (x @ w, (x, w)), _linear_backward)


@jax.custom_vjp
def _normalize_by_hand(h: Float[Array, "R D"]) -> Float[Array, "R D"]:
    return _normalized(h)[0]


def _normalize_forward(h: Array) -> tuple[Array, tuple[Array, Array]]:
    n, scale = _normalized(h)
    return n, (n, scale)  # n is there anyway, for the gradient of the layer that takes it; h is not kept


def _normalize_backward(kept: tuple[Array, Array], g: Array) -> tuple[Array]:
    n, scale = kept
    return (scale * (g - jnp.mean(g, axis=-1, keepdims=True) - n * jnp.mean(g * n, axis=-1, keepdims=True)),)


_normalize_by_hand.defvjp(_normalize_forward, _normalize_backward)


@jax.custom_vjp
def _gelu_by_hand(u: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    return jax.nn.gelu(u)


def _gelu_backward(u: Array, g: Array) -> tuple[Array]:
    a, b = np.float32(np.sqrt(2 / np.pi)), np.float32(0.044715)
    square = u * u
    t = jnp.tanh(a * u * (1 + b * square))
    return (g * (0.5 * (1 + t) + 0.5 * a * u * (1 - t * t) * (1 + 3 * b * square)),)


_gelu_by_hand.defvjp(lambda u: (jax.nn.gelu(u), u), _gelu_backward)


def _attend_by_hand(rate: float, qkv: Float[Array, "*B N 3 H K"], bias: Bias, keys: Keys) -> Float[Array, "*B N H K"]:
    jets = qkv.shape[:-4]
    if keys is not None:
        keys = keys.reshape(-1)
    flat = qkv.reshape(-1, *qkv.shape[-4:]), bias.reshape(-1, *bias.shape[len(jets) :])
    mixed = _mix(rate, _of_pairs(qkv, bias), *flat, keys)
    return mixed.reshape(*jets, *mixed.shape[1:])


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mix(rate: float, pairs: bool, qkv: Float[Array, "B N 3 H K"], bias: Bias, keys: Keys) -> Float[Array, "B N H K"]:
    return _mix_forward(rate, pairs, qkv, bias, keys)[0]


def _mix_forward(rate: float, pairs: bool, qkv: Array, bias: Array, keys: Keys) -> tuple[Array, Any]:
    """Softmax is divided by its sum after the second product, which has fewer numbers."""
    heads = jnp.transpose(qkv, (2, 0, 3, 1, 4))  # 3 B H N K
    query, key_turned, value = _laid_out(heads[0] * _scale(qkv)), _swap(heads[1]), _laid_out(heads[2])
    scores = query @ key_turned + (bias if pairs else bias[:, None, None, :])
    e = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    inverse = 1 / jnp.sum(e, axis=-1, keepdims=True)
    if keys is not None and rate:
        e = jnp.where(_kept(rate, e.shape, keys), e, -e)  # the sign tells which are dropped, and costs no memory
    mixed = (_stay(rate, e) @ value) * (inverse * (1 / (1 - rate)))
    mixed = _laid_out(jnp.swapaxes(mixed, 1, 2))
    return mixed, (qkv, e, inverse, mixed)


def _mix_backward(rate: float, pairs: bool, kept: Any, g: Array) -> tuple[Array, Array | None, None]:
    """With shares p of softmax: dp = g . value, and ds = p (dp - sum p dp), whose sum is that of g . mixed.

    So the sum runs over K numbers and not over N (arXiv:2205.14135).
    """
    qkv, e, inverse, mixed = kept
    scale = _scale(qkv)
    heads = jnp.transpose(qkv, (2, 0, 3, 1, 4))
    total = jnp.swapaxes(jnp.sum(g * mixed, axis=-1), 1, 2)[..., None] * inverse
    g = jnp.swapaxes(g, 1, 2) * (inverse * (1 / (1 - rate)))
    d_value = _laid_out(_swap(g) @ _laid_out(_stay(rate, e)))  # B H K N
    d_share = _laid_out(g) @ _swap(heads[2])
    if rate:
        d_share = jnp.where(e > 0, d_share, 0)
    d_score = _laid_out(jnp.abs(e) * (d_share - total))
    d_query = _laid_out(d_score @ _laid_out(heads[1]))
    d_key = _laid_out(_swap(heads[0] * scale) @ d_score)
    by_constituent = [
        jnp.transpose(d_query, (0, 2, 1, 3)) * scale,
        jnp.transpose(d_key, (0, 3, 1, 2)),
        jnp.transpose(d_value, (0, 3, 1, 2)),
    ]
    return jnp.stack(by_constituent, axis=2), d_score if pairs else None, None


_mix.defvjp(_mix_forward, _mix_backward)


def _scale(qkv: Array) -> np.floating[Any]:
    return np.float32(qkv.shape[-1] ** -0.5)


def _stay(rate: float, e: Array) -> Array:
    """Without those that are dropped, whose sign is minus."""
    return jnp.maximum(e, 0) if rate else e


def _laid_out(x: Array) -> Array:
    """x written to memory as it is, so that XLA does not fold how it was made into the product that takes it."""
    return jax.lax.optimization_barrier(x)


BY_HAND = Kernels(_linear_by_hand, _normalize_by_hand, _gelu_by_hand, _attend_by_hand, _laid_out)
