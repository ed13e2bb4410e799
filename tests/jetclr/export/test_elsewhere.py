"""Exports in fresh environments that hold nothing of ours: the software that they are for, and no more.

Slow, and needs pip to reach a package index: `pytest -m slow tests/jetclr/export/test_elsewhere.py`.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jetclr.cli import main
from jetclr.data.store import Store
from jetclr.export.flavors import FLAVORS, FlavorName
from jetclr.export.graph import Frozen
from jetclr.export.verify import LIMIT, Checked, expected, random_jets, real_jets
from jetclr.run import open_run

pytestmark = pytest.mark.slow

# Each gets a model and a file of arrays: "expected", and the inputs of every call as "CALL/NAME".
ONNX = """
import sys
import numpy as np, onnxruntime
model, arrays = sys.argv[1:]
held = dict(np.load(arrays))
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
names = [one.name for one in session.get_inputs()]
calls = 1 + max(int(name.split("/")[0]) for name in held if "/" in name)
found = [session.run(None, {name: held[f"{i}/{name}"] for name in names})[0] for i in range(calls)]
want, got = held["expected"], np.concatenate(found)
assert got.shape == want.shape, (got.shape, want.shape)
"""
STABLEHLO = """
import sys
import numpy as np
from jax import export
model, arrays = sys.argv[1:]
held = dict(np.load(arrays))
call = export.deserialize(bytearray(open(model, "rb").read())).call
want, got = held.pop("expected"), np.asarray(call(*held.values())[0])
"""
PYTORCH = """
import sys, warnings
warnings.simplefilter("ignore")  # that there is no NumPy
import torch
from safetensors.torch import load_file
model, arrays = sys.argv[1:]
sys.path.insert(0, model.rsplit("/", 1)[0])
from jetclr_encoder import JetEncoder
held = load_file(arrays)
want = held.pop("expected")
with torch.no_grad():
    got = JetEncoder.from_file(model)(**{name.split("/")[1]: x for name, x in held.items()})
"""
VERDICT = """
import importlib.util
for ours in ("jetclr", "augmentations", "probes", "haiku"):
    assert importlib.util.find_spec(ours) is None, ours
print(float((abs(got - want) / (1 + abs(want))).max()))
"""


@pytest.fixture(scope="module")
def frozen(run: Path) -> Frozen:
    opened = open_run(run)
    return Frozen(opened.config, opened.params)


@pytest.fixture(scope="module")
def jets(frozen: Frozen, stores: dict[str, Path]) -> Checked:
    """Random ones, with an empty, a single and full ones among them, and some of a store."""
    random, real = random_jets(frozen), real_jets(frozen, Store(stores["test"]), 64)
    return {name: np.concatenate([random[name], real[name]]) for name in random}


def exported(run: Path, folder: Path, to: str, flavor: FlavorName = "batch") -> Path:
    """The file of the model."""
    out = folder / f"{to}-{flavor}"
    assert main(["export", str(run), str(out), "--to", to, "--flavor", flavor]) == 0
    card = json.loads((out / "model_card.json").read_text())
    return out / card["files"]["model"]


def arrays_of(frozen: Frozen, flavor: FlavorName, jets: Checked) -> dict[str, np.ndarray]:
    """The inputs of every call, and what JAX gives for them."""
    feeds = FLAVORS[flavor].feeds(frozen, jets)
    held = {f"{i}/{name}": np.ascontiguousarray(x) for i, feed in enumerate(feeds) for name, x in feed.items()}
    return held | {"expected": expected(frozen, jets)["embedding"]}


def environment(folder: Path, *packages: str) -> Path:
    """The interpreter of a new environment with these packages."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
    return python


def difference_in(python: Path, script: str, model: Path, arrays: Path) -> float:
    """What the script finds, run apart from this tree and its settings."""
    command = [python, "-I", "-c", script + VERDICT, model, arrays]
    done = subprocess.run(command, capture_output=True, text=True, cwd=arrays.parent)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="there is no ONNX Runtime 1.17 for this Python")
def test_every_flavour_agrees_in_the_onnx_runtime_of_cmssw(
    run: Path, frozen: Frozen, jets: Checked, tmp_path: Path
) -> None:
    python = environment(tmp_path / "venv", "onnxruntime==1.17.3", "numpy<2")
    for flavor in FLAVORS:
        arrays = tmp_path / f"{flavor}.npz"
        np.savez(arrays, **arrays_of(frozen, flavor, jets))
        apart = difference_in(python, ONNX, exported(run, tmp_path, "onnx", flavor), arrays)
        assert apart <= LIMIT, flavor


def test_stablehlo_needs_jax_and_what_it_reads_files_with(
    run: Path, frozen: Frozen, jets: Checked, tmp_path: Path
) -> None:
    python = environment(tmp_path / "venv", "jax", "flatbuffers")  # which jax.export needs, and jax does not bring
    arrays = tmp_path / "arrays.npz"
    np.savez(arrays, **arrays_of(frozen, "batch", jets))
    assert difference_in(python, STABLEHLO, exported(run, tmp_path, "stablehlo"), arrays) <= LIMIT


def test_the_module_needs_torch_and_safetensors_alone(run: Path, frozen: Frozen, jets: Checked, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", "torch", "safetensors")
    arrays = tmp_path / "arrays.safetensors"
    save_file(arrays_of(frozen, "batch", jets), arrays)
    assert difference_in(python, PYTORCH, exported(run, tmp_path, "torch"), arrays) <= LIMIT
