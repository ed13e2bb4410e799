"""The names that columns have in every store, whatever file they come from, with units and meaning."""

from typing import NamedTuple

import numpy as np


class Column(NamedTuple):
    """What a column of a store holds."""

    unit: str  # "1" for pure numbers
    meaning: str


CONSTITUENT_COLUMNS = {
    "pt": Column("GeV", "transverse momentum"),
    "eta": Column("1", "pseudorapidity"),
    "phi": Column("rad", "azimuth in [-pi, pi]"),
    "charge": Column("e", "electric charge"),
    "type": Column("1", "0 other, 1 charged hadron, 2 neutral hadron, 3 photon, 4 electron, 5 muon"),
    "pdg": Column("1", "PDG number of the particle (of the hypothesis, where it is reconstructed)"),
    "d0": Column("mm", "transverse impact parameter; 0 for neutral particles"),
    "d0_error": Column("mm", "its uncertainty"),
    "dz": Column("mm", "longitudinal impact parameter; 0 for neutral particles"),
    "dz_error": Column("mm", "its uncertainty"),
    "puppi": Column("1", "PUPPI weight: probability not to be pile-up"),
}

JET_COLUMNS = {
    "jet_pt": Column("GeV", "transverse momentum"),
    "jet_eta": Column("1", "pseudorapidity of the axis"),
    "jet_phi": Column("rad", "azimuth of the axis in [-pi, pi]"),
    "jet_mass": Column("GeV", "invariant mass"),
    "label": Column("1", "class; names under `labels`"),
    "split": Column("1", "0 train, 1 validation, 2 test"),
    "weight": Column("1", "expected share in training, 1 on average"),
    "source": Column("1", "number of the source file in `sources`"),
    "row": Column("1", "row of the jet, or of its event, in its source file"),
    "event": Column("1", "number of the event"),
    "run": Column("1", "number of the run of data taking"),
    "luminosity_block": Column("1", "number of the luminosity block within the run"),
    "jet_index": Column("1", "0 for the hardest jet of the event, 1 for the next"),
    "dijet_mass": Column("GeV", "invariant mass of the two hardest jets of the event"),
    "missing_pt": Column("GeV", "transverse momentum of all invisible particles of the event"),
    "softdrop_mass": Column("GeV", "mass after soft drop, as in the source"),
    "tau1": Column("1", "1-subjettiness, as in the source"),
    "tau2": Column("1", "2-subjettiness, as in the source"),
    "tau3": Column("1", "3-subjettiness, as in the source"),
    "tau4": Column("1", "4-subjettiness, as in the source"),
}

SPLITS = {0: "train", 1: "validation", 2: "test"}

CONSTITUENT_TYPES = ("other", "charged hadron", "neutral hadron", "photon", "electron", "muon")
"""What the numbers in the constituent column `type` mean."""


def described(columns: dict[str, np.dtype], constituents: dict[str, np.dtype]) -> dict[str, dict[str, dict[str, str]]]:
    """Unit and meaning of columns, for the metadata of a store; a column without a common name is as its source has it.

    `columns` are jet-level ones; both map names to types.
    """

    def tell(name: str, kind: np.dtype, known: dict[str, Column]) -> dict[str, str]:
        unit, meaning = known.get(name, Column("as in the source", "as in the source"))
        return {"type": str(kind), "unit": unit, "meaning": meaning}

    return {
        "jets": {name: tell(name, kind, JET_COLUMNS) for name, kind in columns.items()},
        "constituents": {name: tell(name, kind, CONSTITUENT_COLUMNS) for name, kind in constituents.items()},
    }
