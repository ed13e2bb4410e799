"""Heads that are networks of a codec: prepared inputs, an objective made small on background, its value as the score.

Shapes: B jets, D numbers of an input.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from probes.anomaly.arrays import below
from probes.anomaly.codec import Codec
from probes.anomaly.head import Inputs, Progress, State, no_progress
from probes.anomaly.inputs import Prepared, Preparing
from probes.anomaly.networks import flat, restored
from probes.anomaly.pieces import in_pieces
from probes.anomaly.whitening import FEWEST_JETS
from probes.training import History, Params, Training, minimise

HELD_OUT = 10
"""One jet of so many is not learned from; by these the moment is chosen."""

CODEC, PREPARED = "codec/", "inputs/"
"""Where a fitted head's arrays are kept."""


@runtime_checkable
class Objective(Protocol):
    """What a codec is fitted to make small; hashable, for a program is compiled once an objective."""

    @property
    def codec(self) -> Codec: ...

    def __hash__(self) -> int: ...

    def each(self, params: Params, x: Float[Array, "B D"], key: Key[Array, ""] | None) -> Float[Array, " B"]:
        """Its value for each jet; `key` drives what is drawn at random in training, None switches it off."""
        ...


@dataclass(frozen=True)
class Mean:
    """The mean of an objective over a batch, as `probes.training.minimise` takes it."""

    objective: Objective

    def __call__(self, params: Params, x: Float[Array, "B D"], key: Key[Array, ""]) -> Float[Array, ""]:
        return self.objective.each(params, x, key).mean()


def fit_codec(
    objective: Objective, x: Float[np.ndarray, "B D"], training: Training, name: str, progress: Progress = no_progress
) -> tuple[Params, History]:
    """Parameters of the objective's codec, at the moment that is best for a held-out tenth of the jets.

    The history is that of `probes.training.minimise`. Raises ValueError for fewer than 20 jets, and where the
    objective is not finite.
    """
    if len(x) < FEWEST_JETS:
        raise ValueError(f"{name} needs at least {FEWEST_JETS} jets to be fitted to, got {len(x)}")
    seed_key = jax.random.key(training.seed)
    away = np.random.default_rng(training.seed).permutation(len(x)) < max(1, len(x) // HELD_OUT)
    held = x[away]
    return minimise(
        Mean(objective),
        x,
        objective.codec.init(jax.random.fold_in(seed_key, 0), x[:1]),
        training,
        name=name,
        rows=np.flatnonzero(~away),
        judge=lambda params: float(values(objective, params, held).mean()),
        progress=progress,
    )


def values(objective: Objective, params: Params, x: Float[np.ndarray, "B D"]) -> Float[np.ndarray, " B"]:
    """The objective of each jet, with nothing drawn at random; raises ValueError where it is not finite."""
    out = in_pieces(functools.partial(_compiled(objective), params), x).astype(np.float64)
    if not np.isfinite(out).all():
        raise ValueError(
            f"the network gives NaN or infinity for {np.count_nonzero(~np.isfinite(out))} of {len(out)} jets: they are "
            "far beyond those it was fitted to, or its fit diverged"
        )
    return out


@dataclass(frozen=True)
class NetworkHead(Preparing):
    """A head whose network is fitted by `steps` batches of AdamW; a subclass adds its inputs and its objectives.

    Raises ValueError for settings out of range.
    """

    name: ClassVar[str]

    steps: int = 2000
    batch: int = 128
    peak_lr: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        # Both refuse what is out of range: here, not after minutes of preparing jets.
        self.training(0), hash(self.objective)

    @property
    @abstractmethod
    def objective(self) -> Objective:
        """What is made small on background."""

    @property
    def strangeness(self) -> Objective:
        """What is large for strange jets: the objective, unless a subclass says otherwise."""
        return self.objective

    def training(self, seed: int) -> Training:
        """How the network is fitted; raises ValueError for settings out of range."""
        # Decay would keep a linear codec from the principal components; held-out jets guard against learning by heart.
        return Training(
            steps=self.steps, batch=self.batch, peak_lr=self.peak_lr, weight_decay=0.0, averaged=0.99, seed=seed
        )

    def fit(self, x: Inputs, *, seed: int = 0, progress: Progress = no_progress) -> NetworkDetector:
        """Raises ValueError for jets that are not finite, do not vary or are fewer than 20."""
        prepared = self.prepare(x)
        params, _ = fit_codec(self.objective, prepared(x), self.training(seed), self.name, progress)
        return NetworkDetector(self, prepared, params)

    def restore(self, state: State) -> NetworkDetector:
        """Raises ValueError where arrays are missing or do not fit together."""
        prepared = self.prepared(below(state, PREPARED))
        like = jax.eval_shape(self.objective.codec.init, jax.random.key(0), np.zeros((1, prepared.width), np.float32))
        return NetworkDetector(self, prepared, restored(state, like, CODEC))


@dataclass(frozen=True)
class NetworkDetector:
    """A fitted network, and the units of its inputs."""

    head: NetworkHead
    inputs: Prepared
    params: Params

    def score(self, x: Inputs) -> Float[np.ndarray, " B"]:
        """What the head calls strange, larger for stranger jets; raises ValueError for jets that are not finite."""
        return values(self.head.strangeness, self.params, self.inputs(x))

    def traced(self, x: Any) -> Float[Array, " B"]:
        """`score` as pure JAX."""
        return self.head.strangeness.each(self.params, self.inputs.traced(x), None)

    def reconstructed(self, x: Inputs) -> tuple[Float[np.ndarray, "B D"], Float[np.ndarray, "B D"]]:
        """The network's inputs for some jets, and what it makes of them."""
        seen = self.inputs(x)
        codec = self.head.objective.codec
        again = jax.jit(lambda x: codec.decode(self.params, codec.encode(self.params, x)[:, : codec.latent]))
        return seen, in_pieces(again, seen)

    def state(self) -> dict[str, np.ndarray]:
        own = {f"{PREPARED}{name}": x for name, x in self.inputs.state().items()}
        return own | flat(self.params, CODEC)


@functools.lru_cache(maxsize=32)
def _compiled(objective: Objective) -> Callable[..., Float[Array, " B"]]:
    return jax.jit(lambda params, x: objective.each(params, x, None))
