"""`jetclr bench train`: steps of a whole training through the loader, beside a peer's and what the machine can do.

Each turn is a process of its own, so that compiling and memory are those of a start from nothing; turns of ours and of
the peer alternate. Steps are timed as a run has them: the next batch is read while a step is under way, and the host
waits for a step before it starts another but one.
"""

import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jetclr import cost, meter, sharding, step
from jetclr.bench.jets import JETS, about_axis, in_memory, open_jets
from jetclr.bench.machine import Row, Used, fresh_processes, medians, peak_mib, refuse_settings, rounded, say, used
from jetclr.bench.peer import Peer
from jetclr.bench.start import start_here
from jetclr.config import Config
from jetclr.data.chunk import COORDINATES
from jetclr.data.pipeline import BatchSource, training_batches
from jetclr.data.store import Store
from jetclr.data.units import cores

WARM_UP = 2
"""Steps before those that are measured."""

PEAK_SECONDS = 0.5
"""How long each product is tried for the machine's peak."""

# Of a turn, those whose median is told at the end.
_TOLD = ("jets_per_s", "ms_per_step", "gflops", "core_ms_per_step", "minor_faults", "waiting_share", "peak_mib")


class Steps(NamedTuple):
    """The measured steps of a turn."""

    seconds: list[float]
    waited: float
    """Seconds waited for data, in all of them."""
    used: Used


def bench_train(
    config: Config, size: str, stores: Sequence[Path] = (), *, steps: int, repeats: int, peer: Peer | None = None
) -> Iterator[Row]:
    """Measure `steps` training steps in each of `repeats` turns, in turns with a peer if there is one.

    Jets are those of `stores`, or made on the spot. Yields a row for each turn, and one of medians: `jets_per_s`,
    `ms_per_step`, the rate of the products of a step, `gflops`, the best that this machine gave for large products in
    any turn and the share of it, seconds to compile from nothing and with a program kept on disk, `peak_mib`; and,
    beside a peer, `ratio` of jets/s and `memory_ratio`, ours over the peer's. Raises UserError for settings that
    cannot be, and for a peer that fails.
    """
    refuse_settings({"steps": (steps, 1), "repeats": (repeats, 1)})
    ours: list[Row] = []
    theirs: list[Row] = []
    # Where a run is cut short, its process may still read while the folder goes.
    with tempfile.TemporaryDirectory(prefix="jetclr-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        store = open_jets(stores, folder)
        if peer is not None:
            np.save(folder / "jets.npy", about_axis(in_memory(store, JETS, config.data.constituents)))
        for number in range(1, repeats + 1):
            say(f"train, {size}, run {number} of {repeats}")
            told = {"bench": "train", "size": size, "run": number}
            ours.append(train_turn(config, store.paths, steps, folder / "programs"))
            yield told | {"what": "jetclr"} | ours[-1]
            if peer is not None:
                say(f"{peer.program.name}, {size}, run {number} of {repeats}")
                theirs.append(peer.train(folder / "jets.npy", config, steps, cores()))
                yield told | {"what": "peer"} | theirs[-1]
    yield {"bench": "train", "size": size, "what": "medians"} | _summary(ours, theirs)


def train_turn(config: Config, stores: Sequence[Path], steps: int, programs: Path | None, devices: int = 0) -> Row:
    """One turn, in a process of its own; compiled programs are kept in the folder `programs` if there is one.

    `devices` is that of a CPU to be made, or how many accelerators to use; 0: as there are.
    """
    with fresh_processes(1) as pool:
        return pool.submit(_turn, config, tuple(stores), steps, programs, devices).result()


def _summary(ours: Sequence[Row], theirs: Sequence[Row]) -> Row:
    """Medians over turns, the first of which compiled from nothing; the peak is the best of all turns."""
    best = max(ours, key=lambda row: row["peak_gflops"])
    found = {name: ours[0][name] for name in ("precision", "batch", "steps", "devices", "threads")}
    found |= medians(ours, _TOLD) | {name: best[name] for name in ("peak_gflops", "peak_of")}
    share = rounded(found["gflops"] / found["peak_gflops"])
    found |= {"peak_share": share} | ({"mfu": share} if "mfu" in best else {})
    found["compile_s"] = ours[0]["compile_s"]
    if ours[1:]:
        found["compile_again_s"] = medians(ours[1:], ("compile_s",))["compile_s"]
    if theirs:
        peer = medians(theirs, ("jets_per_s", "ms_per_step", "peak_rss_mb"))
        found |= {f"peer_{name}": value for name, value in peer.items()}
        found["ratio"] = rounded(found["jets_per_s"] / peer["jets_per_s"])
        found["memory_ratio"] = rounded(found["peak_mib"] / peer["peak_rss_mb"])
    return found | {"runs": len(ours)}


def _turn(config: Config, stores: tuple[Path, ...], steps: int, programs: Path | None, devices: int) -> Row:
    """In a process of its own: everything from an untrained network to the last measured step."""
    from jetclr import train  # with all that a run has in memory

    start_here(programs, devices)
    mesh = sharding.make_mesh(sharding.Devices(data=devices), config.batch)
    source = BatchSource(
        Store(*stores),
        batch=config.batch,
        constituents=config.data.constituents,
        slots=config.data.slots,
        seed=config.seed,
        steps=config.steps,
        rows=lambda jets: sharding.local_rows(mesh, jets),
    )
    start = time.perf_counter()
    state = _first_state(config, mesh)
    made = time.perf_counter()
    compiled = _compiled(config, mesh, state, source)
    compile_s = time.perf_counter() - made
    found = _steps(config, mesh, source, compiled, state, steps, train.IN_FLIGHT)
    memory = peak_mib() if _on_cpu() else meter.memory_bytes() / 2**20
    median = float(np.median(found.seconds))
    peak = meter.peak(config.precision, PEAK_SECONDS)
    gflops, most = cost.step_flops(config) / median / 1e9, peak.tflops * 1e3 * _chips(mesh)
    return {
        "precision": config.precision,
        "batch": config.batch,
        "steps": steps,
        "devices": mesh.size,
        "threads": cores(),
        "jets_per_s": rounded(config.batch / median),
        "ms_per_step": rounded(1e3 * median),
        "gflops": rounded(gflops),
        "peak_gflops": rounded(most),
        "peak_of": peak.of,
        "peak_share": rounded(gflops / most),
        **({} if _on_cpu() else {"mfu": rounded(gflops / most)}),
        "core_ms_per_step": rounded(1e3 * found.used.core_seconds / steps),
        "minor_faults": round(found.used.minor_faults / steps),
        "waiting_share": rounded(found.waited / sum(found.seconds)),
        "state_s": rounded(made - start),
        "compile_s": rounded(compile_s),
        "peak_mib": round(memory),
    }


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _chips(mesh: Mesh) -> int:
    """How many times there is what `meter.peak` measures: a CPU is one, whatever devices are made of it."""
    return 1 if _on_cpu() else mesh.size


def _first_state(config: Config, mesh: Mesh) -> step.State:
    shapes = jax.eval_shape(lambda: step.init_state(config))
    make: Any = jax.jit(lambda: step.init_state(config), out_shardings=sharding.of_state(mesh, shapes))
    state: step.State = jax.block_until_ready(make())
    return state


def _compiled(config: Config, mesh: Mesh, state: step.State, source: BatchSource) -> Any:
    """The step for batches as the source has them."""
    at = sharding.split(mesh)
    pieces = [jax.ShapeDtypeStruct(piece, np.float32, sharding=at) for piece in source.layout]
    train_step: Any = step.make_train_step(config, mesh)
    return train_step.lower(state, tuple(dict.fromkeys(COORDINATES, piece) for piece in pieces)).compile()


def _steps(
    config: Config, mesh: Mesh, source: BatchSource, compiled: Any, state: step.State, steps: int, in_flight: int
) -> Steps:
    """Seconds from the end of one step to that of the next, as the host learns of it."""
    batches = training_batches(source)
    under_way: deque[jax.Array] = deque()
    ends: list[float] = []
    waits: list[float] = []
    moments: list[Used] = []
    while len(ends) < WARM_UP + steps:
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        placed = tuple(sharding.place(mesh, piece, x) for x, (piece, _) in zip(batch, source.layout, strict=True))
        state, metrics = compiled(state, placed)
        under_way.append(metrics["loss"])
        if len(under_way) > in_flight:
            float(under_way.popleft())
            ends.append(time.perf_counter())
            moments.append(used())
    jax.block_until_ready(state)
    # Of as many rounds of the loop as there are steps, the last ones.
    return Steps(np.diff(ends)[WARM_UP - 1 :].tolist(), sum(waits[-steps:]), moments[-1].since(moments[WARM_UP - 1]))
