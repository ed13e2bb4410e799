"""The permutation-invariant transformer encoder and the projection head (the only file that imports haiku).

Shape glossary: N constituents, F features, D model width, H heads, K head width = D / H, W wide units,
E embedding width, P poolings. Everything takes one jet or any batch of jets [*B].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from augmentations import random
from jetclr.features import FeatureName, Features, Inputs
from jetclr.kernels import FORMULAS, Kernels, dropout
from jetclr.kernels import choose as choose_kernels
from jetclr.pairs import PairFeature, pair_features, with_squares
from jetclr.weights import MASKED_SCORE, Pooling, attention_bias, counted_alike, pooling_weights, rank_code, without

Params = dict[str, dict[str, Array]]
Precision = Literal["float32", "tensorfloat32", "bfloat16"]
"""In which numbers a network computes. Parameters, norms, softmax, pooled sums and what is returned are always float32,
but float64 where inputs and parameters are.

float32: products to the full, on every chip. tensorfloat32: products of shortened float32 numbers where the chip has
them (10 bits of mantissa on NVIDIA, three passes of bfloat16 on TPU). bfloat16: linear layers and the products of
attention take and give bfloat16.
"""

_SAFE_FEATURES: tuple[FeatureName, ...] = ("eta", "phi", "r", "r2")
_SAFE_PAIRS: tuple[tuple[PairFeature, ...], ...] = ((), ("ln_dr",))

_DROPOUTS = 4
"""Places of a block where numbers are dropped, those of the study's transformer layers."""


@dataclass(frozen=True)
class Encoder:
    """A pre-norm transformer over constituents, pooled, with an optional wide layer after pooling.

    `attention="pt"` adds 0.5 log(pT fraction) to the scores of each attended constituent and `pooling="pt"` sums them
    weighted by pT: the continuous mask of arXiv:2108.04253, under which soft constituents fade out. `"plain"`
    and `"mean"` treat all real constituents alike; `"sum"` does too, and sees how many there are (arXiv:1810.05165).
    `"attention"` asks the last block's constituents with a learned query for each head (arXiv:1810.00825,
    arXiv:2103.17239); layers before have no such part, and are pooled by pT if it is the only one. Several poolings are
    concatenated. `wide` GELU units after pooling, part of the embedding, let a linear probe see non-linear functions of
    the pooled sums (0: none). `depth="all"` pools the normalised constituents after every block and not after the last
    alone, so that what earlier blocks have found stays within reach. `dropout` is the share of numbers dropped in each
    block: shares of attention, hidden units, and what both halves give. `pairwise` features of two constituents are
    added to the scores of attention with weights that all blocks share, in the manner of arXiv:2202.03772.

    With `irc_safe` no layer changes when a constituent splits into collinear parts, and an emission moves each by no
    more than in proportion to its momentum: shares of pT enter as weights of attention, softmax(scores + log z), and of
    pooling, and nowhere else. It needs pooling "pt", no pairwise features but "ln_dr", and features of angles alone.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    feedforward: int = 128
    dropout: float = 0.0
    attention: Literal["pt", "plain"] = "pt"
    pooling: tuple[Pooling, ...] = ("pt", "mean")
    wide: int = 1024
    pairwise: tuple[PairFeature, ...] = ()
    irc_safe: bool = False
    depth: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        for name in ("width", "heads", "feedforward"):
            if getattr(self, name) < 1:
                raise ValueError(f"Encoder.{name} is {getattr(self, name)}; it must be positive")
        if self.layers < 0 or self.wide < 0:
            raise ValueError(f"Encoder.layers is {self.layers} and Encoder.wide {self.wide}; neither may be negative")
        if self.width % self.heads:
            raise ValueError(f"Encoder.width {self.width} is not a multiple of Encoder.heads {self.heads}")
        if not self.pooling:
            raise ValueError("Encoder.pooling is empty; choose one or several of " + ", ".join(get_args(Pooling)))
        for name, choices in (("attention", ("pt", "plain")), ("depth", ("last", "all"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"Encoder.{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")
        for field, kind in (("pooling", Pooling), ("pairwise", PairFeature)):
            names, known = getattr(self, field), get_args(kind)
            if len(set(names)) < len(names) or not set(names) <= set(known):
                raise ValueError(f"Encoder.{field} is {names}; it takes each of {', '.join(known)} at most once")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"Encoder.dropout is {self.dropout}; it must lie in [0, 1)")
        if self.irc_safe and not (self.attention == "pt" and self.pooling == ("pt",) and self.pairwise in _SAFE_PAIRS):
            raise ValueError(
                f"Encoder.irc_safe is True with attention {self.attention!r}, pooling {self.pooling} and pairwise "
                f"{self.pairwise}; safe are attention 'pt', pooling ('pt',) and pairwise () or ('ln_dr',)"
            )

    @property
    def pooled_width(self) -> int:
        """How many numbers pooling gives, all poolings and depths together."""
        before = max(self.layers - 1, 0) if self.depth == "all" else 0
        fixed = sum(pooling != "attention" for pooling in self.pooling) or 1  # layers before: as without attention
        return self.width * (len(self.pooling) + fixed * before)


def check_irc_safe(encoder: Encoder, features: Features) -> None:
    """Raise ValueError for an encoder that is to be safe and sees of constituents anything but angles."""
    unsafe = [name for name in features.columns if name not in _SAFE_FEATURES]
    if encoder.irc_safe and unsafe:
        raise ValueError(
            f"Features.columns has {', '.join(unsafe)}; with Encoder.irc_safe constituents are described by "
            f"{', '.join(_SAFE_FEATURES)} alone, and their momenta enter as weights"
        )


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

    `tokens(params, inputs, keys, hidden)` gives, beside the layers, all constituents after the last norm, padding
    included. Of those that are `hidden` nothing is seen but that they are there, and their rank in pT: a learned vector
    and a code of the rank stand for them, all are attended to alike, and they are not pooled (arXiv:2401.13537). That
    takes the parameters of a network that was built with `tokens`; None hides nothing, and takes any.
    """

    init: Callable[[Key[Array, ""], Inputs], Params]
    apply: Callable[[Params, Inputs, Key[Array, "*B"] | None], dict[str, Float[Array, "*B _"]]]
    tokens: Callable[
        [Params, Inputs, Key[Array, "*B"] | None, Bool[Array, "*B N"] | None],
        tuple[dict[str, Float[Array, "*B _"]], Float[Array, "*B N D"]],
    ]


class HeadNetwork(NamedTuple):
    """Pure functions of vectors: `init(key, x) -> params`, `apply(params, x) -> outputs`."""

    init: Callable[[Key[Array, ""], Float[Array, "*B I"]], Params]
    apply: Callable[[Params, Float[Array, "*B I"]], Float[Array, "*B O"]]


def build(
    encoder: Encoder,
    head: Head,
    precision: Precision = "float32",
    kernels: Kernels | None = None,
    *,
    tokens: bool = False,
) -> Network:
    """The network as pure functions; by which `kernels` it computes is chosen for the machine if not given.

    With `tokens` it has a parameter more, for hidden constituents; the others start as they do without.
    """

    def forward(
        inputs: Inputs, keys: Key[Array, "*B"] | None, hidden: Bool[Array, "*B N"] | None, apart: bool
    ) -> tuple[dict[str, Array], Array | None]:
        short, whole = precision == "bfloat16", jnp.promote_types(inputs.x.dtype, jnp.float32)
        parts = _Parts(
            kernels or choose_kernels(keys is not None, short),
            jnp.bfloat16 if short else whole,
            whole,
            encoder.dropout if keys is not None else 0.0,
        )
        # The defaults of the chips are short, which the name float32 would hide.
        with jax.default_matmul_precision("tensorfloat32" if precision == "tensorfloat32" else "float32"):
            layers, constituents = _encode(encoder, parts, inputs, keys, hidden, apart)
            layers |= _dense(head, parts, layers["embedding"], "head_{}", "projection")
        return {name: x.astype(whole) for name, x in layers.items()}, constituents

    transformed = hk.transform(forward)

    def init(key: Key[Array, ""], inputs: Inputs) -> Params:
        return transformed.init(key, inputs, None, jnp.zeros_like(inputs.mask) if tokens else None, False)

    def apply(params: Params, inputs: Inputs, keys: Key[Array, "*B"] | None) -> dict[str, Array]:
        return transformed.apply(params, None, inputs, keys, None, False)[0]

    def all_tokens(
        params: Params, inputs: Inputs, keys: Key[Array, "*B"] | None, hidden: Bool[Array, "*B N"] | None
    ) -> tuple[dict[str, Array], Array]:
        return transformed.apply(params, None, inputs, keys, hidden, True)

    return Network(init, apply, all_tokens)


def build_head(head: Head, name: str) -> HeadNetwork:
    """Layers like those of the projection head, for objectives: with parameters `name`_1, ..., `name`, in float32."""

    def forward(x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        with jax.default_matmul_precision("float32"):
            return _dense(head, _Parts(FORMULAS, x.dtype, x.dtype, 0.0), x, "hidden_{}", "last")["last"]

    transformed = hk.transform(forward)
    # Not as names of modules: Haiku would number one that is called like another without its number.
    names = {f"hidden_{i + 1}": f"{name}_{i + 1}" for i in range(len(head.hidden))} | {"last": name}

    def init(key: Key[Array, ""], x: Float[Array, "*B I"]) -> Params:
        made: Any = transformed.init(key, x)
        return {names[module]: own for module, own in made.items()}

    def apply(params: Params, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        return transformed.apply({module: params[full] for module, full in names.items()}, None, x)

    return HeadNetwork(init, apply)


class _Parts(NamedTuple):
    """How layers compute."""

    kernels: Kernels
    dtype: Any  # of what linear layers and products of attention take and give
    whole: Any  # of all else: float32, or float64 where inputs are
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
        w, b = self.weights(x.shape[-1], after)
        return parts.kernels.linear(x.astype(parts.dtype), w.astype(parts.dtype)) + b.astype(parts.dtype)

    def weights(self, size: int, after: "_Norm | None" = None) -> tuple[Float[Array, "I O"], Float[Array, " O"]]:
        """Of a layer that takes `size` numbers."""
        w = hk.get_parameter("w", (size, self._units), init=hk.initializers.TruncatedNormal(size**-0.5))
        b = hk.get_parameter("b", (self._units,), init=jnp.zeros)
        if after is not None:
            # On a few weights, not on every constituent; and no sums over constituents for their gradients.
            w, b = after.scale[:, None] * w, jnp.sum(after.offset[:, None] * w, axis=0) + b
        return w, b


class _ToScores(hk.Module):
    """Weights of a layer that gives scores of heads; a bias, the same for all keys, softmax would not see."""

    def __init__(self, name: str, init: hk.initializers.Initializer | None = None) -> None:
        super().__init__(name=name)
        self._init = init

    def __call__(self, size: int, heads: int) -> Float[Array, "I H"]:
        init = self._init or hk.initializers.TruncatedNormal(size**-0.5)
        return hk.get_parameter("w", (size, heads), init=init)


class _MaskToken(hk.Module):
    """What stands for any hidden constituent; no random start, so that other parameters start as they do without."""

    def __call__(self, size: int) -> Float[Array, " D"]:
        return hk.get_parameter("w", (size,), init=jnp.zeros)


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
    settings: Encoder,
    parts: _Parts,
    inputs: Inputs,
    keys: Key[Array, "*B"] | None,
    hidden: Bool[Array, "*B N"] | None,
    apart: bool,
) -> tuple[dict[str, Float[Array, "*B _"]], Float[Array, "*B N D"] | None]:
    """The layers up to the embedding and, if they are wanted `apart`, the constituents."""
    normalize, rate = parts.kernels.normalize, parts.dropout
    counted = inputs if hidden is None else counted_alike(inputs, hidden)
    of_keys = attention_bias(counted, 1.0 if settings.irc_safe else 0.5 if settings.attention == "pt" else 0.0)
    seen = inputs if hidden is None else without(inputs, hidden)
    bias = of_keys[..., None, None, :] + _pair_bias(settings, parts, seen) if settings.pairwise else of_keys
    weights = pooling_weights(settings.pooling, seen)
    # In training all constituents of all jets are rows: XLA's code for a CPU counts through two axes faster than three.
    x = inputs.x if keys is None else inputs.x.reshape(-1, inputs.x.shape[-1])
    h = _Linear(settings.width, "embed")(parts, x).astype(parts.whole)  # and so are all sums of blocks
    if hidden is not None:
        instead = _MaskToken("mask_token")(settings.width) + rank_code(inputs, settings.width)
        h = jnp.where(hidden.reshape(*h.shape[:-1], 1), instead.reshape(h.shape), h)
    layers, before = {"layer_0": _pool(weights, h)}, []
    for i in range(settings.layers):
        drop = _dropout_keys(rate, keys, i)
        norm = _Norm(settings.width, f"attention_norm_{i}")()
        qkv = _Linear(3 * settings.width, f"block_{i}_qkv")(parts, normalize(h), norm)
        mixed = parts.kernels.attend(rate, qkv.reshape(*of_keys.shape, 3, settings.heads, -1), bias, drop[0])
        mixed = _Linear(settings.width, f"block_{i}_out")(parts, mixed.reshape(h.shape))
        h = h + dropout(rate, mixed.astype(parts.whole), drop[1])
        norm = _Norm(settings.width, f"feedforward_norm_{i}")()
        units = parts.kernels.gelu(_Linear(settings.feedforward, f"block_{i}_up")(parts, normalize(h), norm))
        down = _Linear(settings.width, f"block_{i}_down")(parts, dropout(rate, units, drop[2]))
        h = h + dropout(rate, down.astype(parts.whole), drop[3])
        layers[f"layer_{i + 1}"] = _pool(weights, h)
        if settings.depth == "all" and i + 1 < settings.layers:
            before.append(_pool(weights, normalize(h)))
    n, norm = normalize(h), _Norm(settings.width, "final_norm")()
    pooled = [] if settings.pooling == ("attention",) else [_pool(weights, n, norm)]
    if "attention" in settings.pooling:
        pooled.append(_pool_by_attention(settings, n, norm, of_keys, seen.mask))
    pooled += before
    layers["embedding"] = _widened(settings, parts, jnp.concatenate(pooled, axis=-1))
    constituents = (n * norm.scale + norm.offset).reshape(*of_keys.shape, -1) if apart else None
    return layers, constituents


def _widened(settings: Encoder, parts: _Parts, pooled: Float[Array, "*B _"]) -> Float[Array, "*B E"]:
    if not settings.wide:
        return pooled
    norm = _Norm(pooled.shape[-1], "wide_norm")()
    expanded = jax.nn.gelu(_Linear(settings.wide, "wide")(parts, FORMULAS.normalize(pooled), norm))
    return jnp.concatenate([pooled, expanded.astype(parts.whole)], axis=-1)


def _dense(
    settings: Head, parts: _Parts, x: Float[Array, "*B I"], hidden: str, last: str
) -> dict[str, Float[Array, "*B _"]]:
    """All layers of a head by the names of their parameters."""
    layers = {}
    for i, units in enumerate(settings.hidden):
        name = hidden.format(i + 1)
        x = layers[name] = jax.nn.gelu(_Linear(units, name)(parts, x))
    return layers | {last: _Linear(settings.width, last)(parts, x)}


def _dropout_keys(rate: float, keys: Key[Array, "*B"] | None, layer: int) -> list[Key[Array, "*B"]] | list[None]:
    """Of each jet one for the shares of attention, and for what comes out of attention, hidden units and block."""
    if keys is None or not rate:
        return [None] * _DROPOUTS
    here = jax.vmap(lambda key: random.split(jax.random.fold_in(key, layer), _DROPOUTS))(keys.reshape(-1))
    return [here[:, i].reshape(keys.shape) for i in range(_DROPOUTS)]


def _pair_bias(settings: Encoder, parts: _Parts, inputs: Inputs) -> Float[Array, "*B H N N"]:
    """Added to the scores of each head for each query and key, finite in padding too. Pairs come last all the way."""
    x = pair_features(settings.pairwise, inputs.eta, inputs.phi, inputs.z, inputs.mask)
    x = parts.kernels.keep(with_squares(x))
    # Zero at first: then attention starts as it does without pairs.
    w = _ToScores("pairs", jnp.zeros)(x.shape[0], settings.heads)
    return jnp.moveaxis(jnp.tensordot(w.T, x, 1), 0, -3)


def _pool(weights: list[Float[Array, "*B N"]], h: Array, norm: _Norm | None = None) -> Float[Array, "*B _"]:
    """The poolings of h [*B N D], or of its rows, one after the other; `norm` scales and shifts h."""
    by_jet = h.reshape(*weights[0].shape, -1)
    pooled = [jnp.einsum("...n,...nd->...d", w, by_jet) for w in weights]
    if norm is not None:
        shifts = [jnp.sum(w, axis=-1, keepdims=True) for w in weights]
        pooled = [x * norm.scale + shift * norm.offset for x, shift in zip(pooled, shifts, strict=True)]
    return jnp.concatenate(pooled, axis=-1)


def _pool_by_attention(
    settings: Encoder, n: Array, norm: _Norm, of_keys: Float[Array, "*B N"], seen: Bool[Array, "*B N"]
) -> Float[Array, "*B D"]:
    """Of each head a mean of its values, weighted by the softmax of its scores; zero without constituents.

    A learned query times a matrix of keys is one vector a head. Values are linear, so that the mean comes first.
    """
    size, heads = settings.width, settings.heads
    by_jet = n.reshape(*seen.shape, size)
    scores = by_jet @ (norm.scale[:, None] * _ToScores("pool_query")(size, heads))
    shares = jax.nn.softmax(jnp.where(seen, of_keys, MASKED_SCORE)[..., None] + scores, axis=-2)
    shares = jnp.where(seen[..., None], shares, 0)
    means = jnp.einsum("...nh,...nd->...hd", shares, by_jet)
    w, b = _Linear(size, "pool_value").weights(size, norm)
    some = jnp.einsum("...hd,dhk->...hk", means, w.reshape(size, heads, -1))
    some = some + jnp.any(seen, axis=-1)[..., None, None] * b.reshape(heads, -1)
    return some.reshape(*seen.shape[:-1], size)
