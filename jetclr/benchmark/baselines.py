"""The features that a learned representation has to beat, as representations of a suite."""

from collections.abc import Callable

import numpy as np

from jetclr.benchmark.leaks import refuse_label_columns
from jetclr.benchmark.representations import HandBuilt, Table
from jetclr.benchmark.suite import BaselineName, Suite


def baseline(name: BaselineName, suite: Suite) -> HandBuilt:
    """The baseline of this name, on as many constituents as the suite says."""
    if name == "raw constituents":
        refuse_label_columns(suite.extras, name)
        return HandBuilt(name, _raw, {}, suite.constituents, suite.extras)
    if name == "observables":
        return observables(suite.constituents)
    edges = suite.efp_edges
    return HandBuilt(f"EFP d<={edges}", _efps(edges), {"edges": edges}, suite.constituents)


def observables(constituents: int) -> HandBuilt:
    """Mass, multiplicity and N-subjettiness of a jet."""
    return HandBuilt("mass, multiplicity, N-subjettiness", _observables, {}, constituents)


def _raw(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray, mask: np.ndarray, **extras: np.ndarray) -> Table:
    from probes.baselines import raw_constituents

    raw = raw_constituents(pt, eta, phi, mask, pt.shape[1])
    return np.concatenate([raw, *extras.values()], axis=1)


def _observables(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray, mask: np.ndarray) -> Table:
    from probes.observables import baseline_features

    return baseline_features(pt, eta, phi, mask)[0]


def _efps(edges: int) -> Callable[..., Table]:
    def compute(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray, mask: np.ndarray) -> Table:
        from probes.efp import efp_features

        return efp_features(pt, eta, phi, mask, d=edges)

    return compute
