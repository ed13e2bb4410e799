"""Fitting and choosing, on training and validation jets only.

Nothing here can see a test jet: functions take a `Development`, and this module imports nothing that opens the sealed
ones (tests/test_architecture.py).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Int64

from augmentations.jets import Jets
from jetclr.benchmark import finetune
from jetclr.benchmark.jets import Development
from jetclr.benchmark.representations import ON_JETS, Encoded, Representation, Tables
from jetclr.benchmark.suite import Suite
from jetclr.errors import UserError
from jetclr.progress import jet_progress
from probes import metrics, taggers
from probes.disco import fit_disco
from probes.fewshot import label_draws
from probes.linear import fit_lda, fit_logistic
from probes.mlp import fit_mlp
from probes.multiclass import macro_auc
from probes.multinomial import fit_multiclass_lda, fit_multinomial
from probes.neighbours import fit_neighbours
from probes.ridge import fit_ridge
from probes.taggers.defaults import default_taggers
from probes.training import fit, take

SETTINGS = ("l2", "l2_at_edge", "shrinkage", "neighbours", "steps")
"""What a probe says of itself that is kept, where it has it."""
DISCO = "logistic + DisCo"
RIDGE = "ridge "
"""Followed by the name of the property that is regressed."""


@dataclass(frozen=True)
class Task:
    """One thing to fit on one layer of a representation: which probe, on how many labels, which draw of them."""

    layer: str
    probe: str
    labels: int = 0  # 0: all of the training jets, and the choice of settings on the validation jets
    draw: int = 0
    everywhere: bool = False  # measured on changed jets too


@dataclass(frozen=True)
class Fitted:
    """A predictor that is ready: all that it can still do is give scores."""

    task: Task
    scores: Callable[[Any], np.ndarray]  # inputs -> [B], or [B, C] for many classes
    validation: np.ndarray  # its scores of the validation jets
    width: int
    parameters: int
    labels: int
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    probe: Any = None


def quality(scores: np.ndarray, classes: np.ndarray) -> float:
    """AUC of scores [B], or the mean AUC over pairs of classes of logits [B, C]."""
    return metrics.auc(scores, classes) if scores.ndim == 1 else macro_auc(scores, classes)


def choose(validation: Sequence[float]) -> int:
    """Index of the best AUC on validation jets; the first of equals."""
    return int(np.argmax(validation))


def draw_labels(development: Development, suite: Suite, task: Task) -> Int64[np.ndarray, " labels"] | None:
    """Rows of the training jets whose labels the task may use, None for all; UserError if a class gets too few."""
    if not task.labels:
        return None
    try:
        return label_draws(development.train_class, task.labels, suite.draws, suite.seed)[task.draw]
    except ValueError as error:
        raise UserError(f"label counts of suite {suite.name!r}: {error}") from None


def fit_task(
    task: Task,
    representation: Representation,
    train: Tables,
    validation: Tables,
    development: Development,
    suite: Suite,
    others: Sequence[Fitted] = (),
) -> Fitted:
    """Fit one predictor on the training jets of `development`; UserError where the numbers allow no fit.

    `others` have been fitted on the same tables, and may be begun from.
    """
    start = time.monotonic()
    rows = draw_labels(development, suite, task)
    x, y = train[task.layer], development.train_class
    if rows is not None:
        x, y = take(x, rows), y[rows]
    held = None if task.labels else (validation[task.layer], development.validation_class)
    seed = suite.seed * 1000 + task.draw
    try:
        if task.layer == ON_JETS:
            found = _fit_network(task, representation, x, y, held, len(development.classes.names), suite, seed)
        elif task.probe.startswith(RIDGE):
            found = _fit_ridge(task, x, validation[task.layer], development)
        elif task.probe == DISCO:
            found = _fit_disco(task, x, held, development, suite, seed, others)
        else:
            found = _fit_probe(task.probe, x, y, held, len(development.classes.names), seed)
        scores, parameters, settings, probe = found
        checked = scores(validation[task.layer])
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{task.probe or representation.name} on {representation.name} {task.layer}: {error}") from None
    width = x.shape[1] if isinstance(x, np.ndarray) else 0
    used = len(y) + (len(development.validation_class) if held is not None and settings.get("held_out") else 0)
    return Fitted(task, scores, checked, width, parameters, used, settings, time.monotonic() - start, probe)


Found = tuple[Callable[[Any], np.ndarray], int, dict[str, Any], Any]


def _fit_probe(name: str, x: np.ndarray, y: np.ndarray, held: Any, classes: int, seed: int) -> Found:
    """A probe on features; with `held` jets (features, classes) its settings are chosen on them."""
    if name == "logistic" and classes > 2:
        probe: Any = fit_multinomial(x, y, classes=classes, validation=held, seed=seed)
    elif name == "logistic":
        probe = fit_logistic(x, y, validation=held, seed=seed)
    elif name == "LDA":
        if classes == 2:
            probe = fit_lda(x, y, validation=held, seed=seed)
        else:
            probe = fit_multiclass_lda(x, y, classes=classes, validation=held, seed=seed)
    elif name == "kNN":
        probe = fit_neighbours(x, y, classes=classes, validation=held, seed=seed)
    else:
        probe = fit_mlp(x, y, classes=classes, validation=held, seed=seed)
    settings = {key: getattr(probe, key) for key in SETTINGS if hasattr(probe, key)}
    settings["held_out"] = held is not None
    return (probe.logits if classes > 2 else probe.score), probe.parameters, settings, probe


def _fit_disco(
    task: Task, x: np.ndarray, held: Any, development: Development, suite: Suite, seed: int, others: Sequence[Fitted]
) -> Found:
    """Begun from the logistic probe on the same layer."""
    like = [f.probe for f in others if f.task == replace(f.task, layer=task.layer, probe="logistic", labels=0)]
    start = like[0] if like else fit_logistic(x, development.train_class, validation=held, seed=seed)
    mass = development.train.column("jet_mass").astype(np.float64)
    probe = fit_disco(x, development.train_class, mass, suite.disco, start=start)
    return probe.score, probe.parameters, {"kappa": suite.disco, "l2": start.l2, "held_out": True}, probe


def _fit_ridge(task: Task, x: np.ndarray, x_validation: np.ndarray, development: Development) -> Found:
    target = task.probe.removeprefix(RIDGE)
    seen, held = (part.column(target).astype(np.float64) for part in (development.train, development.validation))
    probe = fit_ridge(x, seen, validation=(x_validation, held))
    return (
        (lambda features: probe.predict(features)[:, 0]),
        probe.parameters,
        {"l2": probe.l2[0], "held_out": True},
        probe,
    )


def _fit_network(
    task: Task,
    representation: Representation,
    x: Jets,
    y: np.ndarray,
    held: Any,
    classes: int,
    suite: Suite,
    seed: int,
) -> Found:
    start = None
    if task.probe in (finetune.FINE_TUNED, finetune.FROM_SCRATCH):
        assert isinstance(representation, Encoded)
        config = representation.config
        model: Any = finetune.EncoderTagger(task.probe, config.features, config.encoder, classes)
        pretrained = task.probe == finetune.FINE_TUNED
        training = finetune.training(len(y), seed, pretrained=pretrained)
        if pretrained:
            features = representation.layers_of(x, (representation.main,))[representation.main]
            start = finetune.start_from(model, representation.params, *_linear_start(features, y, classes, seed))
        as_inputs: Callable[[Any], Any] = lambda jets: jets  # noqa: E731
    else:
        model, training = default_taggers(classes)[task.probe]
        as_inputs = lambda jets: taggers.Constituents(*jets[:4])  # noqa: E731
    if suite.most_steps:
        training = replace(training, steps=min(training.steps, suite.most_steps))
    if held is None:
        x, y, held = _split(x, y, seed)
    what = f"training {representation.name} on {len(y):,} jets"
    with jet_progress(what, total=training.steps, unit="steps") as advance:
        validation = as_inputs(held[0]), held[1]
        trained = fit(model, as_inputs(x), y, training, held_out=validation, start=start, progress=advance)
    parameters = int(sum(np.size(leaf) for leaf in jax.tree.leaves(trained.params)))
    settings = asdict(training) | {"held_out": True}
    give = trained.logits if classes > 2 else trained.score
    return (lambda jets: give(as_inputs(jets))), parameters, settings, trained


def _linear_start(features: np.ndarray, y: np.ndarray, classes: int, seed: int) -> Any:
    if classes == 2:
        return finetune.binary_readout_of(fit_logistic(features, y, seed=seed))
    return finetune.readout_of(fit_multinomial(features, y, classes=classes, seed=seed))


def _split(x: Any, y: np.ndarray, seed: int) -> tuple[Any, np.ndarray, tuple[Any, np.ndarray]]:
    """A fifth of the labelled jets is held out, the same share of each class."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(y), bool)
    for number in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == number))
        held[members[: max(1, len(members) // 5)]] = True
    return take(x, np.flatnonzero(~held)), y[~held], (take(x, np.flatnonzero(held)), y[held])
