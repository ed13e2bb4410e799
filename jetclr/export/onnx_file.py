"""ONNX: the encoder, its preprocessing and what is appended, as one file for ONNX Runtime 1.17 and newer."""

import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax

from jetclr.errors import UserError
from jetclr.export.flavors import Flavor
from jetclr.export.graph import Frozen
from jetclr.export.tidy import tidy
from jetclr.export.tracing import model_of, symbolic_inputs

OPSET, IR_VERSION = 20, 9
"""The newest that ONNX Runtime 1.17 reads, which is in CMSSW 14_2."""

NEEDED = ("jax2onnx", "onnx", "onnxruntime")


def refuse_without_onnx() -> None:
    """Raise UserError unless all that is needed to write and check ONNX is installed."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"ONNX needs {', '.join(missing)}, which the extra brings: pip install 'jetclr[onnx]'")


def to_onnx(frozen: Frozen, flavor: Flavor, name: str, metadata: Mapping[str, str]) -> bytes:
    """The model as bytes, checked by `onnx.checker`; inputs and outputs have the names that `flavor` and `frozen` say.

    `name` is that of the graph, `metadata` is kept in the file. Raises UserError for a graph that cannot be written.
    """
    refuse_without_onnx()
    import onnx

    model = _converted(frozen, flavor, name)
    # 1.17 reads no newer one, and the nodes of opset 20 need no more.
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "jetclr", metadata.get("jetclr", "")
    tidy(model)
    onnx.helper.set_model_props(model, dict(metadata))
    for shape, value in zip(flavor.inputs(frozen), model.graph.input, strict=True):
        value.doc_string = ", ".join(shape.columns)
    for tail in frozen.tails:
        model.graph.output[frozen.outputs.index(tail.name)].doc_string = tail.meaning
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f"the graph cannot be written as ONNX of opset {OPSET}: {error}") from None
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _converted(frozen: Frozen, flavor: Flavor, name: str) -> Any:
    """What jax2onnx makes of the traced model.

    It is given what JAX itself has traced: while it traces it replaces functions of jax.numpy by its own, of which
    some do not take numbers that stand for any.
    """
    specs = symbolic_inputs(frozen, flavor)
    closed = jax.make_jaxpr(model_of(frozen, flavor))(*specs)
    with _quiet(), _of_jax_alone():
        from jax2onnx import to_onnx as convert

        try:
            return convert(
                lambda *arrays: jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *arrays),
                specs,
                model_name=name,
                opset=OPSET,
                input_names=[one.name for one in flavor.inputs(frozen)],
                output_names=list(frozen.outputs),
            )
        except Exception as error:  # whatever a converter of anything to anything raises
            raise UserError(f"jax2onnx cannot write this encoder as ONNX: {error!r}") from error


@contextmanager
def _of_jax_alone() -> Iterator[None]:
    """Without what jax2onnx knows of Equinox's layers: to load it, it builds some of each, for longer than the rest.

    `_converted` gives it primitives of JAX. Whoever converts such layers in the same process has them loaded then.
    """
    try:
        from jax2onnx.plugins import plugin_system
    except ImportError:  # another version keeps it elsewhere: it only takes longer
        plugin_system = None
    name = "jax2onnx.plugins.equinox"
    if plugin_system is None or name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what Python looks for it then is not found
    try:
        yield
    finally:
        del sys.modules[name]
        plugin_system._already_imported_plugins = False  # of those that are, it takes milliseconds again


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of jax2onnx's own dependencies, and of shapes that `tidy` and the checker do not need."""
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    levels = [one.level for one in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in loggers:
            one.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)
