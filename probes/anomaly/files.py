"""Fitted heads in files: one .npz of plain numbers with JSON beside them; opening one executes nothing.

A file from a stranger is checked: unknown heads, settings, missing or damaged arrays end in a ValueError.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from probes.anomaly.arrays import NUMBERS, below
from probes.anomaly.head import Detector, Head

FORMAT = "jetclr anomaly head 1"
_META = "head.json"
_FITTED, _BESIDE = "fitted/", "beside/"

# What reading a damaged or foreign file, or building a head from what it holds, may end in.
_FAULTS = (
    *(ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError),
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, struct.error),
)


def save(
    path: Path,
    detector: Detector,
    *,
    meta: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a detector to `path`, with JSON values and arrays of the caller beside it.

    Raises ValueError for arrays that are not numbers; the caller makes the file appear whole.
    """
    head = detector.head
    described = {
        "format": FORMAT,
        "head": head.name,
        "settings": dataclasses.asdict(head),  # type: ignore[call-overload]
        "meta": dict(meta or {}),
    }
    held = {_FITTED + name: np.asarray(x) for name, x in detector.state().items()}
    held |= {_BESIDE + name: np.asarray(x) for name, x in (arrays or {}).items()}
    for name, x in held.items():
        if x.dtype.kind not in NUMBERS:
            raise ValueError(f"{name} of {head.name} is not an array of numbers")
    held[_META] = np.frombuffer(json.dumps(described).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, **held)  # type: ignore[arg-type,unused-ignore]


def load(
    path: Path, heads: Mapping[str, Callable[..., Head]]
) -> tuple[Detector, dict[str, Any], dict[str, np.ndarray]]:
    """A detector that `save` wrote, the JSON values and the arrays beside it; `heads` are those that are known.

    Raises ValueError, naming the file, for one that was not written by `save`, is damaged, or holds an unknown head.
    """
    with path.open("rb") as opened:
        try:
            return _read(opened, heads)
        except _FAULTS as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
            raise ValueError(f"{path} is not a fitted anomaly head: {reason}") from None


def _read(
    opened: BufferedReader, heads: Mapping[str, Callable[..., Head]]
) -> tuple[Detector, dict[str, Any], dict[str, np.ndarray]]:
    with np.load(opened, allow_pickle=False) as file:
        held = {name: file[name] for name in file.files}
    strange = [name for name, x in held.items() if x.dtype.kind not in NUMBERS]
    if strange:
        raise ValueError(f"the array {strange[0]} does not hold numbers")
    described = json.loads(held.pop(_META).tobytes())
    if described["format"] != FORMAT:
        raise ValueError(f"it has the format {described['format']!r}")
    name, settings, meta = described["head"], described["settings"], described["meta"]
    if not isinstance(meta, dict):
        raise ValueError("its JSON values have no names")
    kind = heads.get(name)
    if kind is None:
        raise ValueError(f"its head is {name!r}; known are {', '.join(heads)}")
    head = kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()})
    return head.restore(below(held, _FITTED)), meta, below(held, _BESIDE)
