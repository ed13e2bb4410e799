"""What XLA makes of a training step, beside what jetclr.cost says of it; `python -m tests.cost_check` prints a table.

The step is compiled for fake CPU devices and never run. FLOPs are those of the matrix products in the compiled
program, loops multiplied out: XLA's own count takes the body of a loop once and holds elementwise work as well.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp

from augmentations import Chain
from jetclr import encoder, sharding, step
from jetclr.config import Config, Data, load
from jetclr.cost import step_cost
from jetclr.data.buckets import Layout
from jetclr.encoder import Encoder, Head
from jetclr.kernels import FORMULAS

ROOT = Path(__file__).parent.parent
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
CALLS = r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)"


class Instruction(NamedTuple):
    """One line of a compiled program, and how often a step comes to it."""

    times: int
    shape: str
    operation: str
    rest: str
    operands: list[str]
    """Their shapes."""


class Found(NamedTuple):
    """What XLA reports of one device's program."""

    flops: float
    """Of matrix products."""
    all_flops: float
    """XLA's own count, bodies of loops once."""
    state: int
    """Bytes that go in: state and batch."""
    temporary: int
    """Bytes that are needed besides."""
    gathered: float
    """Bytes that a device sends when projections, parameters or activations are gathered or moved."""
    summed: float
    """Bytes that it sends when gradients and metrics are added up."""


def compile_step(config: Config, data: int, fsdp: int, layout: Layout | None = None) -> jax.stages.Compiled:
    """The real step for a mesh of data x fsdp devices, compiled from shapes alone: those of `layout`, or one piece."""
    mesh = sharding.make_mesh(sharding.Devices(data, fsdp), config.batch, config.chunks)
    state = sharding.abstract(mesh, jax.eval_shape(lambda: step.init_state(config)))
    layout = layout or ((config.batch, max(config.data.slots, config.data.constituents)),)
    columns = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding.split(mesh)) for shape in layout]
    pieces = tuple(dict.fromkeys(("pt", "eta", "phi"), column) for column in columns)
    train_step = step.make_train_step(config, mesh)
    with mock.patch.object(encoder, "choose_kernels", return_value=FORMULAS):  # as on accelerators
        return train_step.lower(state, pieces).compile()  # type: ignore[attr-defined]


def measure(config: Config, data: int, fsdp: int, layout: Layout | None = None) -> Found:
    """What XLA reports of the compiled step."""
    compiled = compile_step(config, data, fsdp, layout)
    flops, sent = 0.0, {"gathered": 0.0, "summed": 0.0}
    for found in instructions(compiled.as_text()):
        if found.operation == "dot":
            contracted = re.search(r"lhs_contracting_dims=\{([\d,]+)\}", found.rest)
            assert contracted
            left = _dimensions(found.operands[0])[0][1]
            inner = math.prod(left[int(axis)] for axis in contracted[1].split(","))
            flops += found.times * 2 * math.prod(_dimensions(found.shape)[0][1]) * inner
        if found.operation in COLLECTIVES:
            kind = "summed" if found.operation in ("all-reduce", "reduce-scatter") else "gathered"
            sent[kind] += found.times * _sent(found, fsdp)
    memory = compiled.memory_analysis()
    return Found(
        flops,
        compiled.cost_analysis()["flops"],
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        sent["gathered"],
        sent["summed"],
    )


def instructions(text: str) -> Iterator[Instruction]:
    """All instructions of a program in XLA's text, those of loops and fusions among them."""
    computations: dict[str, list[tuple[str, str, str, str]]] = {}
    entry, inside = "", ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%([\w.\-]+) \(.*\{$", line):
            inside = head[2]
            computations[inside] = []
            entry = inside if head[1] else entry
        elif found := re.match(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$", line):
            computations[inside].append((found[1], found[2], found[3], found[4]))

    def visit(name: str, times: int) -> Iterator[Instruction]:
        shapes = {name: shape for name, shape, _, _ in computations[name]}
        for _, shape, operation, rest in computations[name]:
            operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            yield Instruction(times, shape, operation, rest, [shapes[o] for o in operands if o in shapes])
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', rest) if operation == "while" else None
            branches = re.search(r"branch_computations=\{([^}]*)\}", rest)  # all: as in a logged step
            for called in re.findall(CALLS, rest) + re.findall(r"%([\w.\-]+)", branches[1] if branches else ""):
                yield from visit(called, times * (int(trips[1]) if trips else 1))

    yield from visit(entry, 1)


def _dimensions(shape: str) -> list[tuple[str, list[int]]]:
    found = re.findall(r"\b([a-z]+\d+|pred)\[([\d,]*)\]", shape)
    return [(kind, [int(size) for size in sizes.split(",") if size]) for kind, sizes in found]


def _bytes(shape: str) -> int:
    return sum(BYTES[kind] * math.prod(sizes) for kind, sizes in _dimensions(shape))


def _sent(found: Instruction, fsdp: int) -> float:
    """Bytes that a device sends in a ring for one collective.

    XLA for a CPU knows no reduce-scatter: it sums whole gradients over the fsdp devices, and each takes its share. That
    counts as the reduce-scatter which it is elsewhere.
    """
    size = _bytes(found.shape)
    if found.operation == "collective-permute":
        return size
    group = _group(found.rest)
    twice = found.operation == "all-reduce" and group != fsdp
    return (2 if twice else 1) * size * (group - 1) / group


def _group(rest: str) -> int:
    """Devices that take part in a collective together."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return listed[1].count(",") + 1
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):
        return int(iota[1])
    mesh = re.search(r"replica_groups=mesh\[(.*?)\].*? \{(.*?)\}", rest)
    assert mesh, rest[:200]
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))


def small(chunks: int = 1, width: int = 128, batch: int = 512, constituents: int = 20, layers: int = 2) -> Config:
    """A config that compiles in seconds."""
    return Config(
        data=Data(constituents=constituents),
        views=(Chain(), Chain()),
        encoder=Encoder(width=width, layers=layers, heads=4, feedforward=2 * width, wide=128),
        head=Head(hidden=(256,), width=128),
        batch=batch,
        chunks=chunks,
    )


def cases() -> Iterator[tuple[str, Config, int, int]]:
    """The rows of the table in docs/scaling.md: what, config, data, fsdp."""
    for name, batch in (("toptag", 256), ("jetclr_paper", 128)):
        given = replace(load(ROOT / f"configs/{name}.py"), batch=batch)
        yield name, given, 1, 1
        yield name, replace(given, chunks=4), 1, 1
        yield name, given, 8, 1
        yield name, replace(given, chunks=4), 8, 1
        yield name, given, 4, 2
    for width in (64, 128, 256, 512):
        yield f"width {width}", small(width=width), 8, 1
    for constituents in (10, 80):
        yield f"{constituents} constituents", small(constituents=constituents), 8, 1
    for batch, chunks in ((64, 1), (4096, 1), (4096, 8)):
        yield f"batch {batch:,}", small(batch=batch, chunks=chunks), 8, 1
    for data, fsdp, chunks in ((4, 2, 1), (1, 8, 1), (4, 2, 4)):
        yield "width 512", small(width=512, chunks=chunks), data, fsdp


def main() -> None:
    """Print the table."""
    columns = ("", "chunks", "data x fsdp", "GFLOP", "model", "elementwise", "MB sent", "model", "MiB", "model")
    print(f"| {' | '.join(columns)} |\n|---|{'---:|' * (len(columns) - 1)}", flush=True)
    for name, config, data, fsdp in cases():
        found, cost = measure(config, data, fsdp), step_cost(config, data, fsdp)
        elementwise = f"{100 * (found.all_flops / found.flops - 1):.1f} %" if config.chunks == 1 else ""
        sent = found.gathered + found.summed
        memory = found.state + found.temporary
        print(
            f"| {name} | {config.chunks} | {data} x {fsdp} | {found.flops / 1e9:.3f} | "
            f"{relative(sum(cost.flops), found.flops)} | {elementwise} | "
            f"{f'{sent / 1e6:.3f} | {relative(sum(cost.wire), sent)}' if sent else ' | '} | "
            f"{memory / 2**20:.1f} | {relative(cost.memory.peak, memory)} |",
            flush=True,
        )


def relative(model: float, found: float) -> str:
    """How far the model is off."""
    percent = round(100 * (model / found - 1), 1)
    return f"{percent:+.1f} %" if percent else "0"


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    main()
