"""An exported folder as it is read again: its model card and the file of its model. Nothing in it is executed."""

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from jetclr.errors import UserError

CARD_JSON, CARD_MARKDOWN = "model_card.json", "model_card.md"
FORMAT, FORMAT_VERSION = "jetclr export", 1

_KNOWN = {"to": ("onnx", "stablehlo", "safetensors", "torch"), "flavor": ("batch", "cms", "atlas")}
_NEEDED: dict[str, type] = {
    "to": str,
    "flavor": str,
    "name": str,
    "files": dict,
    "outputs": list,
    "constituents": int,
    "config": dict,
    "step": int,
}


def read_card(folder: Path) -> dict[str, Any]:
    """The model card of an exported folder, with all that is needed to call the model.

    Raises UserError for what is no export, a damaged card, one of a later version, and files outside the folder.
    """
    path = folder / CARD_JSON
    if not path.is_file():
        raise UserError(f"{folder} is not an exported folder: it has no {CARD_JSON}; jetclr export makes one")
    try:
        card = json.loads(path.read_bytes())
        if not isinstance(card, dict) or card.get("format") != FORMAT:
            raise UserError(f"{path} is not the card of an export by jetclr")
        if card.get("format_version") != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {card.get('format_version')!r}; this program reads {FORMAT_VERSION}"
            )
        _check(card)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); export the run again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return card


def model_file(folder: Path, card: dict[str, Any]) -> Path:
    """The file of the model; raises UserError if it is missing."""
    path: Path = folder / card["files"]["model"]
    if not path.is_file():
        raise UserError(f"{path} is missing from its folder; export the run again")
    return path


def _check(card: dict[str, Any]) -> None:
    """Raise ValueError for a card that cannot be used."""
    for name, kind in _NEEDED.items():
        if not isinstance(card.get(name), kind):
            raise ValueError(f"{name!r} is missing" if name not in card else f"{name!r} is {card[name]!r}")
    for name, known in _KNOWN.items():
        if card[name] not in known:
            raise ValueError(f"{name!r} is {card[name]!r}; known are {', '.join(known)}")
    for file in card["files"].values():
        if not _is_plain(file):  # a stranger's card points only into its own folder
            raise ValueError(f"it names a file outside the folder: {file!r}")
    if "model" not in card["files"]:
        raise ValueError("it names no model")
    for output in card["outputs"]:
        if not (isinstance(output, dict) and isinstance(output.get("name"), str) and _is_shape(output.get("shape"))):
            raise ValueError(f"an output is {output!r}")
    names = [output["name"] for output in card["outputs"]]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"the outputs are {', '.join(names) or 'none'}")


def _is_plain(name: Any) -> bool:
    """Whether it is the name of a file without any folder, on every system."""
    if not isinstance(name, str) or name in ("", ".", "..") or not name.isprintable() or len(name.encode()) > 255:
        return False
    return PurePosixPath(name).name == name == PureWindowsPath(name).name


def _is_shape(shape: Any) -> bool:
    """[B] or [1] of a score, and with a width of a layer."""
    if not isinstance(shape, list) or len(shape) not in (1, 2) or shape[0] not in ("B", 1):
        return False
    return all(type(size) is int and size > 0 for size in shape[1:])
