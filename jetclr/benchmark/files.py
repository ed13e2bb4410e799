"""A benchmark as JSON: written whole or not at all, and read strictly, so that what comes back is what was written."""

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from jetclr.benchmark.results import Benchmark
from jetclr.data.store import make_parent, write_whole
from jetclr.errors import UserError


def write_json(results: Any, path: Path) -> None:
    """Write a dataclass of results to `path`; raises UserError if it holds NaN or infinity, or cannot be written."""
    text = json.dumps(plain(results, type(results).__name__), indent=1) + "\n"
    make_parent(path)
    try:
        write_whole(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def read_json(path: Path) -> Benchmark:
    """The benchmark that `write_json` wrote to `path`.

    Raises UserError if the file cannot be read, is no JSON, lacks a field, or has one that is unknown or of another
    type.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text") from None
    return from_json(Benchmark, text, str(path))


def from_json(kind: type, text: str, where: str) -> Any:
    """The dataclass `kind` that JSON `text` (from `where`) describes; raises UserError naming what does not fit."""
    try:
        return _build(kind, json.loads(text, parse_constant=_no_number), "")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not a {kind.__name__.lower()} written by jetclr: {error}") from None


def plain(value: Any, at: str) -> Any:
    """Dataclasses, lists, mappings and numbers as plain JSON values; `at` names the value in errors.

    Raises UserError for NaN and infinity, which JSON does not have, and for anything else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), f"{at}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): plain(item, f"{at}[{name!r}]") for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item, f"{at}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{at} is {value}, which JSON cannot hold; it must be a number or None")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"{at} is a {type(value).__name__}, which JSON cannot hold")


def _build(hint: Any, value: Any, at: str) -> Any:
    """The value of type `hint` that JSON `value` stands for; `at` is the dotted name for errors."""
    origin, kinds = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build_dataclass(hint, value, at)
    if origin is typing.Literal:
        if value not in kinds:
            raise ValueError(f"{at} is {value!r}; known are {', '.join(map(repr, kinds))}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _build_union(kinds, value, at)
    if origin is dict:
        _check(dict, value, at)
        return {name: _build(kinds[1], item, f"{at}[{name!r}]") for name, item in value.items()}
    if origin in (list, tuple):
        _check(list, value, at)
        return origin(_build(kinds[0], item, f"{at}[{i}]") for i, item in enumerate(value))
    if hint is float:
        return _build_float(value, at)
    _check(hint, value, at)
    return value


def _build_dataclass(kind: type, value: Any, at: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{at or 'it'} is {_name(value)}; it must hold the fields of {kind.__name__}")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    unknown, missing = [n for n in value if n not in names], [n for n in names if n not in value]
    if unknown:
        raise ValueError(f"{at or kind.__name__} has no field {unknown[0]!r}; it has {', '.join(names)}")
    if missing:
        raise ValueError(f"{at or kind.__name__} lacks {', '.join(missing)}")
    return kind(**{name: _build(hints[name], value[name], f"{at}.{name}".lstrip(".")) for name in names})


def _build_union(kinds: tuple[Any, ...], value: Any, at: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    if len(others) == 1:
        return _build(others[0], value, at)
    # Numbers stay what they were written as: a setting that counts is whole.
    if isinstance(value, bool | str) and type(value) in others:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and float in others:
        _build_float(value, at)
        return value
    raise ValueError(f"{at} is {_name(value)}; it must be of type {' or '.join(k.__name__ for k in others)}")


def _build_float(value: Any, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{at} is {_name(value)}; it must be a number")
    if not abs(value) < math.inf:  # 1e999 is JSON
        raise ValueError(f"{at} is no finite number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{at} is no finite number") from None


def _check(kind: type, value: Any, at: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{at} is {_name(value)}; it must be of type {kind.__name__}")


def _name(value: Any) -> str:
    """A value as it is shown in an error: a long one is cut."""
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not JSON")
