"""Parameters of Haiku networks as flat arrays by name, as files keep them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from probes.anomaly.arrays import required
from probes.training import Params


def flat(params: Params, prefix: str = "") -> dict[str, np.ndarray]:
    """module -> name -> array, as "module:name" -> array."""
    return {f"{prefix}{module}:{name}": np.asarray(x) for module, own in params.items() for name, x in own.items()}


def restored(state: Mapping[str, np.ndarray], like: Params, prefix: str = "") -> Params:
    """The parameters that `flat` was given, as float32; `like` has arrays of their shapes.

    Raises ValueError where one is missing, of another shape, or not finite.
    """
    return {
        module: {
            name: required(state, f"{prefix}{module}:{name}", *x.shape).astype(np.float32) for name, x in own.items()
        }
        for module, own in like.items()
    }
