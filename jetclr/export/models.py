"""Models that are called with padded jets [B, N]: an encoder in JAX, or what is in the file of an export.

Files may come from strangers: they hold numbers and graphs, and are opened so that neither can run anything else.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jetclr import config as configs
from jetclr import encoder
from jetclr.errors import UserError
from jetclr.export.flavors import FLAVORS, Feed, Flavor
from jetclr.export.graph import Frozen
from jetclr.export.runtimes import onnx_session

Call = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
"""Columns [B, N] with zeros in padding -> all outputs by name."""


class Model(NamedTuple):
    """A model and where it runs; one that is `compiled` takes long over the first jets of each shape [B, N]."""

    call: Call
    where: str
    compiled: bool


class Opened(NamedTuple):
    """The model of an export; `frozen` has the parameters only where it is rebuilt in JAX."""

    model: Model
    frozen: Frozen
    widths: dict[str, int | None]  # of the outputs that are given, in order; None for a score


# What a graph may call beside its own operations. Callbacks and kernels, which are programs, are not among them.
HARMLESS = re.compile(r"shape_assertion|Sharding|(mhlo|chlo|stablehlo)\.\w+|lapack_\w+|TopK")


def in_jax(frozen: Frozen) -> Model:
    """The encoder on JAX's default device; it gives layers, and scores where `frozen` has tails."""
    params = jax.tree.map(lambda p: jnp.asarray(np.asarray(p), jnp.float32), frozen.params)
    bare = dataclasses.replace(frozen, params={})

    @jax.jit
    def apply(params: encoder.Params, columns: dict[str, Any]) -> dict[str, Any]:
        return dataclasses.replace(bare, params=params)(columns, (columns["pt"] > 0).astype(jnp.float32))

    def call(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.asarray(x) for name, x in apply(params, dict(columns)).items()}

    return Model(call, _device(), True)


def widths(frozen: Frozen) -> dict[str, int | None]:
    """D of the layers of `frozen`, in order; None for its scores."""
    if not frozen.layers:
        return dict.fromkeys(frozen.outputs)
    some = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    bare = dataclasses.replace(frozen, params={}, tails=())
    found = jax.eval_shape(
        lambda params, columns: dataclasses.replace(bare, params=params)(columns, columns["pt"]),
        frozen.params,
        dict.fromkeys(frozen.columns, some),
    )
    return {name: found[name].shape[1] if name in found else None for name in frozen.outputs}


def open_model(path: Path, card: Mapping[str, Any], layers: tuple[str, ...] | None) -> Opened:
    """The model in the file `path` of an export with this card; it gives `layers`, or all that was exported.

    Raises UserError for a file that is damaged, is not what the card says, or has no such output.
    """
    if card["to"] in ("safetensors", "torch"):
        from jetclr.export.tensors import open_tensors

        config, params, _ = open_tensors(path)
        frozen = Frozen(config, params, layers or tuple(output["name"] for output in card["outputs"]))
        return Opened(in_jax(frozen), frozen, widths(frozen))
    names = [output["name"] for output in card["outputs"]]
    for name in layers or ():
        if name not in names:
            raise UserError(f"{path} has no output {name!r}; it has {', '.join(names)}")
    sizes = {output["name"]: output["shape"][1] if len(output["shape"]) > 1 else None for output in card["outputs"]}
    config = configs.from_json(json.dumps(card["config"]), f"the config in the card beside {path.name}")
    if config.encoder.layers > path.stat().st_size:  # a list of the names of a billion layers would take all memory
        raise UserError(f"{path} is not the model of its card: it is too small for {config.encoder.layers} layers")
    frozen = Frozen(config, {})  # of this only the settings are used: what the inputs are
    opened = _onnx if card["to"] == "onnx" else _stablehlo
    model = opened(path, frozen, FLAVORS[card["flavor"]], sizes)
    return Opened(model, frozen, {name: sizes[name] for name in layers or names})


def _onnx(path: Path, frozen: Frozen, flavor: Flavor, sizes: Mapping[str, int | None]) -> Model:
    try:
        import onnxruntime as ort
    except ModuleNotFoundError:
        raise UserError(f"{path} needs ONNX Runtime: pip install onnxruntime") from None
    providers: list[Any] = ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in ort.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))  # or products would keep 10 bits of 23
    try:
        session = onnx_session(path, providers)
    except Exception as error:  # of the runtime's own kinds, by what is wrong with the file
        raise UserError(f"{path} cannot be opened by ONNX Runtime: {error}") from None
    names, wanted = list(sizes), {one.name for one in flavor.inputs(frozen)}
    takes, gives = {one.name for one in session.get_inputs()}, {one.name: one.shape for one in session.get_outputs()}
    if takes != wanted or any(name not in gives or _width(gives[name]) != size for name, size in sizes.items()):
        told = ", ".join(f"{name} {shape}" for name, shape in gives.items())
        raise UserError(f"{path} is not the model of its card: it takes {', '.join(sorted(takes))} and gives {told}")
    call = _by_flavor(frozen, flavor, names, lambda feed: session.run(names, feed))
    return Model(call, f"ONNX Runtime {ort.__version__}, {session.get_providers()[0]}", False)


def _stablehlo(path: Path, frozen: Frozen, flavor: Flavor, sizes: Mapping[str, int | None]) -> Model:
    from jax import export

    try:
        exported = export.deserialize(bytearray(path.read_bytes()))
        foreign = foreign_calls(exported.mlir_module())
    except Exception as error:  # whatever the reader of a damaged file raises
        raise UserError(f"{path} cannot be opened by this JAX: {error!r}; it may be too old, or damaged") from None
    if foreign:
        raise UserError(f"{path} calls {', '.join(foreign)}, which is no part of an encoder; it is not opened")
    takes, gives = len(exported.in_avals), [_width(one.shape) for one in exported.out_avals]
    if takes != len(flavor.inputs(frozen)) or gives != list(sizes.values()) or exported.nr_devices != 1:
        told = ", ".join("a score" if size is None else f"{size} numbers" for size in gives) or "nothing"
        raise UserError(f"{path} is not the model of its card: it takes {takes} arrays and gives {told}")
    if jax.default_backend() not in exported.platforms:
        raise UserError(f"{path} is for {', '.join(exported.platforms)}, and JAX runs on {jax.default_backend()} here")
    apply = jax.jit(exported.call)
    call = _by_flavor(frozen, flavor, list(sizes), lambda feed: [np.asarray(x) for x in apply(*feed.values())])
    return Model(call, _device(), True)


def _width(shape: Sequence[Any]) -> Any:
    """D of an output [B, D], None of a score [B]; what no export gives is neither."""
    return {1: None, 2: shape[-1] if shape else 0}.get(len(shape), 0)


def foreign_calls(module: str) -> list[str]:
    """What the text of an MLIR module calls beside its own operations and harmless ones, sorted."""
    named = re.findall(r'custom_call\s+@"?([^"(\s]+)|call_target_name\s*=\s*"([^"]*)"', module)
    targets = {a or b for a, b in named}
    if module.count("custom_call") > module.count("call_target_name") + sum(bool(a) for a, _ in named):
        targets.add("something without a name")
    return sorted(target for target in targets if not HARMLESS.fullmatch(target))


def _by_flavor(frozen: Frozen, flavor: Flavor, names: list[str], run: Callable[[Feed], list[np.ndarray]]) -> Call:
    def call(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        # A slot without pT is padding to every model, so a mask is needed by its name alone.
        mask = np.ones_like(columns["pt"]) if flavor.name == "atlas" else (columns["pt"] > 0).astype(np.float32)
        found = [run(feed) for feed in flavor.feeds(frozen, {**columns, "mask": mask})]
        return {name: np.concatenate([outputs[i] for outputs in found]) for i, name in enumerate(names)}

    return call


def _device() -> str:
    device = jnp.zeros(()).devices().pop()
    return f"JAX {jax.__version__}, {device.device_kind if device.platform != 'cpu' else 'cpu'}"
