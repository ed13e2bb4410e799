"""Energy flow polynomials against sums written out, EnergyFlow 1.4 (`make_energyflow.py`) and their symmetries."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from probes.efp import compute, efp_features, efp_graphs, efps
from probes.efp.graphs import canonical, connected_multigraphs, multigraphs, vertices
from probes.efp.plan import Chain, Message, inputs, plan
from tests.toys import toy_batch

CONNECTED = [1, 1, 2, 5, 12, 33, 103, 333]
ALL = [1, 1, 3, 8, 23, 66, 212, 686]


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def jets(seed, n=6, slots=24):
    batch = toy_batch(seed, n, slots)
    return (*(batch[k] for k in ("pt", "eta", "phi")), batch["pt"] > 0)


def padded(*found):
    """Jets [n, 3] of any multiplicity as pt, eta, phi, mask in float64."""
    out = np.zeros((len(found), max(map(len, found)), 3))
    mask = np.zeros(out.shape[:2], bool)
    for i, jet in enumerate(found):
        out[i, : len(jet)] = jet
        mask[i, : len(jet)] = True
    return (*np.moveaxis(out, 2, 0), mask)


def written_out(graph, pt, eta, phi, beta):
    """The sum over all choices of a constituent per vertex, for one jet without padding, in float64."""
    z = pt / pt.sum()
    d_phi = np.angle(np.exp(1j * (phi[:, None] - phi)))
    theta = np.hypot(eta[:, None] - eta, d_phi) ** beta
    total = 0.0
    for chosen in itertools.product(range(len(z)), repeat=vertices(graph)):
        total += np.prod(z[list(chosen)]) * np.prod([theta[chosen[u], chosen[v]] for u, v in graph])
    return total


# ---------------------------------------------------------------------------------------------------------- graphs


@pytest.mark.parametrize("d", range(8))
def test_as_many_graphs_as_there_are(d):
    assert len(connected_multigraphs(d)) == CONNECTED[d]
    assert len(multigraphs(d)) == ALL[d]
    assert len(efp_graphs(d)) == sum(CONNECTED[: d + 1])
    assert len(efp_graphs(d, prime_only=False)) == sum(ALL[: d + 1])
    for graph in connected_multigraphs(d):
        assert len(graph) == d
        assert {v for edge in graph for v in edge} in (set(range(vertices(graph))), set())
        assert all(u < v for u, v in graph)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 7))
def test_a_graph_is_known_however_its_vertices_are_numbered(seed, d):
    rng = np.random.default_rng(seed)
    graph = connected_multigraphs(d)[rng.integers(CONNECTED[d])]
    name = rng.permutation(vertices(graph))
    renamed = [(int(name[u]), int(name[v])) for u, v in graph]
    assert canonical([renamed[i] for i in rng.permutation(d)]) == graph


def test_no_two_graphs_are_the_same_by_trying_every_numbering():
    """Up to four edges; then the count of the distinct ones cannot owe anything to `canonical`."""
    for d in range(1, 5):
        smallest = set()
        for graph in connected_multigraphs(d):
            numberings = itertools.permutations(range(vertices(graph)))
            smallest.add(min(tuple(sorted(tuple(sorted((p[u], p[v]))) for u, v in graph)) for p in numberings))
        assert len(smallest) == CONNECTED[d]


def test_graph_of_too_many_edges_is_refused():
    with refused("0 or more edges"):
        connected_multigraphs(-1)
    with refused("d = 0 to 7"):
        efp_graphs(8)
    wheel = (*((0, v) for v in range(1, 5)), (1, 2), (1, 4), (2, 3), (3, 4))
    with refused("not covered"):
        plan((wheel,))


# ------------------------------------------------------------------------------------------------------------ plan


def test_the_plan_computes_each_thing_once_and_only_what_is_needed():
    graphs = tuple(g for d in range(6) for g in connected_multigraphs(d))
    steps = plan(graphs)
    assert len({(type(node), node) for node in steps.nodes}) == len(steps.nodes)
    assert all(j < i for i, node in enumerate(steps.nodes) for j in inputs(node))
    used = {m for vector in steps.vectors for m in vector} | {j for node in steps.nodes for j in inputs(node)}
    assert used == set(range(len(steps.nodes)))
    # The work grows as N^3 for chains alone; each graph by itself would need 23 of them.
    assert sum(isinstance(node, Chain) for node in steps.nodes) == 4
    assert sum(isinstance(node, Message) for node in steps.nodes) < 54


# ---------------------------------------------------------------------------------------------------------- values


def test_by_hand():
    """Two constituents, z = 1/4 and 3/4 at distance 1/2: a graph of n vertices, a on one side of each edge or b."""
    pt, eta, phi, mask = padded([[1.0, 0.0, 0.0], [3.0, 0.3, 0.4]])
    found = dict(zip(efp_graphs(3), efps(pt, eta, phi, mask, d=3)[0], strict=True))
    assert found[((),)] == pytest.approx(1)
    assert found[(((0, 1),),)] == pytest.approx(2 * 3 / 16 * 0.5)
    assert found[(((0, 1),) * 2,)] == pytest.approx(2 * 3 / 16 * 0.25)
    assert found[(canonical([(0, 1), (1, 2)]),)] == pytest.approx((3 / 16 * 0.25) * (1 / 4 + 3 / 4))
    assert found[(canonical([(0, 1), (1, 2), (0, 2)]),)] == 0


@pytest.mark.parametrize(("d", "beta"), [(3, 0.5), (5, 1.0), (3, 2.0)])
def test_against_the_sums_written_out(d, beta):
    rng = np.random.default_rng(3)
    n = 4
    pt, eta, phi = rng.exponential(10, n), rng.normal(0, 0.4, n), np.pi + rng.normal(0, 0.4, n)
    phi = (phi + np.pi) % (2 * np.pi) - np.pi
    assert np.ptp(phi) > np.pi  # the jet lies across the cut
    found = efps(pt[None], eta[None], phi[None], np.ones((1, n), bool), d=d, beta=beta)[0]
    wanted = [written_out(parts[0], pt, eta, phi, beta) for parts in efp_graphs(d)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_the_complete_graph_and_what_hangs_on_it_written_out():
    """The four graphs up to 7 edges that need a sum over three indices at once, at a jet of five constituents."""
    rng = np.random.default_rng(4)
    pt, eta, phi = rng.exponential(10, 5), *rng.normal(0, 0.4, (2, 5))
    complete = list(itertools.combinations(range(4), 2))
    kinds = [
        complete,
        [*complete, (0, 1)],
        [*complete, (0, 4)],
        [*complete[1:], (0, 4), (4, 1)],
    ]
    graphs = tuple(canonical(kind) for kind in kinds)
    found = compute.evaluate(graphs, pt[None], eta[None], phi[None], np.ones((1, 5), bool), 1.0)[0]
    np.testing.assert_allclose(found, [written_out(graph, pt, eta, phi, 1.0) for graph in graphs], rtol=1e-5)


def test_a_disconnected_graph_is_the_product_of_its_parts():
    prime = dict(zip(efp_graphs(5), efps(*jets(1), d=5).T, strict=True))
    every = efps(*jets(1), d=5, prime_only=False)
    for parts, values in zip(efp_graphs(5, prime_only=False), every.T, strict=True):
        np.testing.assert_allclose(values, np.prod([prime[(g,)] for g in parts], axis=0), rtol=1e-6)


ENERGYFLOW = json.loads((Path(__file__).parent / "energyflow.json").read_text())


@pytest.mark.parametrize(("beta", "every"), [(1.0, 1), (2.0, 5)])
def test_against_energyflow(beta, every, monkeypatch):
    """30 jets of 2 to 60 constituents; every connected graph to d = 5, and a sample to d = 7: to 1e-5 of each value.

    Relative without a floor: where EnergyFlow has exactly 0, so must we.
    """
    monkeypatch.setattr(compute, "STEP", 64)  # one program instead of four
    graphs = tuple(canonical(map(tuple, graph)) for graph in ENERGYFLOW["graphs"])
    assert len(set(graphs)) == len(graphs) == 93
    found = compute.evaluate(graphs[::every], *padded(*map(np.array, ENERGYFLOW["jets"])), beta)
    wanted = np.array(ENERGYFLOW["values"][str(beta)])[:, ::every]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=0)


@pytest.mark.slow
def test_all_to_seven_edges_against_energyflow():
    """The whole of d <= 7 as it is used, in programs of four widths."""
    at = {parts[0]: i for i, parts in enumerate(efp_graphs(7))}
    rows = [at[canonical(map(tuple, graph))] for graph in ENERGYFLOW["graphs"]]
    found = efps(*padded(*map(np.array, ENERGYFLOW["jets"])), d=7)[:, rows]
    np.testing.assert_allclose(found, ENERGYFLOW["values"]["1.0"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", [1e-4, 1e-2, 3.0])
def test_narrow_and_wide_jets_keep_their_digits(size):
    """EFPs of a jet scaled by s are s^d times as large; unscaled, theta^5 = 1e-20 times small z would lose digits."""
    rng = np.random.default_rng(5)
    angles = rng.normal(0, 0.3, (12, 2))
    pt = rng.exponential(10, (12, 1))
    ordinary, scaled = (efps(*padded(np.hstack([pt, s * angles])), d=5)[0] for s in (1, size))
    degree = np.array([len(parts[0]) for parts in efp_graphs(5)])
    np.testing.assert_allclose(scaled, ordinary.astype(np.float64) * size**degree, rtol=1e-5)


def test_close_constituents_far_from_the_hardest_keep_their_digits():
    jet = np.array([[10.0, 0.0, 0.0], [4.0, 0.6, 0.6], [5.0, 0.6 + 3e-5, 0.6 + 1e-5]])
    found = efps(*padded(jet), d=3)[0]
    wanted = [written_out(parts[0], *jet.T, 1.0) for parts in efp_graphs(3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------ symmetries


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_neither_place_nor_order_nor_orientation_matters(seed):
    rng = np.random.default_rng(seed)
    pt, eta, phi, mask = (x.astype(np.float64) if x.dtype != bool else x for x in jets(seed, 3))
    wanted = efps(pt, eta, phi, mask, d=4)
    order = rng.permutation(24)
    np.testing.assert_allclose(efps(*(x[:, order] for x in (pt, eta, phi, mask)), d=4), wanted, rtol=1e-5)
    moved = (phi + rng.uniform(-9, 9) + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(efps(7.5 * pt, eta + rng.uniform(-2, 2), moved, mask, d=4), wanted, rtol=1e-5)
    # About the hardest constituent, whose neighbours do not lie across the cut once it is at phi = 0.
    near = (phi - phi[:, :1] + np.pi) % (2 * np.pi) - np.pi
    c, s = np.cos(angle := rng.uniform(0, 2 * np.pi)), np.sin(angle)
    turned = efps(pt, c * eta - s * near, s * eta + c * near, mask, d=4)
    np.testing.assert_allclose(turned, wanted, rtol=1e-5)
    junk = [np.where(mask, x, np.nan) for x in (pt, eta, phi)]
    np.testing.assert_array_equal(efps(*junk, mask, d=4), wanted)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.95))
def test_infrared_and_collinear_safe(seed, share):
    """A collinear splitting changes nothing; a soft constituent changes in proportion to its pT."""
    pt, eta, phi, mask = jets(seed, 3)
    wanted = efps(pt, eta, phi, mask, d=5)
    one = np.ones((3, 1), bool)
    halves = np.hstack([pt[:, :1] * share, pt[:, 1:], pt[:, :1] * (1 - share)]).astype(np.float32)
    split = efps(halves, *(np.hstack([x, x[:, :1]]) for x in (eta, phi)), np.hstack([mask, one]), d=5)
    np.testing.assert_allclose(split, wanted, rtol=2e-5)
    soft = np.full((3, 1), 1e-4 * 600, np.float32)
    place = [np.hstack([x, x[:, :1] + 0.5]) for x in (eta, phi)]
    added = efps(np.hstack([pt, soft]), *place, np.hstack([mask, one]), d=1)
    edge = efps(np.hstack([pt, 1e-3 * soft]), *place, np.hstack([mask, one]), d=1)
    change, smaller = (np.abs(x - wanted[:, :2])[:, 1] for x in (added, edge))
    assert (change < 2e-4 * 2).all()
    assert (change > 1e-6).all()
    assert (smaller < 2e-3 * change + 1e-7).all()


def test_a_jet_is_what_it_is_among_others_and_bits_repeat():
    batch = jets(2, 40)
    wanted = efps(*batch, d=4)
    np.testing.assert_array_equal(efps(*batch, d=4), wanted)
    rows = np.array([7, 33, 1])
    np.testing.assert_allclose(efps(*(x[rows] for x in batch), d=4), wanted[rows], rtol=1e-6)
    wide = [np.pad(x, ((0, 0), (0, 50))) for x in batch]
    np.testing.assert_allclose(efps(*wide, d=4), wanted, rtol=1e-6)
    assert efps(*(x[:0] for x in batch), d=4).shape == (0, 21)
    assert wanted.dtype == np.float32


def test_one_constituent_has_no_angles():
    found = efps(*padded([[5.0, 1.0, 1.0]]), d=5)
    np.testing.assert_array_equal(found, np.eye(1, 54))


# -------------------------------------------------------------------------------------------------------- features


def test_features_are_all_polynomials_but_the_constant():
    batch = jets(6)
    np.testing.assert_array_equal(efp_features(*batch, d=3), efps(*batch, d=3, prime_only=False)[:, 1:])
    assert efp_features(*batch, d=3).shape == (6, 12)


# ------------------------------------------------------------------------------------------------------- bad input


def test_bad_input_is_refused():
    pt, eta, phi, mask = jets(0, 2)
    with refused("one shape"):
        efps(pt, eta[:, :3], phi, mask)
    with refused("beta must be positive"):
        efps(pt, eta, phi, mask, beta=0.0)
    with refused("beta must be positive"):
        efps(pt, eta, phi, mask, beta=float("nan"))
    with refused("d = 0 to 7"):
        efps(pt, eta, phi, mask, d=-1)
    with refused("phi of a constituent is NaN or infinite in 1 jets"):
        efps(pt, eta, np.where(np.arange(2)[:, None] == 1, np.inf, phi).astype(np.float32), mask)
    with refused("negative in 2 jets"):
        efps(-pt, eta, phi, mask)
    with refused("1 of 2 jets have no constituent"):
        efps(pt, eta, phi, mask & np.array([[True], [False]]))
    with refused("beyond float32"):
        efps(pt, 1e6 * eta, phi, mask, d=3, beta=3.0)
    with refused("beyond float32"):
        efps(pt, 1e25 * eta, phi, mask, d=3)  # where the square of an angle is infinite


def test_memory_is_bounded_for_long_jets():
    """Batches shrink as jets grow, down to one jet at a time."""
    assert [compute._batch(width) for width in (16, 64, 128, 512)] == [64, 4, 1, 1]
