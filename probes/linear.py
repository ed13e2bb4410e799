"""Linear probes on frozen features: how much of the answer can be read off a representation with a straight cut.

Shapes: B jets, D features. Label 1 is signal, label 0 is background; a larger score means "more like signal".
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import LinAlgWarning
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

from probes import metrics

Features: TypeAlias = Float[np.ndarray, "B D"]
Labels: TypeAlias = Int[np.ndarray, " B"] | Bool[np.ndarray, " B"]

L2_GRID = tuple(float(10**k) for k in np.arange(3.5, -0.5, -0.5))
"""Strengths tried, strongest first: 1/C from 3162 to 1. `fit_logistic` goes on beyond either end where needed."""

MOST_EXTENSIONS = 6
"""Most steps of sqrt(10) beyond the ends of the grid; `l2_at_edge` says when they were not enough."""

ENOUGH_HELD_OUT = 2000
"""Held-out jets wanted for the choice of strength: as many folds are used as it takes, at most all of them. With 1,000
labelled jets, five folds instead of one raised the test AUC by 0.003 on features of three random networks. Choosing by
log-loss instead cost 0.0005 there, and 6 % of R50; with 300 jets it gained 0.0013 at equal R50."""

LARGEST_NEWTON = 2500
"""Features up to which Newton's method is used; its Hessian grows as D^2, its work as B D^2."""

ONE_THREAD = 2**24
"""Entries of a table up to which BLAS is kept to one thread. Where other work shares the cores, its threads wait for
each other: 1,000 jets x 991 features took 246 s with two threads on two busy cores, and 4.5 s with one."""

SCORE_ROWS = 16_384
"""Jets scored at once, so that the float64 copy of a large table of features stays small."""


@dataclass(frozen=True)
class LinearProbe:
    """A straight cut on standardised features.

    `l2` is the strength that was chosen: the penalty is l2/2 |weights|^2 beside the SUM of the logistic losses, so
    l2 = 1/C of scikit-learn; for LDA it is 0. `l2_at_edge` says that no better strength was looked for beyond it.
    A jet is called signal above `threshold`. Features that do not vary over the training jets have weight 0.
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

    def score(self, x: Features) -> Float[np.ndarray, " B"]:
        """Decision value of each jet, larger for signal; float64.

        Raises ValueError if `x` has another number of features than the probe, or is not finite.
        """
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != len(self.weights):
            raise ValueError(f"this probe takes features [jets, {len(self.weights)}], got shape {x.shape}")
        slope = self.weights / self.scale
        offset = self.bias - float(self.mean @ slope)
        parts = [x[i : i + SCORE_ROWS].astype(np.float64, copy=False) @ slope for i in range(0, len(x), SCORE_ROWS)]
        out = np.concatenate([np.zeros(0), *parts]) + offset
        if not np.isfinite(out).all():
            raise ValueError(f"the features of {np.count_nonzero(~np.isfinite(out))} jets are NaN or infinite")
        return out


def fit_logistic(
    x: Features,
    y: Labels,
    *,
    l2_grid: Sequence[float] = L2_GRID,
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> LinearProbe:
    """L2-regularised logistic regression, solved to convergence, its strength chosen on held-out training jets.

    The strength is the one of the highest AUC on jets left out of the fit, about `validation_fraction` of them at a
    time; few jets are split several times, for few held-out jets choose badly. The grid goes on beyond an end for
    as long as that helps. The probe is then fitted to all jets at that strength.

    Raises ValueError for features or labels that cannot be fitted, RuntimeError if the solver does not converge.
    """
    x, signal = _checked(x, y)
    grid = sorted({float(s) for s in l2_grid}, reverse=True)
    if not grid or not grid[-1] > 0 or not np.isfinite(grid[0]):
        raise ValueError(f"l2_grid needs positive strengths, got {list(l2_grid)}")
    folds = _folds(signal, validation_fraction, np.random.default_rng(seed))
    mean, scale, varies = _standardisation(x)
    table = ((x[:, varies] - mean[varies]) / scale[varies]).astype(np.float32)
    with _threads(table):
        table, directions = _row_space(table)
        path = _Path(table, signal, folds)
        l2, at_edge = path.best(grid)
        # The path is searched in float32 and loosely; the probe that is reported is solved in float64 and tightly.
        fit = _solve(table.astype(np.float64), signal, l2, path.start(l2), tight=True)
    weights = np.zeros(x.shape[1])
    weights[varies] = fit.coefficients[:-1] if directions is None else directions @ fit.coefficients[:-1]
    bias = float(fit.coefficients[-1])
    return LinearProbe("logistic", weights, bias, mean, scale, l2, fit.iterations, True, at_edge)


def fit_lda(x: Features, y: Labels) -> LinearProbe:
    """Linear discriminant analysis with the covariance shrunk by Ledoit and Wolf's formula (2004).

    The threshold is Bayes's for two normal classes of equal covariance with the classes' shares as priors.

    Raises ValueError for features or labels that cannot be fitted.
    """
    x, signal = _checked(x, y)
    mean, scale, varies = _standardisation(x)
    table = ((x[:, varies] - mean[varies]) / scale[varies]).astype(np.float32)
    with _threads(table):
        # On 1,200 features of a random network (209 of them dead), test AUC with 500 / 10,000 jets: 0.938 / 0.964
        # shrunk, against 0.80 / 0.962 (svd) and 0.50 / 0.961 (lsqr alone); "eigen" gives the same, more slowly.
        fit = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(table, signal.astype(np.int64))
    weights = np.zeros(x.shape[1])
    weights[varies] = fit.coef_[0]
    return LinearProbe("LDA", weights, float(fit.intercept_[0]), mean, scale, 0.0, 1, True)


@dataclass(frozen=True)
class _Fit:
    coefficients: Float[np.ndarray, " W"]
    iterations: int


class _Path:
    """Fits at each strength, each started from its neighbour, and their mean AUC on the held-out jets of the folds."""

    def __init__(self, x: Features, signal: Bool[np.ndarray, " B"], folds: Sequence[Bool[np.ndarray, " B"]]) -> None:
        self.folds = [(x[~held], signal[~held], x[held], signal[held]) for held in folds]
        self.fits: dict[float, list[Float[np.ndarray, " W"]]] = {}
        self.auc: dict[float, float] = {}

    def visit(self, l2: float) -> None:
        fits, aucs = [], []
        near = min(self.fits, key=lambda other: abs(np.log(other / l2)), default=None)
        for i, (x, signal, x_held, signal_held) in enumerate(self.folds):
            start = None if near is None else self.fits[near][i]
            fit = _solve(x, signal, l2, start, tight=False).coefficients
            fits.append(fit)
            aucs.append(metrics.auc(x_held @ fit[:-1] + fit[-1], signal_held))
        self.fits[l2], self.auc[l2] = fits, float(np.mean(aucs))

    def start(self, l2: float) -> Float[np.ndarray, " W"]:
        return np.mean(self.fits[l2], axis=0)

    def best(self, grid: Sequence[float]) -> tuple[float, bool]:
        """The strength of highest AUC, the stronger one of equals, and whether it lies at an end of what was tried."""
        for l2 in grid:
            self.visit(l2)
        step = 10**0.5
        for _ in range(MOST_EXTENSIONS):
            chosen, at_edge = self._leader()
            if not at_edge:
                break
            self.visit(chosen * step if chosen == max(self.auc) else chosen / step)
        return self._leader()

    def _leader(self) -> tuple[float, bool]:
        chosen = max(self.auc, key=lambda l2: (self.auc[l2], l2))
        return chosen, chosen in (max(self.auc), min(self.auc))


def _solve(
    x: Features,
    signal: Bool[np.ndarray, " B"],
    l2: float,
    start: Float[np.ndarray, " W"] | None,
    *,
    tight: bool,
) -> _Fit:
    """Minimise sum log(1 + exp(-t (x w + b))) + l2/2 |w|^2, t = +-1, from `start`; giving up is an error."""
    newton = x.shape[1] <= LARGEST_NEWTON
    attempts = [("newton-cholesky", x.dtype, 100)] if newton else []
    attempts += [("newton-cholesky", np.dtype(np.float64), 300)] if newton and x.dtype != np.float64 else []
    attempts += [("lbfgs", np.dtype(np.float64), 20_000)]
    for solver, dtype, most in attempts:
        # Newton's method doubles its digits every step, so a tight tolerance costs it one or two more.
        tolerance = (1e-9 if solver == "newton-cholesky" else 1e-7) if tight else 1e-4
        model = LogisticRegression(C=1 / l2, solver=solver, tol=tolerance, max_iter=most, warm_start=True)
        if start is not None:
            model.coef_, model.intercept_ = start[None, :-1].astype(dtype), start[-1:].astype(dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            warnings.simplefilter("error", LinAlgWarning)
            try:
                model.fit(x.astype(dtype, copy=False), signal.astype(np.int64))
            except (ConvergenceWarning, LinAlgWarning) as problem:
                last = problem
                continue
        return _Fit(np.concatenate([model.coef_[0], model.intercept_]).astype(np.float64), int(model.n_iter_[0]))
    raise RuntimeError(f"logistic regression with l2 = {l2:g} on {x.shape} features did not converge: {last}")


@contextmanager
def _threads(x: Float[np.ndarray, "B D"]) -> Iterator[None]:
    with threadpool_limits(1 if x.size <= ONE_THREAD else None, user_api="blas"):
        yield


def _checked(x: Features, y: Labels) -> tuple[Features, Bool[np.ndarray, " B"]]:
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"features must be a table [jets, features], got shape {x.shape}")
    if not np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float64)
    # One sum a jet finds every NaN and infinity without a second table; labels are checked as for any score.
    with np.errstate(invalid="ignore", over="ignore"):
        row_sum = x.sum(axis=1, dtype=np.float64)
    if not np.isfinite(row_sum).all():
        raise ValueError(f"the features of {np.count_nonzero(~np.isfinite(row_sum))} jets are NaN or infinite")
    return x, metrics.check(row_sum, y)[1]


def _standardisation(
    x: Features,
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"], Bool[np.ndarray, " D"]]:
    """Mean and spread of each feature, and which features vary by more than rounding (the others get scale 1)."""
    mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    varies = spread > 8 * np.finfo(x.dtype).eps * np.abs(x).max(axis=0).astype(np.float64)
    if not varies.any():
        raise ValueError("no feature varies between the training jets: the representation has collapsed")
    return mean, np.where(varies, spread, 1.0), varies


def _row_space(
    x: Float[np.ndarray, "B D"],
) -> tuple[Float[np.ndarray, "B K"], Float[np.ndarray, "D K"] | None]:
    """With fewer jets than features, the same jets in the B directions they span, and those directions.

    Exact for a ridge penalty: the best weights lie in that space, and a rotation does not change their length. It
    turns a Newton step in D into one in B dimensions.
    """
    if x.shape[0] >= x.shape[1]:
        return x, None
    directions = np.linalg.svd(x.astype(np.float64), full_matrices=False)[2].T
    return (x @ directions).astype(np.float32), directions


def _folds(signal: Bool[np.ndarray, " B"], fraction: float, rng: np.random.Generator) -> list[Bool[np.ndarray, " B"]]:
    """Which jets each fold leaves out: disjoint, random, the same share of both classes, never all of one."""
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must lie between 0 and 1, got {fraction}")
    members = [np.flatnonzero(signal), np.flatnonzero(~signal)]
    fewest = min(len(m) for m in members)
    if fewest < 2:
        raise ValueError("a probe needs at least two jets of each class: one to fit, one to choose the strength")
    parts = min(max(2, round(1 / fraction)), fewest)
    used = min(parts, math.ceil(ENOUGH_HELD_OUT * parts / len(signal)))
    held = np.zeros((parts, len(signal)), bool)
    for m in members:
        for i, jets in enumerate(np.array_split(rng.permutation(m), parts)):
            held[i, jets] = True
    return list(held[:used])
