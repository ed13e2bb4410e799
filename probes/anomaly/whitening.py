"""Features in units of the background's own spread, along its principal axes: what most heads begin with.

Shapes: B jets, D features, K components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float

from probes.anomaly.arrays import required
from probes.anomaly.head import State
from probes.anomaly.traced import product, single
from probes.tables import Features, Standardised, matching, slices, threads

SHRINK = 1e-4
"""Part of the mean variance that is added to each component's: nearly dependent features must not count for all."""

SMALLEST = 1e-12
"""Variance of a component that is no more than rounding, where nothing is added to it."""

FEWEST_JETS = 20

FARTHEST = 1e30
"""Largest component: squares of all up to it are numbers, and itself is one in single precision."""


@dataclass(frozen=True)
class Whitened:
    """x -> (x - mean) @ axes: components of unit variance on the background, falling in their share of it."""

    mean: Float[np.ndarray, " D"]
    axes: Float[np.ndarray, "D K"]

    @classmethod
    def of(cls, x: Features, components: int = 0, shrink: float = SHRINK) -> Whitened:
        """From standardised background features; the `components` of largest variance, 0: all.

        Raises ValueError for features that are not finite, do not vary, or no table, and for fewer than 20 jets.
        """
        if components < 0 or not 0 <= shrink < np.inf:
            raise ValueError(f"components and shrink cannot be negative or infinite, got {components} and {shrink}")
        table = Standardised.of(x)
        if len(table) < FEWEST_JETS:
            raise ValueError(f"a spread cannot be measured on {len(table)} jets: {FEWEST_JETS} are needed at least")
        covariance = np.zeros((table.width, table.width))
        with threads(len(table), table.width):
            for _, block in table.blocks(np.float64):
                covariance += block.T @ block
            values, vectors = np.linalg.eigh(covariance / len(table))
        kept = min(components or table.width, table.width)
        values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
        # The sign of an eigenvector is the library's whim.
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)])
        variances = np.maximum(values, 0) + shrink
        if variances.min() < SMALLEST:
            raise ValueError("some features depend on the others: take fewer components, or a shrink above 0")
        axes = table.spread_out(vectors / np.sqrt(variances)) / table.scale[:, None]
        return cls(table.mean, axes)

    def __call__(self, x: Features) -> Float[np.ndarray, "B K"]:
        """Other jets' components; raises ValueError for another number of features, NaN, infinity or nearly so."""
        x = matching(x, len(self.mean))
        out = np.empty((len(x), self.axes.shape[1]))
        with threads(*x.shape), np.errstate(invalid="ignore", over="ignore"):
            for rows in slices(*x.shape):
                out[rows] = (x[rows] - self.mean) @ self.axes
        # So that NaN counts as too far.
        bad = ~(np.abs(out) <= FARTHEST).all(axis=1)
        if bad.any():
            raise ValueError(f"the features of {np.count_nonzero(bad)} jets are NaN, infinite or beyond all measure")
        return out

    def traced(self, x: Float[Array, "B D"]) -> Float[Array, "B K"]:
        """The same as pure JAX in single precision; refuses nothing."""
        return product(x - single(self.mean), self.axes)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restored` takes."""
        return {"mean": self.mean, "axes": self.axes}

    @classmethod
    def restored(cls, state: State) -> Whitened:
        """Raises ValueError for arrays that do not fit together."""
        mean = required(state, "mean", None)
        return cls(mean, required(state, "axes", len(mean), None))
