"""Penalised logistic regression, of two classes or many, solved to convergence on tables of any length.

L-BFGS in coordinates in which the problem is nearly round: the Hessian of some jets at the start is factorised once,
and few passes over the table are enough (4 to 16 iterations a strength on 60,000 jets x 1,152 features of a random relu
network). A pass costs 4 B D operations, a step of Newton's method B D^2. Above `LARGEST_HESSIAN` features only the
Hessian's diagonal is used.

Shapes: B jets, D features, W = D + 1 coefficients (the intercept comes last), O outputs: one, the log-odds of signal,
for two classes; one a class for more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit

from probes.tables import Jets

Coefficients: TypeAlias = Float[np.ndarray, "W O"]

LARGEST_HESSIAN = 3000
"""Features up to which the Hessian is factorised; its memory grows as D^2, its work as D^3."""

HESSIAN_JETS = 20
"""Jets a feature of which the Hessian is made, 20,000 at least: it steers the steps and not the answer."""

LOOSE = 2e-2
"""Where a fit ends that only serves to compare strengths: each coordinate is this far from its optimum, in units in
which the log-likelihood falls by 1/2 at distance 1."""

TIGHT = 1e-7
"""Where a fit that is reported ends, in the same units, times the root of the number of jets: closer, the rounding of
the loss in double precision would show."""

MOST_STEPS = 5000


@dataclass(frozen=True)
class Fit:
    """`coefficients` of the standardised features and, last, the intercept; `gradient` is the largest component of
    the gradient of the mean loss there."""

    coefficients: Coefficients
    iterations: int
    gradient: float


def solve(
    jets: Jets,
    target: Int[np.ndarray, " B"],
    outputs: int,
    l2: float,
    start: Coefficients | None = None,
    *,
    tight: bool,
) -> Fit:
    """Minimise the SUM of the jets' cross-entropies + l2/2 |weights|^2; the intercept is not penalised.

    With one output `target` is 0 or 1, otherwise the class. Not `tight`: in single precision, near enough to compare
    strengths. Raises RuntimeError if the optimum is not reached.
    """
    at = np.zeros((jets.width + 1, outputs)) if start is None else _relative(start.astype(np.float64))
    tolerance = TIGHT * np.sqrt(len(jets)) if tight else LOOSE
    quick: type[np.floating] = np.float64 if tight else np.float32
    steps = 0
    # With a start far from the optimum the Hessian there can mislead; one made on the way does not. What single
    # precision cannot finish is finished in double precision.
    for most, dtype in ((20, quick), (40, quick), (MOST_STEPS, np.float64)):
        rounding = _Rounding.at(jets, at, l2)
        problem = _Problem(jets, target, l2, dtype, rounding, at)
        found = minimize(
            problem.value,
            np.zeros(at.size),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": most, "maxfun": 4 * most, "maxcor": 20, "gtol": tolerance, "ftol": 0.0, "maxls": 30},
        )
        at = problem.coefficients(found.x)
        steps += int(found.nit)
        rest = float(np.abs(found.jac).max())
        if rest <= tolerance:
            break
    # Its rounding may end the search a little further out: the mean loss is within 1e-12 a coordinate of its minimum.
    if not rest <= 10 * tolerance:
        raise RuntimeError(
            f"logistic regression with l2 = {l2:g} on {len(jets)} jets x {jets.width} features did not converge: "
            f"{found.message} after {steps} iterations"
        )
    gradient = rounding.push(found.jac.reshape(at.shape))
    return Fit(at, steps, float(np.abs(gradient).max()) / len(jets))


class _Problem:
    """The loss and its gradient in rounded coordinates."""

    def __init__(
        self,
        jets: Jets,
        target: Int[np.ndarray, " B"],
        l2: float,
        dtype: type[np.floating],
        rounding: _Rounding,
        origin: Coefficients,
    ) -> None:
        self.jets, self.target, self.l2, self.dtype = jets, target, l2, dtype
        self.rounding, self.origin = rounding, origin

    def coefficients(self, moved: Float[np.ndarray, " WO"]) -> Coefficients:
        return self.origin + self.rounding.step(moved.reshape(self.origin.shape))

    def value(self, moved: Float[np.ndarray, " WO"]) -> tuple[float, Float[np.ndarray, " WO"]]:
        at = self.coefficients(moved)
        weights, intercept = at[:-1].astype(self.dtype), at[-1].astype(self.dtype)
        loss, slope = self.l2 / 2 * float(np.sum(at[:-1] ** 2)), np.zeros_like(at)
        slope[:-1] = self.l2 * at[:-1]
        for rows, block in self.jets.blocks(self.dtype):
            part, residual = _cross_entropy((block @ weights + intercept).astype(np.float64), self.target[rows])
            loss += part
            slope[:-1] += block.T @ residual.astype(self.dtype)
            slope[-1] += residual.sum(axis=0)
        return loss, self.rounding.pull(slope).ravel()


def _cross_entropy(
    logits: Float[np.ndarray, "R O"], target: Int[np.ndarray, " R"]
) -> tuple[float, Float[np.ndarray, "R O"]]:
    """Summed cross-entropy of a block and its derivative by the logits."""
    if logits.shape[1] == 1:
        margin = logits[:, 0]
        loss = np.logaddexp(0, margin).sum() - margin @ target
        return float(loss), (expit(margin) - target)[:, None]
    rows = np.arange(len(target))
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[rows, target].sum()
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, keepdims=True)
    logits /= total
    logits[rows, target] -= 1
    return float(np.log(total).sum() - chosen), logits


def _chances(logits: Float[np.ndarray, "R O"]) -> Float[np.ndarray, "R O"]:
    if logits.shape[1] == 1:
        return expit(logits)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class _Rounding:
    """Coordinates u with coefficients = origin + L^-T u, where L L^T is the Hessian of each output at the origin."""

    factors: tuple[Float[np.ndarray, "W W"] | Float[np.ndarray, " W"], ...]

    @classmethod
    def at(cls, jets: Jets, origin: Coefficients, l2: float) -> _Rounding:
        few = max(20_000, HESSIAN_JETS * jets.width)
        sample = np.unique(np.linspace(0, len(jets) - 1, min(few, len(jets))).round().astype(np.int64))
        whole = jets.width <= LARGEST_HESSIAN
        width, outputs = origin.shape
        hessians = [np.zeros((width, width) if whole else width) for _ in range(outputs)]
        rows = max(1, 2**21 // width)
        for first in range(0, len(sample), rows):
            block = jets.gather(sample[first : first + rows], np.float32)
            chance = _chances((block @ origin[:-1].astype(np.float32)).astype(np.float64) + origin[-1])
            roots = np.sqrt(chance * (1 - chance) * (len(jets) / len(sample)))
            for o, hessian in enumerate(hessians):
                weighted = np.concatenate([block, np.ones((len(block), 1), np.float32)], axis=1)
                weighted *= roots[:, o, None].astype(np.float32)
                hessian += weighted.T @ weighted if whole else np.einsum("rw,rw->w", weighted, weighted)
        return cls(tuple(_factor(h, l2) for h in hessians))

    def step(self, moved: Coefficients) -> Coefficients:
        parts = [
            solve_triangular(f, m, lower=True, trans="T", check_finite=False) if f.ndim == 2 else m / f
            for f, m in zip(self.factors, moved.T, strict=True)
        ]
        return _relative(np.stack(parts, axis=1))

    def pull(self, slope: Coefficients) -> Coefficients:
        parts = [
            solve_triangular(f, s, lower=True, check_finite=False) if f.ndim == 2 else s / f
            for f, s in zip(self.factors, _relative(slope).T, strict=True)
        ]
        return np.stack(parts, axis=1)

    def push(self, pulled: Coefficients) -> Coefficients:
        """The gradient that `pull` was given."""
        parts = [f @ p if f.ndim == 2 else f * p for f, p in zip(self.factors, pulled.T, strict=True)]
        return np.stack(parts, axis=1)


def _relative(coefficients: Coefficients) -> Coefficients:
    """Without what is common to all classes: the loss does not see it, and the penalty is least where it is zero."""
    return coefficients if coefficients.shape[1] == 1 else coefficients - coefficients.mean(axis=1, keepdims=True)


def _factor(
    hessian: Float[np.ndarray, "W W"] | Float[np.ndarray, " W"], l2: float
) -> Float[np.ndarray, "W W"] | Float[np.ndarray, " W"]:
    """Cholesky factor, or root of the diagonal, with the penalty added; it is made larger until it is positive."""
    penalty = np.append(np.full(len(hessian) - 1, l2), 0.0)
    diagonal = hessian if hessian.ndim == 1 else np.diagonal(hessian)
    # Where all jets are surely of one class nothing holds the intercept; single precision blurs the smallest values.
    floor = 1e-7 * float((diagonal + penalty).max())
    while True:
        try:
            if hessian.ndim == 1:
                return np.sqrt(hessian + penalty + floor)
            return cholesky(hessian + np.diag(penalty + floor), lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            floor *= 10
