"""Multigraphs, one of each shape: every energy flow polynomial belongs to one (arXiv:1712.07124).

A graph is the tuple of its edges (u, v) with u < v, a repeated edge repeated, on vertices 0, 1, ...; the graph
without edges is one vertex. Loops do not occur: the angle of a constituent to itself is zero.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Graph: TypeAlias = tuple[tuple[int, int], ...]
Weights: TypeAlias = list[list[int]]


@functools.cache
def connected_multigraphs(edges: int) -> tuple[Graph, ...]:
    """All connected loopless multigraphs with so many edges, none isomorphic to another, fewest vertices first.

    There are 1, 1, 2, 5, 12, 33, 103, 333 with 0 to 7 edges (OEIS A076864).
    """
    if edges < 0:
        raise ValueError(f"a graph has 0 or more edges, got {edges}")
    if edges == 0:
        return ((),)
    # An edge of a cycle, or one to a leaf, can be taken away: so each graph is one with an edge less, and an edge more.
    found = {canonical(grown) for graph in connected_multigraphs(edges - 1) for grown in _grown(graph)}
    return tuple(sorted(found, key=lambda graph: (vertices(graph), graph)))


@functools.cache
def multigraphs(edges: int) -> tuple[tuple[Graph, ...], ...]:
    """All loopless multigraphs with so many edges and no lone vertex, each as the tuple of its connected parts.

    The connected ones come first. There are 1, 1, 3, 8, 23, 66, 212, 686 with 0 to 7 edges (OEIS A050535).
    """
    if edges == 0:
        return (connected_multigraphs(0),)
    primes = [graph for d in range(1, edges + 1) for graph in connected_multigraphs(d)]
    return tuple(sorted(_products(primes, edges), key=len))


def vertices(graph: Graph) -> int:
    """Number of vertices."""
    return 1 + max((v for _, v in graph), default=0)


def canonical(edges: Iterable[tuple[int, int]]) -> Graph:
    """The same graph with its vertices numbered so that isomorphic connected graphs become equal.

    Vertices are told apart by what surrounds them; where that leaves several alike, each of them is tried as the
    first, and the smallest list of edges is kept.
    """
    counts = Counter((min(u, v), max(u, v)) for u, v in edges)
    size = 1 + max((v for _, v in counts), default=0)
    weights = [[0] * size for _ in range(size)]
    for (u, v), multiplicity in counts.items():
        weights[u][v] = weights[v][u] = multiplicity
    return min(_labelled(counts, colours) for colours in _orders(weights, [0] * size))


def _grown(graph: Graph) -> Iterator[Graph]:
    """The graph with an edge more, between two of its vertices or to a new one."""
    size = vertices(graph)
    for v in range(size):
        yield (*graph, (v, size))
        for u in range(v):
            yield (*graph, (u, v))


def _products(primes: list[Graph], edges: int) -> Iterator[tuple[Graph, ...]]:
    """Every choice of connected parts, repetition allowed, with `edges` edges in all; larger parts first."""
    if edges == 0:
        yield ()
    for i, graph in enumerate(primes):
        if len(graph) <= edges:
            for rest in _products(primes[: i + 1], edges - len(graph)):
                yield (graph, *rest)


def _refined(weights: Weights, colours: list[int]) -> list[int]:
    """Colours split until vertices of one colour see the same colours along the same edges."""
    while True:
        seen = [
            (colours[v], sorted((colours[u], weight) for u, weight in enumerate(row) if weight))
            for v, row in enumerate(weights)
        ]
        rank = {key: i for i, key in enumerate(sorted({(c, tuple(s)) for c, s in seen}))}
        if len(rank) == len(set(colours)):
            return colours
        colours = [rank[c, tuple(s)] for c, s in seen]


def _orders(weights: Weights, colours: list[int]) -> Iterator[list[int]]:
    """Numberings of the vertices that depend on the shape alone, up to exchanges that leave the graph as it is."""
    colours = _refined(weights, colours)
    shared = [c for c, members in sorted(Counter(colours).items()) if members > 1]
    if not shared:
        rank = {colour: i for i, colour in enumerate(sorted(colours))}
        yield [rank[c] for c in colours]
        return
    tried: list[int] = []
    for v in (v for v, colour in enumerate(colours) if colour == shared[0]):
        if not any(_twins(weights, u, v) for u in tried):
            tried.append(v)
            yield from _orders(weights, [2 * c - (u == v) for u, c in enumerate(colours)])


def _twins(weights: Weights, u: int, v: int) -> bool:
    """Whether exchanging u and v leaves the graph as it is, as for two leaves of one vertex."""
    return all(weights[u][x] == weights[v][x] for x in range(len(weights)) if x not in (u, v))


def _labelled(counts: Counter[tuple[int, int]], colours: list[int]) -> Graph:
    renamed = ((*sorted((colours[u], colours[v])), n) for (u, v), n in counts.items())
    return tuple(sorted((u, v) for u, v, n in renamed for _ in range(n)))
