"""How strongly a probe is regularised: fits at each strength, compared on jets that were left out of them.

Shapes: B jets, D features, W = D + 1 coefficients, O outputs (see `probes.solver`), H held-out jets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import logsumexp

from probes.solver import Coefficients, solve
from probes.tables import InMemory, Jets

Merit: TypeAlias = Callable[[Float[np.ndarray, "H O"], Int[np.ndarray, " H"]], float]
"""Logits and classes of held-out jets to a number, larger for better."""

L2_GRID = tuple(float(10**k) for k in np.arange(3.5, -0.5, -0.5))
"""Strengths tried, strongest first: 1/C from 3162 to 1. `Path.best` goes on beyond either end where needed."""

MOST_EXTENSIONS = 6
"""Most steps of sqrt(10) beyond the ends of the grid; `l2_at_edge` says when they were not enough."""

ENOUGH_HELD_OUT = 2000
"""Held-out jets wanted for the choice of strength: as many folds are used as it takes, at most all of them. With 1,000
labelled jets, five folds instead of one raised the test AUC by 0.003 on features of three random networks. Choosing by
log-loss instead cost 0.0005 there, and 6 % of R50; with 300 jets it gained 0.0013 at equal R50."""

PATH_ENTRIES = 2**27
"""Numbers in the largest table on which strengths are compared, half a GiB; of a larger one, some jets are drawn. The
penalty stands beside a SUM over jets, so its best strength depends little on how many there are: 10,000 and 60,000 jets
chose the same on features of an encoder. Far fewer jets would cost something: on features of a random relu network they
chose 1000 and 100, with an AUC of 0.9213 and 0.9234 when fitted to all 60,000."""

MOST_HELD_OUT = 50_000
"""Held-out jets of a fold, at most."""


@dataclass(frozen=True)
class Fold:
    """Jets to fit and jets to compare strengths on."""

    jets: InMemory
    target: Int[np.ndarray, " B"]
    held: Float[np.ndarray, "H D"]
    held_target: Int[np.ndarray, " H"]


def checked_grid(grid: Sequence[float]) -> list[float]:
    """The strengths, strongest first; raises ValueError if one is not a positive number, or there are none."""
    out = sorted({float(s) for s in grid}, reverse=True)
    if not out or not out[-1] > 0 or not np.isfinite(out[0]):
        raise ValueError(f"l2_grid needs positive strengths, got {list(grid)}")
    return out


def split(labels: Int[np.ndarray, " B"], fraction: float, rng: np.random.Generator) -> list[Bool[np.ndarray, " B"]]:
    """Which jets each fold leaves out: disjoint, random, the same share of each class, never all of one.

    Raises ValueError if `fraction` lies outside (0, 1) or a class has fewer than two jets.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must lie between 0 and 1, got {fraction}")
    members = [np.flatnonzero(labels == c) for c in range(int(labels.max()), -1, -1)]
    fewest = min(len(m) for m in members)
    if fewest < 2:
        raise ValueError("a probe needs at least two jets of each class: one to fit, one to choose the strength")
    parts = min(max(2, round(1 / fraction)), fewest)
    used = min(parts, math.ceil(ENOUGH_HELD_OUT * parts / len(labels)))
    held = np.zeros((parts, len(labels)), bool)
    for m in members:
        for i, jets in enumerate(np.array_split(rng.permutation(m), parts)):
            held[i, jets] = True
    return list(held[:used])


def folds(
    jets: Jets,
    target: Int[np.ndarray, " B"],
    validation: tuple[Jets, Int[np.ndarray, " V"]] | None,
    fraction: float,
    seed: int,
) -> list[Fold]:
    """One fold against `validation` jets, or without any the folds of `split`, copied in single precision."""
    rng = np.random.default_rng(seed)
    most = max(1, PATH_ENTRIES // jets.width)
    if validation is not None:
        others, others_target = validation
        fit, held = drawn(np.arange(len(jets)), most, rng), drawn(np.arange(len(others)), MOST_HELD_OUT, rng)
        sample = InMemory(jets.gather(fit, np.float32))
        return [Fold(sample, target[fit], others.gather(held, np.float32), others_target[held])]
    out = []
    for mask in split(target, fraction, rng):
        fit, held = drawn(np.flatnonzero(~mask), most, rng), drawn(np.flatnonzero(mask), MOST_HELD_OUT, rng)
        sample = InMemory(jets.gather(fit, np.float32))
        out.append(Fold(sample, target[fit], jets.gather(held, np.float32), target[held]))
    return out


def log_likelihood(logits: Float[np.ndarray, "H C"], labels: Int[np.ndarray, " H"]) -> float:
    """Mean logarithm of the chance given to a jet's class: minus the cross-entropy."""
    return float(np.mean(logits[np.arange(len(labels)), labels] - logsumexp(logits, axis=1)))


def drawn(rows: Int[np.ndarray, " _"], most: int, rng: np.random.Generator) -> Int[np.ndarray, " _"]:
    """At most that many of the rows, drawn at random, in order: files are often sorted by class."""
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


class Path:
    """Fits at each strength, each started from its neighbour, and their mean merit on the folds' held-out jets."""

    def __init__(self, folds: Sequence[Fold], outputs: int, merit: Merit) -> None:
        self.folds, self.outputs, self.merit_of = folds, outputs, merit
        self.fits: dict[float, list[Coefficients]] = {}
        self.merit: dict[float, float] = {}

    def visit(self, l2: float) -> None:
        fits, merits = [], []
        near = min(self.fits, key=lambda other: abs(np.log(other / l2)), default=None)
        for i, fold in enumerate(self.folds):
            start = None if near is None else self.fits[near][i]
            fit = solve(fold.jets, fold.target, self.outputs, l2, start, tight=False).coefficients
            fits.append(fit)
            logits = (fold.held @ fit[:-1].astype(np.float32)).astype(np.float64) + fit[-1]
            merits.append(self.merit_of(logits, fold.held_target))
        self.fits[l2], self.merit[l2] = fits, float(np.mean(merits))

    def start(self, l2: float) -> Coefficients:
        return np.mean(self.fits[l2], axis=0)

    def best(self, grid: Sequence[float]) -> tuple[float, bool]:
        """The strength of highest merit, the stronger one of equals, and whether it lies at an end of what was tried.

        The grid goes on beyond an end for as long as that helps.
        """
        for l2 in grid:
            self.visit(l2)
        step = 10**0.5
        for _ in range(MOST_EXTENSIONS):
            chosen, at_edge = self._leader()
            if not at_edge:
                break
            self.visit(chosen * step if chosen == max(self.merit) else chosen / step)
        return self._leader()

    def _leader(self) -> tuple[float, bool]:
        chosen = max(self.merit, key=lambda l2: (self.merit[l2], l2))
        return chosen, chosen in (max(self.merit), min(self.merit))


def row_space(jets: Jets) -> Float[np.ndarray, "D K"] | None:
    """With fewer jets than features, the directions that the jets span; otherwise None.

    Exact for a ridge penalty: the best weights lie in that space, and a rotation does not change their length. It
    turns a fit in D into one in B dimensions.
    """
    if len(jets) >= jets.width:
        return None
    return np.linalg.svd(jets.gather(np.arange(len(jets)), np.float64), full_matrices=False)[2].T
