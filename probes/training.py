"""Fit networks by gradient descent: one loop for the small MLP, the supervised taggers, fine-tuning and autoencoders.

`minimise` takes any loss; `fit` a `Model` and labels. A `Model` is a frozen dataclass of settings with two pure
functions. Its inputs are any pytree of arrays whose first axis counts jets: a table of features, padded constituents,
images.

Shapes: B jets, H held-out jets, C classes, R rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

Params: TypeAlias = Any
Inputs: TypeAlias = Any
Labels: TypeAlias = Int[np.ndarray, " B"]
HeldOutLabels: TypeAlias = Int[np.ndarray, " H"]
Penalty: TypeAlias = Callable[[Float[Array, "B C"], Int[Array, " B"], Float[Array, " B"]], Float[Array, ""]]
Loss: TypeAlias = Callable[[Params, Any, Key[Array, ""]], Float[Array, ""]]
"""Mean loss of a batch, from parameters, the batch and a key. Hashable: a program is compiled once a loss."""
History: TypeAlias = list[tuple[int, float, float]]

SCORED_JETS = 1024
"""Jets scored at once; the last piece is filled up, so that one compilation serves all."""


@runtime_checkable
class Model(Protocol):
    """A network as settings and pure functions; it must be hashable, for a program is compiled once a model."""

    @property
    def name(self) -> str: ...

    def __hash__(self) -> int: ...

    def init(self, key: Key[Array, ""], inputs: Inputs) -> Params:
        """Parameters for inputs shaped like `inputs`, of which the values do not matter."""
        ...

    def apply(self, params: Params, inputs: Inputs, key: Key[Array, ""] | None) -> Float[Array, "B C"]:
        """Logits of each class. `key` drives dropout and augmentation; None switches both off."""
        ...


@dataclass(frozen=True)
class Training:
    """How a model is fitted: AdamW, a rate that rises over the first twentieth and falls like a cosine.

    The weights that are kept are a running mean over the last steps. With held-out jets the best of `checks` moments
    is kept, by their loss, and `patience` moments without a better one end the fit; without, the last one is.
    """

    steps: int = 1000
    batch: int = 256
    peak_lr: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    averaged: float = 0.998
    """Share of the running mean that a step keeps."""
    checks: int = 10
    patience: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.checks, self.patience) < 1:
            raise ValueError(f"steps, batch, checks and patience must be positive, got {self}")
        if not min(self.peak_lr, self.clip) > 0 or self.weight_decay < 0 or not 0 <= self.averaged < 1:
            raise ValueError(f"peak_lr, clip > 0, weight_decay >= 0 and 0 <= averaged < 1 are needed, got {self}")


@dataclass(frozen=True)
class Trained:
    """A fitted network. `history` holds (step, cross-entropy in training, on held-out jets or NaN)."""

    model: Model
    params: Params
    history: History = field(default_factory=list)

    def logits(self, inputs: Inputs) -> Float[np.ndarray, "B C"]:
        """Logits of each class for any number of jets; raises ValueError if one is NaN or infinite."""
        inputs = jax.tree.map(np.asarray, inputs)
        jets, predict = count(inputs), _predictor(self.model)
        if not jets:
            return np.zeros((0, _classes(self.model, self.params, inputs)), np.float32)
        pieces = []
        for start in range(0, jets, SCORED_JETS):
            rows = np.minimum(np.arange(start, start + min(SCORED_JETS, jets)), jets - 1)
            pieces.append(np.asarray(predict(self.params, take(inputs, rows)))[: jets - start])
        out = np.concatenate(pieces)
        if not np.isfinite(out).all():
            bad = np.count_nonzero(~np.isfinite(out).all(axis=1))
            raise ValueError(f"{self.model.name} gives NaN or infinity for {bad} of {jets} jets")
        return out

    def score(self, inputs: Inputs) -> Float[np.ndarray, " B"]:
        """Logit of signal minus logit of background, for two classes."""
        logits = self.logits(inputs)
        if logits.shape[1] != 2:
            raise ValueError(f"a score needs two classes; {self.model.name} has {logits.shape[1]}")
        return (logits[:, 1] - logits[:, 0]).astype(np.float64)


def count(inputs: Inputs) -> int:
    """Number of jets in a pytree of arrays; raises ValueError where the arrays do not agree."""
    lengths = {len(leaf) for leaf in jax.tree.leaves(inputs)}
    if len(lengths) != 1:
        raise ValueError(f"the arrays of the inputs must hold equally many jets, got {sorted(lengths)}")
    return lengths.pop()


T = TypeVar("T")


def take(inputs: T, rows: Int[np.ndarray, " R"]) -> T:
    """The jets `rows` of every array."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], inputs)


def fit(
    model: Model,
    inputs: Inputs,
    labels: Labels,
    training: Training,
    *,
    rows: Int[np.ndarray, " R"] | None = None,
    held_out: tuple[Inputs, HeldOutLabels] | None = None,
    start: Params | None = None,
    rates: Params | None = None,
    penalty: Penalty | None = None,
    aux: Float[np.ndarray, " B"] | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> Trained:
    """Minimise the mean cross-entropy of `model`'s logits over labelled jets.

    `rows` are the jets to learn from, where they are not all: the others need not be cut out of a large table.
    `start` are parameters to begin from instead of random ones; `rates` multiplies the learning rate of each
    parameter (0 freezes it). `penalty(logits, labels, aux)` is added to the loss, `aux` one number a jet. The same
    arguments give the same bits on one machine.

    Raises ValueError for labels that are not one of the model's classes a jet, and where the loss is not finite.
    """
    # Rows are taken on the host: arrays that lie on an accelerator are fetched once, not at every step.
    inputs, labels = jax.tree.map(np.asarray, inputs), np.asarray(labels)
    jets = count(inputs)
    if not jets:
        raise ValueError(f"{model.name} cannot be fitted to no jets")
    key = jax.random.fold_in(jax.random.key(training.seed), 0)
    params = model.init(key, take(inputs, np.arange(1))) if start is None else start
    aux = np.zeros(jets, np.float32) if aux is None else np.asarray(aux, np.float32)
    _check(model, params, inputs, labels, held_out, aux)

    def judged(params: Params) -> float:
        return cross_entropy(Trained(model, params).logits(held_out[0]), held_out[1]) if held_out else math.nan

    params, history = minimise(
        _labelled(model, penalty),
        (inputs, labels.astype(np.int32), aux),
        params,
        training,
        name=model.name,
        rows=rows,
        judge=judged if held_out else None,
        rates=rates,
        progress=progress,
    )
    return Trained(model, params, history)


def minimise(
    loss: Loss,
    data: Any,
    start: Params,
    training: Training,
    *,
    name: str,
    rows: Int[np.ndarray, " R"] | None = None,
    judge: Callable[[Params], float] | None = None,
    rates: Params | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> tuple[Params, History]:
    """Parameters from `start` on that make a loss over batches of `data` small, and (step, loss, judge's or NaN).

    `data` is a pytree of arrays whose first axis counts jets. `judge` is the loss on held-out jets by which the moment
    is chosen. `rows` and `rates` as for `fit`; `name` is what errors call the network.

    Raises ValueError where there are no jets or the loss is not finite.
    """
    learned = np.arange(count(data)) if rows is None else rows
    if not len(learned):
        raise ValueError(f"{name} cannot be fitted to no jets")
    batch, key = min(training.batch, len(learned)), jax.random.key(training.seed)
    # The step gives its buffers back; what the caller handed in must stay alive.
    params = jax.tree.map(lambda x: jnp.array(x, jnp.float32), start)
    rates = jax.tree.map(lambda x: 1.0, params) if rates is None else rates
    optimiser, update = compiled_step(loss, training.weight_decay, training.clip)
    mean, state = jax.tree.map(jnp.copy, params), optimiser.init(params)
    record, losses = _Record(judge), []
    checks = set(np.linspace(0, training.steps, training.checks + 1).round().astype(int).tolist()) - {0}
    for i, drawn in enumerate(batches(len(learned), batch, training.steps, training.seed)):
        # Python floats, always: numpy's count as another type, and the step would be compiled again.
        lr, keep = rate(training, i), min(float(training.averaged), (1 + i) / (10 + i))
        piece = take(data, learned[drawn])
        params, mean, state, found = update(params, mean, state, piece, key, i + 1, rates, lr, keep)
        losses.append(found)
        progress(1)
        if i + 1 not in checks:
            continue
        seen, losses = float(np.mean([np.asarray(x) for x in losses])), []
        if not math.isfinite(seen):
            raise ValueError(f"the loss of {name} is NaN or infinite by step {i + 1}{_reason(data)}")
        record.add(i + 1, seen, mean)
        if record.worse == training.patience:
            break
    return (jax.tree.map(np.asarray, mean) if record.best is None else record.best), record.history


def cross_entropy(logits: Float[np.ndarray, "B C"], labels: Labels) -> float:
    """Mean cross-entropy of logits [nats]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = np.take_along_axis(shifted, np.asarray(labels, np.int64)[:, None], axis=1)[:, 0]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - chosen))


@dataclass
class _Record:
    """How a fit went: its history, the best weights on held-out jets, and the checks since that were no better."""

    judge: Callable[[Params], float] | None
    history: History = field(default_factory=list)
    best: Params | None = None
    best_loss: float = math.inf
    worse: int = 0

    def add(self, step: int, seen: float, params: Params) -> None:
        """A check after `step` steps: mean loss `seen` in training since the last one, weights now."""
        loss = math.nan
        if self.judge is not None:
            loss = self.judge(params)
            self.worse = 0 if loss < self.best_loss else self.worse + 1
            if not self.worse:
                self.best, self.best_loss = jax.tree.map(np.asarray, params), loss
        self.history.append((step, seen, loss))


def _classes(model: Model, params: Params, inputs: Inputs) -> int:
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), jnp.result_type(leaf)), inputs)
    return int(jax.eval_shape(lambda p, x: model.apply(p, x, None), params, one).shape[1])


def _check(
    model: Model,
    params: Params,
    inputs: Inputs,
    labels: Labels,
    held_out: tuple[Inputs, HeldOutLabels] | None,
    aux: Float[np.ndarray, " A"],
) -> None:
    classes = _classes(model, params, inputs)
    for name, x, y in [("labelled", inputs, labels), ("held-out", *(held_out or (inputs, labels)))]:
        what, jets = f"{name} jets for {model.name}", count(x)
        if jets != len(y) or not jets:
            raise ValueError(f"{jets} {what}, but {len(y)} labels; at least one jet and a label for each are needed")
        if not 0 <= y.min() <= y.max() < classes:
            raise ValueError(f"labels of {what} must lie in 0..{classes - 1}, got {y.min()}..{y.max()}")
    if len(aux) != len(labels):
        raise ValueError(f"aux must be one number a jet, got {len(aux)} for {len(labels)} jets")


def _reason(data: Any) -> str:
    """What to say of a loss that is not finite; looked for only then, for a table may be large."""
    bad = [not np.isfinite(leaf).all() for leaf in jax.tree.leaves(data)]
    return ": so are some of the inputs" if any(bad) else "; lower its peak_lr"


def batches(jets: int, batch: int, steps: int, seed: int) -> Iterator[Int[np.ndarray, " R"]]:
    """Rows of each step: whole shuffled passes, what is left of a pass goes before the next one."""
    rng = np.random.default_rng(seed)
    waiting = np.zeros(0, np.int64)
    for _ in range(steps):
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, rng.permutation(jets)])
        yield np.sort(waiting[:batch])
        waiting = waiting[batch:]


def rate(training: Training, step: int) -> float:
    """Learning rate of a step: up over the first twentieth, then down like a cosine."""
    warmup = max(1, training.steps // 20)
    if step < warmup:
        return training.peak_lr * (step + 1) / warmup
    return training.peak_lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, training.steps - warmup)))


@functools.lru_cache(maxsize=32)
def _predictor(model: Model) -> Callable[[Params, Inputs], Float[Array, "B C"]]:
    return jax.jit(lambda params, inputs: model.apply(params, inputs, None))


@functools.lru_cache(maxsize=32)
def _labelled(model: Model, penalty: Penalty | None) -> Loss:
    """Cross-entropy of (inputs, labels, aux), and the penalty; one object a model, so that it is compiled once."""

    def loss_of(params: Params, piece: Any, key: Key[Array, ""]) -> Float[Array, ""]:
        inputs, labels, aux = piece
        logits = model.apply(params, inputs, key)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss if penalty is None else loss + penalty(logits, labels, aux)

    return loss_of


@functools.lru_cache(maxsize=32)
def compiled_step(loss_of: Loss, weight_decay: float, clip: float) -> tuple[Any, Callable[..., Any]]:
    """The optimiser without its rate, and the compiled step; rates come in as numbers, so few labels and many share."""
    optimiser = optax.chain(
        optax.clip_by_global_norm(clip), optax.scale_by_adam(), optax.add_decayed_weights(weight_decay)
    )

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def update(
        params: Params,
        mean: Params,
        state: Any,
        piece: Any,
        key: Key[Array, ""],
        step: Int[Array, ""],
        rates: Params,
        lr: Float[Array, ""],
        keep: Float[Array, ""],
    ) -> tuple[Params, Params, Any, Float[Array, ""]]:
        loss, gradient = jax.value_and_grad(loss_of)(params, piece, jax.random.fold_in(key, step))
        # What is frozen must not use up the norm that clipping leaves to the rest.
        gradient = jax.tree.map(lambda g, r: jnp.where(jnp.asarray(r) > 0, g, 0.0), gradient, rates)
        direction, state = optimiser.update(gradient, state, params)
        params = jax.tree.map(lambda p, d, r: p - lr * r * d, params, direction, rates)
        mean = jax.tree.map(lambda m, p: keep * m + (1 - keep) * p, mean, params)
        return params, mean, state, loss

    return optimiser, update
