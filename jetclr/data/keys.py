"""Which columns of a store go with its embeddings, and what tells their rows apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jetclr.data.store import Store
from jetclr.errors import UserError

KEYS = ("source", "row", "run", "luminosity_block", "event", "jet_index")
"""Columns that say where a jet stands in its source; they are always passed on."""

ALL, NONE = "all", "none"


@dataclass(frozen=True)
class Passed:
    """Jet-level columns that are passed on: those of the store, and those that are counted here."""

    store: Store
    of_store: tuple[str, ...]
    counted: tuple[str, ...]

    @classmethod
    def of(cls, store: Store, columns: Sequence[str]) -> "Passed":
        """The keys there are and the asked-for columns: names, "all" or "none".

        Where nothing tells rows of a source apart, neither `row` nor `event`, `row` is the jet's place in its store.
        Of several stores, `store` is the number of the jet's own, from 0. Raises UserError for a name that there is
        not, and for "all" or "none" among names.
        """
        asked: Sequence[str] = columns
        if ALL in columns or NONE in columns:
            if len(columns) > 1:
                raise UserError(f"columns are {' '.join(columns)}; give names, or {ALL} or {NONE} alone")
            asked = store.columns if ALL in columns else ()
        for name in asked:
            if name not in store.columns:
                raise UserError(f"{store} has no column {name!r}; it has {', '.join(store.columns)}")
        counted = ("store",) if len(store.paths) > 1 and "store" not in store.columns else ()
        if "row" not in store.columns and "event" not in store.columns:
            counted = (*counted, "row")
        return cls(store, tuple(n for n in store.columns if n in asked or n in KEYS), counted)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns, in order."""
        return self.counted + self.of_store

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """The columns of the jets start:stop [jets]."""
        found: dict[str, np.ndarray] = {}
        if self.counted:
            first = np.cumsum([0] + [metadata["jets"] for metadata in self.store.metadata])
            jets = np.arange(start, stop)
            store = np.searchsorted(first, jets, side="right") - 1
            counts = {"store": store.astype(np.int32), "row": jets - first[store]}
            found = {name: counts[name] for name in self.counted}
        return found | {name: self.store.column(name, start, stop) for name in self.of_store}
