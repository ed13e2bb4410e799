"""Supervised taggers small enough to train on a laptop: the upper reference of a benchmark, behind one protocol.

Each is a `probes.training.Model` whose inputs are `Constituents`; `probes.training.fit` trains any of them, and
`probes.taggers.defaults` says with which settings.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from probes.constituents import positive


class Constituents(NamedTuple):
    """Padded jets: pt [GeV], eta, phi relative to the jet's pT-weighted centroid, and which slots are real."""

    pt: Float[np.ndarray, "B N"] | Float[Array, "B N"]
    eta: Float[np.ndarray, "B N"] | Float[Array, "B N"]
    phi: Float[np.ndarray, "B N"] | Float[Array, "B N"]
    mask: Bool[np.ndarray, "B N"] | Bool[Array, "B N"]


def constituents(
    pt: Float[np.ndarray, "B N"],
    eta: Float[np.ndarray, "B N"],
    phi: Float[np.ndarray, "B N"],
    mask: Bool[np.ndarray, "B N"],
) -> Constituents:
    """Jets as the taggers take them: angles from the pT-weighted centroid, phi in (-pi, pi], float32, padding zero.

    pt in GeV. What lies where `mask` is False is never read. A jet may straddle phi = +-pi. A jet of no pT at all
    stays where it is.

    Raises ValueError if the shapes differ, a real constituent is NaN or infinite, or its pT is negative.
    """
    *fields, mask = positive(pt, eta, phi, mask)
    pt, eta, phi = (field.astype(np.float32) for field in fields)
    weight = pt / np.maximum(pt.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    eta = eta - (weight * eta).sum(axis=1, keepdims=True)
    # Angles from the direction of the summed pT vector are small, so their mean is no longer cut at +-pi.
    sin, cos = ((weight * f(phi)).sum(axis=1, keepdims=True) for f in (np.sin, np.cos))
    phi = _wrapped(phi - np.arctan2(sin, cos))
    phi = _wrapped(phi - (weight * phi).sum(axis=1, keepdims=True))
    return Constituents(pt, np.where(mask, eta, 0), np.where(mask, phi, 0), mask)


def _wrapped(phi: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "B N"]:
    return np.pi - (np.pi - phi) % (2 * np.pi)
