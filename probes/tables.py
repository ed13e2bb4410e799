"""Tables of features too large to copy: checked, standardised and walked through in blocks of rows.

A table may be a memory-mapped .npy of many GiB. Nothing here makes a second one of its size.

Shapes: B jets, V other jets, D features, R rows of a block, K features that vary between the training jets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

Features: TypeAlias = Float[np.ndarray, "B D"]
HeldOut: TypeAlias = tuple[Float[np.ndarray, "V D"], Int[np.ndarray, " V"] | Bool[np.ndarray, " V"]]
"""Features and labels of other jets, by which choices are made."""

BLOCK_ENTRIES = 2**21
"""Numbers in a block: 8 MiB in single precision, so that it is still in the cache when it is read again."""

ONE_THREAD = 2**24
"""Entries of a table up to which BLAS is kept to one thread. Where other work shares the cores, its threads wait for
each other: 1,000 jets x 991 features took 246 s with two threads on two busy cores, and 4.5 s with one."""


def slices(jets: int, width: int) -> Iterator[slice]:
    """Consecutive blocks of rows of a table [jets, width]."""
    rows = max(1, BLOCK_ENTRIES // max(1, width))
    for start in range(0, jets, rows):
        yield slice(start, min(start + rows, jets))


@contextmanager
def threads(jets: int, width: int) -> Iterator[None]:
    """BLAS with one thread for a small table, with all of them for a large one: for products of two tables."""
    with threadpool_limits(1 if jets * width <= ONE_THREAD else None, user_api="blas"):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS with one thread, for products of tables and vectors: memory bounds them, and more threads only wait.

    A logistic fit of 60,000 jets x 1,152 features on two busy cores took 30 s of processor time with two threads and
    7 s with one.
    """
    with threadpool_limits(1, user_api="blas"):
        yield


def as_table(x: Features) -> Features:
    """The features as floating-point numbers; raises ValueError if they are no table [jets, features]."""
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"features must be a table [jets, features], got shape {x.shape}")
    if x.dtype in (np.float32, np.float64):
        return x
    return x.astype(np.float32 if x.dtype == np.float16 else np.float64)


def matching(x: Features, width: int) -> Features:
    """The features a fitted probe is given; raises ValueError if there are not `width` a jet."""
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != width:
        raise ValueError(f"this probe takes features [jets, {width}], got shape {x.shape}")
    return as_table(x)


def folded(
    weights: Float[np.ndarray, D * C],
    bias: float | Float[np.ndarray, " C"],
    mean: Float[np.ndarray, " D"],
    scale: Float[np.ndarray, " D"],
) -> tuple[Float[np.ndarray, D * C], Float[np.ndarray, "*C"]]:
    """Slopes and offset that do to features as they are what `weights` and `bias` do to standardised ones."""
    slope = weights / scale.reshape(-1, *(1,) * (weights.ndim - 1))
    return slope, np.asarray(bias - mean @ slope)


def straight(x: Features, slope: Float[np.ndarray, D * C], offset: Float[np.ndarray, "*C"]) -> Float[np.ndarray, B * C]:
    """x slope + offset of each jet, in blocks; float64.

    Raises ValueError if `x` has another number of features than the probe, or is not finite.
    """
    x = matching(x, len(slope))
    out = np.empty((len(x), *slope.shape[1:]))
    out[:] = offset
    for rows in slices(*x.shape):
        out[rows] += x[rows].astype(np.float64, copy=False) @ slope
    refuse_faults(out)
    return out


def refuse_faults(values: Float[np.ndarray, "B ..."]) -> None:
    """Raise ValueError if what was made of some jets' features is NaN or infinite."""
    fine = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not fine.all():
        raise ValueError(f"the features of {np.count_nonzero(~fine)} jets are NaN or infinite")


def class_labels(
    jets: int, y: Int[np.ndarray, " _"] | Bool[np.ndarray, " _"], classes: int | None
) -> tuple[Int[np.ndarray, " B"], int]:
    """Labels 0 ... C-1, and C; `classes` None counts them.

    Raises ValueError if there is not one label for each jet, there are fewer than two classes, or one has no jets.
    """
    y = np.asarray(y)
    if y.shape != (jets,):
        raise ValueError(f"{jets} jets but labels of shape {y.shape}: there must be one label for each jet")
    if len(y) == 0:
        raise ValueError("no jets to fit: features and labels are empty")
    if y.dtype.kind == "f" and not (y == np.floor(y)).all():
        raise ValueError(f"labels must be whole numbers, found {np.unique(y)[:5].tolist()}")
    y = y.astype(np.int64)
    found = int(y.max()) + 1 if classes is None else classes
    if y.min() < 0 or y.max() >= found:
        raise ValueError(f"labels must lie in 0 ... {found - 1}, found {np.unique(y)[[0, -1]].tolist()}")
    # Of more classes than jets one has none: no need to count as far as a label may reach.
    of_class = np.bincount(np.minimum(y, len(y)), minlength=min(found, len(y) + 1))
    if found < 2:
        raise ValueError(f"all {len(y)} jets are of one class: a classifier needs two at least")
    if of_class.min() == 0:
        raise ValueError(f"no jet is of class {int(np.argmin(of_class))}, of {found} classes 0 ... {found - 1}")
    return y, found


@runtime_checkable
class Jets(Protocol):
    """What a solver reads: standardised features in blocks."""

    def __len__(self) -> int: ...

    @property
    def width(self) -> int: ...

    def blocks(self, dtype: type[np.floating]) -> Iterator[tuple[slice, Float[np.ndarray, "R D"]]]: ...

    def gather(self, rows: Int[np.ndarray, " R"], dtype: type[np.floating]) -> Float[np.ndarray, "R D"]: ...


@dataclass(frozen=True)
class InMemory:
    """A standardised table that is held as it is."""

    x: Float[np.ndarray, "B D"]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def width(self) -> int:
        return self.x.shape[1]

    def blocks(self, dtype: type[np.floating]) -> Iterator[tuple[slice, Float[np.ndarray, "R D"]]]:
        for rows in slices(*self.x.shape):
            yield rows, self.x[rows].astype(dtype, copy=False)

    def gather(self, rows: Int[np.ndarray, " R"], dtype: type[np.floating]) -> Float[np.ndarray, "R D"]:
        return self.x[rows].astype(dtype, copy=False)


@dataclass(frozen=True)
class Standardised:
    """A table seen in units of each feature's spread over its own jets, block by block.

    Features that do not vary by more than rounding are left out (`varies` says which; their `scale` is 1). `mean`
    and `scale` are rounded as the table is, so that standardising in its precision shifts no feature.
    """

    x: Features
    mean: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    varies: Bool[np.ndarray, " D"]

    @classmethod
    def of(cls, x: Features) -> Standardised:
        """Measure mean and spread in one pass; raises ValueError for NaN, infinity, or if no feature varies.

        Also for features beyond 1e150, whose squares are no numbers: such values stand for something missing.
        """
        x = as_table(x)
        if len(x) == 0:
            raise ValueError("no jets to fit: features and labels are empty")
        mean, spread, least, most = _moments(x)
        if not np.isfinite(spread).all():
            raise ValueError(f"{np.count_nonzero(~np.isfinite(spread))} features are too large to square")
        limits = np.finfo(x.dtype)
        # A sum of equal numbers is rounded too: what never changes is seen by its values alone.
        largest = np.maximum(np.abs(least), np.abs(most))
        varies = (most > least) & (spread > np.maximum(8 * limits.eps * largest, limits.tiny))
        if not varies.any():
            raise ValueError("no feature varies between the training jets: the representation has collapsed")
        scale = np.where(varies, spread, 1.0)
        mean, scale = (a.astype(x.dtype).astype(np.float64) for a in (mean, scale))
        return cls(x, mean, scale, varies)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def width(self) -> int:
        return int(np.count_nonzero(self.varies))

    def like(self, x: Features) -> Standardised:
        """Other jets in the units of these; raises ValueError for another number of features, NaN or infinity."""
        x = matching(x, len(self.mean))
        sums = np.zeros(len(x))
        for rows in slices(*x.shape):
            with np.errstate(invalid="ignore", over="ignore"):
                sums[rows] = x[rows].sum(axis=1, dtype=np.float64)
        refuse_faults(sums)
        return Standardised(x, self.mean, self.scale, self.varies)

    def block(self, rows: slice | Int[np.ndarray, " R"], dtype: type[np.floating]) -> Float[np.ndarray, "R K"]:
        """Some jets as a new array."""
        part = self.x[rows] if self.varies.all() else self.x[rows][:, self.varies]
        exact = np.result_type(self.x.dtype, dtype)
        out = np.subtract(part, self.mean[self.varies].astype(exact), dtype=exact)
        out *= (1 / self.scale[self.varies]).astype(exact)
        return out.astype(dtype, copy=False)

    def blocks(self, dtype: type[np.floating]) -> Iterator[tuple[slice, Float[np.ndarray, "R K"]]]:
        """All jets in order."""
        for rows in slices(len(self), self.width):
            yield rows, self.block(rows, dtype)

    def gather(self, rows: Int[np.ndarray, " R"], dtype: type[np.floating]) -> Float[np.ndarray, "R K"]:
        """Some jets as one array, without holding more than that and a block."""
        out = np.empty((len(rows), self.width), dtype)
        for part in slices(len(rows), self.width):
            out[part] = self.block(rows[part], dtype)
        return out

    def spread_out(self, values: Float[np.ndarray, "K ..."]) -> Float[np.ndarray, "D ..."]:
        """Values of the features that vary, with 0 for those that do not."""
        out = np.zeros((len(self.varies), *values.shape[1:]))
        out[self.varies] = values
        return out


def projected(jets: Jets, directions: Float[np.ndarray, "K N"]) -> InMemory:
    """All jets along some directions."""
    out = np.empty((len(jets), directions.shape[1]))
    for rows, block in jets.blocks(np.float64):
        out[rows] = block @ directions
    return InMemory(out)


class _Moments(NamedTuple):
    """Mean, standard deviation, smallest and largest value of each feature."""

    mean: Float[np.ndarray, " D"]
    spread: Float[np.ndarray, " D"]
    least: Float[np.ndarray, " D"]
    most: Float[np.ndarray, " D"]


@np.errstate(invalid="ignore", over="ignore")
def _moments(x: Features) -> _Moments:
    """Of all jets, block by block (Chan, Golub & LeVeque 1983); ValueError if one is NaN or infinite."""
    width = x.shape[1]
    jets, mean, squares = 0, np.zeros(width), np.zeros(width)
    least, most = np.full(width, np.inf), np.full(width, -np.inf)
    bad = 0
    for rows in slices(len(x), width):
        block = x[rows].astype(np.float64)
        bad += int(np.count_nonzero(~np.isfinite(block.sum(axis=1))))
        if bad:
            continue
        centre = block.mean(axis=0)
        least, most = np.minimum(least, block.min(axis=0)), np.maximum(most, block.max(axis=0))
        block -= centre
        share = len(block) / (jets + len(block))
        squares += np.einsum("rd,rd->d", block, block) + (centre - mean) ** 2 * jets * share
        mean += (centre - mean) * share
        jets += len(block)
    if bad:
        raise ValueError(f"the features of {bad} jets are NaN or infinite")
    return _Moments(mean, np.sqrt(squares / jets), least, most)
