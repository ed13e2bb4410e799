"""What a transform is, and how transforms are composed.

A transform is a frozen dataclass called as `transform(key, jets) -> jets` on ONE jet [N]. It is pure, keeps shapes,
keeps padding zero and works under `jit` and `grad`; `batched` maps it over jets with a key of its own for each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from augmentations import random
from augmentations.jets import Jets


@runtime_checkable
class Transform(Protocol):
    """A random map of one jet to one jet."""

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets: ...


@dataclass(frozen=True, init=False)
class Chain:
    """Transforms one after the other, each with its own key: `Chain(Rotate(), SoftSmear())`."""

    steps: tuple[Transform, ...]

    def __init__(self, *steps: Transform) -> None:
        object.__setattr__(self, "steps", steps)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        for step, own in zip(self.steps, random.split(key, len(self.steps)), strict=True):
            jets = step(own, jets)
        return jets


@dataclass(frozen=True)
class Maybe:
    """A transform that is applied to a jet with the given probability."""

    transform: Transform
    probability: float = 0.5

    def __post_init__(self) -> None:
        check_range("Maybe.probability", self.probability, 0, 1)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        choice, inner = random.split(key)
        take = random.uniform(choice) < self.probability
        changed = self.transform(inner, jets)
        return jax.tree.map(lambda new, old: jnp.where(take, new, old), changed, jets)


def batched(transform: Transform) -> Callable[[Key[Array, ""], Jets], Jets]:
    """The transform over a batch of jets [B, N], each jet with its own key."""

    def apply(key: Key[Array, ""], jets: Jets) -> Jets:
        return jax.vmap(transform)(jax.random.split(key, jets.pt.shape[0]), jets)

    return apply


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless low <= value <= high; `name` says which setting it is."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie between {low} and {high}")
