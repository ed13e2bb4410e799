"""Constituents as people have them, padded or jagged, as the columns that an encoder takes. Numpy; awkward if asked.

Shape glossary: B jets, N constituents with padding, M constituents of all jets.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from jetclr.data.chunk import COORDINATES
from jetclr.errors import UserError

Columns: TypeAlias = dict[str, Float32[np.ndarray, "_ _"]]
"""pt [GeV], eta, phi and extras by name, [B, N]; all zero in padding, which is where pt is zero."""


class Jagged(NamedTuple):
    """Jets without padding: those of jet i are rows offsets[i] to offsets[i + 1] of each column."""

    offsets: Int64[np.ndarray, " B+1"]
    columns: dict[str, Float32[np.ndarray, " M"]]


def from_padded(given: Mapping[str, Any], mask: Any) -> tuple[Columns, bool]:
    """Columns from arrays [B, N], or [N] for one jet, and whether it was one; without `mask` pt > 0 is a constituent.

    Masked arrays of numpy bring their own mask. Raises UserError for arrays of other or unequal shapes, a mask that is
    not 0 and 1, and a constituent whose pT is negative or with a number that is NaN or infinite.
    """
    if mask is None and isinstance(given["pt"], np.ma.MaskedArray):
        mask = ~np.ma.getmaskarray(given["pt"])
    arrays = {name: _as_float32(name, x) for name, x in given.items()}
    shape = arrays["pt"].shape
    if len(shape) not in (1, 2):
        raise UserError(f"pt has the shape {list(shape)}; it must be [jets, constituents], or [constituents]")
    given_mask = np.ones(shape, bool) if mask is None else _as_mask(mask)
    for name, x in {**arrays, "mask": given_mask}.items():
        if x.shape != shape:
            raise UserError(f"{name} has the shape {list(x.shape)} and pt {list(shape)}; all columns have the same")
    single = len(shape) == 1
    if single:
        arrays, given_mask = {name: x[None] for name, x in arrays.items()}, given_mask[None]
    return _checked(arrays, given_mask), single


def from_awkward(jets: Any, extras: Sequence[str]) -> tuple[Jagged, bool]:
    """Columns of an awkward array [jets, constituents] of records, or of one jet, and whether it was one.

    Records have the fields pt, eta and phi, or are vectors that know them, and `extras`; an array with a field
    `constituents`, as a jet store has, stands for this. Raises UserError for arrays of another depth, for missing
    fields and values, and for constituents as `from_padded` does.
    """
    try:
        import awkward as ak
    except ModuleNotFoundError:
        raise UserError(
            "embed takes awkward arrays: pip install awkward, or give padded arrays to the encoder"
        ) from None
    try:
        array = jets if isinstance(jets, ak.Array) else ak.Array(jets)
    except (TypeError, ValueError) as error:
        told = f"{type(jets).__name__} ({_first_line(error)})"
        raise UserError(f"embed takes an awkward array of jets, not {told}") from None
    if "constituents" in array.fields:
        array = array["constituents"]
    flat: dict[str, np.ndarray] = {}
    offsets: np.ndarray | None = None
    single = array.ndim == 1 and bool(array.fields)
    for name in (*COORDINATES, *extras):
        column = _field(array, name)
        if column.ndim not in (1, 2) or (column.ndim == 1) != single:
            raise UserError(
                f"{name} has {column.ndim} axes; jets are [jets, constituents]: ak.flatten(array, axis=1) takes the "
                "events away"
            )
        try:
            counts = np.array([len(column)]) if single else ak.to_numpy(ak.num(column, axis=1), allow_missing=False)
            numbers = ak.to_numpy(column if single else ak.flatten(column, axis=1), allow_missing=False)
        except ValueError as error:
            told = f"some values are missing, or are no numbers ({_first_line(error)})"
            raise UserError(f"{name} cannot be read: {told}") from None
        found = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if offsets is not None and not np.array_equal(found, offsets):
            raise UserError(f"{name} has other numbers of constituents than pt")
        offsets, flat[name] = found, _as_float32(name, numbers)
    assert offsets is not None
    return Jagged(offsets, flat), single


def batches(jets: Jagged, size: int) -> Iterator[Columns]:
    """The jets in order, up to `size` at a time, padded; raises UserError as `from_padded` does."""
    for start in range(0, len(jets.offsets) - 1, size):
        bounds = jets.offsets[start : start + size + 1]
        counts = np.diff(bounds)
        filled = np.arange(max(int(counts.max()), 1)) < counts[:, None]
        padded = {name: np.zeros(filled.shape, np.float32) for name in jets.columns}
        for name, x in jets.columns.items():
            padded[name][filled] = x[bounds[0] : bounds[-1]]
        yield _checked(padded, filled, first=start)


def hardest(columns: Columns, constituents: int) -> Columns:
    """At most so many constituents of each jet, the hardest: what the encoder was trained to see."""
    if columns["pt"].shape[1] <= constituents:
        return columns
    order = np.argsort(-columns["pt"], axis=1, kind="stable")[:, :constituents]
    return {name: np.take_along_axis(x, order, axis=1) for name, x in columns.items()}


def resized(columns: Columns, jets: int, slots: int) -> Columns:
    """With empty jets and slots up to [jets, slots]."""
    rows, used = columns["pt"].shape
    return {name: np.pad(x, ((0, jets - rows), (0, slots - used))) for name, x in columns.items()}


def _field(array: Any, name: str) -> Any:
    if name in array.fields:
        return array[name]
    if name in COORDINATES:  # momenta of the vector package, and arrays of coffea
        try:
            return getattr(array, name)
        except AttributeError:
            pass
    there = ", ".join(array.fields) or "none"
    raise UserError(f"the array has no field {name!r}; its fields are {there}")


def _as_float32(name: str, x: Any) -> Float32[np.ndarray, "..."]:
    try:
        array = np.ma.filled(x.astype(np.float32), np.nan) if isinstance(x, np.ma.MaskedArray) else np.asarray(x)
    except ValueError as error:
        told = "has rows of different lengths or no numbers"
        raise UserError(
            f"{name} {told} ({_first_line(error)}); pad it with zeros, or give an awkward array of records to embed"
        ) from None
    except (TypeError, RuntimeError) as error:  # tensors of PyTorch on an accelerator, or with a gradient
        raise UserError(f"{name} cannot be read as an array: {_first_line(error)}") from None
    if array.dtype.kind not in "fiub" and array.size:
        raise UserError(f"{name} is of type {array.dtype}; it must hold real numbers")
    with np.errstate(over="ignore"):  # infinity is told of later, with its jet
        return array.astype(np.float32, copy=False)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _as_mask(mask: Any) -> Bool[np.ndarray, "..."]:
    array = _as_float32("mask", mask)
    if not np.isin(array, (0, 1)).all():
        raise UserError("mask must be 1 or True for a constituent and 0 or False for padding, and holds other numbers")
    return array > 0.5


def _checked(columns: dict[str, Float[np.ndarray, "B N"]], valid: Bool[np.ndarray, "B N"], first: int = 0) -> Columns:
    """The columns with zeros in padding, if every constituent is sound."""
    pt = columns["pt"]
    good = {"pt": np.isfinite(pt) & (pt >= 0)}
    for name, x in columns.items():
        bad = valid & ~good.get(name, np.isfinite(x) | (pt == 0))
        if bad.any():
            jet, slot = np.unravel_index(int(np.argmax(bad)), bad.shape)
            rest = ", or give a mask" if name == "pt" and valid.all() else ""
            raise UserError(
                f"jet {first + jet} has a constituent with {name} = {x[jet, slot]}; every number must be finite and no "
                f"pT negative; set padding to zero{rest}"
            )
    real = valid & (pt > 0)
    return {name: np.where(real, x, np.float32(0)) for name, x in columns.items()}
