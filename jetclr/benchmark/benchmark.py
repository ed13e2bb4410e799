"""The benchmark from beginning to end: jets checked, predictors fitted and measured, studies made, files written."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jetclr import __version__
from jetclr.benchmark import leaks, results, studies
from jetclr.benchmark.baselines import baseline
from jetclr.benchmark.cache import Cache
from jetclr.benchmark.embeddings import open_embeddings
from jetclr.benchmark.finetune import FINE_TUNED, FROM_SCRATCH
from jetclr.benchmark.fitting import DISCO, RIDGE, Task, draw_labels
from jetclr.benchmark.jets import open_development
from jetclr.benchmark.names import called, short_names
from jetclr.benchmark.panel import Measured, Panel, fingerprint
from jetclr.benchmark.representations import (
    ON_JETS,
    Encoded,
    OnConstituents,
    Representation,
    open_pair,
)
from jetclr.benchmark.robustness import NOMINAL, SHIFTS, shifted
from jetclr.benchmark.sealed import Sealed
from jetclr.benchmark.suite import Suite
from jetclr.checkpoint import Which
from jetclr.config import to_dict
from jetclr.data.store import Store
from jetclr.errors import UserError


@dataclass
class _Found:
    """What has been measured so far, by what it will be shown as."""

    groups: dict[str, list[Measured]] = field(default_factory=dict)  # all labels; representation -> its predictors
    few: list[list[Measured]] = field(default_factory=list)  # draws at one label count
    ridge: list[Measured] = field(default_factory=list)
    disco: list[Measured] = field(default_factory=list)


def run_benchmark(
    suite: Suite,
    runs: Sequence[Path],
    embeddings: Sequence[Path],
    workdir: Path,
    *,
    which: Which = "latest",
) -> results.Benchmark:
    """Measure runs and files of embeddings beside all controls of the suite; what is in `workdir` is not done again.

    Raises UserError if a suite leaks, a run or a file is not what it should be, or a number is not finite.
    """
    start = time.monotonic()
    cache = Cache(workdir / "cache")
    by_hand = [baseline(name, suite) for name in suite.baselines]
    names = short_names(runs, {*(r.name for r in by_hand), *suite.taggers})
    pairs = [open_pair(path, which, name) for path, name in zip(runs, names, strict=True)]
    notes = _refuse_leaks(suite, [trained for trained, _ in pairs])
    development = open_development(
        suite.train, suite.validation, many=suite.many, most=suite.train_jets, seed=suite.seed
    )
    inputs: list[Representation] = [*(trained for trained, _ in pairs), *by_hand]
    for seen in inputs:
        leaks.refuse_telling_columns(seen.name, development.train, seen.extras, development.train_class)
    changes = {name: partial(_changed, change, suite.seed) for name, change in SHIFTS.items()}
    sealed = Sealed(suite.test, development.classes, changes, suite.shifted)
    elsewhere = fingerprint(suite.shifted) if suite.shifted else ""
    panel = Panel(suite, development, sealed, cache, _data_key(suite), elsewhere)
    for labels in _counts(panel):
        draw_labels(development, suite, Task("", "", labels))  # which tells of too few before anything is fitted
    taken = {*(name for run in names for name in called(run)), *(r.name for r in by_hand), *suite.taggers}
    files = _open_files(embeddings, suite, taken)
    untrained = {_identity(control): control for _, control in pairs}
    notes += _left_out(panel)
    found = _Found()
    for representation in (*(trained for trained, _ in pairs), *untrained.values(), *files, *by_hand):
        _probe(panel, representation, found)
    for name in suite.taggers:
        network = OnConstituents(name, suite.constituents)
        task = Task(ON_JETS, name, everywhere=not development.many)
        found.groups[name] = panel.measure(network, [task])
    if suite.finetune:
        for trained, _ in pairs:
            _finetune(panel, trained, found)
    # Not what is built by hand: cosines of numbers of different units mean nothing.
    shown = [*(trained for trained, _ in pairs), *untrained.values()]
    return _assembled(panel, found, pairs, shown, notes, start)


def _probe(panel: Panel, representation: Representation, found: _Found) -> None:
    """All linear probes of every layer, the other probes of the main one, and the same with few labels."""
    suite, main = panel.suite, representation.main
    binary = not panel.development.many  # what is measured on changed jets is told of two classes
    tasks = [
        Task(layer, probe, everywhere=binary and layer == main and probe == "logistic")
        for layer in representation.layers
        for probe in suite.probes
        if layer == main or probe in ("logistic", "LDA")
    ]
    extra = [Task(main, RIDGE + target) for target in _regressed(panel)]
    if binary and suite.disco and _varies(panel, "jet_mass"):
        extra.append(Task(main, DISCO))
    few = [
        Task(main, probe, labels, draw)
        for probe in suite.probes
        if probe in ("logistic", "LDA")
        for labels in _counts(panel)
        for draw in range(suite.draws)
    ]
    measured = panel.measure(representation, [*tasks, *extra, *few])
    found.groups[representation.name] = measured[: len(tasks)]
    for m in measured[len(tasks) : len(tasks) + len(extra)]:
        (found.ridge if m.task.probe.startswith(RIDGE) else found.disco).append(m)
    drawn = measured[len(tasks) + len(extra) :]
    found.few += [drawn[i : i + suite.draws] for i in range(0, len(drawn), suite.draws)]
    found.few += [[m] for m in measured[: len(tasks)] if m.task.layer == main and m.task.probe in ("logistic", "LDA")]


def _finetune(panel: Panel, trained: Encoded, found: _Found) -> None:
    """The encoder trained on, and the same one from nothing, on each number of labels."""
    suite, binary = panel.suite, not panel.development.many
    architecture = replace(trained, kind="supervised", name=f"{trained.name} {FROM_SCRATCH}")
    tuned = replace(trained, kind="finetuned", name=f"{trained.name} {FINE_TUNED}")
    for representation, probe in ((tuned, FINE_TUNED), (architecture, FROM_SCRATCH)):
        whole = panel.measure(representation, [Task(ON_JETS, probe, everywhere=binary)])
        found.groups[representation.name] = whole
        for labels in _counts(panel):
            # One at a time: each is a training, and an interruption should cost no more than one.
            draws = [panel.measure(representation, [Task(ON_JETS, probe, labels, i)])[0] for i in range(suite.draws)]
            found.few.append(draws)
        found.few.append(whole)


def _regressed(panel: Panel) -> list[str]:
    """The properties that every jet has, and not all the same."""
    return [target for target in panel.suite.regress if _varies(panel, target)]


def _varies(panel: Panel, column: str) -> bool:
    splits = panel.development.train, panel.development.validation, panel.sealed
    return all(column in split.columns and np.ptp(split.column(column)) > 0 for split in splits)


def _left_out(panel: Panel) -> list[str]:
    """What the suite asks for and these jets do not allow."""
    notes = [
        f"{target} is not regressed: not all jets have it, or all have the same"
        for target in panel.suite.regress
        if not _varies(panel, target)
    ]
    if panel.development.many:
        notes.append("paired comparisons, robustness and dependence on mass are measured for two classes only")
    return notes


def _counts(panel: Panel) -> list[int]:
    return [count for count in panel.suite.label_counts if count < len(panel.development.train_class)]


def _assembled(
    panel: Panel,
    found: _Found,
    pairs: Sequence[tuple[Encoded, Encoded]],
    shown: Sequence[Encoded],
    notes: Sequence[str],
    start: float,
) -> results.Benchmark:
    binary = not panel.development.many
    best = {name: studies.chosen(panel, group) for name, group in found.groups.items()}
    everywhere = [m for group in found.groups.values() for m in group if m.task.everywhere]
    return results.Benchmark(
        facts=_facts(panel, found, notes, start),
        scores=[row for group in found.groups.values() for row in studies.score_rows(panel, group)],
        comparisons=_comparisons(panel, found, best, pairs) if binary else [],
        efficiency=[studies.efficiency(panel, draws) for draws in found.few],
        seeds=_seeds(panel, found, pairs),
        regression=[studies.regression(panel, m) for m in found.ridge],
        similarity=[row for r in shown for row in studies.similarity(panel, r)],
        geometry=[studies.geometry(panel, r) for r in shown],
        robustness=[row for m in everywhere if len(m.test) > 1 for row in studies.robustness(panel, m)],
        sculpting=_sculpting(panel, [*everywhere, *found.disco]),
        calibration=[c for m in best.values() if (c := studies.calibration(panel, m)) is not None],
    )


def _comparisons(
    panel: Panel, found: _Found, best: Mapping[str, Measured], pairs: Sequence[tuple[Encoded, Encoded]]
) -> list[results.Comparison]:
    """Each run against its untrained self, probe by probe; its best, and each file's, against everybody's best."""
    pairs_of: dict[tuple[int, int], tuple[Measured, Measured]] = {}

    def compare(a: Measured, b: Measured) -> None:
        pairs_of[id(a), id(b)] = a, b  # once, even if the best is one that is compared anyway

    untrained = {
        _identity(m[0].representation): m for m in found.groups.values() if m[0].representation.kind == "untrained"
    }
    for trained, control in pairs:
        for probe in ("logistic", "LDA"):
            for a in _on_main(found.groups[trained.name], probe):
                for b in _on_main(untrained[_identity(control)], probe):
                    compare(a, b)
        for name, other in best.items():
            if name != trained.name:
                compare(best[trained.name], other)
    for mine in (m for m in best.values() if m.representation.kind == "embeddings"):
        for other in best.values():
            if other is not mine:
                compare(mine, other)
    found_pairs = [studies.comparison(panel, a, b) for a, b in pairs_of.values()]
    return [c for c in found_pairs if c is not None]


def _on_main(group: Sequence[Measured], probe: str) -> list[Measured]:
    return [m for m in group if m.task.probe == probe and m.task.layer == m.representation.main]


def _sculpting(panel: Panel, measured: Sequence[Measured]) -> list[results.Sculpting]:
    if "jet_mass" not in panel.sealed.columns:
        return []
    return [row for m in measured if (row := studies.sculpting(panel, m)) is not None]


def _seeds(panel: Panel, found: _Found, pairs: Sequence[tuple[Encoded, Encoded]]) -> list[results.SeedSpread]:
    """Runs that differ by their seed alone, together."""
    groups: dict[str, list[Encoded]] = {}
    for trained, _ in pairs:
        settings = to_dict(trained.config)
        groups.setdefault(repr({k: v for k, v in settings.items() if k != "seed"}), []).append(trained)
    out = []
    for same in groups.values():
        if len({one.config.seed for one in same}) < 2:
            continue
        for probe in ("logistic", "LDA"):
            runs = [m for one in same for m in _on_main(found.groups[one.name], probe)]
            if runs:
                out.append(studies.seed_spread(panel, f"{same[0].name} and like it", probe, runs))
    return out


def _facts(panel: Panel, found: _Found, notes: Sequence[str], start: float) -> results.Facts:
    suite, development = panel.suite, panel.development
    return results.Facts(
        suite.name,
        __version__,
        {
            split: ", ".join(Path(path).name for path in getattr(suite, split))
            for split in ("train", "validation", "test")
        },
        {
            "train": len(development.train_class),
            "validation": len(development.validation_class),
            "test": len(panel.sealed),
        },
        development.classes.names,
        (*_counts(panel), len(development.train_class)),
        suite.draws,
        suite.seed,
        panel.cache.predictors(),
        time.monotonic() - start,
        tuple(notes),
    )


def _identity(representation: Any) -> str:
    return repr(sorted(representation.identity.items()))


def _refuse_leaks(suite: Suite, runs: Sequence[Encoded]) -> list[str]:
    for run in runs:
        leaks.refuse_label_columns(run.config.data.extras, run.name)
    if reserved := {"train", "validation", "test", NOMINAL, *SHIFTS} & {*suite.shifted}:
        raise UserError(f"shifted test jets are called {reserved.pop()!r}, as other jets are; choose another name")
    splits = {"train": suite.train, "validation": suite.validation, "test": suite.test, **suite.shifted}
    return leaks.refuse_shared_jets(splits, {run.name: run.config.data.train for run in runs})


def _open_files(paths: Sequence[Path], suite: Suite, taken: set[str]) -> list[Representation]:
    splits = {name: Store(*map(Path, getattr(suite, name))) for name in ("train", "validation", "test")}
    out: list[Representation] = []
    for path in paths:
        name = path.stem if path.stem not in taken else path.name
        if name in taken:
            raise UserError(f"two representations are called {name}; rename {path}")
        taken.add(name)
        out.append(open_embeddings(path, splits, name))
    return out


def _data_key(suite: Suite) -> str:
    splits = {"train": suite.train, "validation": suite.validation, "test": suite.test}
    return f"{fingerprint(splits)} {suite.train_jets} {suite.seed if suite.train_jets else ''} {suite.many}"


def _changed(change: Any, seed: int, batch: Any, first: int) -> Any:
    return shifted(batch, change, first, seed=seed)
