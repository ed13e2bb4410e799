"""Makes energyflow.json: values of EnergyFlow 1.4 for 30 toy jets, to check ours against.

EnergyFlow needs numpy < 2, so it has an environment of its own:

    python -m venv efenv && efenv/bin/pip install "numpy<2" energyflow==1.4.0
    efenv/bin/python tests/probes/make_energyflow.py tests/probes/energyflow.json
"""

import json
import sys
from pathlib import Path

import energyflow
import numpy as np

SAMPLED = 12
"""Every so many of the graphs with 6 and 7 edges is taken, and all that need sums over four constituents."""


def jet(rng: np.random.Generator, prongs: int, n: int) -> np.ndarray:
    """[n, 3] pt [GeV], eta, phi about prongs of falling pT, with a soft tail; rounded so that the file is exact."""
    centres = rng.normal(0, 0.3 if prongs > 1 else 0.02, (prongs, 2))
    spread = 0.15 * rng.exponential(1.0, (n, 1)) * rng.normal(0, 1, (n, 2))
    angles = centres[np.minimum(rng.geometric(0.5, n) - 1, prongs - 1)] + spread
    pt = 600 * (share := rng.exponential(1.0, n) ** 3 + 1e-4) / share.sum()
    return np.column_stack([np.round(pt, 4) + 1e-4, np.round(angles, 5)])


def main(path: str) -> None:
    rng = np.random.default_rng(17)
    jets = [jet(rng, 1 + i % 3, int(n)) for i, n in enumerate(np.linspace(2, 60, 30))]
    every = energyflow.EFPSet("d<=7", "p==1", measure="hadr", beta=1, kappa=1, normed=True, verbose=0)
    degree, work = every.specs[:, every.d_ind], every.specs[:, every.c_ind]
    kept = np.flatnonzero((degree <= 5) | (work > 3) | (np.arange(len(degree)) % SAMPLED == 0))
    graphs = [[list(map(int, edge)) for edge in every.graphs(int(i))] for i in kept]
    by_beta = {}
    for beta in (1.0, 2.0):
        found = [energyflow.EFP(graph, measure="hadr", beta=beta, kappa=1, normed=True) for graph in graphs]
        by_beta[str(beta)] = [[float(f"{efp.compute(x):.9g}") for efp in found] for x in jets]
    data = {
        "energyflow": energyflow.__version__,
        "jets": [x.tolist() for x in jets],
        "graphs": graphs,
        "values": by_beta,
    }
    Path(path).write_text(json.dumps(data, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
