"""How much each constituent counts, in attention and in pooling; and of those that a network is not to see, how much.

Shape glossary: N constituents, D model width. Everything takes one jet or any batch of jets [*B].
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jetclr.features import FLOOR, Inputs

Pooling = Literal["pt", "mean", "sum", "attention"]

# Not -inf: a jet without constituents must give finite numbers.
MASKED_SCORE = -1e9

SUMMED = 50
"""Constituents of a usual jet, by which plain sums are divided."""

LONGEST = 128.0
"""In the code of a rank the longest sine has so many times the length of the shortest."""


def attention_bias(inputs: Inputs, power: float) -> Float[Array, "*B N"]:
    """Added to every query's score for each key: `power` times log z on real constituents, a floor on padding.

    With the power 1 softmax has z as a weight, however small it is (no floor): infrared safe.
    """
    if power == 1:
        there = inputs.mask & (inputs.z > 0)
        return jnp.where(there, jnp.log(jnp.where(there, inputs.z, 1)), MASKED_SCORE)
    weight = power * jnp.log(jnp.maximum(inputs.z, FLOOR)) if power else 0.0
    return jnp.where(inputs.mask, weight, MASKED_SCORE)


def pooling_weights(poolings: tuple[Pooling, ...], inputs: Inputs) -> list[Float[Array, "*B N"]]:
    """Of each fixed pooling the weights of all constituents, by pT if there is none.

    Padded rows are not zero (biases), so their weight must be.
    """

    def weights(pooling: Pooling) -> Float[Array, "*B N"]:
        if pooling == "pt":
            return inputs.z
        if pooling == "sum":
            return inputs.mask / SUMMED
        return inputs.mask / jnp.maximum(jnp.sum(inputs.mask, axis=-1, keepdims=True), 1)

    return [weights(pooling) for pooling in poolings if pooling != "attention"] or [inputs.z]


def without(inputs: Inputs, hidden: Bool[Array, "*B N"]) -> Inputs:
    """The inputs as if there were only the others, whose shares stay what they are."""
    seen = inputs.mask & ~hidden
    z, eta, phi = (jnp.where(seen, x, 0) for x in (inputs.z, inputs.eta, inputs.phi))
    return Inputs(jnp.where(seen[..., None], inputs.x, 0), z, seen, eta, phi)


def counted_alike(inputs: Inputs, hidden: Bool[Array, "*B N"]) -> Inputs:
    """The inputs with an equal share of the jet for each constituent that is hidden."""
    share = 1 / jnp.maximum(jnp.sum(inputs.mask, axis=-1, keepdims=True), 1)
    return inputs._replace(z=jnp.where(hidden & inputs.mask, share, inputs.z))


def rank_code(inputs: Inputs, size: int) -> Float[Array, "*B N D"]:
    """Sines and cosines of each constituent's rank in pT, 0 for the hardest; equals share the mean of their ranks."""
    here, others = inputs.z[..., :, None], inputs.z[..., None, :]
    real = inputs.mask[..., None, :]
    rank = jnp.sum(others > here, axis=-1, where=real) + 0.5 * jnp.sum(others == here, axis=-1, where=real) - 0.5
    turns = rank[..., None] / LONGEST ** jnp.linspace(0, 1, (size + 1) // 2)
    return jnp.concatenate([jnp.sin(turns), jnp.cos(turns)], axis=-1)[..., :size]
