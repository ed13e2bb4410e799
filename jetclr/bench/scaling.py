"""`jetclr bench scaling`: as many jets on each device, on ever more devices of this host (weak scaling)."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import jax

from jetclr.bench.jets import open_jets
from jetclr.bench.machine import Row, fresh_processes, medians, refuse_settings, rounded, say
from jetclr.bench.train import train_turn
from jetclr.config import Config
from jetclr.data.units import cores
from jetclr.errors import UserError


def bench_scaling(
    config: Config, size: str, stores: Sequence[Path] = (), *, devices: int | None, steps: int, repeats: int
) -> Iterator[Row]:
    """Measure training steps on 1, 2, 4, ... and `devices` devices (all there are), the batch growing with them.

    Every turn is a process of its own, and all numbers of devices take turns. A CPU is cut into as many devices as it
    has cores, which they share: there, jets/s should stay as they are, and `efficiency` is jets/s over those of one
    device. On accelerators it is that over the number of devices. Yields a row for each. Raises UserError for more
    accelerators than there are.
    """
    refuse_settings({"devices": (1 if devices is None else devices, 1), "steps": (steps, 1), "repeats": (repeats, 1)})
    platform, there = _devices_there()
    shared = platform == "cpu"
    most = devices or (cores() if shared else there)
    if not shared and most > there:
        raise UserError(f"--devices is {most}; there are {there}")
    counts = sorted({*(2**power for power in range(most.bit_length())), most})
    turns: dict[int, list[Row]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory(prefix="jetclr-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        paths = open_jets(stores, folder, max(8192, 2 * most * config.batch)).paths
        for number in range(1, repeats + 1):
            for count in counts:
                say(f"scaling, {size}, {count} device(s), run {number} of {repeats}")
                grown = replace(config, batch=count * config.batch)
                turns[count].append(train_turn(grown, paths, steps, folder / "programs", count))
    alone = medians(turns[1], ("jets_per_s",))["jets_per_s"]
    for count in counts:
        found = medians(turns[count], ("jets_per_s", "ms_per_step", "gflops", "peak_mib"))
        ideal = alone if shared else count * alone
        yield {
            "bench": "scaling",
            "size": size,
            "devices": count,
            "platform": platform,
            "shared_cores": cores() if shared else None,
            "batch": count * config.batch,
            **found,
            "efficiency": rounded(found["jets_per_s"] / ideal),
            "runs": repeats,
        }


def _devices_there() -> tuple[str, int]:
    with fresh_processes(1) as pool:  # to ask is to take hold of an accelerator
        found: tuple[str, int] = pool.submit(_devices).result()
    return found


def _devices() -> tuple[str, int]:
    """In a process of its own: what kind of devices there are, and how many."""
    return jax.default_backend(), jax.local_device_count()
