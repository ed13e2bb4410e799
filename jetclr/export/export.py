"""`jetclr export`: a run's frozen encoder as a folder that other software reads, checked against JAX beforehand."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jetclr.checkpoint import Which
from jetclr.data.store import Store, make_parent, refuse_existing, write_json, write_whole
from jetclr.errors import UserError
from jetclr.export import runtimes, verify
from jetclr.export.card import NOT_STATED, make_card, published
from jetclr.export.flavors import FLAVORS, Flavor, FlavorName
from jetclr.export.folder import CARD_JSON, CARD_MARKDOWN
from jetclr.export.graph import Frozen, Tail
from jetclr.export.onnx_file import refuse_without_onnx, to_onnx
from jetclr.export.page import to_markdown
from jetclr.export.preprocess import preprocess
from jetclr.export.stablehlo import to_stablehlo
from jetclr.export.tails import head_tail, probe_tail
from jetclr.export.tensors import save_tensors
from jetclr.run import Run, open_run

Format = Literal["onnx", "stablehlo", "safetensors", "torch"]
DType = Literal["f32", "f16"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PACKAGES = {"onnxruntime": "onnxruntime", "jax.export": "jax", "PyTorch": "torch", "JAX": "jax"}
MODULE = Path(__file__).with_name("pytorch.py")
"""Goes along as it is: it needs PyTorch and safetensors, and nothing of this package."""


@dataclass(frozen=True)
class Order:
    """What is to be exported. Raises UserError for what does not go together, before anything is read."""

    to: Format
    flavor: FlavorName = "batch"
    layers: tuple[str, ...] = ("embedding",)  # none: scores alone
    dtype: DType = "f32"
    name: str = "jetclr"
    data: tuple[Path, ...] = ()  # jets to check on
    heads: tuple[Path, ...] = ()  # of `jetclr anomaly`
    probe: tuple[Path, ...] = ()  # labelled stores
    license: str = NOT_STATED  # of the weights
    seed: int = 0

    @property
    def probed(self) -> str:
        """The layer that a probe is put on: the first that is given."""
        return self.layers[0] if self.layers else "embedding"

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UserError(f"--name is {self.name!r}; it must be of letters, digits, dots, underscores and hyphens")
        if self.flavor != "batch" and self.to != "onnx":
            raise UserError(f"--flavor {self.flavor} is for --to onnx; {self.to} takes batches with a mask")
        if self.flavor == "atlas" and not self.name.isalnum():
            raise UserError(f"--name is {self.name!r}; Athena takes a name of letters and digits alone")
        if (self.heads or self.probe) and self.to in ("safetensors", "torch"):
            raise UserError(f"heads and probes become part of a graph: --to onnx or stablehlo, not {self.to}")
        if self.to == "onnx":
            refuse_without_onnx()


def export_run(run_path: Path, out: Path, order: Order, which: Which = "latest") -> dict[str, Any]:
    """Write the folder `out`, whole or not at all, and return its model card.

    Raises UserError for an existing `out`, a layer or head that does not belong to the run, and wherever the written
    model, run by the software it is for, differs from JAX by more than `verify.LIMIT`.
    """
    refuse_existing(out)
    run = open_run(run_path, which)
    flavor, frozen = FLAVORS[order.flavor], _frozen(run, order)
    store = _real_store(run, order.data)
    jets = {"random": verify.random_jets(frozen, order.seed)}
    if store is not None:
        jets["real"] = verify.real_jets(frozen, store)
    with _new_folder(out) as folder:
        files = {"model": f"{order.name}.{'safetensors' if order.to == 'torch' else order.to}"}
        if order.flavor == "cms":
            files["preprocess"] = "preprocess.json"
        if order.to == "torch":
            files["module"] = "jetclr_encoder.py"
        card = make_card(
            run,
            frozen,
            flavor,
            to=order.to,
            name=order.name,
            dtype=order.dtype,
            files=files,
            jets=jets.get("real"),
            verification={},
            license=order.license,
        )
        runs = _write(folder, files, frozen, flavor, order, card)
        card["verification"] = verify.check(frozen, flavor, jets, runs) | _checked_with(order.to, list(runs), store)
        if order.dtype == "f16":
            card["verification"]["rounding"] = _rounding(run, frozen, jets)
        write_json(folder / CARD_JSON, card)
        write_whole(folder / CARD_MARKDOWN, to_markdown(card))
    return card


def _frozen(run: Run, order: Order) -> Frozen:
    dtype = np.float16 if order.dtype == "f16" else np.float32
    with np.errstate(over="ignore"):  # told of as what it becomes
        params = jax.tree.map(lambda p: np.asarray(p).astype(dtype), run.params)
    if not all(np.isfinite(p).all() for p in jax.tree.leaves(params)):
        raise UserError(f"{run.path} has parameters that are not finite as {order.dtype}; export f32, or check the run")
    tails: list[Tail] = [head_tail(path, run) for path in order.heads]
    if order.probe:
        tails.append(probe_tail(run, order.probe, order.probed, order.seed))
    return Frozen(published(run.config), params, order.layers, tuple(tails))


def _real_store(run: Run, data: Sequence[Path]) -> Store | None:
    """The stores named, or the first of the run's config that is still there."""
    if data:
        return Store(*data)
    named = (*run.config.data.validation, *run.config.data.train)
    return next((Store(Path(path)) for path in named if (Path(path) / "metadata.json").is_file()), None)


def _write(
    folder: Path, files: dict[str, str], frozen: Frozen, flavor: Flavor, order: Order, card: dict[str, Any]
) -> dict[str, verify.Runs]:
    """Write the files of the model; returns what runs it, by name."""
    model, metadata = folder / files["model"], _metadata(card)
    if order.to == "onnx":
        model.write_bytes(to_onnx(frozen, flavor, order.name, metadata))
        if "preprocess" in files:
            write_json(folder / files["preprocess"], preprocess(frozen, flavor))
        return {"onnxruntime": runtimes.onnxruntime(model)}
    if order.to == "stablehlo":
        model.write_bytes(to_stablehlo(frozen, flavor))
        return {"jax.export": runtimes.stablehlo(model)}
    save_tensors(model, frozen, metadata)
    runs = {"JAX": runtimes.tensors(model)}
    if order.to == "torch":
        shutil.copyfile(MODULE, folder / files["module"])
        if runtimes.has_torch():
            runs["PyTorch"] = runtimes.pytorch(model, folder / files["module"], frozen)
    return runs


def _metadata(card: dict[str, Any]) -> dict[str, str]:
    """The card in the file itself, for whoever has lost the folder: text by text, the longer ones as JSON."""
    kept = {k: v for k, v in card.items() if k not in ("verification", "files")}
    return {name: x if isinstance(x, str) else json.dumps(x) for name, x in kept.items()}


def _checked_with(to: Format, runs: Sequence[str], store: Store | None) -> dict[str, Any]:
    """Versions of what ran the model, and the jets it ran on."""
    told: dict[str, Any] = {
        "versions": {name: version(PACKAGES[name]) for name in runs},
        "real_jets_of": None if store is None else [path.name for path in store.paths],
    }
    if to == "torch" and "PyTorch" not in runs:
        told["not_run"] = "PyTorch is not installed here: the tensors were checked, the module was not run"
    return told


def _rounding(run: Run, frozen: Frozen, jets: dict[str, verify.Checked]) -> dict[str, float]:
    """How far half-precision weights move the layers of each group of jets, as `verify.difference`.

    Those that are given, and those that scores are made of: none for heads that see constituents alone.
    """
    if not frozen.computed:
        return {}
    half, full = (
        verify.expected_of(Frozen(run.config, params, frozen.computed), jets) for params in (frozen.params, run.params)
    )
    return {group: max(verify.difference(half[group][name], x) for name, x in full[group].items()) for group in jets}


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name on a clean exit, and is removed otherwise."""
    make_parent(out)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out} cannot be made: {error.strerror} ({out.parent})") from None
    folder.chmod(0o755)  # mkdtemp makes it private; an export is for sharing
    try:
        yield folder
        refuse_existing(out)
        os.rename(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
