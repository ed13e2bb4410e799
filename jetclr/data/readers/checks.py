"""What readers of public files check, and how they say it: one sentence with the file and, where it is one, the jet."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from jetclr.errors import UserError

MAX_ENERGY = 1e12  # GeV; no collider comes near, and its square is far from the largest float
MAX_ETA = 20.0  # at the LHC, a particle beyond it has less than 0.1 MeV of pT
MAX_PHI = 4 * np.pi  # files that keep a jet's azimuths together pass 2 pi; degrees pass this


def existing_file(path: Path) -> Path:
    """The path itself; raises UserError where there is no file."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the files in it")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    return path


def printable(text: str, length: int = 1000) -> str:
    """Text that a file or a library gave, fit for a sentence: on one line, without control characters and not long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= length else f"{text[:length]} ..."


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Raise UserError for whatever a library raises while it reads a file: on damaged files that is nearly anything."""
    try:
        yield
    except UserError:
        raise
    except PermissionError:
        raise UserError(f"{path} cannot be read: permission denied") from None
    except Exception as error:
        said = printable(str(error), 200) or type(error).__name__
        raise UserError(
            f"{path} cannot be read as {kind}; it is truncated, damaged or another format ({said})"
        ) from None


def refuse_unsound(
    coordinates: Mapping[str, Float64[np.ndarray, " M"]],
    energy: Float64[np.ndarray, " M"],
    offsets: Int64[np.ndarray, " edges"],
    first: int,
    path: Path,
) -> None:
    """Raise UserError naming the first jet with a constituent whose numbers are no particle's.

    `coordinates` are pt [GeV] and what the file has of angles and momenta; `first` is the row of the first jet. pT
    must be positive, phi within four pi, the energy [GeV] below `MAX_ENERGY` and every number finite.
    """
    good: Bool[np.ndarray, " M"] = (coordinates["pt"] > 0) & (energy < MAX_ENERGY)
    for name, values in coordinates.items():
        good &= np.abs(values) <= MAX_PHI if name == "phi" else np.isfinite(values)
    if not good.all():
        worst = int(np.argmin(good))
        found = ", ".join(f"{name} = {values[worst]:g}" for name, values in coordinates.items())
        raise UserError(
            f"jet {first + owner(offsets, worst)} of {path} has a constituent with {found}; pT must be positive, "
            "phi in radians, the energy that of a particle and every number finite"
        )


def refuse(
    bad: Bool[np.ndarray, " n"], first: int, path: Path, says: str, starts: Int64[np.ndarray, " offsets"] | None = None
) -> None:
    """Raise UserError naming the jet, counted from `first`, where `bad` is first true.

    `bad` is of jets or, with their offsets `starts`, of their constituents.
    """
    if bad.any():
        worst = int(np.argmax(bad))
        raise UserError(f"jet {first + (worst if starts is None else owner(starts, worst))} of {path} {says}")


def owner(offsets: Int64[np.ndarray, " edges"], constituent: int) -> int:
    """The jet that a constituent belongs to."""
    return int(np.searchsorted(offsets, constituent, side="right")) - 1


def whole_numbers(
    values: Shaped[np.ndarray, " M"],
    kind: type[np.signedinteger],
    name: str,
    path: Path,
    first: int,
    offsets: Int64[np.ndarray, " edges"] | None = None,
) -> Shaped[np.ndarray, " M"]:
    """Numbers as integers of type `kind`; raises UserError naming the jet of the first that does not fit.

    The numbers are those of jets `first`, `first` + 1, ... or, with `offsets`, of these jets' constituents.
    """
    if values.dtype == bool:
        return values.astype(kind)
    limits = np.iinfo(kind)
    if values.dtype.kind == "f":
        wide = values.astype(np.float64)  # the limits are too large for half precision
        # The largest integer may round up to one that does not fit; what follows it is a power of two, and exact.
        good = (wide >= limits.min) & (wide < float(limits.max + 1)) & (wide == np.round(wide))
    else:
        good = (values >= limits.min) & (values <= limits.max)
    if not good.all():
        worst = int(np.argmin(good))
        jet = first + (worst if offsets is None else owner(offsets, worst))
        raise UserError(
            f"jet {jet} of {path} has {name} = {values[worst]}; it must be a whole number "
            f"from {limits.min} to {limits.max}"
        )
    return values.astype(kind)
