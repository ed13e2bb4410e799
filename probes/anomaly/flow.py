"""Normalising flow: the density of a few features, alone or given others, that can be evaluated and drawn from.

Couplings of monotonic rational-quadratic splines (arXiv:1906.04032): each layer bends one half of the features by
splines that a small network makes of the other half and the context. Outside of `bound` spreads a feature stays as it
is, so far-off jets get the density of a normal distribution, and no infinity.

Shapes: B jets, D features, C features of the context, H features a layer bends, K bins, N jets drawn.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from probes.anomaly.arrays import required
from probes.anomaly.couplings import SMALLEST_BIN, Couplings
from probes.anomaly.head import Progress, State, no_progress
from probes.anomaly.networks import flat, restored
from probes.anomaly.pieces import in_pieces
from probes.anomaly.traced import single
from probes.tables import Standardised, matching
from probes.training import SCORED_JETS, History, Params, Training, minimise

Rows: TypeAlias = Float[np.ndarray, "B D"]
Context: TypeAlias = Float[np.ndarray, "B C"]
Program: TypeAlias = Callable[[Params, Any], Float[Array, "B _"]]

HELD_OUT = 0.1
"""Part of the jets by whose likelihood the moment to stop is chosen."""

FEWEST_JETS = 50
CLIP = 5.0
"""Largest norm of a gradient."""


@dataclass(frozen=True)
class Flow:
    """Settings of a flow and of its fit, which is that of `probes.training.Training`; ValueError out of range."""

    layers: int = 6
    bins: int = 8
    width: int = 64
    """Of the two hidden layers of each network."""
    bound: float = 5.0
    """Range of the splines, in spreads of a feature."""
    steps: int = 2000
    batch: int = 512
    peak_lr: float = 3e-3
    weight_decay: float = 1e-3
    averaged: float = 0.99
    checks: int = 20
    patience: int = 4

    def __post_init__(self) -> None:
        if min(self.layers, self.width) < 1 or not self.bound > 0:
            raise ValueError(f"layers, width and bound of a flow must be positive, got {self}")
        if not 2 <= self.bins <= 0.5 / SMALLEST_BIN:
            raise ValueError(f"a flow takes between 2 and {0.5 / SMALLEST_BIN:.0f} bins, got {self.bins}")
        self.training(0)

    @property
    def couplings(self) -> Couplings:
        """The layers."""
        return Couplings(self.layers, self.bins, self.width, self.bound)

    def training(self, seed: int) -> Training:
        """How the flow is fitted; raises ValueError for settings out of range."""
        return Training(
            steps=self.steps,
            batch=self.batch,
            peak_lr=self.peak_lr,
            weight_decay=self.weight_decay,
            clip=CLIP,
            averaged=self.averaged,
            checks=self.checks,
            patience=self.patience,
            seed=seed,
        )


@dataclass(frozen=True)
class FittedFlow:
    """A fitted flow; without context C = 0.

    `history` holds (step, minus the mean log-density in training, on held-out jets), of standardised features.
    """

    flow: Flow
    params: Params
    mean: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    context_mean: Float[np.ndarray, " C"]
    context_scale: Float[np.ndarray, " C"]
    history: History = field(default_factory=list, compare=False)

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, Float[np.ndarray, " B"]]:
        """Jets as points of a standard normal distribution, and the logarithm of |dz/dx| for each.

        Raises ValueError for another number of features than in the fit, a context that is missing or not asked for,
        and where what comes out is not finite.
        """
        x = (matching(x, len(self.mean)) - self.mean) / self.scale
        z, logs = _mapped(_programs(self.flow.couplings).forward, self.params, x, self._given(context, len(x)))
        return z, logs - np.log(self.scale).sum()

    def inverse(self, z: Rows, context: Context | None = None) -> Rows:
        """The jets of which `forward` makes the points `z`; raises ValueError as `forward`."""
        z = matching(z, len(self.mean))
        x, _ = _mapped(_programs(self.flow.couplings).inverse, self.params, z, self._given(context, len(z)))
        return x * self.scale + self.mean

    def log_density(self, x: Rows, context: Context | None = None) -> Float[np.ndarray, " B"]:
        """Natural logarithm of the density of each jet, per unit of each feature; given its context, if there is one.

        Raises ValueError as `forward`.
        """
        x = (matching(x, len(self.mean)) - self.mean) / self.scale
        given = self._given(context, len(x))
        return _log_density(self.flow.couplings, self.params, x, given) - np.log(self.scale).sum()

    def traced(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        """`log_density` of a flow without context as pure JAX in single precision; refuses nothing."""
        z, logs = _transformed(self.flow.couplings)[0].apply(
            self.params, (x - single(self.mean)) / single(self.scale), jnp.zeros_like(x[:, :0])
        )
        return _normal(z, logs) - float(np.log(self.scale).sum())

    def sample(self, jets: int | Float[np.ndarray, "N C"], seed: int = 0) -> Float[np.ndarray, "N D"]:
        """So many jets, or one for each row of context; the same seed gives the same jets."""
        count, context = (jets, None) if isinstance(jets, int | np.integer) else (len(jets), jets)
        if count < 0:
            raise ValueError(f"a number of jets to draw cannot be negative, got {count}")
        return self.inverse(np.random.default_rng(seed).normal(size=(int(count), len(self.mean))), context)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restored` takes."""
        own = {"mean": self.mean, "scale": self.scale}
        own |= {"context_mean": self.context_mean, "context_scale": self.context_scale}
        return own | flat(self.params, "network/")

    @classmethod
    def restored(cls, state: State, flow: Flow) -> FittedFlow:
        """The flow whose `state()` this is; raises ValueError for arrays that are missing or do not fit together."""
        mean = required(state, "mean", None)
        scale = required(state, "scale", len(mean))
        context_mean = required(state, "context_mean", np.size(state.get("context_mean", ())))
        context_scale = required(state, "context_scale", len(context_mean))
        if not (scale > 0).all() or not (context_scale > 0).all():
            raise ValueError("the features of a flow must have a positive scale")
        like = jax.eval_shape(functools.partial(_initial, flow.couplings, len(mean), len(context_mean)), 0)
        params = restored(state, like, "network/")
        return cls(flow, params, mean, scale, context_mean, context_scale)

    def _given(self, context: Context | None, jets: int) -> Float[np.ndarray, "B C"]:
        """The context in units of that of the fit."""
        width = len(self.context_mean)
        if (context is None) != (width == 0):
            asked = f"needs a context of {width} features" if width else "was fitted without a context"
            raise ValueError(f"this flow {asked}")
        if context is None:
            return np.zeros((jets, 0))
        context = matching(context, width)
        if len(context) != jets:
            raise ValueError(f"there must be a row of context for each of {jets} jets, got {len(context)}")
        return (context - self.context_mean) / self.context_scale


def fit_flow(
    x: Rows, context: Context | None, flow: Flow, *, seed: int = 0, progress: Progress = no_progress
) -> FittedFlow:
    """The flow of highest mean log-density of `x`, given `context` if there is one; both are standardised inside.

    A tenth of the jets is held out and decides when to stop. The same arguments give the same bits on one machine.

    Raises ValueError for features that are not finite or do not vary, fewer than 50 jets, a context of other length,
    and where the fit does not stay finite.
    """
    table = Standardised.of(x)
    if not table.varies.all():
        raise ValueError(f"{np.count_nonzero(~table.varies)} features do not vary: there is no density along them")
    if len(table) < FEWEST_JETS:
        raise ValueError(f"a flow needs at least {FEWEST_JETS} jets, got {len(table)}")
    others, at, unit = np.zeros((len(table), 0)), np.zeros(0), np.ones(0)
    if context is not None:
        given = Standardised.of(context)
        others, at, unit = given.x, given.mean, given.scale
    if len(others) != len(table):
        raise ValueError(f"there must be a row of context for each of {len(table)} jets, got {len(others)}")
    points = ((table.x - table.mean) / table.scale).astype(np.float32), ((others - at) / unit).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(table))
    held, learned = (np.sort(rows) for rows in np.split(order, [round(HELD_OUT * len(table))]))
    params, history = minimise(
        Unlikelihood(flow.couplings),
        points,
        _initial(flow.couplings, len(table.mean), len(at), seed),
        flow.training(seed),
        name="a flow",
        rows=learned,
        judge=lambda params: -float(_log_density(flow.couplings, params, *(part[held] for part in points)).mean()),
        progress=progress,
    )
    return FittedFlow(flow, params, table.mean, table.scale, at, unit, history)


@dataclass(frozen=True)
class Unlikelihood:
    """Minus the mean log-density of a batch of features and context, as `probes.training.minimise` takes it."""

    couplings: Couplings

    def __call__(
        self, params: Params, piece: tuple[Float[Array, "B D"], Float[Array, "B C"]], key: Key[Array, ""]
    ) -> Float[Array, ""]:
        z, logs = _transformed(self.couplings)[0].apply(params, *piece)
        return (0.5 * (z**2).sum(axis=1) + 0.5 * z.shape[1] * math.log(2 * math.pi) - logs).mean()


def _mapped(program: Program, params: Params, x: Rows, context: Context) -> tuple[Rows, Float[np.ndarray, " B"]]:
    """Standardised features through all layers, and what the logarithm of the volume grows by."""
    # What is too large for single precision is refused below.
    with np.errstate(over="ignore"):
        inputs = x.astype(np.float32), context.astype(np.float32)
    made = in_pieces(functools.partial(program, params), inputs, size=SCORED_JETS).astype(np.float64)
    bad = ~np.isfinite(made).all(axis=1)
    if bad.any():
        raise ValueError(f"a flow gives NaN or infinity for {bad.sum()} of {len(x)} jets")
    return made[:, :-1], made[:, -1]


def _log_density(couplings: Couplings, params: Params, x: Rows, context: Context) -> Float[np.ndarray, " B"]:
    """Of standardised features."""
    z, logs = _mapped(_programs(couplings).forward, params, x, context)
    return _normal(z, logs)


def _normal(z: Any, logs: Any) -> Any:
    """Log-density of what is mapped to `z` of a standard normal distribution, in arrays of numpy or JAX."""
    return logs - 0.5 * (z**2).sum(axis=1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def _initial(couplings: Couplings, features: int, others: int, seed: int | Int[Array, ""]) -> Params:
    return _programs(couplings).init(jax.random.key(seed), jnp.zeros((1, features)), jnp.zeros((1, others)))


def _transformed(couplings: Couplings) -> tuple[hk.Transformed, hk.Transformed]:
    """Forwards and back, with the same parameters."""
    forward, inverse = (hk.without_apply_rng(hk.transform(way)) for way in (couplings.forward, couplings.inverse))
    return forward, inverse


class _Programs(NamedTuple):
    """Random parameters; features and context to what a flow makes of them, with the logarithms as last column."""

    init: Callable[..., Params]
    forward: Program
    inverse: Program


@functools.lru_cache(maxsize=32)
def _programs(couplings: Couplings) -> _Programs:
    forward, inverse = _transformed(couplings)

    def beside(apply: Callable[..., Any]) -> Program:
        return jax.jit(lambda params, piece: jnp.column_stack(apply(params, *piece)))

    return _Programs(jax.jit(forward.init), beside(forward.apply), beside(inverse.apply))
