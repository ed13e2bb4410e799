"""`preprocess.json`: what CMSSW's producers of jet tags read beside a model."""

from typing import Any

from jetclr.export.flavors import Flavor
from jetclr.export.graph import Frozen

PREFIX = "pfcand_"
FAR = 1e32
"""Bounds beyond every number: nothing is clipped."""


def preprocess(frozen: Frozen, flavor: Flavor) -> dict[str, Any]:
    """Names of inputs, variables and outputs; variables go in as they are, for the graph normalises them itself.

    Layout as `cms::Ort::PreprocessParams` reads it: a variable becomes clip((x - median) * norm_factor, bounds).
    """
    as_it_is = {
        "median": 0.0,
        "norm_factor": 1.0,
        "replace_inf_value": 0.0,
        "lower_bound": -FAR,
        "upper_bound": FAR,
        "pad": 0.0,
    }
    inputs = flavor.inputs(frozen)
    told: dict[str, Any] = {"input_names": [one.name for one in inputs], "output_names": list(frozen.outputs)}
    for one in inputs:
        names = [PREFIX + column for column in one.columns]
        told[one.name] = {
            "var_names": names,
            "var_infos": {name: dict(as_it_is) for name in names},
            "min_length": 1,
            "max_length": frozen.config.data.constituents,
        }
    return told
