"""Linear probes on frozen features: how much of the answer can be read off a representation with a straight cut.

Shapes: B jets, D features. Label 1 is signal, label 0 is background; a larger score means "more like signal".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from probes import metrics
from probes.discriminant import PARTS, chosen_discriminant
from probes.solver import solve
from probes.strength import L2_GRID, Path, checked_grid, folds, row_space
from probes.tables import (
    Features,
    HeldOut,
    Jets,
    Standardised,
    folded,
    one_thread,
    projected,
    straight,
    threads,
)

Labels: TypeAlias = Int[np.ndarray, " B"] | Bool[np.ndarray, " B"]
Held: TypeAlias = tuple[Jets, Int[np.ndarray, " V"]] | None
"""Jets on which strengths are compared, and which of them are signal."""


@dataclass(frozen=True)
class LinearProbe:
    """A straight cut on standardised features.

    `l2` is the strength that was chosen: the penalty is l2/2 |weights|^2 beside the SUM of the logistic losses, so
    l2 = 1/C of scikit-learn; for LDA it is 0. `l2_at_edge` says that no better strength was looked for beyond it.
    A jet is called signal above `threshold`. Features that do not vary over the training jets have weight 0.
    `gradient` is the largest component of the gradient of the mean loss at the solution, 0 where it is closed.
    `shrinkage` is the part of Ledoit and Wolf's that LDA took, 0 for logistic regression.
    """

    name: str
    weights: Float[np.ndarray, " D"]
    bias: float
    mean: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    l2: float
    iterations: int
    converged: bool
    l2_at_edge: bool = False
    threshold: float = 0.0
    gradient: float = 0.0
    shrinkage: float = 0.0

    @property
    def parameters(self) -> int:
        """Numbers fitted to labels: a weight for each feature that varies, and the intercept."""
        return int(np.count_nonzero(self.weights)) + 1

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Decision value of each jet, larger for signal; float64.

        Raises ValueError if `x` has another number of features than the probe, or is not finite.
        """
        return straight(x, *folded(self.weights, self.bias, self.mean, self.scale))


def fit_logistic(
    x: Features,
    y: Labels,
    *,
    l2_grid: Sequence[float] = L2_GRID,
    validation: HeldOut | None = None,
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> LinearProbe:
    """L2-regularised logistic regression, solved to convergence, its strength chosen on jets held out of the fit.

    The strength is the one of the highest AUC: on `validation`, features and labels of other jets, where they are
    given; otherwise on jets left out of the fit, about `validation_fraction` of them at a time (few jets are split
    several times, for few held-out jets choose badly). The grid goes on beyond an end for as long as that helps. The
    probe is then fitted to all jets of `x` at that strength.

    Raises ValueError for features or labels that cannot be fitted, RuntimeError if the solver does not converge.
    """
    table, signal = _checked(x, y)
    grid = checked_grid(l2_grid)
    held: Held = None if validation is None else _validation(table, validation)
    with one_thread():
        directions = row_space(table)
        jets: Jets = table
        if directions is not None:
            jets = projected(table, directions)
            held = None if held is None else (projected(held[0], directions), held[1])
        path = Path(folds(jets, signal, held, validation_fraction, seed), 1, _auc)
        l2, at_edge = path.best(grid)
        # The path is searched in single precision and loosely; the probe that is reported is solved tightly.
        fit = solve(jets, signal, 1, l2, path.start(l2), tight=True)
    inner = fit.coefficients[:-1, 0] if directions is None else directions @ fit.coefficients[:-1, 0]
    weights, bias = table.spread_out(inner), float(fit.coefficients[-1, 0])
    return LinearProbe(
        "logistic", weights, bias, table.mean, table.scale, l2, fit.iterations, True, at_edge, gradient=fit.gradient
    )


def fit_lda(
    x: Features,
    y: Labels,
    *,
    parts: Sequence[float] = PARTS,
    validation: HeldOut | None = None,
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> LinearProbe:
    """Linear discriminant analysis with a shrunk covariance; `shrinkage` is the part of Ledoit and Wolf's (2004) taken.

    Of `parts` it is the one of the highest AUC on `validation`, features and labels of other jets, where they are
    given, else on jets left out of the fit, as in `fit_logistic`. The threshold is Bayes's for two normal classes of
    equal covariance with the classes' shares as priors.

    Raises ValueError for features or labels that cannot be fitted, or `parts` outside [0, 1].
    """
    table, signal = _checked(x, y)
    held: Held = None if validation is None else _validation(table, validation)
    with threads(len(table), table.width):
        each, intercepts, part = chosen_discriminant(
            table, signal, 2, parts, held, _auc_of_two, validation_fraction, seed
        )
    weights, bias = table.spread_out(each[:, 1] - each[:, 0]), float(intercepts[1] - intercepts[0])
    return LinearProbe("LDA", weights, bias, table.mean, table.scale, 0.0, 1, True, shrinkage=part)


def _auc_of_two(logits: Float[np.ndarray, "H 2"], signal: Int[np.ndarray, " H"]) -> float:
    return metrics.auc(logits[:, 1] - logits[:, 0], signal)


def _auc(logits: Float[np.ndarray, "H 1"], signal: Int[np.ndarray, " H"]) -> float:
    return metrics.auc(logits[:, 0], signal)


def _checked(x: Features, y: Labels) -> tuple[Standardised, Int[np.ndarray, " B"]]:
    table = Standardised.of(x)
    return table, metrics.check(np.zeros(len(table)), y)[1].astype(np.int64)


def _validation(table: Standardised, validation: HeldOut) -> tuple[Standardised, Int[np.ndarray, " V"]]:
    x, y = validation
    held = table.like(x)
    return held, metrics.check(np.zeros(len(held)), y)[1].astype(np.int64)
