"""What runs an exported model: one function a kind of file, from a path to calls of the model."""

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jetclr.export.flavors import Feed
from jetclr.export.graph import Frozen
from jetclr.export.verify import Runs, expected


def onnx_session(path: Path, providers: Sequence[Any] = ("CPUExecutionProvider",), threads: int = 0) -> Any:
    """A session of ONNX Runtime, with so many threads within a node (0: all cores), that reads this one file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Or numbers that a graph leaves to other files would be looked for beside whoever opens it.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return ort.InferenceSession(path.read_bytes(), options, providers=list(providers))


def onnxruntime(path: Path, *, threads: int = 0) -> Runs:
    """ONNX Runtime on the CPU with so many threads within a node, 0: all cores."""
    session = onnx_session(path, threads=threads)

    def run(feed: Feed) -> Sequence[np.ndarray]:
        outputs: Sequence[np.ndarray] = session.run(None, feed)
        return outputs

    return run


def stablehlo(path: Path) -> Runs:
    """JAX, on its default device."""
    from jax import export

    call = export.deserialize(bytearray(path.read_bytes())).call
    return lambda feed: [np.asarray(x) for x in call(*(jnp.asarray(x, jnp.float32) for x in feed.values()))]


def tensors(path: Path) -> Runs:
    """The encoder rebuilt from a safetensors file."""
    from jetclr.export.tensors import open_tensors

    config, params, meta = open_tensors(path)
    rebuilt = Frozen(config, params, tuple(json.loads(meta["layers"])))
    return lambda feed: list(expected(rebuilt, feed).values())


def has_torch() -> bool:
    """Whether PyTorch can be imported."""
    return importlib.util.find_spec("torch") is not None


def pytorch(path: Path, module: Path, frozen: Frozen) -> Runs:
    """The PyTorch module as it stands in the exported folder."""
    import torch

    spec = importlib.util.spec_from_file_location("jetclr_encoder", module)
    assert spec is not None
    assert spec.loader is not None
    ours: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ours)
    encoder = ours.JetEncoder.from_file(str(path))

    def run(feed: Feed) -> Sequence[np.ndarray]:
        with torch.no_grad():
            layers = encoder.all_layers(**{name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in feed.items()})
        return [layers[name].numpy() for name in frozen.layers]

    return run
