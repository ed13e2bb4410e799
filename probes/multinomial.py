"""Linear probes of many classes on frozen features: multinomial logistic regression and discriminant analysis.

Shapes: B jets, D features, C classes, labelled 0 ... C-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.discriminant import PARTS, chosen_discriminant
from probes.solver import solve
from probes.strength import L2_GRID, Path, checked_grid, folds, log_likelihood
from probes.tables import (
    Features,
    HeldOut,
    Standardised,
    class_labels,
    folded,
    one_thread,
    straight,
    threads,
)

Labels: TypeAlias = Int[np.ndarray, " B"] | Bool[np.ndarray, " B"]


@dataclass(frozen=True)
class MultinomialProbe:
    """A linear function of standardised features for each class.

    `l2` is the strength that was chosen: l2/2 |weights|^2 stands beside the SUM of the cross-entropies, so l2 = 1/C of
    scikit-learn; for LDA it is 0. `l2_at_edge` says that no better one was looked for beyond it. `gradient` is the
    largest component of the gradient of the mean loss at the solution, 0 where it is closed. `shrinkage` is the part of
    Ledoit and Wolf's that LDA took, 0 for logistic regression.
    """

    name: str
    weights: Float[np.ndarray, "D C"]
    bias: Float[np.ndarray, " C"]
    mean: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    l2: float
    iterations: int
    converged: bool
    l2_at_edge: bool = False
    gradient: float = 0.0
    shrinkage: float = 0.0

    @property
    def parameters(self) -> int:
        """Numbers fitted to labels: weights of each feature that varies, and intercepts."""
        return (int(np.count_nonzero(self.weights.any(axis=1))) + 1) * len(self.bias)

    def logits(self, x: Features) -> Float[np.ndarray, "B C"]:
        """Logarithm of each class's chance, up to a constant of the jet; float64.

        Raises ValueError if `x` has another number of features than the probe, or is not finite.
        """
        return straight(x, *folded(self.weights, self.bias, self.mean, self.scale))

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Log-odds of class 1 against class 0, for two classes; raises ValueError for more."""
        if len(self.bias) != 2:
            raise ValueError(f"a score needs two classes; this probe has {len(self.bias)}")
        logits = self.logits(x)
        return np.asarray(logits[:, 1] - logits[:, 0])


def fit_multinomial(
    x: Features,
    y: Labels,
    *,
    classes: int | None = None,
    l2_grid: Sequence[float] = L2_GRID,
    validation: HeldOut | None = None,
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> MultinomialProbe:
    """L2-regularised multinomial logistic regression, solved to convergence by L-BFGS.

    The strength is the one of the lowest cross-entropy on `validation`, features and labels of other jets, where they
    are given, and otherwise on jets left out of the fit, as in `probes.linear.fit_logistic`. The grid goes on beyond
    an end for as long as that helps. With two classes the log-odds are those of binary logistic regression of twice
    the strength, for both classes' weights are penalised.

    Raises ValueError for features or labels that cannot be fitted, RuntimeError if the solver does not converge.
    """
    table = Standardised.of(x)
    labels, classes = class_labels(len(table), y, classes)
    grid = checked_grid(l2_grid)
    held = None if validation is None else _validation(table, validation, classes)
    with one_thread():
        path = Path(folds(table, labels, held, validation_fraction, seed), classes, log_likelihood)
        l2, at_edge = path.best(grid)
        fit = solve(table, labels, classes, l2, path.start(l2), tight=True)
    weights, bias = table.spread_out(fit.coefficients[:-1]), fit.coefficients[-1]
    return MultinomialProbe(
        "multinomial", weights, bias, table.mean, table.scale, l2, fit.iterations, True, at_edge, fit.gradient
    )


def fit_multiclass_lda(
    x: Features,
    y: Labels,
    *,
    classes: int | None = None,
    parts: Sequence[float] = PARTS,
    validation: HeldOut | None = None,
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> MultinomialProbe:
    """Linear discriminant analysis of many classes, its shrinkage chosen as in `fit_lda`, by cross-entropy.

    The classes' shares are their priors. Raises ValueError for features or labels that cannot be fitted, or `parts`
    outside [0, 1].
    """
    table = Standardised.of(x)
    labels, classes = class_labels(len(table), y, classes)
    held = None if validation is None else _validation(table, validation, classes)
    with threads(len(table), table.width):
        weights, bias, part = chosen_discriminant(
            table, labels, classes, parts, held, log_likelihood, validation_fraction, seed
        )
    return MultinomialProbe(
        "LDA", table.spread_out(weights), bias, table.mean, table.scale, 0.0, 1, True, shrinkage=part
    )


def _validation(table: Standardised, validation: HeldOut, classes: int) -> tuple[Standardised, Int[np.ndarray, " V"]]:
    others = table.like(validation[0])
    return others, class_labels(len(others), validation[1], classes)[0]
