"""How fast a run is, where its time goes, and how close it comes to what the machine can do."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jetclr import cost
from jetclr.config import Config
from jetclr.data.buckets import Layout
from jetclr.encoder import Precision

CLOCK = ("jets_per_s", "jets_per_s_per_device", "step_ms", "data_ms", "device_ms", "memory_gib", "tflops", "peak_share")
"""The metrics that depend on the machine and the moment; all others are the same at every repetition of a run."""

TRACE_AFTER, TRACE_STEPS = 5, 5


class Meter:
    """Rates over the steps since the last `restart`."""

    def __init__(self, config: Config, devices: int) -> None:
        self._batch, self._devices = config.batch, devices
        self._step_flops = lru_cache(maxsize=4)(lambda layout: cost.step_flops(config, layout))
        self._peak = peak_tflops(config.precision) * devices
        self.restart()

    def restart(self) -> None:
        """Forget what was measured."""
        self._steps, self._flops, self._data, self._device = 0, 0.0, 0.0, 0.0
        self._since = time.perf_counter()

    @contextmanager
    def data(self) -> Iterator[None]:
        """Counts the time inside as waiting for the next batch."""
        start = time.perf_counter()
        yield
        self._data += time.perf_counter() - start

    @contextmanager
    def device(self) -> Iterator[None]:
        """Counts the time inside as starting a step or waiting for one to be done."""
        start = time.perf_counter()
        yield
        self._device += time.perf_counter() - start

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Does not count the time inside at all."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def step(self, layout: Layout | None = None) -> None:
        """One more step was started, on a batch of this layout (None: all jets padded in full)."""
        self._steps += 1
        self._flops += self._step_flops(layout)

    def rates(self) -> dict[str, float]:
        """The metrics `CLOCK`.

        `data_ms` and `device_ms` are what the host waited in a step for the next batch and for the device; what is
        left of `step_ms` went into saving and Python. Logging and probing are not counted: the meter is restarted after
        them. `tflops` counts the matrix products of the model in a logged step (`cost.step_flops`) on all devices, and
        `peak_share` sets them against a large product timed at the start.
        """
        seconds = max(time.perf_counter() - self._since, 1e-9)
        steps = max(self._steps, 1)
        jets_per_s = self._steps * self._batch / seconds
        tflops = self._flops / 1e12 / seconds
        return {
            "jets_per_s": jets_per_s,
            "jets_per_s_per_device": jets_per_s / self._devices,
            "step_ms": 1e3 * seconds / steps,
            "data_ms": 1e3 * self._data / steps,
            "device_ms": 1e3 * self._device / steps,
            "memory_gib": memory_bytes() / 2**30,
            "tflops": tflops,
            "peak_share": tflops / self._peak,
        }


def memory_bytes() -> int:
    """The most memory used so far: of the fullest device of this process or, on a CPU, of the process."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    used = [int(s["peak_bytes_in_use"]) for s in stats if s and "peak_bytes_in_use" in s]
    if used:
        return max(used)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Peak(NamedTuple):
    """The highest rate that was found for large square matrix products."""

    tflops: float
    """10^12 FLOP/s, of one accelerator or of all cores."""
    of: str
    """What reached it, as "NumPy 2048"."""


@lru_cache
def peak_tflops(precision: Precision) -> float:
    """What one device reaches at best (`peak`); 10^12 FLOP/s.

    The cores of a CPU are shared by all devices that are made of them, so each gets its part.
    """
    shared = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    return peak(precision).tflops / shared


def peak(precision: Precision, seconds: float = 0.05) -> Peak:
    """The best rate of any large square matrix product of that precision, each tried for `seconds`.

    A CPU is asked through XLA and, in float32, through NumPy's BLAS, at sizes 1024 and 2048: neither wins on every
    machine, and what a program reaches is to be set beside the better one.
    """
    if jax.default_backend() != "cpu":
        return _best({"XLA 8192": _xla_product(8192, precision)}, 8192, seconds)
    found = Peak(0.0, "")
    for size in (1024, 2048):
        ways = {f"XLA {size}": _xla_product(size, precision)}
        if precision != "bfloat16":
            ways[f"NumPy {size}"] = _numpy_product(size)
        found = max(found, _best(ways, size, seconds))
        if 2 * 2048**3 / found.tflops / 1e12 > 4 * max(seconds, 0.05):
            break  # a slow machine, on which the larger one takes long
    return found


def _best(ways: dict[str, Callable[[], object]], size: int, seconds: float) -> Peak:
    took = {}
    for name, product in ways.items():
        end = time.perf_counter() + seconds
        took[name] = min(_seconds(product) for _ in range(3))
        while time.perf_counter() < end:
            took[name] = min(took[name], _seconds(product))
    name = min(took, key=lambda name: took[name])
    return Peak(2 * size**3 / took[name] / 1e12, name)


def _xla_product(size: int, precision: Precision) -> Callable[[], object]:
    kind = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    x = jax.device_put(jnp.ones((size, size), kind), jax.local_devices()[0])
    with jax.default_matmul_precision("tensorfloat32" if precision == "tensorfloat32" else "float32"):
        product = jax.jit(lambda x: x @ x).lower(x).compile()
    return lambda: product(x).block_until_ready()


def _numpy_product(size: int) -> Callable[[], object]:
    x = np.ones((size, size), np.float32)
    out = np.empty_like(x)
    return lambda: np.matmul(x, x, out=out)


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


class Trace:
    """A profile of a few steps after the first ones, written where TensorBoard finds it."""

    def __init__(self, folder: Path, start: int) -> None:
        self._folder = folder
        self._first = start + TRACE_AFTER
        self._running = False

    def at(self, done: int, newest: jax.Array) -> None:
        """Called after each step, with a value that is ready when the step is done."""
        if done == self._first:
            newest.block_until_ready()
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif self._running and done == self._first + TRACE_STEPS:
            newest.block_until_ready()
            self.close()

    def close(self) -> None:
        """Write what there is."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
