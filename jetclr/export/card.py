"""The model card of an export: what it is, how to call it, which jets it learnt from, what it was measured to do."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jetclr import __version__
from jetclr import config as configs
from jetclr.config import Config
from jetclr.export import facts, models
from jetclr.export.flavors import Flavor, describe
from jetclr.export.folder import FORMAT, FORMAT_VERSION
from jetclr.export.graph import Frozen
from jetclr.run import Run, parameters_sha256

CODE_LICENSE = "Apache-2.0"
NOT_STATED = "not stated"

# Features that know of pT itself; all others are shares of it, angles, or what a constituent is.
_OF_PT = ("pt_600", "log_pt")


def make_card(
    run: Run,
    frozen: Frozen,
    flavor: Flavor,
    *,
    to: str,
    name: str,
    dtype: str,
    files: Mapping[str, str],
    jets: Mapping[str, np.ndarray] | None,
    verification: Mapping[str, Any],
    license: str = NOT_STATED,
) -> dict[str, Any]:
    """The card as JSON values. `jets` are real ones, padded columns [B, N] with "mask", to measure invariances on.

    `files` maps roles ("model", ...) to names, `verification` is what `verify.check` returns, `license` that of the
    weights. Stores are called by their names: no folder of this machine is in it. What is unknown is said to be so.
    """
    data = facts.jets_of(run.config)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "to": to,
        "flavor": flavor.name,
        "name": name,
        "dtype": dtype,
        "files": dict(files),
        "inputs": describe(frozen, flavor),
        "outputs": _outputs(frozen, flavor),
        "constituents": run.config.data.constituents,
        "config": configs.to_dict(published(run.config)),
        "step": run.step,
        "parameters": sum(int(np.prod(x.shape)) for x in jax.tree.leaves(run.params)),
        "parameters_sha256": parameters_sha256(run.params),
        "jetclr": __version__,
        "license": license,
        "code_license": CODE_LICENSE,
        "data": data,
        "results": facts.results_of(run, frozen.layers),
        "invariances": facts.invariances_of(frozen, jets),
        "verification": dict(verification),
        "limits": _limits(frozen, to, dtype, data),
    }


def published(config: Config) -> Config:
    """The settings with stores called by their names: where they lie on this machine is of no use elsewhere."""
    train, validation = (tuple(Path(p).name for p in paths) for paths in (config.data.train, config.data.validation))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, train=train, validation=validation))


def _outputs(frozen: Frozen, flavor: Flavor) -> list[dict[str, Any]]:
    first: str | int = 1 if flavor.name == "atlas" else "B"
    meanings = {name: _meaning(name, frozen.config.encoder.wide) for name in frozen.layers}
    meanings |= {tail.name: tail.meaning for tail in frozen.tails}
    return [
        {"name": name, "shape": [first] if width is None else [first, width], "meaning": meanings[name]}
        for name, width in models.widths(frozen).items()
    ]


def _meaning(layer: str, wide: int) -> str:
    if layer == "embedding":
        return "the representation to use: pooled constituents" + (f" and {wide:,} functions of them" if wide else "")
    kind, _, number = layer.partition("_")
    if kind == "layer":
        return "pooled constituents " + ("before any attention" if number == "0" else f"after block {number}")
    where = "last layer" if layer == "projection" else f"hidden layer {number}"
    return f"{where} of the head that training compared views in"


def _limits(frozen: Frozen, to: str, dtype: str, data: Mapping[str, Any]) -> list[str]:
    """What a user must know before they trust it, a sentence or two each."""
    config, n = frozen.config, frozen.config.data.constituents
    views = dict.fromkeys(name for view in config.views for name in facts.transforms(view))
    out = [_learnt_from(data)]
    out.append(
        f"It was trained on the {n} hardest constituents of a jet. Give it these, in any order: it takes any number, "
        "but what more of them do was not measured. jetclr.load picks them itself."
    )
    if config.features.center:
        out.append("eta and phi may be absolute or relative to the jet: only distances from its centroid are used.")
    else:
        out.append("eta and phi are used as they are: give them as the stores of the training have them.")
    if config.features.center and not set(_OF_PT) & set(config.features.columns):
        out.append("It sees shares of pT and angles within the jet: the jet's own pT and direction are not in it.")
    if views:
        out.append(f"It was trained to ignore what these do to a jet, so tasks that need it lose: {', '.join(views)}.")
    if frozen.tails:
        out.append("Scores hold for jets like those that they were fitted on, which the table of outputs names.")
    if dtype == "f16":
        out.append("The weights are kept in half precision; what this does to the outputs is told under Agreement.")
    if to == "stablehlo":
        out.append("JAX promises to read a StableHLO file for six months; after that, export the run again.")
    out.append("It is not calibrated: efficiencies in the data of an experiment, and their uncertainties, are unknown.")
    return out


def _learnt_from(data: Mapping[str, Any]) -> str:
    ranges = [one["columns"]["jet_pt"] for one in data["stores"] if "jet_pt" in one["columns"]]
    if not ranges or len(ranges) < len(data["stores"]):
        return "The pT of the jets that it learnt from is not known, nor how it does on others."
    low, high = min(r["low"] for r in ranges), max(r["high"] for r in ranges)
    radii = {facts.radius(one) for one in data["stores"]}
    told = f"of R = {radii.pop():g}" if len(radii) == 1 and None not in radii else "of a radius that is not recorded"
    return (
        f"It learnt from jets with pT of {low:.0f} to {high:.0f} GeV, {told}; how it does on others was not measured."
    )
