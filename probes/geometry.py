"""How a representation lies in its space: spread, collapse, and how close the views of a jet are.

Shapes: B jets, D features.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

Features: TypeAlias = Float[np.ndarray, "B D"]

CHUNK_PAIRS = 2**22
"""Pairs of jets compared at once: 32 MB an array."""


def alignment(z_a: Features, z_b: Features) -> float:
    """Mean squared distance between the unit vectors of two views of the same jets, from 0 (equal) to 4 (opposite).

    Wang & Isola, arXiv:2005.10242, with alpha = 2. Vectors of any length are brought to length 1 first.

    Raises ValueError for features that are not two equal tables, are not finite, or hold a jet with only zeros.
    """
    if np.shape(z_a) != np.shape(z_b):
        raise ValueError(f"two views of the same jets must have one shape, got {np.shape(z_a)} and {np.shape(z_b)}")
    a, b = _unit(z_a, fewest=1), _unit(z_b, fewest=1)
    return float(np.mean(np.sum((a - b) ** 2, axis=1)))


def uniformity(z: Features, *, t: float = 2.0, most_jets: int = 5000, seed: int = 0) -> float:
    """log of the mean of exp(-t |z_i - z_j|^2) over pairs of different jets' unit vectors: 0 where all lie together.

    Unit vectors spread over a sphere of many dimensions reach -2 t. Of more than `most_jets` jets, that many are
    drawn, for the work grows as their square. Wang & Isola, arXiv:2005.10242.

    Raises ValueError for features that are not a table of two jets or more, are not finite, or hold a jet with only
    zeros, or for a `t` that is not positive.
    """
    if not t > 0 or most_jets < 2:
        raise ValueError(f"uniformity needs t > 0 and at least two jets, got t = {t}, most_jets = {most_jets}")
    unit = _unit(z, fewest=2)
    if len(unit) > most_jets:
        unit = unit[np.sort(np.random.default_rng(seed).choice(len(unit), most_jets, replace=False))]
    jets = len(unit)
    rows = max(1, CHUNK_PAIRS // jets)
    parts = []
    for start in range(0, jets, rows):
        distance2 = np.maximum(2 - 2 * unit[start : start + rows] @ unit.T, 0)
        exponent = -t * distance2
        own = np.arange(len(exponent))
        exponent[own, start + own] = -np.inf
        parts.append(logsumexp(exponent))
    return float(logsumexp(parts) - math.log(jets * (jets - 1)))


def between(z: Features) -> float:
    """Mean cosine between the features of different jets: 1 where all point the same way, near 0 where none do.

    Raises ValueError for features that are not a table of two jets or more, are not finite, or hold a jet with only
    zeros.
    """
    unit = _unit(z, fewest=2)
    jets = len(unit)
    # All pairs, a jet with itself included, sum to the squared length of the sum of the vectors.
    return float((np.sum(unit.sum(axis=0) ** 2) - jets) / (jets * (jets - 1)))


def effective_rank(features: Features) -> float:
    """Number of directions the centred features really use: exp of the entropy of the singular values' shares.

    Between 1 and min(B - 1, D); 0.0 where all jets have the same features to within rounding (full collapse).
    Roy & Vetterli, EUSIPCO 2007, "The effective rank".

    Raises ValueError for features that are not a table, hold fewer than two jets, or are not finite.
    """
    table = _table(features, fewest=2)
    # Taking off the first jet before the mean makes a constant feature exactly zero.
    centred = table - table[0]
    centred -= centred.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    precision = np.finfo(features.dtype).eps if np.issubdtype(features.dtype, np.floating) else 0.0
    if singular[0] <= precision * np.abs(table).max() * math.sqrt(table.size):
        return 0.0
    share = singular[singular > 0] / singular.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def _table(features: Features, *, fewest: int) -> Features:
    if features.ndim != 2 or features.shape[0] < fewest or features.shape[1] < 1:
        raise ValueError(f"features must be a table [jets >= {fewest}, features >= 1], got shape {features.shape}")
    table = np.asarray(features, np.float64)
    if not np.isfinite(table).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(table))} features are NaN or infinite")
    return table


def _unit(z: Features, *, fewest: int) -> Features:
    table = _table(z, fewest=fewest)
    # Scaled by the largest entry first, so that neither tiny nor huge features under- or overflow when squared.
    largest = np.abs(table).max(axis=1, keepdims=True)
    if not largest.all():
        raise ValueError(f"{np.count_nonzero(largest == 0)} jets have only zeros for features, and no direction")
    table = table / largest
    return np.asarray(table / np.linalg.norm(table, axis=1, keepdims=True))
