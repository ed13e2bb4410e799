"""A smooth background under a falling mass spectrum: Poisson fits of the dijet function, many spectra at a time.

The function of the dijet searches (CDF, arXiv:0812.4036; ATLAS and CMS since) is a power law with corrections,
f(x) = p0 x^p1 (1 - x)^p2 x^(p3 ln x) x^(p4 ln^2 x) with x = mass / collision energy. Its logarithm is linear in the
parameters, so a Poisson fit is a generalised linear model: convex, and solved by Newton steps. An `order` counts
parameters from the left: that of order 2 is a power law.

Shapes: T spectra, E bins, W windows of bins, K parameters, R fits: one a window, for one spectrum after another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.special import xlogy

ORDERS = range(2, 6)
"""Of the functions that there are."""

STEEPNESS = 1e-3
"""Weight of a prior on all parameters but the norm, in units where they change bins' logarithms by about one: of no
weight beside ten events, it keeps the fit finite where a sideband is empty."""

LARGEST_STEP = 1.5
"""Upwards, of the logarithm of any bin. A Newton step that stays below 1.79 raises a Poisson likelihood whatever its
start, and however far down other bins go."""

ENOUGH = 1e-8
"""A fit has converged once a step promises a smaller gain of log-likelihood."""

MOST_STEPS = 100

AT_ONCE = 200_000
"""Bins times fits handled together, to stay in the cache."""

Parameters: TypeAlias = Float[np.ndarray, "K R"]


class Expected(NamedTuple):
    """Events expected, and the standard error of that."""

    background: Float[np.ndarray, "T V"]
    error: Float[np.ndarray, "T V"]


@dataclass(frozen=True)
class FallingSpectrum:
    """The dijet function of one order on one set of bins, in coordinates in which its parameters are of order one."""

    basis: Float[np.ndarray, "E K"]
    log_width: Float[np.ndarray, " E"]

    @classmethod
    def of(cls, edges: Float[np.ndarray, " edges"], order: int, collision_energy: float) -> FallingSpectrum:
        """For bins with these edges [GeV], all between 0 and the collision energy [GeV]."""
        middle = np.sqrt(edges[1:] * edges[:-1])
        log_x = np.log(middle / middle[0])
        terms = [np.ones_like(log_x), log_x, np.log1p(-middle / collision_energy), log_x**2, log_x**3]
        basis, _ = np.linalg.qr(np.stack(terms[:order], axis=1))
        return cls(basis * np.sqrt(len(middle)), np.log(np.diff(edges)))

    def fit(self, counts: Float[np.ndarray, "T E"]) -> Float[np.ndarray, "K T"]:
        """Parameters fitted to all bins of each spectrum."""
        logarithm = np.log(counts + 0.5).T - self.log_width[:, None]
        start = np.zeros((self.basis.shape[1], len(counts)))
        start[:2] = np.linalg.lstsq(self.basis[:, :2], logarithm)[0]
        return self._fitted(start, counts, np.ones((1, counts.shape[1]), bool))

    def expected(self, parameters: Parameters) -> Float[np.ndarray, "R E"]:
        """Events in each bin."""
        return np.exp(parameters.T @ self.basis.T + self.log_width)

    def sidebands(
        self, parameters: Float[np.ndarray, "K T"], counts: Float[np.ndarray, "T E"], windows: Bool[np.ndarray, "W E"]
    ) -> Expected:
        """What the bins outside each window make expect in it; `parameters` are those of fits to all bins."""
        some = max(1, AT_ONCE // windows.size)
        parts = [
            self._outside(parameters[:, i : i + some], counts[i : i + some], windows)
            for i in range(0, len(counts), some)
        ]
        return Expected(*np.concatenate(parts, axis=1))

    def across(
        self, parameters: Float[np.ndarray, "K 1"], counts: Float[np.ndarray, "1 E"], window: Bool[np.ndarray, " E"]
    ) -> Expected:
        """What the bins outside one window make expect in every bin."""
        bins = len(window)
        found = self._fitted(parameters, counts, ~window[None])
        kept = np.repeat(~window[:, None], bins, axis=1)
        return Expected(*self._predicted(np.repeat(found, bins, axis=1), kept, np.eye(bins))[:, None])

    def _outside(
        self, parameters: Float[np.ndarray, "K t"], counts: Float[np.ndarray, "t E"], windows: Bool[np.ndarray, "W E"]
    ) -> Float[np.ndarray, "2 t W"]:
        found = self._fitted(np.repeat(parameters, len(windows), axis=1), counts, ~windows)
        inside = np.tile(windows.T, len(counts))
        return self._predicted(found, ~inside, inside).reshape(2, len(counts), len(windows))

    def _fitted(self, start: Parameters, counts: Float[np.ndarray, "T E"], kept: Bool[np.ndarray, "W E"]) -> Parameters:
        """Newton's method for each spectrum and each set of bins kept; raises ValueError where it does not converge."""
        order, moments = len(start), self._moments()
        weight = np.tile(kept.T.astype(np.float64), len(counts))
        target = np.einsum("te,we,ek->ktw", counts, kept.astype(np.float64), self.basis, optimize=True)
        target = target.reshape(order, -1)
        out, now, active = start.copy(), start, np.arange(start.shape[1])
        for i in range(MOST_STEPS):
            if i == MOST_STEPS // 2:
                # What has not arrived comes from far off, such as from a peak that lies in the bins left out.
                now = self._level(target[0], weight)
            sums = moments @ (np.exp(self.basis @ now + self.log_width[:, None]) * weight)
            gradient = target - sums[:order]
            gradient[1:] -= STEEPNESS * now[1:]
            lower = _cholesky(sums[order:], order)
            half = _forward(lower, gradient)
            step = _backward(lower, half)
            up = np.max((self.basis @ step) * weight, axis=0)
            now = now + step * (LARGEST_STEP / np.maximum(up, LARGEST_STEP))
            out[:, active] = now
            going = (half**2).sum(axis=0) > ENOUGH
            if not going.any():
                break
            if not going.all():
                active, now, weight, target = active[going], now[:, going], weight[:, going], target[:, going]
        else:
            raise ValueError(
                f"no background of {order} parameters settles on a spectrum after {MOST_STEPS} steps: it must fall "
                f"smoothly from its first bin; leave out the bins before that"
            )
        return out

    def _level(self, target: Float[np.ndarray, " R"], weight: Float[np.ndarray, "E R"]) -> Parameters:
        """Of as many events per GeV in every bin; `target` is the first parameter's."""
        unit = self.basis[0, 0]  # the same in all bins
        out = np.zeros((self.basis.shape[1], len(target)))
        out[0] = np.log((target / unit + 0.5) / (np.exp(self.log_width) @ weight)) / unit
        return out

    def _predicted(
        self, found: Parameters, kept: Bool[np.ndarray, "E R"], summed: Shaped[np.ndarray, "E R"]
    ) -> Float[np.ndarray, "2 R"]:
        """Expected sum over the bins `summed`, and its error, of fits to the bins `kept`."""
        order = len(found)
        expected = np.exp(self.basis @ found + self.log_width[:, None])
        information = self._moments()[order:] @ (expected * kept)
        within = expected * summed
        # The error of a sum by the delta method: its derivatives in the metric of the information.
        half = _forward(_cholesky(information, order), self.basis.T @ within)
        return np.stack([within.sum(axis=0), np.sqrt((half**2).sum(axis=0))])

    def _moments(self) -> Float[np.ndarray, "moments E"]:
        """The gradient's rows, then those of the information: the products of two, its lower triangle row by row."""
        rows = self.basis.T
        return np.stack([*rows, *(rows[i] * rows[j] for i in range(len(rows)) for j in range(i + 1))])


def deviance(counts: Float[np.ndarray, "T E"], expected: Float[np.ndarray, "T E"]) -> Float[np.ndarray, " T"]:
    """Twice the log-likelihood lost against a function that goes through every bin."""
    # Of empty bins beside a high one so little may be expected that it is rounded to nothing.
    ratio = counts / np.maximum(expected, np.finfo(np.float64).tiny)
    return 2 * np.sum(xlogy(counts, ratio) - counts + expected, axis=1)


def _cholesky(information: Float[np.ndarray, "pairs R"], order: int) -> list[list[Float[np.ndarray, " R"]]]:
    """Rows of the lower triangle for R matrices at once: a loop over matrices would take most of the time."""
    lower: list[list[np.ndarray]] = []
    for i in range(order):
        row: list[np.ndarray] = []
        for j in range(i + 1):
            value = information[i * (i + 1) // 2 + j]
            if i == j and i > 0:
                value = value + STEEPNESS
            for k in range(j):
                value = value - row[k] * (row[k] if i == j else lower[j][k])
            row.append(np.sqrt(value) if i == j else value / lower[j][j])
        lower.append(row)
    return lower


def _forward(lower: list[list[Float[np.ndarray, " R"]]], right: Float[np.ndarray, "K R"]) -> Float[np.ndarray, "K R"]:
    out = np.empty_like(right)
    for i, row in enumerate(lower):
        value = right[i]
        for k in range(i):
            value = value - row[k] * out[k]
        out[i] = value / row[i]
    return out


def _backward(lower: list[list[Float[np.ndarray, " R"]]], right: Float[np.ndarray, "K R"]) -> Float[np.ndarray, "K R"]:
    out = np.empty_like(right)
    for i in reversed(range(len(lower))):
        value = right[i]
        for k in range(i + 1, len(lower)):
            value = value - lower[k][i] * out[k]
        out[i] = value / lower[i][i]
    return out
