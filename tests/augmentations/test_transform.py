from dataclasses import dataclass

import jax
import numpy as np
import pytest

from augmentations import (
    Chain,
    CollinearSplit,
    Jets,
    Maybe,
    PtScale,
    PtSmear,
    Reflect,
    Rotate,
    SoftLoss,
    SoftSmear,
    Transform,
    Translate,
    make_jets,
)
from tests.toys import toy_jet

ALL = [CollinearSplit(), PtScale(), PtSmear(), Reflect(), Rotate(), SoftLoss(), SoftSmear(), Translate()]


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
    blank = np.zeros(6, np.float32)
    for seed in range(5):
        out = transform(jax.random.key(seed), make_jets(blank, blank, blank))
        for x in (out.pt, out.eta, out.phi, out.mask):
            np.testing.assert_array_equal(x, 0)


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_padding_gets_no_gradient(transform: Transform) -> None:
    jets = toy_jet(4)
    padding = ~np.asarray(jets.mask)

    def total(x: jax.Array) -> jax.Array:
        out = transform(jax.random.key(3), jets._replace(eta=x))
        return (out.eta**2).sum() + (out.phi**2).sum()

    gradient = np.asarray(jax.grad(total)(jets.eta))
    assert np.isfinite(gradient).all()
    assert (gradient[padding] == 0).all()


def test_chain_runs_in_order_with_separate_keys() -> None:
    jets = toy_jet(0)
    chain = Chain(Add(1.0), Add(), Add())
    drawn = np.asarray(chain(jax.random.key(0), jets).pt - jets.pt)[0] - 1
    each = [float(jax.random.uniform(jax.random.fold_in(jax.random.key(0), i))) for i in (1, 2)]
    assert each[0] != each[1]
    np.testing.assert_allclose(drawn, sum(each), atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, Chain()(jax.random.key(0), jets), jets)


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_maybe_applies_as_often_as_asked(probability: float, share: float) -> None:
    jets = toy_jet(0)
    keys = jax.random.split(jax.random.key(0), 3000)
    out = jax.vmap(Maybe(Add(5.0), probability), (0, None))(keys, jets)
    happened = np.asarray(out.pt)[:, 0] > float(jets.pt[0])
    np.testing.assert_allclose(happened.mean(), share, atol=0.03)


def test_a_probability_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Maybe\.probability is 1\.2"):
        Maybe(Add(), 1.2)


def test_the_pt_scale_is_common_to_the_jet_and_the_resolution_is_not() -> None:
    jets = toy_jet(2)
    real = np.asarray(jets.mask)
    common = np.asarray(PtScale(0.1)(jax.random.key(0), jets).pt / np.where(real, jets.pt, 1))[real]
    np.testing.assert_allclose(common, common[0], rtol=1e-6)
    keys = jax.random.split(jax.random.key(0), 5000)
    own = np.log(np.asarray(jax.vmap(PtSmear(0.1), (0, None))(keys, jets).pt)[:, real] / np.asarray(jets.pt)[real])
    np.testing.assert_allclose(own.std(0), 0.1, rtol=0.05)
    assert abs(np.corrcoef(own[:, 0], own[:, 1])[0, 1]) < 0.06
