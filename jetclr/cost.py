"""What a training step costs, from the settings alone: FLOPs, bytes between devices, memory; and time, on a machine.

Shape glossary: B jets in a batch, M = 2B views (3B with anomalies), N slots, F features, D model width, H heads, P
projection; n devices.
Only sums are taken: no accelerator is touched and no array is made. docs/scaling.md sets all of it beside XLA.
"""

import itertools
import math
from typing import Any, NamedTuple

import jax

from jetclr import sharding, step
from jetclr.config import Config
from jetclr.data.buckets import GROUPS, Layout
from jetclr.errors import UserError

FLOAT = 4  # bytes: parameters, gradients, projections and similarities are float32 with every precision


class Flops(NamedTuple):
    """FLOPs of the matrix products of a step on each device; elementwise work is left out."""

    encoder: float
    """Encoder and head, forwards and back."""
    objective: float
    """Similarities and their gradient, and the monitors."""


class Wire(NamedTuple):
    """Bytes that each device sends in a step, every collective taken as a ring."""

    projections: float
    """The gather of all views' projections, and of one number a view."""
    parameters: float
    """With fsdp: the gather of all parameters, forwards and back."""
    gradients: float
    """Their sum over devices."""


class Memory(NamedTuple):
    """Bytes on each device."""

    parameters: float
    optimizer: float
    """With the running mean of the weights, and the objective's memory."""
    batch: float
    """The batch and its views."""
    gradients: float
    """With fsdp and chunks, those by whole parameters."""
    gathered: float
    """With fsdp: copies of whole parameters."""
    activations: float
    """What the backward pass of one chunk needs."""
    similarity: float
    """Rows of similarities, of the objective and of a monitor, and the gathered projections."""
    peak: float
    """The most at any moment; not the sum, since not all of it is there at once."""


class Cost(NamedTuple):
    """A training step of `batch` jets on a mesh of data x fsdp devices."""

    batch: int
    data: int
    fsdp: int
    chunks: int
    parameters: int
    """How many numbers are learned."""
    flops: Flops
    alone: Flops
    """FLOPs of the same step on one device: what several do more is done by each of them."""
    wire: Wire
    memory: Memory

    @property
    def devices(self) -> int:
        """How many there are."""
        return self.data * self.fsdp

    @property
    def jet_flops(self) -> float:
        """FLOPs a jet, on all devices together."""
        return self.devices * sum(self.flops) / self.batch


class Machine(NamedTuple):
    """What a device reaches in practice: a share of what its maker says."""

    flops_per_s: float
    """Of the encoder's products, in the precision of the config."""
    objective_flops_per_s: float
    """Of the objective's, which are float32 in full with every precision."""
    bytes_per_s: float
    """Sent by each device to its neighbour in a ring."""


class Time(NamedTuple):
    """Seconds of a step, nothing overlapping; elementwise work, latency and the loader are left out."""

    encoder: float
    objective: float
    gather: float
    """Projections and, with fsdp, parameters."""
    reduce: float
    """Gradients."""

    @property
    def step(self) -> float:
        """All of it."""
        return sum(self)


def step_flops(config: Config, layout: Layout | None = None) -> float:
    """FLOPs of the matrix products of one step on all devices together: encoder and head, forwards and back, and loss.

    `layout` is that of the batch, as (jets, slots) of each piece; None: all jets padded in full. What every device does
    alike, a small part of the monitors, is counted once.
    """
    return sum(_flops(config, 1, layout))


def step_cost(config: Config, data: int = 1, fsdp: int = 1) -> Cost:
    """The cost of one step on a mesh of data x fsdp devices, each jet padded in full; with buckets it is less.

    Raises UserError if there are no devices or if they, times `config.chunks`, do not divide the batch.
    """
    if data < 1 or fsdp < 1:
        raise UserError(f"a mesh of {data} x {fsdp} (data x fsdp) has no devices; both must be 1 or more")
    sharding.check_batch(config.batch, data * fsdp, config.chunks, GROUPS if config.data.buckets else 1)
    state = jax.eval_shape(lambda: step.init_state(config))
    parameters = _bytes(state.params | state.own, 1)
    return Cost(
        config.batch,
        data,
        fsdp,
        config.chunks,
        parameters // FLOAT,
        _flops(config, data * fsdp),
        _flops(config, 1),
        _wire(config, parameters, data, fsdp),
        _memory(config, state, data, fsdp),
    )


def step_time(cost: Cost, machine: Machine) -> Time:
    """How long a step takes when nothing overlaps."""
    return Time(
        cost.flops.encoder / machine.flops_per_s,
        cost.flops.objective / machine.objective_flops_per_s,
        (cost.wire.projections + cost.wire.parameters) / machine.bytes_per_s,
        cost.wire.gradients / machine.bytes_per_s,
    )


def efficiency(cost: Cost, machine: Machine) -> float:
    """Jets/s on all devices over as many times the jets/s of one device, with the same batch: 1 at best."""
    alone = cost.alone.encoder / machine.flops_per_s + cost.alone.objective / machine.objective_flops_per_s
    return alone / (cost.devices * step_time(cost, machine).step)


def _slots(config: Config) -> int:
    return max(config.data.slots, config.data.constituents)


def _dense(config: Config) -> list[tuple[int, int]]:
    """Shapes of the layers after pooling, from the first (the wide one, if there is one) to the projection."""
    pooled, wide = config.encoder.pooled_width, config.encoder.wide
    widths = (pooled + wide, *config.head.hidden, config.head.width)
    return [(pooled, wide)] * bool(wide) + list(itertools.pairwise(widths))


def _flops(config: Config, devices: int, layout: Layout | None = None) -> Flops:
    """FLOPs of matrix products on each device; the objective's own networks are left out."""
    pieces = layout or ((config.batch, _slots(config)),)
    encoder = sum(config.views_a_jet * jets * _view_flops(config, slots) for jets, slots in pieces)
    if config.objective.teacher:  # forwards only
        encoder += sum(config.views_a_jet * jets * _forward_flops(config, slots)[0] for jets, slots in pieces)
    return Flops(encoder / devices, _objective_flops(config, devices))


def _view_flops(config: Config, n: int) -> float:
    """FLOPs of one view of `n` slots forwards and back, which is two products for each one forwards.

    Of the first layers no gradient by their inputs is needed, and that of a pooled sum is no matrix product. In chunks
    the forward pass is taken twice (arXiv:2101.06983), the second time without the last layer, whose result is known.
    """
    forward, first, pooled = _forward_flops(config, n)
    once = 3 * forward - first + pooled
    last = 2.0 * math.prod(_dense(config)[-1])
    return once if config.chunks == 1 else once + forward + pooled - last


def _forward_flops(config: Config, n: int) -> tuple[float, float, float]:
    """FLOPs of one view of `n` slots forwards; of them those of the first layers; and those of pooling, not in them."""
    e, d = config.encoder, config.encoder.width
    first = 2.0 * n * len(config.features.columns) * d
    block = 2.0 * n * d * (3 * d + d + 2 * e.feedforward) + 4.0 * n * n * d
    dense = [2.0 * a * b for a, b in _dense(config)]
    pooled = 2.0 * n * (e.pooled_width - d * ("attention" in e.pooling))
    asked = (4.0 * n * d * e.heads + 2.0 * d * d) * ("attention" in e.pooling)
    first += 2.0 * n * n * e.heads * 2 * len(e.pairwise)
    return first + e.layers * block + asked + sum(dense), first, pooled


def _objective_flops(config: Config, devices: int) -> float:
    """FLOPs of the objective on each device: its rows of the similarities and of their gradient, and the monitors.

    Going back, XLA sees that it has the similarities. The Gram matrix of `effective_rank` is every device's own; its
    eigenvalues, P^3 at a rate that is not that of products, are left out. Both are taken at logged steps only, of which
    this is one.
    """
    batch, width = config.batch, config.head.width
    similarities = 2.0 * _compared(config) ** 2 * width
    uniformity = 2.0 * batch**2 * width
    gram = 2.0 * min(batch, width) ** 2 * max(batch, width)
    return (2 * similarities + uniformity) / devices + gram


def _compared(config: Config) -> int:
    """Views whose similarities to each other the objective takes."""
    return config.objective.compared(config.views_a_jet) * config.batch


def _gathered(config: Config) -> int:
    """Views of which every device gets the projections: those compared, and at least what the monitors need."""
    return max(_compared(config), 2 * config.batch)


def _wire(config: Config, parameters: float, data: int, fsdp: int) -> Wire:
    """Bytes each device sends; a ring over n sends (n - 1) / n of a gathered array, and twice that of a summed one."""
    devices = data * fsdp
    ring, inner, outer = ((n - 1) / n for n in (devices, fsdp, data))
    # XLA sees that parameters gathered forwards are there going back, unless chunks or shard_map stand between.
    gathers = 1 if data == 1 and config.chunks == 1 else 2
    # Of each view its total and, where anomalous views have totals that do not count, the gradient by it.
    numbers = _compared(config) * (2 if _compared(config) > 2 * config.batch else 1)
    # In chunks the fsdp devices add up in every turn of the loop, and groups of them once, at its end.
    return Wire(
        ring * (_gathered(config) * config.head.width + numbers) * FLOAT,
        gathers * inner * parameters,
        (config.chunks * inner + 2 * outer / fsdp) * parameters,
    )


def _memory(config: Config, state: step.State, data: int, fsdp: int) -> Memory:
    devices, views = data * fsdp, config.views_a_jet * config.batch
    share = views / devices
    learned = state.params | state.own
    whole = _bytes(learned, 1)
    parameters = _bytes(learned, fsdp)
    optimizer = _bytes((state.opt_state, state.average, state.memory), fsdp)
    # pt, eta, phi and extras of jets; of views a mask besides.
    columns = (3 + len(config.data.extras)) * FLOAT
    batch = config.batch / devices * _slots(config) * (columns + config.views_a_jet * (columns + 1))
    gradients = whole if fsdp > 1 and config.chunks > 1 else parameters
    gathered = whole if fsdp > 1 else 0
    activations = share / config.chunks * _kept(config)
    rows = (_compared(config) ** 2 + config.batch**2) / devices
    similarity = FLOAT * (rows + 2 * _gathered(config) * config.head.width)
    if config.chunks == 1:  # the activations of all views wait while these are compared
        working = activations + gathered + similarity
    else:
        working = max(activations + gathered + gradients, similarity)
    # At the end of a step: gradients, and what the optimizer makes of them.
    peak = parameters + optimizer + batch + max(working, 2 * gradients)
    return Memory(parameters, optimizer, batch, gradients, gathered, activations, similarity, peak)


def _kept(config: Config) -> float:
    """Bytes of one view that are there when its backward pass begins.

    The counts of arrays [N, D], [H, N, N] and [N, feed-forward] in a block are those that XLA was found to keep of
    `kernels.FORMULAS`, which accelerators compute, when it compiles for a CPU in float32. In bfloat16 those are
    shortened which autodiff keeps so: half of the first two, all of the third. Training on a CPU keeps less.
    """
    e, n = config.encoder, _slots(config)
    short, long = (0.5, 0.75) if config.precision == "bfloat16" else (1.0, 1.0)
    tokens, attention, hidden = n * e.width, e.heads * n * n, n * e.feedforward
    of_tokens, of_attention = (11, 2) if e.dropout else (10, 3)
    block = of_tokens * long * tokens + of_attention * long * attention + 3 * short * hidden
    of_pairs = n * n * 2 * len(e.pairwise)
    outside = 7 * tokens + attention + of_pairs + 3 * sum(units for _, units in _dense(config))
    return FLOAT * (e.layers * block + outside)


def _bytes(tree: Any, fsdp: int) -> int:
    """Bytes of a tree on each of `fsdp` devices: an array is split if one of its axes can be (sharding.of_state)."""

    def share(x: Any) -> int:
        return fsdp if any(size % fsdp == 0 for size in x.shape) else 1

    return sum(math.prod(x.shape) * x.dtype.itemsize // share(x) for x in jax.tree.leaves(tree))
