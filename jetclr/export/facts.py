"""What a model card tells beside the settings: the jets of the pretraining, measured results, and what is ignored.

All as JSON values. What is not known is None or missing, and never guessed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from augmentations import Chain, Jets, Maybe, Rotate, SoftSmear, make_jets, radiate, split_collinear
from augmentations.jets import padded
from jetclr.benchmark.invariance import Change, cosines, embedded, moved, similarity
from jetclr.config import Config, Foreign
from jetclr.data.chunk import COORDINATES
from jetclr.data.store import Store
from jetclr.errors import UserError
from jetclr.export import models
from jetclr.export.graph import Frozen
from jetclr.report import read_probe_file
from jetclr.run import Run
from probes import geometry

PROBE_FILE = "probe.json"

CENTRAL = (0.01, 0.99)
"""Quantiles that ranges of columns are given by; of this many blocks of a store at most, from all over it."""
BLOCKS = 8

# Of the metadata of a store what tells where jets come from; the rest is about how the store was written.
_OF_SOURCE = (
    "made_by",
    "recipe",
    "process",
    "format",
    "window",
    "algorithm",
    "mpi",
    "detector",
    "selection",
    "versions",
    "license",
)

DISTANCE, SMEARING, SPLITTINGS, SOFT_SHARE = 0.5, 0.1, 8, 0.02


CHANGES = (
    Change("turned about its axis by any angle", "", (1.0,), lambda key, jets, _: Rotate()(key, jets)),
    Change(f"moved by {DISTANCE} in (eta, phi)", "", (DISTANCE,), moved),
    Change(
        f"each constituent moved by {SMEARING} GeV / pT",
        "",
        (1.0,),
        lambda key, jets, _: SoftSmear(SMEARING)(key, jets),
    ),
    Change(f"{SPLITTINGS} constituents split collinearly", "", (SPLITTINGS,), split_collinear),
    Change(f"{SOFT_SHARE:.0%} of pT radiated softly", "", (SOFT_SHARE,), radiate),
)
"""What physics says changes nothing that matters, or little."""


def jets_of(config: Config) -> dict[str, Any]:
    """The stores of the pretraining by name, with what their metadata and columns tell where they are still there."""
    stores = [_store(Path(path)) for path in config.data.train]
    known = [one["jets"] for one in stores]
    return {
        "stores": stores,
        "jets": None if None in known else sum(known),
        "where": config.data.where,
        "fraction": config.data.fraction,
        "holdout": 0.0 if config.data.validation else config.data.holdout,
    }


def _store(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"name": path.name, "jets": None, "source": {}, "labels": {}, "columns": {}}
    if not (path / "metadata.json").is_file():
        return told | {"note": "not found when the card was written"}
    try:
        store = Store(path)
    except UserError:
        return told | {"note": "damaged when the card was written"}
    source = store.metadata[0]["source"]
    told |= {"jets": len(store), "labels": {str(value): name for value, name in store.label_names.items()}}
    told["source"] = {name: source[name] for name in _OF_SOURCE if name in source}
    files = source.get("sources", ())
    told["files"] = [_file_name(one) for one in files] if isinstance(files, Sequence) else []
    told["columns"] = {name: _range(store, name) for name in ("jet_pt", "jet_eta", "jet_mass") if name in store.columns}
    told["columns"]["multiplicity"] = _range(store, "multiplicity")
    return told


def _file_name(source: Any) -> str:
    """The name of a source file, without folders."""
    named = source.get("file", "?") if isinstance(source, Mapping) else source
    return Path(str(named)).name


def _range(store: Store, column: str) -> dict[str, float]:
    chosen = np.unique(np.linspace(0, len(store.blocks) - 1, BLOCKS).astype(int))
    parts = [store.column(column, int(store.starts[b]), int(store.starts[b + 1])) for b in chosen]
    low, high = np.quantile(np.concatenate(parts), CENTRAL)
    return {"low": float(low), "high": float(high)}


def results_of(run: Run, layers: Sequence[str]) -> dict[str, Any]:
    """What `jetclr probe --json RUN/probe.json` measured for these layers, their untrained controls and raw jets.

    "warnings" says what speaks against quoting it; "note" why there is nothing.
    """
    path = run.path / PROBE_FILE
    if not path.is_file():
        return {"note": f"not measured: the run has no {PROBE_FILE}, which jetclr probe --json writes"}
    try:
        found = read_probe_file(path)
        steps, stores = int(found["step"]), {name: [Path(p).name for p in found[name]] for name in ("train", "test")}
        jets = {name: int(found["jets"][name]) for name in ("train", "test")}
    except (UserError, KeyError, TypeError, ValueError):
        return {"note": f"not known: {PROBE_FILE} of the run cannot be read"}
    names = [f"{state} {layer}" for layer in layers for state in ("trained", "untrained")] + ["raw constituents"]
    measured = {
        name: {probe: _estimates(result) for probe, result in found["results"][name].items()}
        for name in names
        if name in found["results"]
    }
    warnings = []
    if steps != run.step:
        warnings.append(f"measured at step {steps:,} and not at step {run.step:,}, which was exported")
    measured_on, learnt_from = (
        {Path(p).resolve() for p in paths} for paths in (found["test"], (*found["train"], *run.config.data.train))
    )
    if measured_on & learnt_from:
        warnings.append("some test jets were fitted or pretrained on")
    if (name := Path(str(found.get("run", run.path))).name) != run.path.resolve().name:
        warnings.append(f"measured on a run that was called {name} then")
    told: dict[str, Any] = {"step": steps, "stores": stores, "jets": jets, "measured": measured}
    if "embedding" in layers:
        told["trained_minus_untrained"] = found["trained_minus_untrained"]
    return told | {"warnings": warnings}


def _estimates(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dataclasses.asdict(result[name]) for name in ("auc", "accuracy", "r30", "r50")}


def invariances_of(frozen: Frozen, jets: Mapping[str, np.ndarray] | None) -> dict[str, Any]:
    """How alike the first layer is for jets and changed copies of them: cosine of centred embeddings, by change.

    1 for no change at all, 0 for what two jets have in common on average. "between" is that of different jets, and the
    plain cosine of these. `jets` are padded columns [B, N] with "mask"; without them, or a layer, a note says so.
    """
    if jets is None or not frozen.layers:
        return {"note": "not measured: no real jets were given" if jets is None else "not measured: no layer is given"}
    real = jets["mask"] > 0
    filled = real.any(axis=1)
    if filled.sum() < 2:
        return {"note": "not measured: fewer than two jets were given"}
    columns = {name: np.where(real, jets[name], 0)[filled].astype(np.float32) for name in frozen.columns}
    n, layer, embed = frozen.config.data.constituents, frozen.layers[0], _embed(frozen)
    pt, eta, phi = (columns[name] for name in COORDINATES)
    made = padded(make_jets(pt, eta, phi, {name: columns[name] for name in frozen.extras}), max(n - real.shape[1], 0))
    found = similarity(layer, "run", embed, made, n, changes=CHANGES)
    x = embedded(layer, embed, made)
    return {
        "layer": layer,
        "jets": len(x),
        "changes": {one.transform: _spread(one.mean[0], one.low[0], one.high[0]) for one in found},
        "between": _different(x) | {"plain": geometry.between(x)},
    }


def _embed(frozen: Frozen) -> Callable[[Jets], np.ndarray]:
    """The first layer, with the parameters as they are exported."""
    layer = frozen.layers[0]
    model = models.in_jax(dataclasses.replace(frozen, layers=(layer,), tails=()))

    def embed(jets: Jets) -> np.ndarray:
        columns = {"pt": jets.pt, "eta": jets.eta, "phi": jets.phi} | jets.extras
        return model.call({name: np.asarray(x) for name, x in columns.items()})[layer]

    return embed


def _different(x: Float[np.ndarray, "B D"]) -> dict[str, float]:
    centred = x - x.mean(axis=0)
    cosine = cosines(centred, np.roll(centred, 1, axis=0))
    return _spread(float(cosine.mean()), *np.quantile(cosine, (0.16, 0.84)).tolist())


def _spread(mean: float, low: float, high: float) -> dict[str, float]:
    """Mean and central 68 % of the jets."""
    return {"mean": mean, "low": low, "high": high}


def transforms(view: Any) -> list[str]:
    """Names of the transforms that a view is made of, in order."""
    if isinstance(view, Foreign):
        return [view.type]
    if isinstance(view, Chain):
        return [name for one in view.steps for name in transforms(one)]
    return transforms(view.transform) if isinstance(view, Maybe) else [type(view).__name__]


def radius(store: Mapping[str, Any]) -> float | None:
    """R of the jets of one store of `jets_of`, if its metadata tell."""
    window = store["source"].get("window")
    found = window.get("radius") if isinstance(window, Mapping) else None
    return float(found) if isinstance(found, int | float) else None
