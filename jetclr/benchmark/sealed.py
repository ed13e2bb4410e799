"""The test jets, under seal: they give scores of predictors that are fitted, and are good for nothing else.

What fits and chooses never holds a `Sealed`, nor can it import this module.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from jetclr.benchmark.fitting import Fitted
from jetclr.benchmark.jets import Classes, Part
from jetclr.benchmark.representations import Change, Representation
from jetclr.benchmark.robustness import NOMINAL
from jetclr.data.store import Store
from jetclr.errors import UserError


class Sealed:
    """Test jets as they are, as changed by each of `changes`, and those of the `shifted` stores."""

    def __init__(
        self,
        test: Sequence[str],
        classes: Classes,
        changes: Mapping[str, Change],
        shifted: Mapping[str, Sequence[str]],
    ) -> None:
        self._classes, self._changes = classes, dict(changes)
        stores = {NOMINAL: test} | dict(shifted)
        self._parts = {name: _part(name, paths) for name, paths in stores.items()}
        for name, part in self._parts.items():
            counts = np.bincount(classes(part.store), minlength=len(classes.names))
            if counts.min() < 2:
                short = classes.names[int(counts.argmin())]
                raise UserError(f"the {name} test jets hold {counts.min()} of class {short!r}; at least 2 are needed")

    def views(self, representation: Representation, everywhere: bool = True) -> list[str]:
        """Names of what a representation is measured on."""
        return [NOMINAL, *self._changes, *list(self._parts)[1:]] if everywhere and representation.whole else [NOMINAL]

    def __len__(self) -> int:
        return len(self._parts[NOMINAL].indices)

    def classes(self, view: str = NOMINAL) -> Int32[np.ndarray, " test"]:
        """The class of each test jet of a view."""
        part = self._parts.get(view, self._parts[NOMINAL])
        return self._classes(part.store)

    def other(self, view: str) -> bool:
        """Whether a view shows other jets than the test jets."""
        return view in self._parts and view != NOMINAL

    def column(self, name: str) -> np.ndarray:
        """A jet-level column of the test jets."""
        return self._parts[NOMINAL].column(name)

    @property
    def columns(self) -> Sequence[str]:
        """The jet-level columns that all test jets have."""
        return self._parts[NOMINAL].columns

    def scores(self, representation: Representation, fitted: Sequence[Fitted]) -> list[dict[str, np.ndarray]]:
        """Scores of the test jets by each predictor: view -> [B] or [B, C]; only those asked for everywhere on all."""
        out: list[dict[str, np.ndarray]] = [{} for _ in fitted]
        for view in self.views(representation, any(f.task.everywhere for f in fitted)):
            mine = [i for i, f in enumerate(fitted) if view == NOMINAL or f.task.everywhere]
            layers = tuple(dict.fromkeys(fitted[i].task.layer for i in mine))
            part = self._parts.get(view, self._parts[NOMINAL])
            tables = representation.tables(part, layers, self._changes.get(view))
            for i in mine:
                try:
                    out[i][view] = fitted[i].scores(tables[fitted[i].task.layer])
                except ValueError as error:
                    probe = fitted[i].task.probe
                    raise UserError(f"{probe} on {representation.name}, {view} test jets: {error}") from None
        return out


def _part(name: str, paths: Sequence[str]) -> Part:
    store = Store(*map(Path, paths))
    return Part("test" if name == NOMINAL else name, store, np.arange(len(store)))
