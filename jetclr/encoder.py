"""The permutation-invariant transformer encoder and the projection head (the only file that imports haiku).

Shape glossary: N constituents, F features, D model width, H heads, K head width = D / H, W wide units,
E embedding width. Everything is written for ONE jet and vmapped by the caller.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
from jaxtyping import Array, Float, Key

from jetclr.features import FLOOR, Inputs

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


@dataclass(frozen=True)
class Encoder:
    """A pre-norm transformer over constituents, pooled, with an optional wide layer after pooling.

    `attention="pt"` adds 0.5 log(pT fraction) to the scores of each attended constituent and `pooling="pt"` sums them
    weighted by pT: the continuous mask of arXiv:2108.04253, under which soft constituents fade out. `"plain"`
    and `"mean"` treat all real constituents alike; several poolings are concatenated. `wide` GELU units after
    pooling, part of the embedding, let a linear probe see non-linear functions of the pooled sums (0: none).
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
    """Pure functions of one jet: `init(key, inputs) -> params`, `apply(params, inputs, key) -> layers`.

    `layers` maps names, in order of depth, to vectors: "layer_0" (pooled linear embedding), "layer_1", ... (pooled
    after each block), "embedding" (the default output) and, from the head, "head_1", ..., "projection".
    `key` drives dropout; None switches it off.
    """

    init: Callable[[Key[Array, ""], Inputs], Params]
    apply: Callable[[Params, Inputs, Key[Array, ""] | None], dict[str, Float[Array, " _"]]]


def build(encoder: Encoder, head: Head, precision: Precision = "float32") -> Network:
    """The network as pure functions."""

    def forward(inputs: Inputs, training: bool) -> dict[str, Array]:
        with _computing_in(precision):
            layers = _encode(encoder, inputs, training)
            layers |= _project(head, layers["embedding"])
        return {name: x.astype(jnp.float32) for name, x in layers.items()}

    transformed = hk.transform(forward)

    def init(key: Key[Array, ""], inputs: Inputs) -> Params:
        return transformed.init(key, inputs, False)

    def apply(params: Params, inputs: Inputs, key: Key[Array, ""] | None) -> dict[str, Array]:
        return transformed.apply(params, key, inputs, key is not None and encoder.dropout > 0)

    return Network(init, apply)


@contextmanager
def _computing_in(precision: Precision) -> Iterator[None]:
    """While inside, linear layers and products compute in `precision`."""
    with ExitStack() as stack:
        # The defaults of the chips are short, which the name float32 would hide.
        short = precision == "tensorfloat32"
        stack.enter_context(jax.default_matmul_precision("tensorfloat32" if short else "float32"))
        if precision == "bfloat16":
            policy = jmp.get_policy("params=float32,compute=bfloat16,output=bfloat16")
            stack.enter_context(hk.mixed_precision.push_policy(hk.Linear, policy))
        yield


def layer_names(encoder: Encoder, head: Head) -> list[str]:
    """Names of all layers that a network returns, in order of depth."""
    blocks = [f"layer_{i}" for i in range(encoder.layers + 1)]
    return [*blocks, "embedding", *(f"head_{i + 1}" for i in range(len(head.hidden))), "projection"]


def _encode(settings: Encoder, inputs: Inputs, training: bool) -> dict[str, Array]:
    rate = settings.dropout if training else 0.0
    bias = _attention_bias(settings, inputs)
    h = hk.Linear(settings.width, name="embed")(inputs.x).astype(jnp.float32)  # and so are all sums of blocks
    layers = {"layer_0": _pool(settings, h, inputs)}
    for i in range(settings.layers):
        h = h + _dropout(rate, _attend(settings, _norm(f"attention_norm_{i}", h), bias, f"block_{i}"))
        h = h + _dropout(rate, _feedforward(settings, _norm(f"feedforward_norm_{i}", h), f"block_{i}"))
        layers[f"layer_{i + 1}"] = _pool(settings, h, inputs)
    pooled = _pool(settings, _norm("final_norm", h), inputs)
    if settings.wide:
        expanded = jax.nn.gelu(hk.Linear(settings.wide, name="wide")(_norm("wide_norm", pooled)))
        pooled = jnp.concatenate([pooled, expanded])
    return layers | {"embedding": pooled}


def _project(settings: Head, embedding: Float[Array, " E"]) -> dict[str, Array]:
    layers, h = {}, embedding
    for i, units in enumerate(settings.hidden):
        h = jax.nn.gelu(hk.Linear(units, name=f"head_{i + 1}")(h))
        layers[f"head_{i + 1}"] = h
    return layers | {"projection": hk.Linear(settings.width, name="projection")(h)}


def _attention_bias(settings: Encoder, inputs: Inputs) -> Float[Array, " N"]:
    """Added to every query's score for each key: the continuous mask on real constituents, a floor on padding."""
    weight = 0.5 * jnp.log(jnp.maximum(inputs.z, FLOOR)) if settings.attention == "pt" else 0.0
    return jnp.where(inputs.mask, weight, MASKED_SCORE)


def _attend(settings: Encoder, h: Float[Array, "N D"], bias: Float[Array, " N"], name: str) -> Float[Array, "N D"]:
    n, heads = h.shape[0], settings.heads
    query, key, value = jnp.split(hk.Linear(3 * settings.width, name=f"{name}_qkv")(h).reshape(n, 3 * heads, -1), 3, 1)
    products = jnp.einsum("qhk,nhk->hqn", query, key, preferred_element_type=jnp.float32)
    scores = products / jnp.sqrt(query.shape[-1]) + bias
    mixed = jnp.einsum("hqn,nhk->qhk", jax.nn.softmax(scores).astype(value.dtype), value)
    return hk.Linear(settings.width, name=f"{name}_out")(mixed.reshape(n, settings.width))


def _feedforward(settings: Encoder, h: Float[Array, "N D"], name: str) -> Float[Array, "N D"]:
    hidden = jax.nn.gelu(hk.Linear(settings.feedforward, name=f"{name}_up")(h))
    return hk.Linear(settings.width, name=f"{name}_down")(hidden)


def _pool(settings: Encoder, h: Float[Array, "N D"], inputs: Inputs) -> Float[Array, " P"]:
    def weights(pooling: Pooling) -> Float[Array, " N"]:
        if pooling == "pt":
            return inputs.z
        return inputs.mask / jnp.maximum(jnp.sum(inputs.mask), 1)

    # Padded rows of h are not zero (biases), so their weight must be.
    return jnp.concatenate([weights(pooling) @ h for pooling in settings.pooling])


def _norm(name: str, h: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
    return hk.LayerNorm(-1, create_scale=True, create_offset=True, name=name)(h)


def _dropout(rate: float, h: Float[Array, "N D"]) -> Float[Array, "N D"]:
    return hk.dropout(hk.next_rng_key(), rate, h) if rate else h
