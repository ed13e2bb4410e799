"""The cheapest way to many energy flow polynomials at once: what to compute, each thing once, for a list of graphs.

A polynomial is a sum over one constituent per vertex, z for each vertex and theta for each edge (arXiv:1712.07124).
The sums are done one vertex at a time (variable elimination). Parallel edges multiply into one matrix; a vertex with
one neighbour becomes a vector at that neighbour ("message", N^2 operations), one with two neighbours a matrix
between them ("chain", N^3), and the one kind of graph up to 7 edges that has neither (it contains the complete graph
of four vertices) is closed over three indices at once (N^4). What two graphs have in common is computed once, and the
order of elimination is the one that adds least to what is there already.

Shapes: N constituents. Matrices are [N, N], vectors [N]; a vector is a product of messages, written as the sorted
tuple of their numbers, () being a vector of ones.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from probes.efp.graphs import Graph, vertices

Vector: TypeAlias = tuple[int, ...]


class Power(NamedTuple):
    """theta^k for each pair of constituents."""

    exponent: int


class Times(NamedTuple):
    """Product of two matrices, entry by entry."""

    left: int
    right: int


class Chain(NamedTuple):
    """Matrix product left diag(z vector) right: the sum over a vertex between two others."""

    left: int
    vector: Vector
    right: int


class Transposed(NamedTuple):
    """A matrix with its two constituents exchanged."""

    matrix: int


class Message(NamedTuple):
    """matrix @ (z vector): the sum over a vertex with one neighbour, for each choice of that."""

    matrix: int
    vector: Vector


class Closed(NamedTuple):
    """Sum over the corners b, c and the apex d of a tetrahedron, for each choice of its corner a.

    The apex hangs on the corners by three single edges; `sides` are the matrices ab, ac, bc, `corners` the vectors
    of b and c.
    """

    sides: tuple[int, int, int]
    corners: tuple[Vector, Vector]


Matrix: TypeAlias = Power | Times | Chain | Transposed
Node: TypeAlias = Matrix | Message | Closed

COST = {Power: 1, Times: 1, Transposed: 1, Message: 2, Chain: 60, Closed: 500}
"""Work of a step, roughly, in passes over the N^2 pairs of 50 constituents."""

FACTOR = 0.1
"""Work of one more product of two vectors, in the same unit."""


@dataclass(frozen=True)
class Plan:
    """Steps in an order in which each needs earlier ones only, and where each graph's value comes from.

    The value of a graph is the sum over constituents of z times the product of two of `vectors`: `ends` names them.
    """

    nodes: tuple[Node, ...]
    vectors: tuple[Vector, ...]
    ends: tuple[tuple[int, int], ...]


@functools.cache
def plan(graphs: tuple[Graph, ...]) -> Plan:
    """Plan for connected graphs, best in rising number of edges, so that the larger ones find what they can share.

    Raises ValueError for a graph that needs a table over more than three constituents (some have 8 edges or more).
    """
    table = _Table()
    halves = []
    for graph in graphs:
        vector = min(_eliminations(table, graph), key=lambda found: (table.cost((found,)), found))
        halves.append(table.halves(vector))
        table.build(halves[-1])
    ids = sorted(table.built)
    at = {node: i for i, node in enumerate(ids)}
    vectors = sorted(table.vectors)
    return Plan(
        tuple(_renumbered(table.nodes[i], at) for i in ids),
        tuple(tuple(at[m] for m in vector) for vector in vectors),
        tuple((vectors.index(a), vectors.index(b)) for a, b in halves),
    )


@dataclass
class _Table:
    """Every step thought of, each once, and which of them are `built`: taken into the plan."""

    nodes: list[Node] = field(default_factory=list)
    index: dict[tuple[type[Node], Node], int] = field(default_factory=dict)
    built: set[int] = field(default_factory=set)
    vectors: set[Vector] = field(default_factory=set)

    def add(self, node: Node) -> int:
        # The kind belongs to the key: as tuples, Power(3) and Transposed(3) are equal.
        key = (type(node), node)
        if key not in self.index:
            self.index[key] = len(self.nodes)
            self.nodes.append(node)
        return self.index[key]

    def symmetric(self, matrix: int) -> bool:
        node = self.nodes[matrix]
        if isinstance(node, Times):
            return self.symmetric(node.left) and self.symmetric(node.right)
        return isinstance(node, Power) or (isinstance(node, Chain) and self._links(matrix) == self._mirrored(matrix))

    def transposed(self, matrix: int) -> int:
        node = self.nodes[matrix]
        if isinstance(node, Transposed):
            return node.matrix
        return matrix if self.symmetric(matrix) else self.add(Transposed(matrix))

    def times(self, a: int, b: int) -> int:
        left, right = self.nodes[a], self.nodes[b]
        if isinstance(left, Power) and isinstance(right, Power):
            return self.add(Power(left.exponent + right.exponent))
        return self.add(Times(min(a, b), max(a, b)))

    def chain(self, left: int, vector: Vector, right: int) -> int:
        """A chain or, where its mirror image comes first, that transposed: so the two are one step."""
        chain, mirror = Chain(left, vector, right), Chain(self.transposed(right), vector, self.transposed(left))
        return self.add(chain) if chain <= mirror else self.transposed(self.add(mirror))

    def _links(self, matrix: int) -> tuple[int | Vector, ...]:
        """The matrices of a chain of chains and the vectors between them; a chain that reads the same backwards is
        symmetric, however it was put together."""
        node = self.nodes[matrix]
        if isinstance(node, Chain):
            return (*self._links(node.left), node.vector, *self._links(node.right))
        return (matrix,)

    def _mirrored(self, matrix: int) -> tuple[int | Vector, ...]:
        return tuple(x if isinstance(x, tuple) else self.transposed(x) for x in reversed(self._links(matrix)))

    def needs(self, vectors: Iterable[Vector]) -> set[int]:
        """The steps that the vectors rest on and that are not built."""
        found: set[int] = set()
        waiting = [m for vector in vectors for m in vector]
        while waiting:
            i = waiting.pop()
            if i not in self.built and i not in found:
                found.add(i)
                waiting += inputs(self.nodes[i])
        return found

    def cost(self, vectors: tuple[Vector, ...]) -> float:
        """Work to add for these vectors."""
        products = sum(max(0, len(v) - 1) for v in vectors if v not in self.vectors)
        return FACTOR * products + sum(COST[type(self.nodes[i])] for i in self.needs(vectors))

    def halves(self, vector: Vector) -> tuple[Vector, Vector]:
        """Two vectors whose product this is, both there already if possible."""
        splits = (
            (part, tuple((Counter(vector) - Counter(part)).elements()))
            for size in range(len(vector) // 2 + 1)
            for part in itertools.combinations(vector, size)
        )
        # A vector more is a row and a column more of all inner products, whatever its own cost.
        return min(splits, key=lambda pair: (len(set(pair) - self.vectors), self.cost(pair), pair))

    def build(self, vectors: tuple[Vector, ...]) -> None:
        self.built |= self.needs(vectors)
        self.vectors |= set(vectors)


@dataclass(frozen=True)
class _Partial:
    """A graph with some vertices summed over: a vector at each vertex left, and one matrix [u, v] between two."""

    at: tuple[tuple[int, Vector], ...]
    edges: tuple[tuple[int, int, int], ...]  # (u, v, matrix), u < v

    def neighbours(self, vertex: int) -> list[int]:
        return [u + v - vertex for u, v, _ in self.edges if vertex in (u, v)]

    def matrix(self, table: _Table, u: int, v: int) -> int:
        """The matrix [u, v] between two neighbours."""
        matrix = next(m for a, b, m in self.edges if (a, b) == (min(u, v), max(u, v)))
        return matrix if u < v else table.transposed(matrix)

    def summed(self, table: _Table, vertex: int) -> _Partial:
        """The same with a vertex of one or two neighbours summed over."""
        at = dict(self.at)
        vector = at.pop(vertex)
        edges = {(u, v): matrix for u, v, matrix in self.edges if vertex not in (u, v)}
        first, *second = sorted(self.neighbours(vertex))
        if not second:
            message = table.add(Message(self.matrix(table, first, vertex), vector))
            at[first] = tuple(sorted((*at[first], message)))
        else:
            pair = (first, second[0])
            chain = table.chain(self.matrix(table, first, vertex), vector, self.matrix(table, vertex, second[0]))
            edges[pair] = table.times(edges[pair], chain) if pair in edges else chain
        return _Partial(tuple(sorted(at.items())), tuple(sorted((u, v, matrix) for (u, v), matrix in edges.items())))

    def closed(self, table: _Table) -> Iterator[_Partial]:
        """A tetrahedron summed over an apex that hangs on single edges, and over two corners, in every way."""
        at = dict(self.at)
        single = table.add(Power(1))
        for d in at:
            rest = [v for v in at if v != d]
            if at[d] or any(self.matrix(table, d, v) != single for v in rest):
                continue
            for a in rest:
                b, c = (v for v in rest if v != a)
                sides = (self.matrix(table, a, b), self.matrix(table, a, c), self.matrix(table, b, c))
                message = table.add(Closed(sides, (at[b], at[c])))
                yield _Partial(((a, tuple(sorted((*at[a], message)))),), ())


def _eliminations(table: _Table, graph: Graph) -> Iterator[Vector]:
    """What the last vertex carries, for every order of elimination worth trying."""
    counts = Counter(graph)
    edges = tuple((u, v, table.add(Power(n))) for (u, v), n in sorted(counts.items()))
    waiting = [_Partial(tuple((v, ()) for v in range(vertices(graph))), edges)]
    seen = set(waiting)
    while waiting:
        partial = waiting.pop()
        if len(partial.at) == 1:
            yield partial.at[0][1]
        new = [after for after in _steps(table, partial) if after not in seen]
        seen.update(new)
        waiting += new


def _steps(table: _Table, partial: _Partial) -> Iterator[_Partial]:
    if not partial.edges:
        return
    neighbours = {v: len(partial.neighbours(v)) for v, _ in partial.at}
    leaves = [v for v, n in neighbours.items() if n == 1]
    # The order matters where it decides which vertex of a tree comes last; leaves of a cycle go in any order.
    if leaves and len(partial.edges) >= len(neighbours):
        leaves = leaves[:1]
    chosen = leaves or [v for v, n in neighbours.items() if n == 2]
    if chosen:
        yield from (partial.summed(table, v) for v in chosen)
    elif len(neighbours) == 4:
        yield from partial.closed(table)
    else:
        raise ValueError(f"a graph of {len(neighbours)} vertices with three neighbours or more each is not covered")


def inputs(node: Node) -> tuple[int, ...]:
    """The steps that a step needs."""
    match node:
        case Power():
            return ()
        case Times(left, right):
            return (left, right)
        case Chain(left, vector, right):
            return (left, *vector, right)
        case Transposed(matrix):
            return (matrix,)
        case Message(matrix, vector):
            return (matrix, *vector)
        case Closed(sides, (b, c)):
            return (*sides, *b, *c)


def _renumbered(node: Node, at: dict[int, int]) -> Node:
    """The same step with its inputs under new numbers."""
    to = lambda vector: tuple(at[m] for m in vector)  # noqa: E731
    match node:
        case Power():
            return node
        case Times(left, right):
            return Times(at[left], at[right])
        case Chain(left, vector, right):
            return Chain(at[left], to(vector), at[right])
        case Transposed(matrix):
            return Transposed(at[matrix])
        case Message(matrix, vector):
            return Message(at[matrix], to(vector))
        case Closed((ab, ac, bc), (b, c)):
            return Closed((at[ab], at[ac], at[bc]), (to(b), to(c)))
