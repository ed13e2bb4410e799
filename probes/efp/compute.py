"""Values of energy flow polynomials: one compiled program for all of them, run over small batches of jets.

Shapes: B jets, N constituents, M messages of one matrix, V vectors, G connected graphs.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probes.efp.graphs import Graph
from probes.efp.plan import Chain, Closed, Message, Plan, Power, Times, Transposed, Vector, inputs, plan

STEP = 16
"""Jets are padded to a multiple of so many constituents: few programs, and whole vectors of the processor."""

ENTRIES = 2**14
"""Entries of one [B, N, N] matrix that the CPU works on at once: a dozen of them then lie in its cache. An accelerator
has another appetite, `ACCELERATOR_ENTRIES`."""

ACCELERATOR_ENTRIES = 2**22

BATCHES = 16
"""Batches a call, so that Python's share is small."""

HIGHEST = jax.lax.Precision.HIGHEST  # a GPU would multiply with ten bits otherwise

Padded = Float[np.ndarray, "B N"]
Program = Callable[..., tuple[Array, Array]]


def evaluate(
    graphs: tuple[Graph, ...], pt: Padded, eta: Padded, phi: Padded, mask: Bool[np.ndarray, "B N"], beta: float
) -> Float[np.ndarray, "B G"]:
    """The polynomial of each connected graph for each jet, float64 with the precision of float32.

    Jets are sorted by multiplicity, so that each is padded to the next multiple of `STEP` constituents at most. Every
    core works on a block of its own.
    """
    # Angles within a jet are measured in units of its largest: no power of them then leaves the range of float32.
    powers = np.array([len(graph) for graph in graphs])
    out = np.zeros((len(pt), len(graphs)))

    def fill(program: Program, rows: Int[np.ndarray, " R"], width: int, jets: int) -> None:
        z, eta_parts, phi_parts = _prepared(pt[rows], eta[rows], phi[rows], mask[rows], width)
        missing = ((0, jets - len(rows)), (0, 0))
        values, scale = program(np.pad(z, missing), *(np.pad(x, (*missing, (0, 0))) for x in (eta_parts, phi_parts)))
        found = np.asarray(values, np.float64)[: len(rows)]
        out[rows] = found * np.asarray(scale, np.float64)[: len(rows), None] ** powers

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = []
        for width, jets, rows in _blocks(mask.sum(axis=1)):
            program = _program(graphs, beta, width, jets)
            waiting.append(pool.submit(fill, program, rows, width, jets))
        for block in waiting:
            block.result()
    return out


def _blocks(multiplicity: Int[np.ndarray, " B"]) -> Iterator[tuple[int, int, Int[np.ndarray, " R"]]]:
    """Width, jets a call, and the jets of each call."""
    widths = STEP * np.maximum(1, -(-multiplicity // STEP))
    for width in np.unique(widths):
        jets = BATCHES * _batch(int(width))
        rows = np.flatnonzero(widths == width)
        for start in range(0, len(rows), jets):
            yield int(width), jets, rows[start : start + jets]


def _batch(width: int) -> int:
    entries = ENTRIES if jax.default_backend() == "cpu" else ACCELERATOR_ENTRIES
    return max(1, round(entries / width**2))


def _prepared(
    pt: Padded, eta: Padded, phi: Padded, mask: Bool[np.ndarray, "B N"], width: int
) -> tuple[Float[np.ndarray, "B W"], Float[np.ndarray, "B W 2"], Float[np.ndarray, "B W 2"]]:
    """Shares of pT, and eta and phi from the hardest constituent, each as the sum of two float32 numbers.

    A difference of two angles in float32 would lose the digits of close constituents far from the jet's axis.
    """
    order = np.argsort(np.where(mask, -pt, np.inf), axis=1, kind="stable")[:, :width]
    real = np.take_along_axis(mask, order, axis=1)
    z, eta, phi = (np.where(real, np.take_along_axis(x, order, axis=1), 0).astype(np.float64) for x in (pt, eta, phi))
    z /= z.sum(axis=1, keepdims=True)
    phi = np.remainder(phi - phi[:, :1] + np.pi, 2 * np.pi) - np.pi
    angles = [np.where(real, x, 0) for x in (eta - eta[:, :1], phi)]
    missing = ((0, 0), (0, width - z.shape[1]))
    high = [np.pad(x, missing).astype(np.float32) for x in angles]
    low = [(np.pad(x, missing) - h).astype(np.float32) for x, h in zip(angles, high, strict=True)]
    eta_parts, phi_parts = (np.stack(parts, axis=2) for parts in zip(high, low, strict=True))
    return np.pad(z, missing).astype(np.float32), eta_parts, phi_parts


@functools.cache
def _program(graphs: tuple[Graph, ...], beta: float, width: int, jets: int) -> Program:
    """(z, eta, phi) of so many jets -> values [jets, G] in units of scale^d, scale [jets]; compiled."""
    one = functools.partial(_values, plan(graphs), beta)
    batch = jets // BATCHES

    def values(z: Array, eta: Array, phi: Array) -> tuple[Array, Array]:
        split = jax.tree.map(lambda x: x.reshape(BATCHES, batch, *x.shape[1:]), (z, eta, phi))
        return jax.tree.map(lambda x: x.reshape(jets, *x.shape[2:]), jax.lax.map(lambda args: one(*args), split))

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((jets, width), *[(jets, width, 2)] * 2)]
    return jax.jit(values).lower(*shapes).compile()


def _values(
    steps: Plan, beta: float, z: Float[Array, "B N"], eta: Float[Array, "B N 2"], phi: Float[Array, "B N 2"]
) -> tuple[Float[Array, "B G"], Float[Array, " B"]]:
    """Each graph's value with angles in units of `scale`^(1/beta), and the scale."""
    theta, scale = _angles(eta, phi, beta)
    found = _Evaluation(steps, z, theta)
    vectors = jnp.stack([found.product(v) for v in steps.vectors], axis=1)
    inner = jnp.einsum("bun,bvn->buv", vectors * z[:, None, :], vectors, precision=HIGHEST)
    first, second = np.array(steps.ends).T
    return inner[:, first, second], scale


def _angles(
    eta: Float[Array, "B N 2"], phi: Float[Array, "B N 2"], beta: float
) -> tuple[Float[Array, "B N N"], Float[Array, " B"]]:
    """theta^beta of each pair over the jet's largest, and that largest."""
    d_eta, d_phi = (jnp.sum(x[:, :, None, :] - x[:, None, :, :], axis=3) for x in (eta, phi))
    d_phi = jnp.minimum(jnp.abs(d_phi), 2 * jnp.pi - jnp.abs(d_phi))
    squared = d_eta**2 + d_phi**2
    largest = jnp.max(squared, axis=(1, 2))
    largest = jnp.where(largest > 0, largest, 1)
    squared = squared / largest[:, None, None]
    # A square root is exact, and much cheaper than a power.
    power = jnp.sqrt if beta == 1 else lambda x: x ** (beta / 2)
    return power(squared), power(largest)


class _Evaluation:
    """Runs a plan on one batch: `product` gives any vector of messages [B, N]."""

    def __init__(self, steps: Plan, z: Float[Array, "B N"], theta: Float[Array, "B N N"]) -> None:
        self.nodes, self.z, self.theta = steps.nodes, z, theta
        self.matrices: dict[int, Float[Array, "B N N"]] = {}
        self.messages: dict[int, Float[Array, "B N"]] = {}
        for matrix, members in _together(steps):
            sources = jnp.stack([z * self.product(vector) for _, vector in members], axis=1)
            sent = jnp.einsum("bij,bmj->bmi", self.matrix(matrix), sources, precision=HIGHEST)
            self.messages |= {i: sent[:, k] for k, (i, _) in enumerate(members)}
        # Nothing rests on these: what hangs on a tetrahedron is summed before it.
        closed = {i: node for i, node in enumerate(steps.nodes) if isinstance(node, Closed)}
        if closed:
            self.messages |= dict(zip(closed, self._closed(list(closed.values())), strict=True))

    def product(self, vector: Vector) -> Float[Array, "B N"]:
        return functools.reduce(jnp.multiply, [self.messages[m] for m in vector], jnp.ones_like(self.z))

    def matrix(self, index: int) -> Float[Array, "B N N"]:
        if index not in self.matrices:
            self.matrices[index] = self._matrix(index)
        return self.matrices[index]

    def _matrix(self, index: int) -> Float[Array, "B N N"]:
        match self.nodes[index]:
            case Power(exponent):
                return self.theta**exponent
            case Times(left, right):
                return self.matrix(left) * self.matrix(right)
            case Transposed(matrix):
                return jnp.swapaxes(self.matrix(matrix), 1, 2)
            case Chain(left, vector, right):
                weighted = self.matrix(left) * (self.z * self.product(vector))[:, None, :]
                return jnp.matmul(weighted, self.matrix(right), precision=HIGHEST)
            case other:
                raise TypeError(f"step {index} is no matrix but {other}")

    def _closed(self, nodes: list[Closed]) -> list[Float[Array, "B N"]]:
        """Tetrahedra, one corner a at a time, so that no table over three constituents is ever held."""
        sides = [tuple(jnp.moveaxis(self.matrix(s), 1, 0) for s in node.sides[:2]) for node in nodes]
        opposite = [self.matrix(node.sides[2]) for node in nodes]
        corners = [tuple(self.z * self.product(v) for v in node.corners) for node in nodes]

        def at(a: tuple[Array, list[tuple[Array, Array]]]) -> list[Float[Array, " B"]]:
            theta, pairs = a
            apex = jnp.matmul(self.theta * (self.z * theta)[:, None, :], self.theta, precision=HIGHEST)
            return [
                jnp.einsum("bij,bi,bj->b", apex * bc, ab * vb, ac * vc, precision=HIGHEST)
                for bc, (ab, ac), (vb, vc) in zip(opposite, pairs, corners, strict=True)
            ]

        found = jax.lax.map(at, (jnp.moveaxis(self.theta, 1, 0), sides))
        return [jnp.moveaxis(values, 0, 1) for values in found]


def _together(steps: Plan) -> list[tuple[int, list[tuple[int, Vector]]]]:
    """The messages that one matrix sends at once, in an order in which each finds what it rests on."""
    level: list[int] = []
    groups = defaultdict(list)
    for i, node in enumerate(steps.nodes):
        level.append(max((level[j] for j in inputs(node)), default=0) + isinstance(node, Message))
        if isinstance(node, Message):
            groups[level[i], node.matrix].append((i, node.vector))
    return [(matrix, members) for (_, matrix), members in sorted(groups.items())]
