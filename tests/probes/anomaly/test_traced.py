"""Scores as graphs: what a detector traces to, in single precision and for any number of jets, is its score."""

from dataclasses import replace

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from probes.anomaly.density import FlowDensity, FlowDetector
from probes.anomaly.distance import RelativeMahalanobis
from probes.anomaly.flow import FittedFlow, Flow
from probes.anomaly.forest import Forest
from probes.anomaly.head import Detector
from probes.anomaly.heads import HEADS
from probes.anomaly.neighbours import Neighbours
from probes.anomaly.network_head import NetworkDetector
from probes.anomaly.normalised import NormalisedDetector, NormalisedHead
from probes.anomaly.support import SupportVectors
from probes.anomaly.whitening import Whitened
from probes.taggers import Constituents
from tests.probes.anomaly.features import background, refused, strange
from tests.probes.anomaly.test_heads import NAMES, SMALL, inputs_of, quick

HERE = {head.name: head for head in SMALL} | {n: quick(kind) for n, kind in HEADS.items() if n not in NAMES}


def single(x):
    """Inputs as an encoder gives them."""
    return x.astype(np.float32) if isinstance(x, np.ndarray) else x


def fitted(head) -> Detector:
    """A network as it is before the first step, but for what begins with zeros: a fit would take seconds."""
    x = single(inputs_of(head, 400))
    rng = np.random.default_rng(3)
    if isinstance(head, FlowDensity):
        whitened, flow = Whitened.of(x, head.components, head.shrink), Flow(layers=2, bins=4, width=8)
        width = whitened.axes.shape[1]
        begin = jnp.zeros((1, width)), jnp.zeros((1, 0))
        params = jax.jit(hk.transform(flow.couplings.forward).init)(jax.random.key(0), *begin)
        params = jax.tree.map(lambda p: np.asarray(p + rng.normal(0, 0.3, p.shape), np.float32), params)
        units = rng.normal(size=width), rng.uniform(0.5, 2, width)
        return FlowDetector(head, whitened, FittedFlow(flow, params, *units, np.zeros(0), np.ones(0)))
    if head.name in NAMES:
        return head.fit(x)
    prepared = head.prepare(x)
    params = head.objective.codec.init(jax.random.key(0), np.zeros((1, prepared.width), np.float32))
    if isinstance(head, NormalisedHead):
        return NormalisedDetector(head, prepared, params, np.float32(0.3), [])
    return NetworkDetector(head, prepared, params)


# They differ from others in what their own tests look at.
ALIKE = ("image VAE", "constituent VAE", "image autoencoder")


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in HERE])
def detector(request):
    return fitted(HERE[request.param])


def jets_for(detector, jets):
    """Usual and strange ones, and some a thousand times as far away."""
    x = inputs_of(detector.head, jets, seed=5)
    if isinstance(x, Constituents):
        return x
    far = background(50)
    return single(np.concatenate([x, strange(50), far.mean(axis=0) + 1e3 * (far - far.mean(axis=0))]))


def test_it_is_the_score(detector):
    x = jets_for(detector, 60)
    scores, found = detector.score(x), np.asarray(jax.jit(detector.traced)(x))
    assert found.dtype == np.float32
    # A jump of one tree is the most that rounding may do.
    limit = 1 / detector.head.trees if isinstance(detector.head, Forest) else 2e-5
    np.testing.assert_array_less(np.abs(found - scores) / (1 + np.abs(scores)), limit)
    assert np.median(np.abs(found - scores) / (1 + np.abs(scores))) < 2e-6


def test_any_number_of_jets(detector):
    """As exporters trace it: with a name for their number, and of constituents for that of the slots; and none."""
    x, scope = jets_for(detector, 12), export.SymbolicScope()
    jets, slots = (export.symbolic_shape(name, scope=scope)[0] for name in "BN")

    def like(field):
        return jax.ShapeDtypeStruct((jets, slots if isinstance(x, Constituents) else field.shape[1]), field.dtype)

    assert jax.eval_shape(detector.traced, jax.tree.map(like, x)).shape == (jets,)
    assert jax.eval_shape(detector.traced, jax.tree.map(lambda field: field[:0], x)).shape == (0,)


def test_a_jet_of_the_bank_is_its_own_neighbour():
    """Products alone would leave the square root of rounding."""
    x = single(background(300))
    detector = Neighbours(neighbours=1, bank=500).fit(x)
    np.testing.assert_allclose(detector.traced(jnp.asarray(x)), 0, atol=2e-5)


def test_groups_far_from_each_other():
    """What is small in units of a group is added to what is large."""
    rng = np.random.default_rng(0)
    x = single(rng.normal(size=(600, 8)) + 300 * rng.integers(0, 2, (600, 1)))
    detector = RelativeMahalanobis(groups=2).fit(x)
    scores = detector.score(x)
    np.testing.assert_allclose(detector.traced(jnp.asarray(x)), scores, rtol=1e-4, atol=1e-4)


def test_the_offset_of_support_vectors_is_of_the_size_of_their_sum():
    x = single(background(2000))
    detector = SupportVectors(most_jets=2000).fit(x)
    assert abs(detector.offset[0]) > 50
    near = x[np.abs(detector.score(x)) < 1]
    assert len(near) > 50
    np.testing.assert_allclose(detector.traced(jnp.asarray(near)), detector.score(near), atol=3e-5)


def test_jets_on_the_cuts_of_trees():
    """Cuts lie between numbers of single precision; where no rounding comes before them, no walk goes astray."""
    detector = Forest(trees=10, jets=64).fit(background(200))
    width = detector.whitened.axes.shape[1]
    plain = replace(detector, whitened=Whitened(np.zeros(width), np.eye(width)))
    inner = np.flatnonzero(detector.children[:, 0] >= 0)[:150]
    below = detector.cuts[inner].astype(np.float32)
    below = np.where(below > detector.cuts[inner], np.nextafter(below, np.float32(-9)), below)
    for cuts in (below, np.nextafter(below, np.float32(9))):
        x = np.zeros((len(inner), width), np.float32)
        x[np.arange(len(inner)), detector.component[inner]] = cuts
        np.testing.assert_allclose(jax.jit(plain.traced)(x), plain.score(x), rtol=1e-6)


def test_a_node_of_two_parents_is_no_tree():
    """Its depth would depend on the way, and the ways to one could be as many as nobody can count."""
    detector = Forest(trees=2, jets=32).fit(background(100))
    state, inner = detector.state(), np.flatnonzero(detector.children[:, 0] >= 0)
    shared = state["children"].copy()
    shared[inner[0]] = shared[inner[0], 1]
    for wrong in ({"children": shared}, {"roots": np.repeat(state["roots"][:1], 2)}):
        with refused("are no trees"):
            detector.head.restore(state | wrong)
