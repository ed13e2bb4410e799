"""The permutation-invariant transformer encoder and the projection head (the only file that imports haiku).

Shape glossary: N constituents, F features, D model width, H heads, K head width = D / H, W wide units,
E embedding width, P poolings. Everything takes one jet or any batch of jets [*B].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from augmentations import random
from jetclr.features import FLOOR, Inputs
from jetclr.kernels import FORMULAS, Kernels, dropout
from jetclr.kernels import choose as choose_kernels

Params = dict[str, dict[str, Array]]
Pooling = Literal["pt", "mean"]
Precision = Literal["float32", "tensorfloat32", "bfloat16"]
"""In which numbers a network computes. Parameters, norms, softmax, pooled sums and what is returned are always float32.

float32: products to the full, on every chip. tensorfloat32: products of shortened float32 numbers where the chip has
them (10 bits of mantissa on NVIDIA, three passes of bfloat16 on TPU). bfloat16: linear layers and the products of
attention take and give bfloat16.
"""

# Not -inf: a jet without constituents must give finite numbers.
MASKED_SCORE = -1e9

_DROPOUTS = 4
"""Places of a block where numbers are dropped, those of the study's transformer layers."""


@dataclass(frozen=True)
class Encoder:
    """A pre-norm transformer over constituents, pooled, with an optional wide layer after pooling.

    `attention="pt"` adds 0.5 log(pT fraction) to the scores of each attended constituent and `pooling="pt"` sums them
    weighted by pT: the continuous mask of arXiv:2108.04253, under which soft constituents fade out. `"plain"`
    and `"mean"` treat all real constituents alike; several poolings are concatenated. `wide` GELU units after
    pooling, part of the embedding, let a linear probe see non-linear functions of the pooled sums (0: none). `dropout`
    is the share of numbers dropped in each block: shares of attention, hidden units, and what both halves give.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    feedforward: int = 128
    dropout: float = 0.0
    attention: Literal["pt", "plain"] = "pt"
    pooling: tuple[Pooling, ...] = ("pt", "mean")
    wide: int = 1024

    def __post_init__(self) -> None:
        for name in ("width", "heads", "feedforward"):
            if getattr(self, name) < 1:
                raise ValueError(f"Encoder.{name} is {getattr(self, name)}; it must be positive")
        if self.layers < 0 or self.wide < 0:
            raise ValueError(f"Encoder.layers is {self.layers} and Encoder.wide {self.wide}; neither may be negative")
        if self.width % self.heads:
            raise ValueError(f"Encoder.width {self.width} is not a multiple of Encoder.heads {self.heads}")
        if not self.pooling:
            raise ValueError("Encoder.pooling is empty; choose 'pt', 'mean' or both")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"Encoder.dropout is {self.dropout}; it must lie in [0, 1)")


@dataclass(frozen=True)
class Head:
    """The projection head, used in training only: hidden layers with GELU, then `width` outputs."""

    hidden: tuple[int, ...] = (256,)
    width: int = 128

    def __post_init__(self) -> None:
        if min(*self.hidden, self.width, self.width) < 1:
            raise ValueError(f"Head.hidden is {self.hidden} and Head.width {self.width}; all must be positive")


class Network(NamedTuple):
    """Pure functions of one jet or a batch: `init(key, inputs) -> params`, `apply(params, inputs, keys) -> layers`.

    `layers` maps names, in order of depth, to vectors: "layer_0" (pooled linear embedding), "layer_1", ... (pooled
    after each block), "embedding" (the default output) and, from the head, "head_1", ..., "projection".
    `keys`, one for each jet, drive dropout: training has them. None is for the frozen encoder.
    """

    init: Callable[[Key[Array, ""], Inputs], Params]
    apply: Callable[[Params, Inputs, Key[Array, "*B"] | None], dict[str, Float[Array, "*B _"]]]


def build(encoder: Encoder, head: Head, precision: Precision = "float32", kernels: Kernels | None = None) -> Network:
    """The network as pure functions; by which `kernels` it computes is chosen for the machine if not given."""

    def forward(inputs: Inputs, keys: Key[Array, "*B"] | None) -> dict[str, Array]:
        short = precision == "bfloat16"
        parts = _Parts(
            kernels or choose_kernels(keys is not None, short),
            jnp.bfloat16 if short else jnp.float32,
            encoder.dropout if keys is not None else 0.0,
        )
        # The defaults of the chips are short, which the name float32 would hide.
        with jax.default_matmul_precision("tensorfloat32" if precision == "tensorfloat32" else "float32"):
            layers = _encode(encoder, parts, inputs, keys)
            layers |= _project(head, parts, layers["embedding"])
        return {name: x.astype(jnp.float32) for name, x in layers.items()}

    transformed = hk.transform(forward)

    def init(key: Key[Array, ""], inputs: Inputs) -> Params:
        return transformed.init(key, inputs, None)

    def apply(params: Params, inputs: Inputs, keys: Key[Array, "*B"] | None) -> dict[str, Array]:
        return transformed.apply(params, None, inputs, keys)

    return Network(init, apply)


class _Parts(NamedTuple):
    """How layers compute."""

    kernels: Kernels
    dtype: Any  # of what linear layers and products of attention take and give
    dropout: float


def layer_names(encoder: Encoder, head: Head) -> list[str]:
    """Names of all layers that a network returns, in order of depth."""
    blocks = [f"layer_{i}" for i in range(encoder.layers + 1)]
    return [*blocks, "embedding", *(f"head_{i + 1}" for i in range(len(head.hidden))), "projection"]


class _Linear(hk.Module):
    """Weights and biases as in hk.Linear; `after` the scale and offset of a norm, they are taken into this layer."""

    def __init__(self, units: int, name: str) -> None:
        super().__init__(name=name)
        self._units = units

    def __call__(self, parts: _Parts, x: Float[Array, "*B I"], after: "_Norm | None" = None) -> Float[Array, "*B O"]:
        size = x.shape[-1]
        w = hk.get_parameter("w", (size, self._units), init=hk.initializers.TruncatedNormal(size**-0.5))
        b = hk.get_parameter("b", (self._units,), init=jnp.zeros)
        if after is not None:
            # On a few weights, not on every constituent; and no sums over constituents for their gradients.
            w, b = after.scale[:, None] * w, jnp.sum(after.offset[:, None] * w, axis=0) + b
        return parts.kernels.linear(x.astype(parts.dtype), w.astype(parts.dtype)) + b.astype(parts.dtype)


class _Norm(hk.Module):
    """Scale and offset of a layer norm, as in hk.LayerNorm; whoever takes the normalised numbers applies them."""

    def __init__(self, size: int, name: str) -> None:
        super().__init__(name=name)
        self._size = size

    def __call__(self) -> "_Norm":
        self.scale = hk.get_parameter("scale", (self._size,), init=jnp.ones)
        self.offset = hk.get_parameter("offset", (self._size,), init=jnp.zeros)
        return self


def _encode(
    settings: Encoder, parts: _Parts, inputs: Inputs, keys: Key[Array, "*B"] | None
) -> dict[str, Float[Array, "*B _"]]:
    normalize, rate = parts.kernels.normalize, parts.dropout
    bias = _attention_bias(settings, inputs)
    weights = _pooling_weights(settings, inputs)
    # In training all constituents of all jets are rows: XLA's code for a CPU counts through two axes faster than three.
    x = inputs.x if keys is None else inputs.x.reshape(-1, inputs.x.shape[-1])
    h = _Linear(settings.width, "embed")(parts, x).astype(jnp.float32)  # and so are all sums of blocks
    layers = {"layer_0": _pool(weights, h)}
    for i in range(settings.layers):
        drop = _dropout_keys(rate, keys, i)
        norm = _Norm(settings.width, f"attention_norm_{i}")()
        qkv = _Linear(3 * settings.width, f"block_{i}_qkv")(parts, normalize(h), norm)
        mixed = parts.kernels.attend(rate, qkv.reshape(*bias.shape, 3, settings.heads, -1), bias, drop[0])
        mixed = _Linear(settings.width, f"block_{i}_out")(parts, mixed.reshape(h.shape))
        h = h + dropout(rate, mixed.astype(jnp.float32), drop[1])
        norm = _Norm(settings.width, f"feedforward_norm_{i}")()
        hidden = parts.kernels.gelu(_Linear(settings.feedforward, f"block_{i}_up")(parts, normalize(h), norm))
        down = _Linear(settings.width, f"block_{i}_down")(parts, dropout(rate, hidden, drop[2]))
        h = h + dropout(rate, down.astype(jnp.float32), drop[3])
        layers[f"layer_{i + 1}"] = _pool(weights, h)
    pooled = _pool(weights, normalize(h), _Norm(settings.width, "final_norm")())
    if settings.wide:
        norm = _Norm(pooled.shape[-1], "wide_norm")()
        expanded = jax.nn.gelu(_Linear(settings.wide, "wide")(parts, FORMULAS.normalize(pooled), norm))
        pooled = jnp.concatenate([pooled, expanded.astype(jnp.float32)], axis=-1)
    return layers | {"embedding": pooled}


def _project(settings: Head, parts: _Parts, embedding: Float[Array, "*B E"]) -> dict[str, Float[Array, "*B _"]]:
    layers, h = {}, embedding
    for i, units in enumerate(settings.hidden):
        h = jax.nn.gelu(_Linear(units, f"head_{i + 1}")(parts, h))
        layers[f"head_{i + 1}"] = h
    return layers | {"projection": _Linear(settings.width, "projection")(parts, h)}


def _dropout_keys(rate: float, keys: Key[Array, "*B"] | None, layer: int) -> list[Key[Array, "*B"]] | list[None]:
    """Of each jet one for the shares of attention, and for what comes out of attention, hidden units and block."""
    if keys is None or not rate:
        return [None] * _DROPOUTS
    here = jax.vmap(lambda key: random.split(jax.random.fold_in(key, layer), _DROPOUTS))(keys.reshape(-1))
    return [here[:, i].reshape(keys.shape) for i in range(_DROPOUTS)]


def _attention_bias(settings: Encoder, inputs: Inputs) -> Float[Array, "*B N"]:
    """Added to every query's score for each key: the continuous mask on real constituents, a floor on padding."""
    weight = 0.5 * jnp.log(jnp.maximum(inputs.z, FLOOR)) if settings.attention == "pt" else 0.0
    return jnp.where(inputs.mask, weight, MASKED_SCORE)


def _pooling_weights(settings: Encoder, inputs: Inputs) -> list[Float[Array, "*B N"]]:
    """Of each pooling the weights of all constituents. Padded rows are not zero (biases), so their weight must be."""

    def weights(pooling: Pooling) -> Float[Array, "*B N"]:
        if pooling == "pt":
            return inputs.z
        return inputs.mask / jnp.maximum(jnp.sum(inputs.mask, axis=-1, keepdims=True), 1)

    return [weights(pooling) for pooling in settings.pooling]


def _pool(weights: list[Float[Array, "*B N"]], h: Array, norm: _Norm | None = None) -> Float[Array, "*B _"]:
    """The poolings of h [*B N D], or of its rows, one after the other; `norm` scales and shifts h."""
    by_jet = h.reshape(*weights[0].shape, -1)
    pooled = [jnp.einsum("...n,...nd->...d", w, by_jet) for w in weights]
    if norm is not None:
        shifts = [jnp.sum(w, axis=-1, keepdims=True) for w in weights]
        pooled = [x * norm.scale + shift * norm.offset for x, shift in zip(pooled, shifts, strict=True)]
    return jnp.concatenate(pooled, axis=-1)
