"""Particles of events -> anti-kT jets, through FastJet (arXiv:1111.6097; anti-kT arXiv:0802.1189).

FastJet is GPL and an optional extra: it is imported inside the function that needs it.
Shapes: E events, P particles of all events end to end, J jets, M constituents of all the jets.
"""

from types import ModuleType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from jetclr.data.kinematics import pt_eta_phi
from jetclr.errors import UserError


class Clustered(NamedTuple):
    """Jets of all events, in the order of the events."""

    event: Int64[np.ndarray, " J"]
    momentum: Float64[np.ndarray, "4 J"]  # px, py, pz, E [GeV]
    offsets: Int64[np.ndarray, " J+1"]  # where the constituents of each jet start in `index`
    index: Int64[np.ndarray, " M"]  # type: ignore[assignment]  # constituents, as indices of particles


def load_fastjet() -> ModuleType:
    """The module fastjet; raises UserError where it is not installed."""
    try:
        import fastjet
    except ImportError as error:
        raise UserError(f"clustering needs FastJet: pip install 'jetclr[generate]' ({error})") from None
    return fastjet


def antikt_jets(
    momentum: Float64[np.ndarray, "4 P"],
    offsets: Int64[np.ndarray, " bounds"],
    radius: float,
    pt_min: float,
    *,
    hardest_first: bool = True,
) -> Clustered:
    """Anti-kT jets with pT above `pt_min` [GeV] (E scheme) of each event, all events in one call.

    `momentum` is (px, py, pz, E) [GeV] of the particles; those of event i are offsets[i]:offsets[i+1]. Jets come from
    hard to soft within each event, or in FastJet's own order, that of the clustering.
    """
    fastjet = load_fastjet()
    import awkward as ak  # comes with fastjet

    columns = dict(zip(("px", "py", "pz", "E"), momentum, strict=True))
    events = ak.unflatten(ak.zip(columns, with_name="Momentum4D"), np.diff(offsets))
    sequence = fastjet.ClusterSequence(events, fastjet.JetDefinition(fastjet.antikt_algorithm, radius))
    jets = sequence.inclusive_jets(pt_min)
    nested = sequence.constituent_index(pt_min)
    event = np.repeat(np.arange(len(offsets) - 1), ak.num(jets).to_numpy())
    flat = ak.flatten(jets)
    axis = np.stack([flat[name].to_numpy() for name in columns])
    counts = ak.num(ak.flatten(nested)).to_numpy()
    index = ak.flatten(nested, axis=None).to_numpy() + np.repeat(offsets[event], counts)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    jets_found = Clustered(event, axis, starts, index.astype(np.int64))
    return reorder(jets_found, np.lexsort((-pt_eta_phi(axis)[0], event))) if hardest_first else jets_found


def reorder(jets: Clustered, order: Int64[np.ndarray, " K"]) -> Clustered:
    """The jets `order` (some or all), in this order."""
    counts = np.diff(jets.offsets)[order]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    return Clustered(
        jets.event[order],
        jets.momentum[:, order],
        starts,
        jets.index[np.repeat(jets.offsets[:-1][order], counts) + within],
    )
