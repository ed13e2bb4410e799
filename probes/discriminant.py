"""Linear discriminant analysis of any number of classes, from moments gathered block by block.

The covariance within each class is shrunk by Ledoit and Wolf's formula (J. Multivariate Anal. 88 (2004) 365), whose
sum of fourth moments is that of |x|^4 over jets, or by a part of what it says. The whole of it gives the numbers of
scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")`, which holds several copies of the table.

The formula minimises the error of the covariance, not of the classifier: of nearly dependent features it shrinks away
the small differences that tell the classes apart. On 101 energy flow polynomials of 60,000 top-tagging jets the AUC on
10,000 others is 0.973 with all of it and 0.983 with none.

Shapes: B jets, K features that vary, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from probes.strength import MOST_HELD_OUT, Merit, drawn, folds
from probes.tables import Jets, Standardised

PARTS = (1.0, 0.1, 0.01, 0.001, 0.0)
"""Parts of Ledoit and Wolf's shrinkage that are compared on held-out jets."""

FEWEST_JETS = 4
"""Jets of each class that folds need: two are left to fit, for one jet has no covariance."""


@dataclass(frozen=True)
class _Class:
    """Jets of one class: their share of all, their mean and spread, and the covariance of what is in units of these."""

    share: float
    mean: Float[np.ndarray, " K"]
    spread: Float[np.ndarray, " K"]
    covariance: Float[np.ndarray, "K K"]
    noise: float  # share of the covariance that Ledoit and Wolf's formula replaces

    def shrunk(self, part: float) -> Float[np.ndarray, "K K"]:
        """The covariance pulled towards a multiple of the unit matrix by `part` of what the formula says."""
        share = part * self.noise
        out = (1 - share) * self.covariance
        out[np.diag_indices(len(out))] += share * float(np.trace(self.covariance)) / len(out)
        return self.spread[:, None] * out * self.spread


@dataclass(frozen=True)
class Moments:
    """What a discriminant is made of, whatever its shrinkage."""

    classes: list[_Class]

    @classmethod
    def of(cls, jets: Jets, labels: Int[np.ndarray, " B"], classes: int) -> Moments:
        """Gathered in one pass over standardised jets."""
        return cls(_within(jets, labels, classes))

    def discriminant(self, part: float) -> tuple[Float[np.ndarray, "K C"], Float[np.ndarray, " C"]]:
        """Weights of the standardised features and intercept of each class's linear log-likelihood, priors included.

        `part` is the part of Ledoit and Wolf's shrinkage that is applied. Raises ValueError if the covariance within
        the classes is zero.
        """
        width = len(self.classes[0].mean)
        covariance = sum((c.share * c.shrunk(part) for c in self.classes), np.zeros((width, width)))
        if not covariance.any():
            raise ValueError("no feature varies within a class, so there is no covariance to compare the classes by")
        means = np.stack([c.mean for c in self.classes])
        weights = _solved(covariance, means.T)
        intercept = -0.5 * np.einsum("ck,kc->c", means, weights) + np.log([c.share for c in self.classes])
        return weights, intercept


def chosen_discriminant(
    table: Standardised,
    labels: Int[np.ndarray, " B"],
    classes: int,
    parts: Sequence[float],
    held: tuple[Jets, Int[np.ndarray, " V"]] | None,
    merit: Merit,
    fraction: float,
    seed: int,
) -> tuple[Float[np.ndarray, "K C"], Float[np.ndarray, " C"], float]:
    """The discriminant of all jets with the part of the shrinkage that is best on held-out jets, and that part.

    On `held` where given, else on the folds of `probes.strength.split`; where a class has too few jets for folds, the
    largest part is taken, as it is of equally good ones. Raises ValueError for `parts` outside [0, 1].
    """
    if not parts or not all(0 <= part <= 1 for part in parts):
        raise ValueError(f"parts of the shrinkage lie between 0 and 1, got {list(parts)}")
    whole = Moments.of(table, labels, classes)
    if len(parts) == 1 or (held is None and np.bincount(labels).min() < FEWEST_JETS):
        return *whole.discriminant(max(parts)), max(parts)
    merits = np.zeros(len(parts))
    if held is not None:
        rows = drawn(np.arange(len(held[0])), MOST_HELD_OUT, np.random.default_rng(seed))
        trials = [(whole, held[0].gather(rows, np.float64), held[1][rows])]
    else:
        trials = [
            (Moments.of(fold.jets, fold.target, classes), fold.held.astype(np.float64), fold.held_target)
            for fold in folds(table, labels, None, fraction, seed)
        ]
    for moments, x, target in trials:
        for i, part in enumerate(parts):
            weights, intercept = moments.discriminant(part)
            merits[i] += merit(x @ weights + intercept, target)
    best = max(range(len(parts)), key=lambda i: (merits[i], parts[i]))
    return *whole.discriminant(parts[best]), parts[best]


def _solved(covariance: Float[np.ndarray, "K K"], right: Float[np.ndarray, "K C"]) -> Float[np.ndarray, "K C"]:
    """covariance^-1 right; where it is singular the shortest solution of least squares."""
    try:
        return cho_solve(cho_factor(covariance, lower=True), right)
    except LinAlgError:
        return np.linalg.lstsq(covariance, right, rcond=None)[0]


def _within(table: Jets, labels: Int[np.ndarray, " B"], classes: int) -> list[_Class]:
    jets = np.bincount(labels, minlength=classes)
    mean, spread = _means_and_spreads(table, labels, jets)
    grams = np.zeros((classes, table.width, table.width))
    fourth = np.zeros(classes)
    for rows, block in table.blocks(np.float64):
        for c in np.unique(labels[rows]):
            part = (block[labels[rows] == c] - mean[c]) / spread[c]
            grams[c] += part.T @ part
            fourth[c] += np.sum(np.einsum("rk,rk->r", part, part) ** 2)
    out = []
    for c in range(classes):
        covariance = grams[c] / jets[c]
        noise = _noise(covariance, fourth[c] / jets[c], int(jets[c]))
        out.append(_Class(float(jets[c] / len(labels)), mean[c], spread[c], covariance, noise))
    return out


def _means_and_spreads(
    table: Jets, labels: Int[np.ndarray, " B"], jets: Int[np.ndarray, " C"]
) -> tuple[Float[np.ndarray, "C K"], Float[np.ndarray, "C K"]]:
    """Of each class; the features are standardised over all jets, so one pass of sums is exact enough."""
    sums, squares = np.zeros((2, len(jets), table.width))
    for rows, block in table.blocks(np.float64):
        member = (labels[rows, None] == np.arange(len(jets))).astype(np.float64)
        sums += member.T @ block
        squares += member.T @ block**2
    mean = sums / jets[:, None]
    variance = squares / jets[:, None] - mean**2
    return mean, np.sqrt(np.where(variance > 1e-13, variance, 1.0))


def _noise(covariance: Float[np.ndarray, "K K"], fourth: float, jets: int) -> float:
    """Ledoit and Wolf's share of the covariance that is noise; `fourth` is the mean of |x|^4."""
    width = len(covariance)
    size = float(np.trace(covariance)) / width
    squares = float(np.sum(covariance**2))
    noise = (fourth - squares) / jets
    distance = squares - width * size**2
    return 1.0 if distance <= 0 else min(1.0, max(0.0, noise / distance))
