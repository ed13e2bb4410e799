"""Masked particle modelling: what is hidden of a jet is to be told from the rest of it.

Shape glossary: B jets, V views of each, M = B V views, N constituents, F features, K codes, S sampled constituents.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jetclr.objectives.distillation import mean_of_hidden
from jetclr.objectives.monitors import watch
from jetclr.objectives.protocol import (
    Loss,
    Memory,
    Objective,
    Outputs,
    Own,
    Rows,
    Seen,
    Sizes,
    Views,
    Whole,
    alone,
    check_positive,
    check_share,
    check_widths,
)

SAMPLED = 4
"""Hidden constituents of each view from which centres learn."""

DEAD = 0.1
"""A centre is dead if it gets less than this times as many constituents as all get on average."""


@dataclass(frozen=True)
class MaskedParticles(Objective):
    """Masked particle modelling (arXiv:2401.13537, arXiv:2409.12589): predict the constituents that are hidden.

    The network is not shown the share `share` of the constituents of each view; a head of `hidden` layers with GELU
    tells each from its output. With target "codes" it is a cross entropy over the `codes` centres, of which the one
    nearest to the constituent's features is right; with "values" the features themselves, by Huber's loss. The mean
    over the hidden ones of a view, then over views that have some.

    Centres are found while training, by k-means on some hidden constituents of each batch: counts and sums are running
    means of which a step keeps `keep` (arXiv:1711.00937), and a centre that nobody is near to is put on a constituent.
    """

    share: float = 0.3
    target: Literal["codes", "values"] = "codes"
    codes: int = 512
    keep: float = 0.99
    hidden: tuple[int, ...] = (128,)

    def __post_init__(self) -> None:
        check_positive(self, "share", "codes")
        check_share(self, "share", "keep")
        check_widths(self, "hidden")
        if self.target not in ("codes", "values"):
            raise ValueError(f"MaskedParticles.target is {self.target!r}; known are codes, values")

    @property
    def hides(self) -> float:
        return self.share

    def networks(self, sizes: Sizes) -> dict[str, Own]:
        return {"hidden": Own(sizes.width, self.hidden, self.codes if self.target == "codes" else sizes.features)}

    def begin(self, sizes: Sizes) -> Memory:
        if self.target == "values":
            return ()
        centres = jax.random.normal(jax.random.key(0), (self.codes, sizes.features))  # features are of order one
        return {"centres": centres, "counts": jnp.zeros(self.codes)}

    def rows(self, student: Outputs, teacher: Outputs | None, views: Views, memory: Memory) -> Rows:
        assert views.hidden is not None
        assert student.constituents is not None
        told = student.apply("hidden", student.constituents)
        some = jnp.any(views.hidden, axis=1, keepdims=True).astype(told.dtype)
        rows = {"projection": student.layers["projection"], "some": some}
        if self.target == "values":
            loss = _huber(told - views.inputs.x)
        else:
            loss = _cross_entropy(told, _nearest(views.inputs.x, memory["centres"]))
            rows["sampled"], rows["taken"] = _sample(views)
        return rows | {"loss": mean_of_hidden(views.hidden)(loss)}

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        some, metrics = seen.rows["some"], watch(seen, whole, logged)
        loss = jnp.sum(seen.rows["loss"] * some) / jnp.maximum(jnp.sum(some), 1)
        if self.target == "values":
            return Loss(loss, metrics)
        sampled = whole(jax.lax.stop_gradient(seen.rows["sampled"]))
        taken = whole(jax.lax.stop_gradient(seen.rows["taken"]))
        features = sampled.shape[-1]
        memory = _learnt(memory, sampled.reshape(-1, features), taken.reshape(-1) > 0, self.keep)
        used = memory["counts"] / jnp.maximum(jnp.sum(memory["counts"]), jnp.finfo(loss.dtype).tiny)
        return Loss(loss, metrics | {"codes_in_use": jnp.exp(jnp.sum(jax.scipy.special.entr(used)))}, memory)


def _huber(difference: Float[Array, "M N F"]) -> Float[Array, "M N 1"]:
    """Of every constituent the mean over features of half the square, beyond 1 of the size less a half."""
    size = jnp.abs(difference)
    return jnp.mean(jnp.where(size < 1, 0.5 * size**2, size - 0.5), axis=-1, keepdims=True)


def _cross_entropy(logits: Float[Array, "M N K"], chosen: Float[Array, "M N K"]) -> Float[Array, "M N 1"]:
    return jax.nn.logsumexp(logits, axis=-1, keepdims=True) - jnp.sum(logits * chosen, axis=-1, keepdims=True)


def _nearest(x: Float[Array, "*any F"], centres: Float[Array, "K F"]) -> Float[Array, "*any K"]:
    """1 at the centre that is nearest, the first of equals, and 0 at all others."""
    product = jnp.matmul(x, centres.T, precision=jax.lax.Precision.HIGHEST)
    nearest = jnp.argmin(0.5 * jnp.sum(centres**2, axis=1) - product, axis=-1)
    return jax.nn.one_hot(nearest, len(centres))


def _sample(views: Views) -> tuple[Float[Array, "M S F"], Float[Array, "M S"]]:
    """The features of some hidden constituents of each view, and 1 for each that there is.

    Which of the hidden ones, the far digits of their angles say: as good as a draw, and the same for any device.
    """
    x, hidden = views.inputs.x, views.hidden
    assert hidden is not None
    digits = 1e3 * (views.inputs.eta + views.inputs.phi)
    order = jnp.where(hidden, 1 + digits - jnp.floor(digits), 0)
    found, places = jax.lax.top_k(order, min(SAMPLED, order.shape[1]))
    return jnp.take_along_axis(x, places[..., None], axis=1), (found > 0).astype(x.dtype)


def _learnt(
    memory: Memory, samples: Float[Array, "S F"], taken: Bool[Array, " S"], keep: float
) -> dict[str, Float[Array, "..."]]:
    """Centres and counts after the samples of a step; counts are in units of what a centre gets on average.

    Means are of samples weighted by how long ago they were seen. Dead centres are put on samples spread over the batch,
    with the average count: they have time to find some of their own.
    """
    centres, counts = memory["centres"], memory["counts"]
    codes, there = len(centres), jnp.sum(taken)
    near = _nearest(samples, centres) * taken[:, None] * (codes / jnp.maximum(there, 1))
    kept, new = keep * counts, (1 - keep) * jnp.sum(near, axis=0)
    sums = kept[:, None] * centres + (1 - keep) * jnp.matmul(near.T, samples, precision=jax.lax.Precision.HIGHEST)
    total = kept + new
    moved = jnp.where(total[:, None] > 0, sums / jnp.where(total > 0, total, 1)[:, None], centres)
    first_taken = jnp.argsort(~taken, stable=True)
    seeds = samples[first_taken[jnp.floor(jnp.arange(codes) / codes * there).astype(jnp.int32)]]
    dead = (total < DEAD) & (there > 0)
    return {
        "centres": jnp.where(dead[:, None], seeds, moved),
        "counts": jnp.where(dead, 1.0, jnp.where(there > 0, total, counts)),
    }
