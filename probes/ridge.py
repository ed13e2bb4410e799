"""Ridge regression of jets' properties on frozen features: what is still written in a representation, linearly.

Shapes: B jets, D features, K features that vary, T targets, L strengths, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from probes.metrics import Estimate
from probes.tables import Features, Standardised, folded, straight, threads

Targets: TypeAlias = Float[np.ndarray, "B T"]

L2_GRID = tuple(float(10**k) for k in np.arange(-4, 8.01, 0.25))
"""Strengths tried: after one eigendecomposition they cost nothing."""

RESAMPLES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class RidgeProbe:
    """A linear function of standardised features for each target.

    `l2` is the strength that was chosen for each target: l2 |weights|^2 stands beside the SUM of squared errors of the
    standardised target (alpha of scikit-learn). `weights` and `bias` are in the target's unit, of standardised
    features. `l2_at_edge` says that no better strength was looked for beyond it.
    """

    name: str
    weights: Float[np.ndarray, "D T"]
    bias: Float[np.ndarray, " T"]
    mean: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    l2: tuple[float, ...]
    l2_at_edge: tuple[bool, ...]

    @property
    def parameters(self) -> int:
        """Numbers fitted: weights of each feature that varies, and intercepts."""
        return (int(np.count_nonzero(self.weights.any(axis=1))) + 1) * len(self.bias)

    def predict(self, x: Features) -> Targets:
        """The targets of each jet, in their units; float64.

        Raises ValueError if `x` has another number of features than the probe, or is not finite.
        """
        return straight(x, *folded(self.weights, self.bias, self.mean, self.scale))


def fit_ridge(
    x: Features,
    targets: Float[np.ndarray, " B"] | Targets,
    *,
    l2_grid: tuple[float, ...] = L2_GRID,
    validation: tuple[Float[np.ndarray, "V D"], Float[np.ndarray, " V"] | Float[np.ndarray, "V T"]] | None = None,
) -> RidgeProbe:
    """Ridge regression of one or several targets, in closed form for all strengths at once.

    Each target's strength is the one of the smallest squared error on `validation`, features and targets of other
    jets, where they are given; otherwise by generalised cross-validation (Golub, Heath & Wahba, Technometrics 21
    (1979) 215). The intercept is not penalised.

    Raises ValueError for features or targets that cannot be fitted, or a grid without positive strengths.
    """
    grid = np.array(sorted(l2_grid), np.float64)
    if not len(grid) or not grid[0] > 0 or not np.isfinite(grid[-1]):
        raise ValueError(f"l2_grid needs positive strengths, got {list(l2_grid)}")
    table = Standardised.of(x)
    truth = _checked(targets, len(table))
    middle, spread = truth.mean(axis=0), truth.std(axis=0)
    if not (spread > 8 * np.finfo(np.float64).eps * np.abs(truth).max(axis=0)).all():
        raise ValueError("a target does not vary between the training jets")
    unit = (truth - middle) / spread
    gram, product = np.zeros((table.width, table.width)), np.zeros((table.width, truth.shape[1]))
    with threads(len(table), table.width):
        for rows, block in table.blocks(np.float64):
            gram += block.T @ block
            product += block.T @ unit[rows]
        sizes, directions = np.linalg.eigh(gram)
        sizes, seen = np.maximum(sizes, 0), directions.T @ product
        # [L, K, T]: the weights along each eigenvector at each strength.
        along = seen / (sizes[:, None] + grid[:, None, None])
        if validation is None:
            error = _cross_validated(along, seen, sizes, grid, len(table))
        else:
            others = table.like(validation[0])
            if len(others) == 0:
                raise ValueError("there are no validation jets to choose a strength on")
            error = _measured(others, (_checked(validation[1], len(others)) - middle) / spread, directions, along)
    best = len(grid) - 1 - np.argmin(error[::-1], axis=0)  # the stronger of equals
    weights = directions @ np.take_along_axis(along, best[None, None, :], axis=0)[0] * spread
    edges = tuple(bool(b in (0, len(grid) - 1)) for b in best)
    l2 = tuple(float(grid[b]) for b in best)
    return RidgeProbe("ridge", table.spread_out(weights), middle, table.mean, table.scale, l2, edges)


def regression_quality(
    predicted: Float[np.ndarray, " B"],
    true: Float[np.ndarray, " B"],
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """`r2`, the share of the variance that is explained, and `resolution`, the standard deviation of predicted - true.

    The resolution has the target's unit. Intervals are percentile intervals of a bootstrap over jets: they cover the
    finite number of test jets only.

    Raises ValueError if there is not one prediction for each truth, one is not finite, the truth does not vary, or for
    `resamples` < 1 or `confidence` outside (0, 1).
    """
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if predicted.shape != true.shape or predicted.ndim != 1 or len(true) < 2:
        raise ValueError(f"one prediction for each of two jets or more is needed, got {predicted.shape}, {true.shape}")
    if not (np.isfinite(predicted).all() and np.isfinite(true).all()):
        raise ValueError("a prediction or a true value is NaN or infinite")
    if np.ptp(true) == 0:
        raise ValueError("the true values do not vary, so no share of their variance can be explained")
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(f"resamples must be positive and confidence in (0, 1), got {resamples}, {confidence}")
    off, away = predicted - true, true - true.mean()
    moments = np.stack([off, off**2, away, away**2], axis=1)
    values = np.stack(_quality(moments.mean(axis=0)[None]))[:, 0]
    rng, jets, drawn = np.random.default_rng(seed), len(true), []
    step = max(1, RESAMPLES_AT_ONCE // jets)
    for start in range(0, resamples, step):
        rows = rng.integers(0, jets, size=(min(step, resamples - start), jets), dtype=np.int32)
        drawn.append(np.stack([moments[:, i][rows].mean(axis=1) for i in range(4)], axis=1))
    tail = (1 - confidence) / 2
    spread = np.stack(_quality(np.concatenate(drawn)))
    low, high = np.quantile(spread, [tail, 1 - tail], axis=1)
    return {
        name: Estimate(float(values[i]), float(low[i]), float(high[i])) for i, name in enumerate(("r2", "resolution"))
    }


def _quality(m: Float[np.ndarray, "R 4"]) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]:
    """R^2 and resolution from the mean of error, error^2, truth, truth^2; a resample of equal jets explains nothing."""
    variance = m[:, 3] - m[:, 2] ** 2
    r2 = np.where(variance > 0, 1 - m[:, 1] / np.where(variance > 0, variance, 1.0), 0.0)
    return r2, np.sqrt(np.maximum(m[:, 1] - m[:, 0] ** 2, 0))


def _checked(targets: Float[np.ndarray, " B"] | Targets, jets: int) -> Targets:
    out = np.asarray(targets, np.float64)
    out = out[:, None] if out.ndim == 1 else out
    if out.ndim != 2 or len(out) != jets or out.shape[1] == 0:
        raise ValueError(f"targets must be [jets] or [jets, targets] for {jets} jets, got shape {np.shape(targets)}")
    bad = np.count_nonzero(~np.isfinite(out).all(axis=1))
    if bad:
        raise ValueError(f"the targets of {bad} jets are NaN or infinite")
    return out


def _cross_validated(
    along: Float[np.ndarray, "L K T"],
    seen: Float[np.ndarray, "K T"],
    sizes: Float[np.ndarray, " K"],
    grid: Float[np.ndarray, " L"],
    jets: int,
) -> Float[np.ndarray, "L T"]:
    """Generalised cross-validation; the targets have unit variance, so the sum of their squares is `jets`."""
    explained = 2 * np.einsum("lkt,kt->lt", along, seen) - np.einsum("lkt,k->lt", along**2, sizes)
    free = 1 + np.sum(sizes / (sizes + grid[:, None]), axis=1)
    # With fewer jets than features, weak strengths leave no freedom to judge by.
    left = np.maximum(1 - free / jets, 1e-9)
    return np.maximum(1 - explained / jets, 0) / left[:, None] ** 2


def _measured(
    table: Standardised,
    unit: Targets,
    directions: Float[np.ndarray, "K K"],
    along: Float[np.ndarray, "L K T"],
) -> Float[np.ndarray, "L T"]:
    """Squared error of each strength on other jets."""
    weights = np.einsum("dk,lkt->dlt", directions, along)
    out = np.zeros(weights.shape[1:])
    for rows, block in table.blocks(np.float64):
        out += np.sum((np.tensordot(block, weights, 1) - unit[rows, None, :]) ** 2, axis=0)
    return out
