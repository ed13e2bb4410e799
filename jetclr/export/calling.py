"""How a program calls an export: the lines of Python that a model card shows, which run as they are."""

from collections.abc import Mapping
from typing import Any

VALUES = {"pt": "[[210.0, 90.5, 3.2, 0.0]]", "eta": "[[0.10, -0.25, 0.31, 0.0]]", "phi": "[[3.02, 3.14, -3.05, 0.0]]"}
COMMENTS = {"pt": "  # GeV, [jets, constituents], filled up with zeros", "eta": "", "phi": "  # radians"}

_JAX = """\
import numpy as np
from jax import export

{jets}
with open("{model}", "rb") as file:
    encoder = export.deserialize(bytearray(file.read()))
{outputs} = encoder.call({names})
"""

_ONNX = """\
import numpy as np
import onnxruntime as ort

{jets}
session = ort.InferenceSession("{model}", providers=["CPUExecutionProvider"])
{outputs} = session.run([{strings}], {feed})
"""

_TORCH = """\
import torch
from jetclr_encoder import JetEncoder  # the file beside this card; needs torch and safetensors alone

{jets}
encoder = JetEncoder.from_file("{model}")
with torch.no_grad():
    {first} = encoder({names})
"""

_TENSORS = """\
from safetensors import safe_open

with safe_open("{model}", framework="numpy") as file:
    config = file.metadata()["config"]  # JSON
    parameters = {{name: file.get_tensor(name) for name in file.keys()}}
"""


def snippet(card: Mapping[str, Any]) -> str:
    """A program for the software that the export is for, started in its folder."""
    model, columns = card["files"]["model"], _columns(card)
    if card["to"] == "safetensors":
        return _TENSORS.format(model=model)
    if card["to"] == "torch":
        jets = [f"{name} = torch.tensor({_values(name)}){COMMENTS.get(name, '')}" for name in columns]
        arguments = ["pt", "eta", "phi", "mask", *(f"{name}={name}" for name in columns[3:])]
        return _TORCH.format(
            model=model,
            jets="\n".join([*jets, "mask = (pt > 0).float()  # 1 for a constituent, 0 for padding"]),
            first=_variable(card["outputs"][0]["name"]),
            names=", ".join(arguments),
        )
    jets, feed = _numpy(card, columns)
    outputs = [one["name"] for one in card["outputs"]]
    return (_ONNX if card["to"] == "onnx" else _JAX).format(
        model=model,
        jets="\n".join(jets),
        outputs=", ".join(map(_variable, outputs)) if len(outputs) > 1 else f"({_variable(outputs[0])},)",
        strings=", ".join(f'"{name}"' for name in outputs),
        feed="{" + ", ".join(f'"{name}": {value}' for name, value in feed.items()) + "}",
        names=", ".join(feed.values()),
    )


def with_jetclr(card: Mapping[str, Any]) -> str:
    """The same by `jetclr.load`, started in the folder."""
    arguments = ["pt", "eta", "phi", "mask", *(f"{name}={name}" for name in _columns(card)[3:])]
    first, several = _variable(card["outputs"][0]["name"]), len(card["outputs"]) > 1
    return "\n".join(
        [
            "import jetclr",
            "",
            'encoder = jetclr.load(".")  # this folder',
            f"{first} = encoder({', '.join(arguments)})  # arrays or lists",
            *([f"outputs = encoder.outputs({', '.join(arguments)})  # all, by name"] if several else []),
            f"{first} = encoder.embed(jets)  # an awkward array of jets; nothing to pad, cut or sort",
        ]
    )


def call(setting: Any) -> str:
    """A transform of a config in JSON as one writes it: Chain(Rotate(), SoftSmear(scale=1.5, floor=0.5))."""
    if isinstance(setting, list):
        return ", ".join(map(call, setting))
    if not isinstance(setting, dict) or "type" not in setting:
        return str(setting)
    inner = {name: value for name, value in setting.items() if name != "type"}
    steps = [call(inner.pop("steps"))] if isinstance(inner.get("steps"), list) else []
    return f"{setting['type']}({', '.join([*steps, *(f'{name}={call(value)}' for name, value in inner.items())])})"


def _columns(card: Mapping[str, Any]) -> list[str]:
    """Names of the columns of constituents that the model takes, without the mask."""
    return [column["name"] for one in card["inputs"] for column in one["columns"] if column["name"] != "mask"]


def _numpy(card: Mapping[str, Any], columns: list[str]) -> tuple[list[str], dict[str, str]]:
    """Lines that make arrays of a jet, and which of them goes into which input."""
    names = [one["name"] for one in card["inputs"]]
    if card["flavor"] == "atlas":
        one = "[[210.0, 0.10, 3.02{0}], [90.5, -0.25, 3.14{0}], [3.2, 0.31, -3.05{0}]]".format(
            ", 0.0" * len(columns[3:])
        )
        return [f"tracks = np.array({one}, np.float32)  # {', '.join(columns)} of each"], {names[0]: "tracks"}
    lines = [f"{name} = np.array({_values(name)}, np.float32){COMMENTS.get(name, '')}" for name in columns]
    lines.append("mask = (pt > 0).astype(np.float32)  # 1 for a constituent, 0 for padding")
    if card["flavor"] == "cms":
        lines.append(f"features = np.stack([{', '.join(columns)}], axis=1)  # [jets, columns, constituents]")
        return lines, dict(zip(names, ["features", "mask[:, None]"], strict=True))
    return lines, {name: name for name in names}


def _values(name: str) -> str:
    return VALUES.get(name, "[[0.0, 0.0, 0.0, 0.0]]")


def _variable(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
