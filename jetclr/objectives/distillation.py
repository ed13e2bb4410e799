"""Objectives without others: what a student makes of one view is to be what a teacher makes of another.

The teacher is a running mean of the student's weights, or the student itself without a gradient.

Shape glossary: B jets, V views of each, M = B V views, N constituents, D model width, P projection width, K prototypes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jetclr.objectives.monitors import normalize, watch
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

TEACHERS = 2
"""Views that the teacher judges: the first ones, of which those beyond may see less (multi-crop)."""


@dataclass(frozen=True)
class BYOL(Objective):
    """Bootstrap your own latent (arXiv:2006.07733): a predictor turns a view's projection into another's.

    2 - 2 cos of the prediction and the teacher's projection, the mean over ordered pairs of views. The predictor, of
    `hidden` layers with GELU, is trained with the network; the teacher is the running mean of the network.
    """

    hidden: tuple[int, ...] = (256,)

    def __post_init__(self) -> None:
        check_widths(self, "hidden")

    @property
    def teacher(self) -> bool:
        return True

    def networks(self, sizes: Sizes) -> dict[str, Own]:
        return {"predictor": Own(sizes.projection, self.hidden, sizes.projection)}

    def rows(self, student: Outputs, teacher: Outputs | None, views: Views, memory: Memory) -> Rows:
        assert teacher is not None
        return _predicted(student) | {"target": teacher.layers["projection"]}

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        loss = 2 - 2 * _agreement(seen.rows["prediction"], seen.rows["target"])
        return Loss(loss, watch(seen, whole, logged), memory)


@dataclass(frozen=True)
class SimSiam(Objective):
    """Simple Siamese representation learning (arXiv:2011.10566): a predictor, and no teacher.

    Minus the cosine of the prediction from one view and the projection of another, through which no gradient goes, the
    mean over ordered pairs of views.
    """

    hidden: tuple[int, ...] = (64,)

    def __post_init__(self) -> None:
        check_widths(self, "hidden")

    def networks(self, sizes: Sizes) -> dict[str, Own]:
        return {"predictor": Own(sizes.projection, self.hidden, sizes.projection)}

    def rows(self, student: Outputs, teacher: Outputs | None, views: Views, memory: Memory) -> Rows:
        return _predicted(student)

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        loss = -_agreement(seen.rows["prediction"], seen.rows["projection"])
        return Loss(loss, watch(seen, whole, logged), memory)


def _predicted(student: Outputs) -> Rows:
    projection = student.layers["projection"]
    return {"projection": projection, "prediction": student.apply("predictor", projection)}


def _agreement(prediction: Float[Array, "B V P"], target: Float[Array, "B V P"]) -> Float[Array, ""]:
    """Mean cosine of the prediction of each view and the targets of the jet's other views."""
    p, t = normalize(prediction), jax.lax.stop_gradient(normalize(target))
    views = p.shape[1]
    same = jnp.sum(p * t, axis=(1, 2))
    return jnp.mean(jnp.sum(jnp.sum(p, axis=1) * jnp.sum(t, axis=1), axis=1) - same) / (views * (views - 1))


@dataclass(frozen=True)
class DINO(Objective):
    """Self-distillation without labels (arXiv:2104.14294): both are to find the same prototypes in views of a jet.

    A projection's cosines with `prototypes` learned directions, over a temperature, are a distribution; the teacher's
    is sharper (`teacher_temperature`), after the running mean of its cosines was taken away, of which a step keeps
    `centre_momentum`. The cross entropy is the mean over the first two views as the teacher's, and all other views as
    the student's, those beyond two (multi-crop) among them.
    """

    prototypes: int = 1024
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9

    def __post_init__(self) -> None:
        check_positive(self, "prototypes", "student_temperature", "teacher_temperature")
        check_share(self, "centre_momentum")

    @property
    def teacher(self) -> bool:
        return True

    def networks(self, sizes: Sizes) -> dict[str, Own]:
        return {"prototypes": Own(sizes.projection, (), self.prototypes)}

    def begin(self, sizes: Sizes) -> Memory:
        return {"centre": jnp.zeros(self.prototypes)}

    def rows(self, student: Outputs, teacher: Outputs | None, views: Views, memory: Memory) -> Rows:
        assert teacher is not None
        return {
            "projection": student.layers["projection"],
            "student": _cosines(student, "prototypes", student.layers["projection"]),
            "teacher": _cosines(teacher, "prototypes", teacher.layers["projection"]),
        }

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        target = self._target(seen.rows["teacher"][:, :TEACHERS], memory["centre"])
        found = self._found(seen.rows["student"])
        pairs = [(t, s) for t, s in permutations(range(found.shape[1]), 2) if t < TEACHERS]
        crossed = [-jnp.mean(jnp.sum(target[:, t] * found[:, s], axis=1)) for t, s in pairs]
        centre = self._moved(memory["centre"], jnp.mean(seen.rows["teacher"][:, :TEACHERS], axis=(0, 1)))
        metrics = {
            # All on one prototype, or all on all of them: the two ways of a collapse.
            "prototypes_in_use": _perplexity(jnp.mean(target, axis=(0, 1))),
            "prototypes_of_a_view": jnp.mean(_perplexity(target)),
        }
        return Loss(jnp.mean(jnp.stack(crossed)), watch(seen, whole, logged) | metrics, {"centre": centre})

    def _target(self, cosines: Float[Array, "*any K"], centre: Float[Array, " K"]) -> Float[Array, "*any K"]:
        return jax.lax.stop_gradient(jax.nn.softmax((cosines - centre) / self.teacher_temperature, axis=-1))

    def _found(self, cosines: Float[Array, "*any K"]) -> Float[Array, "*any K"]:
        return jax.nn.log_softmax(cosines / self.student_temperature, axis=-1)

    def _moved(self, centre: Float[Array, " K"], now: Float[Array, " K"]) -> Float[Array, " K"]:
        return self.centre_momentum * centre + (1 - self.centre_momentum) * now


@dataclass(frozen=True)
class IBOT(DINO):
    """Self-distillation of jets and of hidden constituents (arXiv:2111.07832; of jets arXiv:2601.11719).

    The student is not shown the share `share` of each view's constituents, the teacher all of it. To the loss of DINO
    comes, times `weight`, the same cross entropy of student and teacher at each hidden constituent of a view: the mean
    over these, then over views that have some. Outputs of constituents go through a network of `hidden` layers with
    GELU to the prototypes of the jets, or if not `shared` to as many of their own; their centre is theirs.
    """

    share: float = 0.3
    weight: float = 1.0
    shared: bool = True
    hidden: tuple[int, ...] = (128,)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "share", "weight")
        check_share(self, "share")
        check_widths(self, "hidden")

    @property
    def hides(self) -> float:
        return self.share

    def networks(self, sizes: Sizes) -> dict[str, Own]:
        own = super().networks(sizes) | {"constituents": Own(sizes.width, self.hidden, sizes.projection)}
        if not self.shared:
            own["constituent_prototypes"] = own["prototypes"]
        return own

    def begin(self, sizes: Sizes) -> Memory:
        return super().begin(sizes) | {"constituent_centre": jnp.zeros(self.prototypes)}

    def rows(self, student: Outputs, teacher: Outputs | None, views: Views, memory: Memory) -> Rows:
        assert teacher is not None
        assert views.hidden is not None
        of_student, of_teacher = (self._of_constituents(outputs) for outputs in (student, teacher))
        target = self._target(of_teacher, memory["constituent_centre"])
        loss = -jnp.sum(target * self._found(of_student), axis=-1)
        mean = mean_of_hidden(views.hidden)
        return super().rows(student, teacher, views, memory) | {
            "constituent_loss": mean(loss[..., None]),
            "constituent_teacher": mean(of_teacher),
            "some": jnp.any(views.hidden, axis=1, keepdims=True).astype(loss.dtype),
        }

    def _of_constituents(self, outputs: Outputs) -> Float[Array, "M N K"]:
        assert outputs.constituents is not None
        projected = outputs.apply("constituents", outputs.constituents)
        return _cosines(outputs, "prototypes" if self.shared else "constituent_prototypes", projected)

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        of_jets = super().__call__(seen, whole, logged, memory)
        some = seen.rows["some"]
        views = jnp.maximum(jnp.sum(some), 1)
        of_constituents = jnp.sum(seen.rows["constituent_loss"] * some) / views
        mean = jnp.sum(seen.rows["constituent_teacher"] * some, axis=(0, 1)) / views
        centre = self._moved(memory["constituent_centre"], mean)
        return Loss(
            of_jets.value + self.weight * of_constituents,
            of_jets.metrics | {"loss_of_jets": of_jets.value, "loss_of_constituents": of_constituents},
            of_jets.memory | {"constituent_centre": centre},
        )


def _cosines(outputs: Outputs, prototypes: str, projection: Float[Array, "*any P"]) -> Float[Array, "*any K"]:
    """Of projections with the learned directions, which are the weights of the layer `prototypes`, their length apart.

    The weights are what the layer makes of unit vectors; its bias, which would let some prototypes win everywhere, is
    in both terms, and out.
    """
    axes = jnp.eye(projection.shape[-1])
    directions = outputs.apply(prototypes, axes) - outputs.apply(prototypes, jnp.zeros_like(axes))
    return jnp.matmul(normalize(projection), normalize(directions.T).T, precision=jax.lax.Precision.HIGHEST)


def mean_of_hidden(hidden: Bool[Array, "M N"]) -> Callable[[Float[Array, "M N _"]], Float[Array, "M _"]]:
    """The function that takes the mean over the hidden constituents of each view: 0 where there are none."""
    weight = hidden / jnp.maximum(jnp.sum(hidden, axis=1, keepdims=True), 1)
    return lambda x: jnp.einsum("mn,mnk->mk", weight, x)


def _perplexity(chances: Float[Array, "*any K"]) -> Float[Array, "*any"]:
    """As how many equally likely ones: from 1 to K."""
    return jnp.exp(jnp.sum(jax.scipy.special.entr(chances), axis=-1))
