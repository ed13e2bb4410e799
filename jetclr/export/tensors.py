"""Parameters and config of an encoder in one safetensors file: numbers and text, of which nothing is ever executed."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jetclr import config as configs
from jetclr import step
from jetclr.config import Config
from jetclr.data.store import make_parent, replacing
from jetclr.encoder import Params, layer_names
from jetclr.errors import UserError
from jetclr.export.graph import Frozen

FORMAT = "jetclr encoder 1"
"""Under "format" in the metadata; another one when what a config means for the numbers changes."""

_KINDS = ("float16", "float32")

# What a damaged or foreign file may end in: also types of numbers that numpy does not know.
_FAULTS = (safetensors.SafetensorError, ValueError, KeyError, TypeError, OSError, MemoryError)


def save_tensors(path: Path, frozen: Frozen, metadata: Mapping[str, str]) -> None:
    """Write the parameters as they are, under names as "block_0_qkv/w", with `metadata` beside the config.

    The header holds "format", "config" (JSON), "layers" (JSON list of names) and `metadata`; equal contents make equal
    files. Raises UserError for parameters that are not finite, for heads or probes, and where nothing can be written.
    """
    if frozen.tails:
        raise UserError(f"safetensors holds an encoder alone, without {frozen.tails[0].name!r}; export that to onnx")
    arrays = {f"{module}/{name}": np.asarray(x) for module, own in frozen.params.items() for name, x in own.items()}
    for name, x in arrays.items():
        if not np.isfinite(x).all():
            raise UserError(f"the parameter {name} holds NaN or infinity as {x.dtype}; it cannot be exported so")
    own = {"format": FORMAT, "config": configs.to_json(frozen.config), "layers": json.dumps(frozen.layers)}
    make_parent(path)
    try:
        with replacing(path) as partial:
            partial.write_bytes(_ordered(safetensors.numpy.save(arrays, {**metadata, **own})))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def open_tensors(path: Path) -> tuple[Config, Params, dict[str, str]]:
    """Config, parameters as float32, and all metadata of a file of `save_tensors`.

    Raises UserError for a file that is missing, damaged, something else, or whose arrays are not those of its config.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; jetclr export --to safetensors makes one")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (the file is no dict)
    except _FAULTS as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is not a file of tensors, or is damaged: {reason}") from None
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path} is not an encoder of jetclr export: its format is {metadata.get('format')!r}, not {FORMAT!r}"
        )
    if missing := [key for key in ("config", "layers") if key not in metadata]:
        raise UserError(f"{path} is damaged: its metadata lacks {missing[0]!r}")
    config = configs.from_json(metadata["config"], f"the config in {path}")
    try:
        params = _restored(arrays, config)
        _check_layers(metadata["layers"], config)
        return config, params, metadata
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} holds another encoder than its config describes: {error}") from None


def _restored(arrays: Mapping[str, np.ndarray], config: Config) -> Params:
    # Before anything is built: a config of a billion layers would take as long.
    if max(config.encoder.layers, len(config.head.hidden)) > len(arrays):
        raise ValueError(f"it has {config.encoder.layers} layers, and the file {len(arrays)} arrays")
    like = jax.eval_shape(lambda: step.init_params(config))
    expected = {f"{module}/{name}": x.shape for module, own in like.items() for name, x in own.items()}
    for name in (*expected, *arrays):
        if name not in arrays:
            raise ValueError(f"the array {name} is missing")
        if name not in expected:
            raise ValueError(f"the array {name} has no place in it")
        x = arrays[name]
        if x.shape != expected[name]:
            raise ValueError(f"the array {name} must have the shape {expected[name]}, and has {x.shape}")
        if x.dtype.name not in _KINDS:
            raise ValueError(f"the array {name} is {x.dtype}; it must be {' or '.join(_KINDS)}")
        if not np.isfinite(x).all():
            raise ValueError(f"the array {name} holds NaN or infinity")
    return {
        module: {name: jnp.asarray(arrays[f"{module}/{name}"], jnp.float32) for name in own}
        for module, own in like.items()
    }


def _check_layers(text: str, config: Config) -> None:
    layers, known = json.loads(text), layer_names(config.encoder, config.head)
    if not isinstance(layers, list) or not layers or any(name not in known for name in layers):
        raise ValueError(f"its layers are {text}; known are {', '.join(known)}")


def _ordered(file: bytes) -> bytes:
    """The same file with its metadata sorted: the library writes it in another order each time."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers stay aligned
    return len(text).to_bytes(8, "little") + text + file[start:]
