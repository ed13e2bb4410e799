"""A fitted head with the encoder that its features come from, in one file that scores new jets. Nothing is executed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jetclr import __version__, encoder, step
from jetclr import config as configs
from jetclr.benchmark.jets import Part
from jetclr.benchmark.representations import ON_JETS, Encoded, OnConstituents
from jetclr.data.store import Store, make_parent, replacing
from jetclr.errors import UserError
from probes import taggers
from probes.anomaly import files, networks
from probes.anomaly.head import Detector
from probes.anomaly.heads import HEADS

ENCODER = "encoder/"
PIECE = 8192
"""Jets scored at once."""

Seen = Encoded | OnConstituents | None
"""Where a head's inputs come from: an encoder, the constituents themselves, or a file of embeddings (None)."""


@dataclass(frozen=True)
class SavedHead:
    """A detector, what it sees of a jet, and where it comes from."""

    detector: Detector
    layer: str
    seen: Seen
    facts: Mapping[str, Any]  # background, jets, seed, version: for people

    @property
    def name(self) -> str:
        return self.detector.head.name


def as_inputs(table: Any) -> Any:
    """What a head takes: a table of features as it is, padded jets as Constituents."""
    return table if isinstance(table, np.ndarray) else taggers.Constituents(*table[:4])


def save_head(path: Path, head: SavedHead) -> None:
    """Write the head to `path`, whole or not at all; raises UserError if it cannot be written."""
    meta: dict[str, Any] = {"layer": head.layer, "facts": dict(head.facts), "jetclr": __version__}
    arrays: dict[str, np.ndarray] = {}
    if isinstance(head.seen, Encoded):
        meta["config"] = configs.to_json(head.seen.config)
        arrays = networks.flat(head.seen.params, ENCODER)
    elif head.seen is not None:
        meta["constituents"] = head.seen.constituents
    make_parent(path)
    try:
        with replacing(path) as partial:
            files.save(partial, head.detector, meta=meta, arrays=arrays)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def open_head(path: Path) -> SavedHead:
    """The head that `save_head` wrote; raises UserError for a file that is missing, damaged or something else."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; jetclr anomaly makes files of fitted heads")
    try:
        detector, meta, arrays = files.load(path, HEADS)
        seen: Seen = None
        if "config" in meta:
            seen = _encoder(meta["config"], arrays, path)
        elif "constituents" in meta:
            seen = OnConstituents(detector.head.name, int(meta["constituents"]))
        if not isinstance(meta["layer"], str) or (detector.head.sees == "constituents") != (meta["layer"] == ON_JETS):
            raise ValueError(f"{path} says that its head sees the layer {meta['layer']!r}")
        if not isinstance(meta["facts"], dict):
            raise ValueError(f"{path} says of its background: {meta['facts']!r}")
        return SavedHead(detector, meta["layer"], seen, meta["facts"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path} lacks {error}") from None


def _encoder(text: str, arrays: Mapping[str, np.ndarray], path: Path) -> Encoded:
    config = configs.from_json(text, f"the config in {path}")
    like = jax.eval_shape(lambda: step.init_params(config))
    try:
        params: encoder.Params = jax.tree.map(jnp.asarray, networks.restored(arrays, like, ENCODER))
    except ValueError as error:
        raise ValueError(f"{path} holds another encoder than its config describes: {error}") from None
    return Encoded(path.stem, "run", config, params)


def stream_scores(head: SavedHead, store: Store) -> Iterator[tuple[range, Float[np.ndarray, " jets"]]]:
    """The scores of all jets of a store in order, a piece at a time; raises UserError naming jets without one."""
    if head.seen is None:
        raise UserError("this head was fitted on a file of embeddings, and scores such files; give it one")
    for start in range(0, len(store), PIECE):
        rows = range(start, min(start + PIECE, len(store)))
        part = Part("scored", store, np.arange(rows.start, rows.stop))
        table = head.seen.tables(part, (head.layer,))[head.layer]
        yield rows, scores_of(head.detector, as_inputs(table), f"jets {rows.start} to {rows.stop - 1} of {store}")


def scores_of(detector: Detector, inputs: Any, where: str) -> Float[np.ndarray, " jets"]:
    """Scores, with a fault told as UserError."""
    try:
        scores = detector.score(inputs)
    except ValueError as error:
        raise UserError(f"{detector.head.name} cannot score {where}: {error}") from None
    if not np.isfinite(scores).all():
        raise UserError(f"{detector.head.name} gives NaN or infinity for {where}")
    return scores


def describe(head: SavedHead) -> str:
    """Attributes of a file of scores, as JSON text."""
    return json.dumps({"head": head.name, "layer": head.layer, **head.facts})
