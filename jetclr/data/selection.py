"""Which jets of a source enter a store, and what is written of them besides: the options of `jetclr convert`."""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jetclr.data.chunk import JetChunk, select
from jetclr.data.expressions import Expression
from jetclr.data.hashing import uniform
from jetclr.errors import UserError

DERIVED = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(?!=)\s*(.*)", re.DOTALL)
SHARES = (0.8, 0.1, 0.1)
SPLIT, FRACTION = 1, 2  # what a random number of a row is for


@dataclass(frozen=True)
class Selection:
    """Derived columns, then which jets stay, then how they are shared out among train, validation and test.

    Raises UserError for values that cannot be.
    """

    where: str = ""
    """Keep the jets for which this expression holds, such as "jet_pt > 500 & abs(jet_eta) < 2"."""
    derive: tuple[str, ...] = ()
    """New columns, such as "rho = 2 * ln(jet_mass / jet_pt)"; each may use those before it."""
    fraction: float = 1.0
    """Share of the rows to read, chosen by a hash: the rows of 0.1 are among those of 0.2."""
    split: tuple[float, float, float] | None = None
    """Shares of train, validation and test for column `split`; what the files say if not given, else 0.8, 0.1, 0.1."""
    seed: int = 0
    """Of the hash that chooses rows for --fraction and --split."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise UserError(f"--fraction is {self.fraction}; it must lie above 0 and up to 1")
        if self.split is not None and not (min(self.split) >= 0 and abs(sum(self.split) - 1) <= 1e-6):
            raise UserError(f"--split is {self.split}; shares are not negative and sum to 1")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed is {self.seed}; it must lie in [0, 2^32)")
        _ = self.derived

    @property
    def derived(self) -> dict[str, str]:
        """Derived columns: name -> expression."""
        found: dict[str, str] = {}
        for text in self.derive:
            match = DERIVED.fullmatch(text)
            if match is None or match[1] in found:
                raise UserError(f"--derive {text!r} is not of the form 'name = expression', each name once")
            found[match[1]] = match[2]
        return found

    def __call__(self, chunk: JetChunk, source: int) -> JetChunk:
        """The jets of a chunk of source number `source` that stay, with columns `source`, `split` and the derived."""
        if "row" not in chunk.jets:
            raise ValueError("a reader gave no rows")
        rows = chunk.jets["row"]
        columns = dict(chunk.jets) | {"source": np.full(len(rows), source, np.int32)}
        if self.split is not None or "split" not in columns:
            edges = np.cumsum(self.split or SHARES)[:2]
            columns["split"] = np.searchsorted(edges, uniform(rows, self.seed, source, SPLIT), "right").astype(np.int8)
        counts = np.diff(chunk.offsets)
        for name, text in self.derived.items():
            if name in columns or name == "multiplicity":
                raise UserError(f"--derive {name}: there is a column of this name already")
            known = columns | {"multiplicity": counts}
            columns[name] = _stored(_expression(text, tuple(known))(known))
        keep = np.ones(len(rows), bool)
        if self.fraction < 1:
            keep &= uniform(rows, self.seed, source, FRACTION) < self.fraction
        if self.where:
            known = columns | {"multiplicity": counts}
            keep &= _expression(self.where, tuple(known)).selects(known)
        chunk = chunk._replace(jets=columns)
        return chunk if keep.all() else select(chunk, keep)


EVERYTHING = Selection()


@lru_cache(maxsize=32)
def _expression(text: str, known: tuple[str, ...]) -> Expression:
    return Expression(text, known)


def _stored(values: np.ndarray) -> np.ndarray:
    """Values in a type that stores use: int8 for true and false, float32 for numbers that are not whole."""
    if values.dtype == np.bool_:
        return values.astype(np.int8)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a jet with infinity is refused, if it stays
            return values.astype(np.float32)
    return values if values.dtype == np.uint64 else values.astype(np.int64)
