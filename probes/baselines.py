"""Controls: features a learned representation has to beat before it has shown anything.

Shapes: B jets, N constituents.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from probes.constituents import finite


def raw_constituents(
    pt: Float[np.ndarray, "B N"],
    eta: Float[np.ndarray, "B N"],
    phi: Float[np.ndarray, "B N"],
    mask: Bool[np.ndarray, "B N"],
    n: int,
) -> Float[np.ndarray, "B F"]:
    """(pT, eta, phi) of the `n` hardest constituents in falling order of pT, one after the other, zero padded.

    pT in the unit it comes in (GeV); eta and phi as they come, so relative to the jet's axis if they were. What
    lies where `mask` is False is never read. Constituents of equal pT keep their order. Keeps the type of `pt`.

    Raises ValueError if the shapes differ, `n` < 1, or a real constituent is NaN or infinite.
    """
    if n < 1:
        raise ValueError(f"at least one constituent is needed, got n = {n}")
    *fields, mask = finite(pt, eta, phi, mask)
    # The mask, not pT = 0, says what is padding: a constituent of zero pT still comes before the padding.
    hardest = np.argsort(np.where(mask, -fields[0], np.inf), axis=1, kind="stable")[:, :n]
    out = np.zeros((len(mask), n, 3), fields[0].dtype)
    for i, field in enumerate(fields):
        out[:, : hardest.shape[1], i] = np.take_along_axis(field, hardest, axis=1)
    return out.reshape(len(mask), 3 * n)
