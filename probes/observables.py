"""Observables of a jet's substructure, from its constituents taken as massless: what taggers used before networks.

Shapes: B jets, N constituents, A axes.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probes.constituents import Padded, checked

MOST_AXES = 4
"""N-subjettiness is computed for 1 to so many axes."""

NAMES = (
    "jet_mass",
    "jet_pt",
    "multiplicity",
    "girth",
    "lha",
    "pt_dispersion",
    *(f"tau{n}" for n in range(1, MOST_AXES + 1)),
    "tau21",
    "tau32",
    *(f"tau{n}_beta2" for n in range(1, MOST_AXES + 1)),
)
"""Names of the columns of `observables`."""

LOG_FLOOR = np.float32(1e-4)
"""Smallest number whose logarithm is taken by `baseline_features`."""

STEP = 16
"""Jets are padded to a multiple of so many constituents, so that few programs serve all."""

ENTRIES = 2**16
"""Entries of a [B, N, N] matrix of distances that a core works on at once."""


def observables(
    pt: Padded, eta: Padded, phi: Padded, mask: Bool[np.ndarray, "B N"]
) -> tuple[Float[np.ndarray, "B F"], tuple[str, ...]]:
    """Substructure observables of each jet, float32, and their `NAMES`.

    jet_mass and jet_pt [GeV] of the sum of the constituents; multiplicity; angularities sum z theta^b about the
    pT-weighted centroid with b = 1 (girth) and 1/2 (lha, arXiv:1408.3122); pt_dispersion = sqrt(sum z^2); tauN and
    tauN_beta2 as `n_subjettiness` with beta = 1 and 2; tau21 = tau2 / tau1 and tau32 = tau3 / tau2, 0 where both are.
    z is the share of the scalar sum of pT. Raises ValueError for jets that `probes.constituents.checked` refuses, or a
    value beyond float32.
    """
    pt, eta, phi, mask = checked(pt, eta, phi, mask)
    wide = [x.astype(np.float64) for x in (pt, eta, phi)]
    mass, jet_pt = _mass_and_pt(*wide)
    z, theta = _about_centroid(*wide)
    distances = _axis_distances(pt, eta, phi, mask)
    tau, tau_beta2 = (_tau(pt, distances, beta) for beta in (1.0, 2.0))
    columns = [
        mass,
        jet_pt,
        mask.sum(axis=1),
        (z * theta).sum(axis=1),
        (z * np.sqrt(theta)).sum(axis=1),
        np.sqrt((z**2).sum(axis=1)),
        *tau.T,
        _ratio(tau[:, 1], tau[:, 0]),
        _ratio(tau[:, 2], tau[:, 1]),
        *tau_beta2.T,
    ]
    values = np.stack(columns, axis=1).astype(np.float32)
    if not np.isfinite(values).all():
        bad = np.count_nonzero(~np.isfinite(values).all(axis=1))
        raise ValueError(f"observables of {bad} jets are beyond float32; their constituents are too far apart")
    return values, NAMES


def baseline_features(
    pt: Padded, eta: Padded, phi: Padded, mask: Bool[np.ndarray, "B N"]
) -> tuple[Float[np.ndarray, "B F"], tuple[str, ...]]:
    """Mass, multiplicity and N-subjettiness of `observables`, and the logarithm of each, for a linear probe; names.

    The logarithms let a straight cut make a mass window: with 50 constituents of 60,000 jets of a 14 TeV Pythia
    top-tagging sample, AUC on 10,000 others was 0.983 with them, 0.976 without (logistic regression; LDA 0.974 either
    way). What is below `LOG_FLOOR` counts as that. Raises ValueError as `observables`.
    """
    values, names = observables(pt, eta, phi, mask)
    kept = [i for i, name in enumerate(names) if name in ("jet_mass", "multiplicity") or name.startswith("tau")]
    chosen = values[:, kept]
    logs = np.log(np.maximum(chosen, LOG_FLOOR))
    return np.hstack([chosen, logs]), (*(names[i] for i in kept), *(f"log_{names[i]}" for i in kept))


def n_subjettiness(
    pt: Padded, eta: Padded, phi: Padded, mask: Bool[np.ndarray, "B N"], *, beta: float = 1.0
) -> Float[np.ndarray, "B A"]:
    """tau_1 to tau_4 = sum z min over the axes of theta^beta (arXiv:1011.2268), with R0 = 1; float64.

    The axes are the directions of the exclusive kT jets with winner-take-all recombination (arXiv:1401.2158), not
    minimised further: close to the minimum for beta = 1, and the same axes for any beta. A jet with no more
    constituents than axes has 0. Raises ValueError for jets that `probes.constituents.checked` refuses, or beta not
    positive.
    """
    if not (beta > 0 and np.isfinite(beta)):
        raise ValueError(f"beta must be positive, got {beta}")
    pt, eta, phi, mask = checked(pt, eta, phi, mask)
    return _tau(pt, _axis_distances(pt, eta, phi, mask), beta)


def _tau(pt: Padded, distances: Float[np.ndarray, "B A N"], beta: float) -> Float[np.ndarray, "B A"]:
    z = pt.astype(np.float64) / pt.sum(axis=1, dtype=np.float64, keepdims=True)
    return np.einsum("bn,ban->ba", z, distances.astype(np.float64) ** beta)


def _ratio(above: Float[np.ndarray, " B"], below: Float[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)


def _wrapped(phi: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return np.remainder(phi + np.pi, 2 * np.pi) - np.pi


def _mass_and_pt(pt: Padded, eta: Padded, phi: Padded) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """Invariant mass and transverse momentum of the vector sum."""
    # Neither changes with a boost along the beam; without, a forward jet's mass would drown in its energy's rounding.
    eta = eta - np.take_along_axis(eta, pt.argmax(axis=1)[:, None], axis=1)
    x, y, pz, e = ((pt * f).sum(axis=1) for f in (np.cos(phi), np.sin(phi), np.sinh(eta), np.cosh(eta)))
    transverse = np.hypot(x, y)
    momentum = np.hypot(transverse, pz)
    return np.sqrt(np.maximum((e - momentum) * (e + momentum), 0)), transverse


def _about_centroid(pt: Padded, eta: Padded, phi: Padded) -> tuple[Padded, Padded]:
    """Each constituent's share of pT, and its distance from the pT-weighted centroid."""
    z = pt / pt.sum(axis=1, keepdims=True)
    phi = _wrapped(phi - np.take_along_axis(phi, pt.argmax(axis=1)[:, None], axis=1))
    d_eta, d_phi = (x - (z * x).sum(axis=1, keepdims=True) for x in (eta, phi))
    return z, np.hypot(d_eta, _wrapped(d_phi))


def _axis_distances(pt: Padded, eta: Padded, phi: Padded, mask: Bool[np.ndarray, "B N"]) -> Float[np.ndarray, "B A N"]:
    """Distance of each constituent from the nearest of 1, 2, .. axes; 0 for padding. Every core takes its own jets."""
    out = np.zeros((len(pt), MOST_AXES, pt.shape[1]), np.float32)
    widths = STEP * np.maximum(1, -(-mask.sum(axis=1) // STEP))

    def fill(rows: Int[np.ndarray, " R"], width: int, jets: int) -> None:
        order = np.argsort(~mask[rows], axis=1, kind="stable")[:, :width]
        share, *angles = (np.take_along_axis(x[rows], order, axis=1).astype(np.float64) for x in (pt, eta, phi))
        share /= share.sum(axis=1, keepdims=True)
        hardest = share.argmax(axis=1)[:, None]
        d_eta, d_phi = (x - np.take_along_axis(x, hardest, axis=1) for x in angles)
        real = np.take_along_axis(mask[rows], order, axis=1)
        missing = ((0, jets - len(rows)), (0, width - order.shape[1]))
        fields = [np.pad(x.astype(np.float32), missing) for x in (share, d_eta, _wrapped(d_phi))]
        found = np.asarray(_clustered(*fields, np.pad(real, missing)))[: len(rows), :, : order.shape[1]]
        nearest = np.where(real[:, None], found, 0)
        block = np.zeros((len(rows), MOST_AXES, pt.shape[1]), np.float32)
        np.put_along_axis(block, np.broadcast_to(order[:, None], nearest.shape), nearest, axis=2)
        out[rows] = block

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = []
        for width in np.unique(widths):
            members = np.flatnonzero(widths == width)
            jets = max(1, round(ENTRIES / width**2))
            waiting += [
                pool.submit(fill, members[i : i + jets], int(width), jets) for i in range(0, len(members), jets)
            ]
        for block in waiting:
            block.result()
    return out


FAR = 1e30
"""Stands for an infinite distance where infinity times a pT of zero would be NaN."""


@jax.jit
def _clustered(
    pt: Float[Array, "B N"], eta: Float[Array, "B N"], phi: Float[Array, "B N"], mask: Bool[Array, "B N"]
) -> Float[Array, "B A N"]:
    """Exclusive kT clustering down to 4, 3, 2 and 1 jets: distance of each constituent from the nearest of them.

    d_ij = min(pT_i, pT_j)^2 theta_ij^2, of a pair that merges the harder one keeps its direction and takes the pT of
    both. So no direction is ever new, and the distances are those of the constituents throughout.
    """
    slots = jnp.arange(pt.shape[1])
    d_phi = jnp.abs(phi[:, :, None] - phi[:, None, :])
    d_phi = jnp.minimum(d_phi, 2 * jnp.pi - d_phi)
    squared = (eta[:, :, None] - eta[:, None, :]) ** 2 + d_phi**2
    apart = jnp.where(slots[:, None] == slots, FAR, squared)

    def merge(state: tuple[Array, Array], most: int) -> tuple[Array, Array]:
        pt, alive = state
        gone = jnp.where(alive, 0, FAR)
        # The smallest over the slower axis: that is done for many constituents at once.
        nearest = jnp.min(jnp.minimum(pt[:, :, None], pt[:, None, :]) ** 2 * apart + gone[:, :, None], axis=1) + gone
        i = jnp.argmin(nearest, axis=1)
        row = jnp.take_along_axis(apart, i[:, None, None], axis=1)[:, 0]
        own = jnp.take_along_axis(pt, i[:, None], axis=1)
        j = jnp.argmin(jnp.minimum(own, pt) ** 2 * row + gone, axis=1)
        other = jnp.take_along_axis(pt, j[:, None], axis=1)
        winner, loser = jnp.where(own[:, 0] >= other[:, 0], jnp.stack([i, j]), jnp.stack([j, i]))
        active = (alive.sum(axis=1) > most)[:, None]
        wins, loses = (active & (slots == x[:, None]) for x in (winner, loser))
        return jnp.where(wins, own + other, pt), alive & ~loses

    found = []
    state = (pt, mask)
    steps = max(0, pt.shape[1] - MOST_AXES)
    for axes in range(MOST_AXES, 0, -1):
        state = jax.lax.fori_loop(0, steps, lambda _, s, axes=axes: merge(s, axes), state)
        steps = 1
        found.append(jnp.sqrt(jnp.min(squared + jnp.where(state[1], 0, FAR)[:, None, :], axis=2)))
    return jnp.stack(found[::-1], axis=1)
