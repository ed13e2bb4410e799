"""Fit, measure, keep: predictors on a representation, each computed once and then read back."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from jetclr.benchmark import leaks
from jetclr.benchmark.cache import Cache, Entry
from jetclr.benchmark.fitting import DISCO, Fitted, Task, fit_task, quality
from jetclr.benchmark.jets import Development
from jetclr.benchmark.representations import ON_JETS, Representation
from jetclr.benchmark.sealed import Sealed
from jetclr.benchmark.suite import Suite
from jetclr.data.store import Store
from jetclr.progress import jet_progress

MANY_JETS = 200_000
"""Training jets above which the tables of one layer at a time are held."""


@dataclass(frozen=True)
class Measured:
    """A predictor with its scores of the validation jets, and of the test jets in every view."""

    representation: Representation
    task: Task
    key: Mapping[str, Any]  # what its scores depend on
    validation: np.ndarray
    test: dict[str, np.ndarray]
    values: dict[str, Any]  # width, parameters, labels, settings, seconds

    @property
    def name(self) -> str:
        """As it is called in tables of comparisons."""
        layer = "" if self.task.layer in (ON_JETS, self.representation.main) else f"on {self.task.layer}"
        return " ".join(filter(None, (self.representation.name, self.probe, layer)))

    @property
    def probe(self) -> str:
        """The probe on the representation; "" for a network, which is both."""
        return "" if self.task.layer == ON_JETS else self.task.probe


class Panel:
    """The jets, the cache, and how predictors become numbers.

    `data` says which jets these are, `elsewhere` which those of the shifted stores are, on which only some predictors
    are measured.
    """

    def __init__(
        self, suite: Suite, development: Development, sealed: Sealed, cache: Cache, data: str, elsewhere: str = ""
    ) -> None:
        self.suite, self.development, self.sealed, self.cache = suite, development, sealed, cache
        self._data, self._elsewhere = data, elsewhere
        # What fits is not even told where the test jets lie.
        self._told = replace(suite, test=("sealed",), shifted={})

    def measure(self, representation: Representation, tasks: Sequence[Task]) -> list[Measured]:
        """Each task's predictor: read back if it is known, else fitted on the development jets, then measured."""
        keys = [self._key(representation, task) for task in tasks]
        missing = [i for i, key in enumerate(keys) if key not in self.cache]
        if missing:
            made = self._compute(representation, [tasks[i] for i in missing])
            for i, entry in zip(missing, made, strict=True):
                self.cache.keep(keys[i], entry)
        return [self._read(representation, task, key) for task, key in zip(tasks, keys, strict=True)]

    def once(self, what: str, depends: Mapping[str, Any], compute: Callable[[], Entry]) -> Entry:
        """Anything else about these jets that is worth keeping."""
        return self.cache.once({"what": what, "data": self._data, "depends": dict(depends)}, compute)

    def quality(self, measured: Measured) -> float:
        """AUC on the validation jets."""
        return quality(measured.validation, self.development.validation_class)

    def _key(self, representation: Representation, task: Task) -> dict[str, Any]:
        suite = self.suite
        method: dict[str, Any] = {"disco": suite.disco} if task.probe == DISCO else {}
        if task.layer == ON_JETS:
            method["most_steps"] = suite.most_steps
        views = self.sealed.views(representation, task.everywhere)
        return {
            "what": "predictor",
            "data": self._data + (self._elsewhere if len(views) > 1 else ""),
            "representation": dict(representation.identity),
            "task": asdict(task),
            "seed": suite.seed,
            "views": views,
            **method,
        }

    def _compute(self, representation: Representation, tasks: Sequence[Task]) -> list[Entry]:
        """Fit all tasks, then measure them; a layer at a time where all together would not fit into memory."""
        groups: dict[str, list[int]] = {}
        for i, task in enumerate(tasks):
            groups.setdefault(task.layer if len(self.development.train.indices) > MANY_JETS else "", []).append(i)
        made = {
            i: entry
            for rows in groups.values()
            for i, entry in zip(rows, self._compute_group(representation, [tasks[i] for i in rows]), strict=True)
        }
        return [made[i] for i in range(len(tasks))]

    def _compute_group(self, representation: Representation, tasks: Sequence[Task]) -> list[Entry]:
        development = self.development
        layers = tuple(dict.fromkeys(task.layer for task in tasks))
        train = representation.tables(development.train, layers)
        validation = representation.tables(development.validation, layers)
        leaks.refuse_telling_inputs(representation.name, train, development.train_class)
        fitted: list[Fitted] = []
        told = f"fitting on {representation.name}"
        # A network shows its own steps.
        with nullcontext(_quiet) if ON_JETS in layers else jet_progress(told, len(tasks), unit="fits") as advance:
            for task in tasks:
                fitted.append(fit_task(task, representation, train, validation, development, self._told, fitted))
                advance(1)
        scores = self.sealed.scores(representation, fitted)
        return [_entry(f, views) for f, views in zip(fitted, scores, strict=True)]

    def _read(self, representation: Representation, task: Task, key: Mapping[str, Any]) -> Measured:
        values, arrays = self.cache.once(key, _unexpected)
        test = {name.removeprefix("test "): x for name, x in arrays.items() if name.startswith("test ")}
        return Measured(representation, task, key, arrays["validation"], test, values)


def _quiet(fits: int) -> None:
    """Show nothing."""


def _unexpected() -> Entry:
    raise RuntimeError("a result that was just kept is not there")


def _entry(fitted: Fitted, views: Mapping[str, np.ndarray]) -> Entry:
    values = {
        "width": fitted.width,
        "parameters": fitted.parameters,
        "labels": fitted.labels,
        "settings": fitted.settings,
        "seconds": fitted.seconds,
    }
    arrays = {f"test {view}": scores for view, scores in views.items()}
    return Entry(values, {"validation": fitted.validation} | arrays)


def fingerprint(splits: Mapping[str, Sequence[Any]]) -> str:
    """What tells these jets, with all their columns and in this order, from any others."""
    digest = hashlib.sha256()
    for name, paths in splits.items():
        digest.update(name.encode())
        for chunk in Store(*paths).chunks():
            for column, values in {"": chunk.offsets, **chunk.constituents, **chunk.jets}.items():
                digest.update(f"{column} {values.dtype} {len(values)} ".encode())
                digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
