"""`jetclr bench export`: speed of the exported encoder beside JAX's own, on the processor, as JSON lines.

Numbers go in and come out as NumPy arrays everywhere. All ways to run it take turns, over and over, each with its model
ready in a process that waits meanwhile. For one thread the process is held to one core: JAX has no other such setting.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jetclr import sharding, step
from jetclr.bench.machine import fresh_processes, refuse_settings
from jetclr.checkpoint import Which
from jetclr.data.store import Store
from jetclr.data.units import cores
from jetclr.export import runtimes
from jetclr.export.flavors import FLAVORS, Feed, FlavorName
from jetclr.export.graph import Frozen
from jetclr.export.onnx_file import refuse_without_onnx, to_onnx
from jetclr.export.tensors import open_tensors, save_tensors
from jetclr.export.verify import Checked, random_jets, real_jets
from jetclr.run import open_run

JETS = 4096
"""Jets that are gone through again and again, or one batch if that is more."""

Dtype = Literal["f32", "f16"]
_ENCODER, _JETS = "encoder.safetensors", "jets.npz"


class _Case(NamedTuple):
    """One way to run the encoder."""

    runtime: Literal["jax", "onnxruntime", "torch"]
    flavor: FlavorName
    dtype: Dtype
    batch: int
    one_thread: bool

    @property
    def file(self) -> str:
        return f"{self.flavor}-{self.dtype}.onnx"

    @property
    def threads(self) -> int:
        """How many it computes with; JAX takes all cores where a process cannot be held to one."""
        told = self.runtime != "jax" or hasattr(os, "sched_setaffinity")
        return 1 if self.one_thread and told else cores()


class _Turn(NamedTuple):
    """What one turn took."""

    jets_per_s: float
    ms_median: float
    ms_p95: float


def bench_export(
    run_path: Path, stores: Sequence[Path] = (), *, batch: int, repeats: int, seconds: float, which: Which = "latest"
) -> Iterator[dict[str, Any]]:
    """Measure calls of the encoder, one jet at a time with one thread, and `batch` jets at a time with all cores.

    Yields a row for each way to run it: medians over `repeats` turns of `seconds` each, of `jets_per_s` and of the
    median and the 95 % quantile of a call's time, in ms. Jets are those of `stores`, or random ones. JAX, PyTorch (if
    it is installed) and the flavour batch get them padded to the run's constituents; cms and atlas as they are, a jet
    a call. Raises UserError for a run or a store that will not do, and without onnxruntime.
    """
    refuse_settings({"batch": (batch, 1), "repeats": (repeats, 1)}, seconds)
    refuse_without_onnx()
    run = open_run(run_path, which)
    frozen = Frozen(run.config, run.params)
    cases = _cases(batch)
    # Where a run is cut short, its workers may still read while the folder goes.
    with tempfile.TemporaryDirectory(prefix="jetclr-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        jets = _jets(frozen, stores, max(JETS, batch))
        np.savez(folder / _JETS, **jets)  # type: ignore[arg-type,unused-ignore]
        _write_models(folder, frozen, cases)
        turns = _take_turns(folder, cases, repeats, seconds)
    data = ", ".join(path.name for path in stores) or "random jets"
    used = {"data": data, "slots": run.config.data.constituents, "mean_constituents": round(_mean_size(jets), 1)}
    for case in cases:
        yield _row(case, turns[case]) | used


def _cases(batch: int) -> list[_Case]:
    cases = [_Case("onnxruntime", flavor, "f32", 1, True) for flavor in ("cms", "atlas")]
    for jets, one_thread in ((1, True), (batch, False)):
        cases.append(_Case("jax", "batch", "f32", jets, one_thread))
        cases += [_Case("onnxruntime", "batch", dtype, jets, one_thread) for dtype in ("f32", "f16")]
        if runtimes.has_torch():
            cases.append(_Case("torch", "batch", "f32", jets, one_thread))
    return cases


def _jets(frozen: Frozen, stores: Sequence[Path], jets: int) -> Checked:
    """Padded jets from all over the stores, or random ones; from the start again if they are fewer."""
    found = real_jets(frozen, Store(*stores), jets) if stores else random_jets(frozen)
    again = np.arange(jets) % len(found["mask"])
    return {name: np.where(found["mask"] > 0, x, 0)[again] for name, x in found.items()}


def _mean_size(jets: Checked) -> float:
    return float(jets["mask"].sum(axis=1).mean())


def _write_models(folder: Path, frozen: Frozen, cases: Sequence[_Case]) -> None:
    save_tensors(folder / _ENCODER, frozen, {})
    half = Frozen(frozen.config, jax.tree.map(lambda p: p.astype(jnp.float16), frozen.params))
    for case in cases:
        path = folder / case.file
        if case.runtime == "onnxruntime" and not path.exists():
            path.write_bytes(to_onnx(half if case.dtype == "f16" else frozen, FLAVORS[case.flavor], "jetclr", {}))


def _take_turns(folder: Path, cases: Sequence[_Case], repeats: int, seconds: float) -> dict[_Case, list[_Turn]]:
    turns: dict[_Case, list[_Turn]] = {case: [] for case in cases}
    with ExitStack() as stack:
        pools = {one_thread: stack.enter_context(fresh_processes(1)) for one_thread in (True, False)}
        for number in range(repeats):
            print(f"turn {number + 1} of {repeats} of {len(cases)} ways", file=sys.stderr, flush=True)
            for case in cases[:: 1 if number % 2 == 0 else -1]:
                turns[case].append(pools[case.one_thread].submit(_turn, folder, case, seconds).result())
    return turns


def _row(case: _Case, turns: Sequence[_Turn]) -> dict[str, Any]:
    def median(values: Iterator[float], digits: int) -> float:
        return round(statistics.median(values), digits)

    return {
        "bench": "export",
        "what": "encode",
        "runtime": case.runtime,
        "version": version(case.runtime),
        "flavor": case.flavor,
        "dtype": case.dtype,
        "batch": case.batch,
        "threads": case.threads,
        "jets_per_s": round(statistics.median(turn.jets_per_s for turn in turns)),
        "ms_median": median((turn.ms_median for turn in turns), 4),
        "ms_p95": median((turn.ms_p95 for turn in turns), 4),
        "runs": len(turns),
    }


def _turn(folder: Path, case: _Case, seconds: float) -> _Turn:
    """In a process of its own: calls one after another, for a while."""
    if case.one_thread and hasattr(os, "sched_setaffinity"):  # before any runtime asks how many cores there are
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    jax.config.update("jax_platforms", "cpu")  # not the accelerator that there may be: threads are compared
    call, feeds = _ready(folder, case)
    _timed(call, feeds, seconds / 5)  # memory is there, and caches hold the model again
    took = _timed(call, feeds, seconds)
    low, high = np.quantile(took, [0.5, 0.95]) * 1e3
    return _Turn(len(took) * case.batch / sum(took), float(low), float(high))


def _timed(call: Callable[[Feed], Any], feeds: Sequence[Feed], seconds: float) -> list[float]:
    """Seconds of each call, at least one."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while not took or time.perf_counter() < end:
        feed = feeds[len(took) % len(feeds)]
        start = time.perf_counter()
        call(feed)
        took.append(time.perf_counter() - start)
    return took


@lru_cache
def _ready(folder: Path, case: _Case) -> tuple[Callable[[Feed], Any], list[Feed]]:
    """The model as a function of named arrays, called once, and the arrays of one call after another."""
    config, params, _ = open_tensors(folder / _ENCODER)
    with np.load(folder / _JETS) as file:
        jets = dict(file)
    frozen, flavor = Frozen(config, jax.tree.map(jnp.asarray, params)), FLAVORS[case.flavor]
    call = {"jax": _of_jax, "onnxruntime": _of_onnxruntime, "torch": _of_torch}[case.runtime](folder, case, frozen)
    feeds: list[Feed] = []
    for start in range(0, len(jets["mask"]) - case.batch + 1, case.batch):
        rows = slice(start, start + case.batch)
        few = {name: x[rows] for name, x in jets.items()}
        if case.flavor == "cms":  # one jet, of its own length
            few = {name: x[:, : max(int(few["mask"].sum()), 1)] for name, x in few.items()}
        feeds += flavor.feeds(frozen, few)
    call(feeds[0])
    return call, feeds


def _of_jax(folder: Path, case: _Case, frozen: Frozen) -> Callable[[Feed], Any]:
    """As `jetclr embed` runs it, on the processor as one device."""
    mesh = sharding.make_mesh(sharding.Devices(data=1), 1)
    embed, split = step.make_embed(frozen.config, frozen.layers, mesh), sharding.split(mesh)
    params = jax.device_put(frozen.params, sharding.everywhere(mesh))

    def call(feed: Feed) -> Any:
        batch = jax.device_put({name: feed[name] for name in frozen.columns}, split)
        return {name: np.asarray(x) for name, x in embed(params, batch).items()}

    return call


def _of_onnxruntime(folder: Path, case: _Case, frozen: Frozen) -> Callable[[Feed], Any]:
    return runtimes.onnxruntime(folder / case.file, threads=case.threads)


def _of_torch(folder: Path, case: _Case, frozen: Frozen) -> Callable[[Feed], Any]:
    import torch

    from jetclr.export.pytorch import JetEncoder

    torch.set_num_threads(case.threads)
    encoder = JetEncoder.from_file(str(folder / _ENCODER))

    def call(feed: Feed) -> Any:
        with torch.inference_mode():
            return encoder(**{name: torch.from_numpy(x) for name, x in feed.items()}).numpy()

    return call
