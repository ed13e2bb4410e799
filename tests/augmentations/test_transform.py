from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augmentations import (
    AngularScale,
    AngularSmear,
    Boost,
    Chain,
    CollinearSplit,
    DarkLoss,
    DeadRegion,
    Efficiency,
    Jets,
    Maybe,
    OneOf,
    PileUp,
    Prongs,
    PtPower,
    PtScale,
    PtShift,
    PtSmear,
    Reflect,
    Resolution,
    Rotate,
    SoftLoss,
    SoftRadiation,
    SoftSmear,
    Threshold,
    Transform,
    Translate,
    WideSplit,
    make_jets,
)
from augmentations.random import split
from tests.toys import toy_jet

ALL = [
    AngularSmear(), Boost(), CollinearSplit(), DeadRegion(0.3), Efficiency(), PileUp(), PtScale(), PtShift(), PtSmear(),
    Reflect(), Resolution(), Rotate(), SoftLoss(), SoftRadiation(), SoftSmear(), Threshold(), Translate(),
    AngularScale(), DarkLoss(), Prongs(), PtPower(), WideSplit(), OneOf((DarkLoss(), Prongs(), Rotate())),
]  # fmt: skip

LOSING_OR_ADDING = (DeadRegion, Efficiency, PileUp, SoftLoss, Threshold)


@dataclass(frozen=True)
class Add:
    """Adds to every pT a number drawn from the key, or `amount`."""

    amount: float | None = None

    def __call__(self, key: jax.Array, jets: Jets) -> Jets:
        return jets._replace(pt=jets.pt + (jax.random.uniform(key) if self.amount is None else self.amount))


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_every_transform_is_pure_and_jits_to_the_same(transform: Transform) -> None:
    jets = toy_jet(1)
    key = jax.random.key(7)
    first, again = transform(key, jets), transform(key, jets)
    jitted = jax.jit(transform)(key, jets)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), first, jitted)


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_every_transform_survives_an_empty_jet_and_keeps_padding(transform: Transform) -> None:
    blank = np.zeros(24, np.float32)
    for seed in range(3):
        out = transform(jax.random.key(seed), make_jets(blank, blank, blank))
        for x in (out.pt, out.eta, out.phi, out.mask):
            np.testing.assert_array_equal(x, 0)


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_extras_go_with_their_constituents_and_padding_stays_zero(transform: Transform) -> None:
    jets = toy_jet(6)
    jets = jets._replace(extras={"mark": jnp.where(jets.mask, jnp.arange(24) + 1.0, 0)})
    for seed in range(4):
        out = transform(jax.random.key(seed), jets)
        real = np.asarray(out.mask)
        np.testing.assert_array_equal(real, np.asarray(out.pt) > 0)
        for x in (out.pt, out.eta, out.phi, out.extras["mark"]):
            assert x.shape == jets.pt.shape
            assert x.dtype == jets.pt.dtype
            assert np.isfinite(x).all()
            assert (np.asarray(x)[~real] == 0).all()
        marks = np.asarray(out.extras["mark"])[real].astype(int)
        assert (marks > 0).any()
        if type(transform) in LOSING_OR_ADDING:
            old = marks > 0
            for after, before in ((out.pt, jets.pt), (out.eta, jets.eta), (out.phi, jets.phi)):
                np.testing.assert_array_equal(np.asarray(after)[real][old], np.asarray(before)[marks[old] - 1])


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_padding_gets_no_gradient(transform: Transform) -> None:
    jets = toy_jet(4)
    padding = ~np.asarray(jets.mask)

    def total(pt: jax.Array, eta: jax.Array) -> jax.Array:
        out = transform(jax.random.key(3), jets._replace(pt=pt, eta=eta))
        return (out.pt**2).sum() + (out.eta**2).sum() + (out.phi**2).sum()

    by_pt, by_eta = (np.asarray(x) for x in jax.grad(total, (0, 1))(jets.pt, jets.eta))
    assert np.isfinite(by_pt).all()
    assert np.isfinite(by_eta).all()
    assert (by_eta[padding] == 0).all()  # while pT of a slot, if there were any, would move the centroid


def test_chain_runs_in_order_with_separate_keys() -> None:
    jets = toy_jet(0)
    chain = Chain(Add(1.0), Add(), Add())
    drawn = np.asarray(chain(jax.random.key(0), jets).pt - jets.pt)[0] - 1
    each = [float(jax.random.uniform(own)) for own in split(jax.random.key(0), 3)[1:]]
    assert each[0] != each[1]
    np.testing.assert_allclose(drawn, sum(each), atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, Chain()(jax.random.key(0), jets), jets)


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_maybe_applies_as_often_as_asked(probability: float, share: float) -> None:
    jets = toy_jet(0)
    keys = jax.random.split(jax.random.key(0), 3000)
    out = jax.jit(jax.vmap(Maybe(Add(5.0), probability), (0, None)))(keys, jets)
    happened = np.asarray(out.pt)[:, 0] > float(jets.pt[0])
    np.testing.assert_allclose(happened.mean(), share, atol=0.03)


def test_a_probability_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Maybe\.probability is 1\.2"):
        Maybe(Add(), 1.2)
