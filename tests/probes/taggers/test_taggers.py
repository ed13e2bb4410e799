"""What holds for every tagger: sets in, logits out, padding unseen."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.metrics import auc
from probes.taggers import Constituents
from probes.taggers.defaults import default_taggers
from probes.taggers.particlenet import ParticleNet
from probes.taggers.transformer import Transformer
from probes.training import Training, fit
from tests.probes.taggers.jets import SMALL, repadded, toy_jets

every_tagger = pytest.mark.parametrize("tagger", SMALL, ids=lambda tagger: tagger.name)
JETS = 64
"""In nearly every call, so that each network is compiled once."""
APPLIED = {tagger: jax.jit(tagger.apply) for tagger in SMALL}


@functools.cache
def start(tagger):
    return tagger.init(jax.random.key(0), toy_jets(1))


def far(tagger):
    """Parameters far from their start, so that every part of a network matters."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), start(tagger))


def logits(tagger, jets, key=None, params=None):
    return np.asarray(APPLIED[tagger](far(tagger) if params is None else params, jets, key))


@every_tagger
@settings(max_examples=6)
@given(seed=st.integers(0, 1000))
def test_neither_padding_nor_order_matters(tagger, seed):
    jets = toy_jets(JETS, seed)
    expected = logits(tagger, jets)
    assert np.ptp(expected, axis=0).max() > 1e-2, "the example must tell jets apart"
    np.testing.assert_allclose(logits(tagger, repadded(jets, 40, seed)), expected, atol=1e-4)


@every_tagger
def test_padding_may_hold_anything(tagger):
    jets = toy_jets(JETS)
    spoilt = Constituents(*(np.where(jets.mask, field, np.nan) for field in jets[:3]), jets.mask)
    np.testing.assert_array_equal(logits(tagger, spoilt), logits(tagger, jets))


@every_tagger
def test_no_constituent_or_one_gives_finite_logits(tagger):
    assert np.isfinite(logits(tagger, strange_jets())).all()


def strange_jets():
    """Jets of which one has no constituent, one has one and one has three at one place."""
    jets = toy_jets(JETS)
    for field in jets[:3]:
        field[:3] = 0
    jets.pt[1, 0] = jets.pt[2, :3] = 100
    return jets._replace(mask=jets.pt > 0)


@every_tagger
def test_one_jet_does_not_see_another(tagger):
    jets = toy_jets(JETS)
    other = jets._replace(pt=np.concatenate([jets.pt[:4], 3 * jets.pt[4:]]))
    np.testing.assert_allclose(logits(tagger, other)[:4], logits(tagger, jets)[:4], atol=1e-5)


@every_tagger
def test_learns_the_number_of_prongs(tagger):
    """Also with strange jets among them."""
    jets = Constituents(*(np.concatenate(pair) for pair in zip(toy_jets(400), strange_jets(), strict=True)))
    training = Training(steps=100, batch=64, peak_lr=5e-3, averaged=0.9)
    params = fit(tagger, jets, np.arange(400 + JETS) % 2, training, start=start(tagger)).params
    found = np.concatenate([logits(tagger, toy_jets(JETS, seed), params=params) for seed in (1, 2, 3)])
    assert auc(found[:, 1] - found[:, 0], np.arange(3 * JETS) % 2) > 0.97


@every_tagger
def test_more_classes_and_any_number_of_constituents(tagger):
    many = replace(tagger, classes=3)
    shapes = [jax.eval_shape(many.init, jax.random.key(0), toy_jets(1, slots=slots)) for slots in (24, 31)]
    assert shapes[0] == shapes[1]
    assert jax.eval_shape(many.apply, shapes[0], toy_jets(5), None).shape == (5, 3)
    assert many.name == tagger.name
    with pytest.raises(ValueError, match="two classes, got 1"):
        replace(tagger, classes=1)


def test_parameters_come_from_the_key_alone():
    first, again, other = (
        jax.tree.leaves(SMALL[0].init(jax.random.key(seed), toy_jets(1, jets)))
        for seed, jets in ((0, 0), (0, 5), (1, 0))
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("tagger", [SMALL[0], SMALL[-1]], ids=lambda tagger: tagger.name)
def test_jets_are_turned_only_where_a_key_is_given(tagger):
    assert SMALL[0].turned
    assert not SMALL[-1].turned, "it aligns jets itself"
    jets = toy_jets(JETS)
    with_key, without = logits(tagger, jets, jax.random.key(0)), logits(tagger, jets)
    assert np.allclose(with_key, without, atol=1e-6) is not tagger.turned


def test_turning_is_a_setting():
    jets, still = toy_jets(JETS), replace(SMALL[0], turned=False)
    expected = logits(SMALL[0], jets)
    np.testing.assert_allclose(jax.jit(still.apply)(far(SMALL[0]), jets, jax.random.key(0)), expected, atol=1e-6)


def test_defaults():
    found = default_taggers(3)
    assert list(found) == ["PFN", "EFN", "ParticleNet-lite", "transformer", "jet-image CNN"]
    for name, (tagger, training) in found.items():
        assert tagger.name == name
        assert tagger.classes == 3
        assert hash(tagger) == hash(replace(tagger))
        assert isinstance(training, Training)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Transformer(width=10, heads=4), lambda: Transformer(blocks=0), lambda: ParticleNet(neighbours=0),
        lambda: ParticleNet(blocks=()), lambda: replace(SMALL[-1], pixels=18), lambda: replace(SMALL[-1], extent=0.0),
        lambda: replace(SMALL[0], per_jet=()).init(jax.random.key(0), toy_jets(1)),
        lambda: replace(SMALL[1], per_constituent=(8, 0)).init(jax.random.key(0), toy_jets(1)),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=r"must be|are needed|needs"):
        bad()
