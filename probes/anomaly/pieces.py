"""Compiled functions of any number of jets: in pieces of few sizes, so that few compilations serve all.

Shapes: B jets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from probes.training import SCORED_JETS, count, take


def in_pieces(
    function: Callable[[Any], Float[Array, "S ..."]], inputs: Any, *, size: int | None = None
) -> Float[np.ndarray, "B ..."]:
    """`function` of every jet of a pytree of arrays; the last piece is filled up by copies of its last jet.

    Pieces of one `size` give a jet the same bits whatever lies beside it; without it few jets make small pieces.
    """
    inputs = jax.tree.map(np.asarray, inputs)
    jets = count(inputs)
    if not jets:
        made = jax.eval_shape(function, jax.tree.map(lambda x: np.zeros((1, *x.shape[1:]), x.dtype), inputs))
        return np.zeros((0, *made.shape[1:]), made.dtype)
    # A power of two: few jets need not wait for what many would.
    size = size or min(SCORED_JETS, 1 << (jets - 1).bit_length())
    pieces = []
    for start in range(0, jets, size):
        rows = np.minimum(np.arange(start, start + size), jets - 1)
        pieces.append(np.asarray(function(take(inputs, rows)))[: jets - start])
    return np.concatenate(pieces)
