"""Padded constituents [jets, slots]: what every observable of a jet's constituents may rely on.

Shapes: B jets, N constituents.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

Padded: TypeAlias = Float[np.ndarray, "B N"]


def finite(
    pt: Padded, eta: Padded, phi: Padded, mask: Bool[np.ndarray, "B N"]
) -> tuple[Padded, Padded, Padded, Bool[np.ndarray, "B N"]]:
    """The same jets with zeros where `mask` is False, whatever lay there.

    Raises ValueError if the shapes differ, or a real constituent is NaN or infinite.
    """
    shapes = {np.shape(a) for a in (pt, eta, phi, mask)}
    if len(shapes) != 1 or np.ndim(pt) != 2:
        raise ValueError(f"pt, eta, phi and mask must share one shape [jets, constituents], got {sorted(shapes)}")
    mask = np.asarray(mask, bool)
    pt, eta, phi = (np.where(mask, field, 0) for field in (pt, eta, phi))
    for name, field in (("pt", pt), ("eta", eta), ("phi", phi)):
        if not np.isfinite(field).all():
            bad = np.count_nonzero(~np.isfinite(field).all(axis=1))
            raise ValueError(f"{name} of a constituent is NaN or infinite in {bad} jets")
    return pt, eta, phi, mask


def positive(
    pt: Padded, eta: Padded, phi: Padded, mask: Bool[np.ndarray, "B N"]
) -> tuple[Padded, Padded, Padded, Bool[np.ndarray, "B N"]]:
    """As `finite`; raises ValueError for a negative pT too."""
    pt, eta, phi, mask = finite(pt, eta, phi, mask)
    if (pt < 0).any():
        raise ValueError(f"pt of a constituent is negative in {np.count_nonzero((pt < 0).any(axis=1))} jets")
    return pt, eta, phi, mask


def checked(
    pt: Padded, eta: Padded, phi: Padded, mask: Bool[np.ndarray, "B N"]
) -> tuple[Padded, Padded, Padded, Bool[np.ndarray, "B N"]]:
    """As `positive`; raises ValueError for a jet without a constituent of positive pT too."""
    pt, eta, phi, mask = positive(pt, eta, phi, mask)
    empty = np.count_nonzero(~(pt > 0).any(axis=1))
    if empty:
        raise ValueError(f"{empty} of {len(pt)} jets have no constituent of positive pT; leave them out")
    return pt, eta, phi, mask
