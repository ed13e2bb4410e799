"""How often each jet is drawn: selections, weights and shares, and systematic draws that follow them. Numpy only.

Shape glossary: J jets. A weight is the expected number of draws of a jet in an epoch; an epoch has as many draws as
there are jets with a weight, so these have mean one. With cumulative weights W and one offset u in [0, 1) for all of an
epoch, jet i is drawn floor(W_i + u) - floor(W_{i-1} + u) times: its weight rounded up or down, on average the weight
itself. Weights 0 and 1 draw each selected jet once, and the draws of a block follow from sums of weights alone. A jet
that is drawn several times may meet itself in a batch, where a contrastive loss takes it for another.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from jetclr.data.expressions import Expression
from jetclr.data.hashing import uniform
from jetclr.data.store import Store
from jetclr.data.weighting import Weighting
from jetclr.errors import UserError

# Offsets are multiples of 1 / it: an integer below 2^29 and one add up exactly, so a weight of 1 is drawn exactly once.
_OFFSETS = 1 << 24


@dataclass(frozen=True)
class Sampling:
    """Which jets are drawn how often; `jetclr.config.Data` tells of each."""

    where: str = ""
    fraction: float = 1.0
    shares: tuple[float, ...] = ()
    weight: str = ""
    balance: str = ""
    flat: str = ""


EACH_JET_ONCE = Sampling()


def selected(store: Store, where: str) -> Bool[np.ndarray, " J"]:
    """Whether each jet of a store fulfils the expression `where`; all do if it is empty.

    Raises UserError if it is no condition on the store's columns or no jet fulfils it.
    """
    keep = np.ones(len(store), bool)
    if where:
        condition = Expression(where, [*store.columns, "multiplicity"])
        for block in range(len(store.blocks)):
            rows = slice(int(store.starts[block]), int(store.starts[block + 1]))
            keep[rows] = condition.selects(_columns(store, condition.columns, rows))
        if not keep.any():
            raise UserError(f"no jet of {store} fulfils {where!r}")
    return keep


def jet_weights(
    store: Store, sampling: Sampling, first: Int64[np.ndarray, " blocks"], count: Int64[np.ndarray, " blocks"]
) -> Float32[np.ndarray, " J"]:
    """The weight of every jet of a store, of which rows first : first + count of each block take part.

    With `shares`, one a store of `store`, balance and flat spectrum are taken within each. Four bytes a jet stay; while
    they are made, up to some seventy. Raises UserError if nothing is left, or a weight is negative or not finite.
    """
    keep = selected(store, sampling.where)
    weights = np.zeros(len(store))
    expression = Expression(sampling.weight, [*store.columns, "multiplicity"]) if sampling.weight else None
    for start, f, n in zip(store.starts[:-1].tolist(), first.tolist(), count.tolist(), strict=True):
        if n == 0:
            continue
        rows = slice(start + f, start + f + n)
        weights[rows] = keep[rows] & (uniform(np.arange(rows.start, rows.stop)) < sampling.fraction)
        if expression is not None:
            value = np.asarray(expression(_columns(store, expression.columns, rows)), np.float64)
            drawn = weights[rows] > 0
            _check(value, drawn, rows.start, sampling)
            weights[rows] = np.where(drawn, value, 0)
    if not weights.any():
        raise UserError(f"{store} has no jet left to draw; data.where, fraction and weight exclude all of them")
    weights /= weights.max()  # only ratios count, and those of steep formulas lie outside what float32 holds
    if sampling.balance or sampling.flat or sampling.shares:
        _share_out(store, sampling, weights)
    return weights.astype(np.float32)


def _columns(store: Store, names: list[str], rows: slice) -> dict[str, np.ndarray]:
    return {name: store.column(name, rows.start, rows.stop) for name in names}


def _check(value: Float64[np.ndarray, " J"], keep: Bool[np.ndarray, " J"], start: int, sampling: Sampling) -> None:
    bad = keep & ~((value >= 0) & (value < np.inf))  # a NaN is not within the bounds either
    if bad.any():
        jet = int(np.argmax(bad))
        raise UserError(
            f"data.weight {sampling.weight!r} is {value[jet]} for jet {start + jet}; weights must be finite and not "
            "negative"
        )


def _share_out(store: Store, sampling: Sampling, weights: Float64[np.ndarray, " J"]) -> None:
    """Balance, flatten and share out the draws, in place."""
    ends = np.cumsum([0] + [sum(int(s["jets"]) for s in m["shards"]) for m in store.metadata])
    shares = np.asarray(sampling.shares or (1.0,), float)
    shares /= shares.max()  # or large ones overflow
    if not sampling.shares:
        ends = ends[[0, -1]]
    elif len(shares) != len(store.paths):
        raise UserError(
            f"data.shares has {len(shares)} entries for {len(store.paths)} train stores; give one for each store"
        )
    names = [name for name in dict.fromkeys((sampling.balance, sampling.flat)) if name]
    for group, share in enumerate(shares):
        span = slice(int(ends[group]), int(ends[group + 1]))
        rows = np.flatnonzero(weights[span] > 0)
        if share > 0 and len(rows) == 0:
            given = f"data.shares gives {store.paths[group]} {sampling.shares[group]:g} of the draws"
            raise UserError(f"{given}, but none of its jets is left")
        if share == 0:
            weights[span] = 0
            continue
        mine = weights[span][rows]
        mine *= len(mine) / mine.sum()
        if names:
            columns = {name: values[rows] for name, values in _columns(store, names, span).items()}
            mine *= Weighting.fit(columns, balance=sampling.balance, flat=sampling.flat, weight=mine)(columns)
        # Draws in the ratio of the shares, whatever the number of jets; `Draws` brings the mean to one.
        weights[span][rows] = mine * (share / len(rows) * len(store) if sampling.shares else 1)


class Draws:
    """The draws of an epoch by systematic sampling: of which blocks how many, and of a block which jets.

    `starts` are the first jets of all blocks and the end of the last. `jets` is how many are drawn in every epoch.
    """

    def __init__(self, starts: Int64[np.ndarray, " edges"], weights: Float32[np.ndarray, " J"]) -> None:
        self._starts, self._weights = starts, weights
        sums = [float(self._cumulative(block)[-1:].sum()) for block in range(len(starts) - 1)]
        self._ends = np.concatenate([[0.0], np.cumsum(sums)])
        self.jets = int(np.count_nonzero(weights))
        self._scale = self.jets / float(self._ends[-1])

    @staticmethod
    def offset(rng: np.random.Generator) -> float:
        """The offset of an epoch, uniform in [0, 1)."""
        return int(rng.integers(_OFFSETS)) / _OFFSETS

    def per_block(self, offset: float) -> Int64[np.ndarray, " blocks"]:
        """How many draws fall to each block."""
        return np.diff(self._number(self._ends, offset))

    def in_block(self, block: int, offset: float) -> Int64[np.ndarray, " draws"]:
        """The jets drawn from a block, ascending; one that is drawn n times is there n times."""
        start, before = int(self._starts[block]), float(self._ends[block])
        ends = np.concatenate([[before], before + self._cumulative(block)])
        times = np.diff(self._number(ends, offset))
        return np.repeat(np.arange(start, start + len(times)), times)

    def _cumulative(self, block: int) -> Float64[np.ndarray, " jets"]:
        """Sums of weights within a block, one after the other: block ends and the jets' own agree to the bit."""
        weights = self._weights[int(self._starts[block]) : int(self._starts[block + 1])]
        return np.cumsum(weights, dtype=np.float64)

    def _number(self, sums: Float64[np.ndarray, " n"], offset: float) -> Int64[np.ndarray, " n"]:
        """How many draws lie below each sum of weights: never falls, 0 at the start and `jets` at the end."""
        number = np.floor(np.minimum(sums * self._scale, self.jets) + offset).astype(np.int64)
        return np.where(sums >= self._ends[-1], self.jets, np.minimum(number, self.jets))


class EachOnce:
    """The draws of an epoch without weights: rows first : first + count of every block, each once."""

    def __init__(
        self,
        starts: Int64[np.ndarray, " edges"],
        first: Int64[np.ndarray, " blocks"],
        count: Int64[np.ndarray, " blocks"],
    ) -> None:
        self._first, self._count = starts[:-1] + first, count
        self.jets = int(count.sum())

    @staticmethod
    def offset(rng: np.random.Generator) -> float:
        """There is none."""
        return 0.0

    def per_block(self, offset: float) -> Int64[np.ndarray, " blocks"]:
        """As in `Draws`."""
        return self._count

    def in_block(self, block: int, offset: float) -> Int64[np.ndarray, " draws"]:
        """As in `Draws`."""
        return np.arange(self._count[block]) + self._first[block]
