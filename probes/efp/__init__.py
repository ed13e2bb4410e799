"""Energy flow polynomials: all infrared- and collinear-safe observables are sums of them (arXiv:1712.07124).

EFP_G = sum_{i_1..i_n} z_{i_1}..z_{i_n} prod_{(u,v) in G} theta_{i_u i_v}^beta, with z = pT / sum pT and
theta^2 = d_eta^2 + d_phi^2 (EnergyFlow's measure "hadr", kappa = 1, normed; phi differences are wrapped here).

Shapes: B jets, N constituents, G polynomials.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool, Float

from probes.constituents import checked
from probes.efp.compute import evaluate
from probes.efp.graphs import Graph, connected_multigraphs, multigraphs

LARGEST_D = 7
"""Most edges; with eight there are graphs that need sums over more than three constituents at once."""


@functools.cache
def efp_graphs(d: int = 5, *, prime_only: bool = True) -> tuple[tuple[Graph, ...], ...]:
    """The graph of each polynomial up to `d` edges, in the order of `efps`: a tuple of its connected parts.

    `prime_only` gives the connected ones: 1, 2, 4, 9, 21, 54, 157, 490 for d = 0 to 7; all are 1, 2, 5, 13, 36, 102,
    314, 1000. The first is one vertex, of value 1. Raises ValueError unless 0 <= d <= 7.
    """
    if not 0 <= d <= LARGEST_D:
        raise ValueError(f"energy flow polynomials are there for d = 0 to {LARGEST_D} edges, got d = {d}")
    return tuple(parts for edges in range(d + 1) for parts in multigraphs(edges) if len(parts) == 1 or not prime_only)


def efps(
    pt: Float[np.ndarray, "B N"],
    eta: Float[np.ndarray, "B N"],
    phi: Float[np.ndarray, "B N"],
    mask: Bool[np.ndarray, "B N"],
    *,
    d: int = 5,
    beta: float = 1.0,
    prime_only: bool = True,
) -> Float[np.ndarray, "B G"]:
    """Energy flow polynomials of all multigraphs up to `d` edges, in the order of `efp_graphs`; float32.

    pT in any unit; what lies where `mask` is False is never read. Raises ValueError for jets that
    `probes.constituents.checked` refuses, beta not positive, d outside 0 to 7, or a value beyond float32.
    """
    wanted = efp_graphs(d, prime_only=prime_only)
    if not (beta > 0 and np.isfinite(beta)):
        raise ValueError(f"beta must be positive, got {beta}")
    pt, eta, phi, mask = checked(pt, eta, phi, mask)
    primes = tuple(graph for edges in range(d + 1) for graph in connected_multigraphs(edges))
    at = {graph: i for i, graph in enumerate(primes)}
    values = evaluate(primes, pt, eta, phi, mask, float(beta))
    out = np.empty((len(values), len(wanted)), np.float32)
    for i, parts in enumerate(wanted):  # one by one: all in double precision may not fit into memory
        found = values[:, [at[g] for g in parts]].prod(axis=1)
        if not np.abs(found).max(initial=0) <= np.finfo(np.float32).max:  # nor NaN, where an angle's square is infinite
            raise ValueError(f"a polynomial is beyond float32 at beta = {beta} and d = {d}; take a smaller one")
        out[:, i] = found
    return out


def efp_features(
    pt: Float[np.ndarray, "B N"],
    eta: Float[np.ndarray, "B N"],
    phi: Float[np.ndarray, "B N"],
    mask: Bool[np.ndarray, "B N"],
    *,
    d: int = 5,
) -> Float[np.ndarray, "B G"]:
    """The polynomials recommended for a linear probe: all of them, products too, as they are, without the constant.

    They are nearly linearly dependent, and the small differences count: logarithms or shrinkage lose them. Measured
    with d = 5 on 50 constituents of 60,000 jets of a 14 TeV Pythia top-tagging sample, AUC on 10,000 others: logistic
    regression 0.985; LDA 0.983, and 0.973 with all of Ledoit and Wolf's shrinkage. Connected ones alone gave 0.982
    (LDA), and logarithms of them 0.974. Raises ValueError as `efps`.
    """
    return efps(pt, eta, phi, mask, d=d, prime_only=False)[:, 1:]
