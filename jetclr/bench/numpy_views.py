"""The study's augmentations as usually written for a host: NumPy, a whole batch at once, splittings jet by jet.

They do to jets what `augmentations` does on a device, and are here to be measured beside it. B jets, N slots; jets are
pt, eta, phi [B, N], zero where padded.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class HostJets(NamedTuple):
    """Padded jets on the host."""

    pt: Float[np.ndarray, "B N"]
    eta: Float[np.ndarray, "B N"]
    phi: Float[np.ndarray, "B N"]


def first_view(rng: np.random.Generator, jets: HostJets) -> HostJets:
    """Turned and moved."""
    return translate(rng, rotate(rng, jets))


def second_view(rng: np.random.Generator, jets: HostJets) -> HostJets:
    """Turned, split twice, smeared and moved."""
    split = split_collinear(rng, split_collinear(rng, rotate(rng, jets)))
    return translate(rng, smear(rng, split))


def rotate(rng: np.random.Generator, jets: HostJets) -> HostJets:
    """Each jet turned about its pT-weighted centroid by an angle of its own."""
    angle = rng.uniform(0, 2 * np.pi, (len(jets.pt), 1))
    eta0, phi0, d_eta, d_phi = _about_centroid(jets)
    cos, sin = np.cos(angle), np.sin(angle)
    real = jets.pt > 0
    eta = np.where(real, eta0 + cos * d_eta - sin * d_phi, 0)
    return HostJets(jets.pt, eta, np.where(real, _wrapped(phi0 + sin * d_eta + cos * d_phi), 0))


def translate(rng: np.random.Generator, jets: HostJets) -> HostJets:
    """Each jet moved in eta and in phi by up to its own extent."""
    real = jets.pt > 0
    *_, d_eta, d_phi = _about_centroid(jets)
    by_eta, by_phi = (rng.uniform(-1, 1, (len(jets.pt), 1)) * _extent(x, real) for x in (d_eta, d_phi))
    return HostJets(jets.pt, np.where(real, jets.eta + by_eta, 0), np.where(real, _wrapped(jets.phi + by_phi), 0))


def smear(rng: np.random.Generator, jets: HostJets, scale: float = 0.1, floor: float = 0.1) -> HostJets:
    """Each constituent moved by a normal of width `scale` / pT, pT taken as `floor` at least; both in GeV."""
    width = np.where(jets.pt > 0, scale / np.maximum(jets.pt, floor), 0)
    by_eta, by_phi = rng.normal(size=(2, *jets.pt.shape)) * width
    return HostJets(jets.pt, jets.eta + by_eta, _wrapped(jets.phi + by_phi))


def split_collinear(rng: np.random.Generator, jets: HostJets) -> HostJets:
    """Some constituents split in two at the same place: as many as chance wants of those for which there is room."""
    pt, eta, phi = (x.copy() for x in jets)
    slots = pt.shape[1]
    for jet, real in enumerate((pt > 0).sum(axis=1)):
        number = rng.integers(0, min(real, slots - real) + 1)
        parents = rng.permutation(real)[:number]
        share = rng.uniform(size=number)
        children = slice(real, real + number)
        pt[jet, children] = (1 - share) * pt[jet, parents]
        pt[jet, parents] *= share
        eta[jet, children], phi[jet, children] = eta[jet, parents], phi[jet, parents]
    return HostJets(pt, eta, phi)


def _about_centroid(jets: HostJets) -> tuple[Float[np.ndarray, "..."], ...]:
    """eta and phi of the centroids [B, 1], and of constituents from there [B, N]."""
    total = jets.pt.sum(axis=1, keepdims=True)
    hardest = np.take_along_axis(jets.phi, jets.pt.argmax(axis=1)[:, None], axis=1)
    from_hardest = _wrapped(jets.phi - hardest)
    eta0 = (jets.pt * jets.eta).sum(axis=1, keepdims=True) / total
    shift = (jets.pt * from_hardest).sum(axis=1, keepdims=True) / total
    return eta0, hardest + shift, jets.eta - eta0, from_hardest - shift


def _extent(values: Float[np.ndarray, "B N"], real: np.ndarray) -> Float[np.ndarray, "B 1"]:
    high = np.where(real, values, -np.inf).max(axis=1, keepdims=True)
    return high - np.where(real, values, np.inf).min(axis=1, keepdims=True)


def _wrapped(phi: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "B N"]:
    return np.mod(phi + np.pi, 2 * np.pi) - np.pi
