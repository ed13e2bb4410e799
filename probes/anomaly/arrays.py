"""The arrays of a fitted head as a file gives them: there, shaped as they must be, and finite."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

NUMBERS = "fiub"
"""Kinds of numpy's types that a file may hold: numbers and truth values."""


def required(state: Mapping[str, np.ndarray], name: str, *shape: int | None) -> np.ndarray:
    """The array `name`; None stands for any length but 0.

    Raises ValueError where it is missing, of another shape, or not finite.
    """
    if name not in state:
        raise ValueError(f"the array {name} is missing")
    x = np.asarray(state[name])
    fits = x.ndim == len(shape) and all(n == m if m is not None else n for n, m in zip(x.shape, shape, strict=True))
    if not fits:
        expected = tuple("any" if n is None else n for n in shape)
        raise ValueError(f"the array {name} must have the shape {expected}, and has {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"the array {name} holds NaN or infinity")
    return x


def below(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
