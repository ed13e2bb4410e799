"""Tables of features to fit heads to: a background whose features depend on each other, and what is unlike it."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

FEATURES = 6


def refused(message):
    """The session checks shapes before our own check does, with another error."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def background(jets, seed=0, dtype=np.float64):
    """Normal, correlated, in units from 1e-3 to 1e3, about a point far from zero; the last feature is constant."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(FEATURES - 1, FEATURES - 1)) + np.eye(FEATURES - 1)
    x = rng.normal(size=(jets, FEATURES - 1)) @ mixing
    x = np.column_stack([x * [1e3, 1, 1e-3, 1, 1] + [5e3, 0, 0, 2, -1], np.full(jets, 0.5)])
    return x.astype(dtype)


def strange(jets, seed=1):
    """The same jets, four spreads away along a direction that the background hardly takes."""
    x = background(jets, seed)
    values, vectors = np.linalg.eigh(np.cov(background(4000)[:, :-1].T / [[1e3], [1], [1e-3], [1], [1]]))
    x[:, :-1] += 4 * np.sqrt(values[1]) * vectors[:, 1] * [1e3, 1, 1e-3, 1, 1]
    return x
