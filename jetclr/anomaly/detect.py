"""`jetclr anomaly`: heads fitted on background jets, measured on others, and kept in files that score new ones."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jetclr import __version__
from jetclr.anomaly.measure import measured
from jetclr.anomaly.saved import SavedHead, Seen, as_inputs, save_head, scores_of
from jetclr.benchmark import leaks
from jetclr.benchmark.embeddings import open_embeddings
from jetclr.benchmark.jets import Part
from jetclr.benchmark.representations import ON_JETS, Encoded, FromFile, OnConstituents, open_pair
from jetclr.checkpoint import Which
from jetclr.data.store import Store, refuse_existing
from jetclr.errors import UserError
from jetclr.progress import jet_progress
from probes.anomaly.head import Detector, Head, Progress, no_progress
from probes.anomaly.heads import HEADS
from probes.metrics import Estimate

CONSTITUENTS = 50
"""The hardest constituents that heads on constituents see where no run says how many."""

LAYERS = {"contrastive": "projection"}
"""Heads that read another layer than the embedding, where there is one."""


class Found(NamedTuple):
    """One head on one signal of the test jets."""

    head: str
    signal: str
    test: dict[str, Estimate]


class Detection(NamedTuple):
    """What was fitted, where it is kept, and what it reached."""

    fitted_jets: int
    background_jets: int
    files: dict[str, Path]
    found: list[Found]


def head_called(name: str) -> Head:
    """The head of this name with its default settings, written as on the command line; UserError if there is none."""
    known = {word_of(known): kind for known, kind in HEADS.items()}
    if word_of(name) not in known:
        raise UserError(f"there is no head {name!r}; known are {', '.join(known)}")
    return known[word_of(name)]()


def word_of(name: str) -> str:
    """A head's name as one word."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def layer_for(head: Head, layers: Sequence[str], main: str) -> str:
    """The layer that a head reads by default."""
    if head.sees == "constituents":
        return ON_JETS
    wanted = LAYERS.get(head.name, main)
    return wanted if wanted in layers else main


def fit_head(head: Head, table: Any, where: str, seed: int, progress: Progress = no_progress) -> Detector:
    """A head fitted on the numbers of background jets; a fault is told as UserError."""
    try:
        return head.fit(as_inputs(table), seed=seed, progress=progress)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{head.name} cannot be fitted on {where}: {error}") from None


def detect(
    source: Path,
    heads: Sequence[str],
    background: Sequence[Path],
    test: Sequence[Path],
    workdir: Path,
    *,
    from_file: bool = False,
    layer: str = "",
    overwrite: bool = False,
    which: Which = "latest",
    seed: int = 0,
) -> Detection:
    """Fit heads on the jets of `background` and measure them on `test`, whose labels tell what is background.

    `source` is a run, or with `from_file` an HDF5 file with an embedding of every jet of the background stores and
    then of the test stores. Heads are kept in `workdir`. Test jets with a label that the background stores have are
    background, every other label is a signal by itself. Raises UserError before anything is fitted where this cannot
    be, and if jets are in both.
    """
    words = dict.fromkeys(map(word_of, HEADS if "all" in heads else heads))
    chosen = [head_called(word) for word in words]
    files = {head.name: workdir / f"{word_of(head.name)}.npz" for head in chosen}
    if not overwrite:
        for path in files.values():
            refuse_existing(path)
    parts = {"background": Part("background", *_all(background)), "test": Part("test", *_all(test))}
    usual, signals = _signals(parts["background"].store, parts["test"].store)
    leaks.refuse_shared_jets({"train": [str(p) for p in background], "test": [str(p) for p in test]}, {})
    features = _features(source, parts, from_file, which)
    layers = {head.name: _layer(head, features, layer) for head in chosen}
    seen = OnConstituents("constituents", features.constituents or CONSTITUENTS)
    wanted = tuple(dict.fromkeys(name for name in layers.values() if name != ON_JETS))
    tables = {split: features.tables(part, wanted) if wanted else {} for split, part in parts.items()}
    if ON_JETS in layers.values():
        tables = {split: tables[split] | seen.tables(part, (ON_JETS,)) for split, part in parts.items()}
    found = []
    facts = {
        "background": ", ".join(path.name for path in background),
        "jets": len(parts["background"].store),
        "seed": seed,
        "jetclr": __version__,
    }
    for head in chosen:
        at = layers[head.name]
        with jet_progress(f"fitting {head.name}", getattr(head, "steps", None), unit="steps") as advance:
            detector = fit_head(head, tables["background"][at], str(parts["background"].store), seed, advance)
        scores = scores_of(detector, as_inputs(tables["test"][at]), str(parts["test"].store))
        found += [Found(head.name, name, measured(scores[usual], scores[rows], seed)) for name, rows in signals.items()]
        origin: Seen = seen if at == ON_JETS else features if isinstance(features, Encoded) else None
        save_head(files[head.name], SavedHead(detector, at, origin, facts))
    return Detection(len(parts["background"].store), int(np.count_nonzero(usual)), files, found)


def _all(paths: Sequence[Path]) -> tuple[Store, np.ndarray]:
    store = Store(*paths)
    return store, np.arange(len(store))


def _features(source: Path, parts: dict[str, Part], from_file: bool, which: Which) -> Encoded | FromFile:
    if from_file:
        return open_embeddings(source, {split: part.store for split, part in parts.items()}, source.stem)
    return open_pair(source, which, source.name)[0]


def _layer(head: Head, features: Encoded | FromFile, asked: str) -> str:
    if head.sees == "features" and asked:
        if asked not in features.layers:
            raise UserError(f"{features.name} has no layer {asked!r}; it has {', '.join(features.layers)}")
        return asked
    return layer_for(head, features.layers, features.main)


def _signals(background: Store, test: Store) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Which test jets are background, and those of each signal by its name."""
    if "label" not in background.columns or "label" not in test.columns:
        raise UserError("a head is measured by labels: both --background and --test need the column 'label'")
    labels = test.column("label")
    usual = np.isin(labels, np.unique(background.column("label")))
    names = test.label_names
    signals = {names.get(int(v), f"label {v:g}"): labels == v for v in np.unique(labels[~usual])}
    if not usual.any() or not signals:
        what = "no jets of the background's labels" if not usual.any() else "no jets but of the background's labels"
        raise UserError(f"{test} holds {what}; --test needs background jets that were not fitted, and others")
    return usual, signals
