"""Autoencoders of features, images and constituents; the loop that fits them, and their files."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from probes.anomaly import network_head
from probes.anomaly.autoencoder import AutoEncoder, ConstituentAutoEncoder, ImageAutoEncoder, Reconstruction
from probes.anomaly.codec import TableCodec
from probes.anomaly.files import load, save
from probes.anomaly.head import Detector, Head
from probes.anomaly.network_head import fit_codec, values
from probes.taggers import Constituents, constituents
from probes.training import Training
from tests.toys import toy_batch

# Compiled once each: steps and rates may differ without another compilation.
FAST = {"batch": 64, "peak_lr": 5e-3}
HEADS = [
    AutoEncoder(components=0, steps=500, latent=2, hidden=(32,), **FAST),
    ImageAutoEncoder(steps=300, latent=4, hidden=(), pixels=8, **FAST),
    ConstituentAutoEncoder(steps=200, latent=4, hidden=(32,), hardest=8, **FAST),
]


def refused(message):
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def prongs(count, seed=0):
    """Toy jets of one prong, and as many of three."""
    batch = toy_batch(seed, 2 * count)
    jets = constituents(batch["pt"], batch["eta"], batch["phi"], batch["pt"] > 0)
    return [Constituents(*(np.asarray(field)[i::2] for field in jets)) for i in (0, 1)]


def sheet(count, seed=0, off=0.0):
    """Five features near a curved sheet of two dimensions, `off` of it."""
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-1, 1, (2, count))
    x = np.column_stack([a, b, a * b + off, a**2 - off, np.sin(2 * b) + off])
    return (x + 0.02 * rng.normal(size=x.shape)).astype(np.float32)


def usual_and_strange(head, count=200, seed=1):
    """Jets on the sheet and off it, or of one prong and of three."""
    return [sheet(count, seed), sheet(count, seed, 0.5)] if head.sees == "features" else prongs(count, seed)


def inputs_of(head, count=300, seed=0):
    return usual_and_strange(head, count, seed)[0]


@pytest.fixture(scope="module")
def detectors():
    return {head.name: head.fit(inputs_of(head)) for head in HEADS}


def test_linear_ones_find_the_principal_components():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(1000, 6)) @ (rng.normal(size=(6, 6)) * [5, 4, 3, 1, 0.5, 0.2])).astype(np.float32)
    objective = Reconstruction(TableCodec(3, hidden=()))
    x = (x - x.mean(axis=0)) / x.std()
    settings = Training(steps=800, batch=1000, peak_lr=0.03, weight_decay=0.0, averaged=0.9, patience=10)
    params, history = fit_codec(objective, x, settings, "linear")
    oracle = PCA(3).fit(x)
    expected = np.mean((oracle.inverse_transform(oracle.transform(x)) - x) ** 2, axis=1)
    found = values(objective, params, x)
    # Fitted to nine jets of ten: as good as the best on all of them within 1 %.
    assert expected.mean() <= found.mean() < 1.01 * expected.mean()
    assert np.corrcoef(found, expected)[0, 1] > 0.99
    assert history[-1][2] < history[0][2]


@pytest.mark.parametrize("head", HEADS[:2], ids=lambda head: head.name)
def test_scores_are_the_mean_square_of_each_jet(head, detectors):
    detector, others = detectors[head.name], inputs_of(head, 30, 1)
    seen, made = detector.reconstructed(others)
    np.testing.assert_array_equal(seen, detector.inputs(others))
    np.testing.assert_allclose(detector.score(others), ((made - seen) ** 2).mean(axis=1), rtol=1e-4)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_what_is_unlike_the_background_is_strange(head, detectors):
    scores = np.concatenate([detectors[head.name].score(x) for x in usual_and_strange(head)])
    assert roc_auc_score(np.repeat([0, 1], 200), scores) > 0.9


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_files_give_the_same_bits(head, detectors, tmp_path):
    detector, others = detectors[head.name], inputs_of(head, 30, 1)
    save(tmp_path / "head.npz", detector)
    again, _, _ = load(tmp_path / "head.npz", {head.name: type(head)})
    assert isinstance(head, Head)
    assert isinstance(again, Detector)
    assert again.head == head
    np.testing.assert_array_equal(again.score(others), detector.score(others))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_the_seed_decides(head, detectors):
    others, steps = inputs_of(head, 30, 1), []
    again = head.fit(inputs_of(head), progress=steps.append)
    # It ends early where held-out jets say so.
    assert head.steps // 2 < sum(steps) <= head.steps
    np.testing.assert_array_equal(again.score(others), detectors[head.name].score(others))
    assert not np.array_equal(replace(head, steps=20).fit(inputs_of(head), seed=1).score(others), again.score(others))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_scores_are_those_of_each_jet_alone(head, detectors):
    detector, others = detectors[head.name], inputs_of(head, 30, 1)
    order = np.random.default_rng(0).permutation(30)
    scores = detector.score(others)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(detector.score(jax.tree.map(lambda x: x[order], others)), scores[order], rtol=1e-4)
    assert len(detector.score(jax.tree.map(lambda x: x[:0], others))) == 0


@pytest.mark.parametrize("head", HEADS[1:], ids=lambda head: head.name)
def test_order_of_constituents_does_not_matter(head, detectors):
    jets = prongs(20, seed=2)[0]
    order = np.random.default_rng(0).permutation(jets.pt.shape[1])
    shuffled = Constituents(*(np.asarray(field)[:, order] for field in jets))
    detector = detectors[head.name]
    np.testing.assert_allclose(detector.score(shuffled), detector.score(jets), rtol=2e-3)


def test_too_few_jets_and_numbers_that_are_none(detectors):
    head = HEADS[0]
    with pytest.raises(ValueError, match="at least 20 jets"):
        HEADS[1].fit(inputs_of(HEADS[1], 19))
    bad = sheet(30)
    bad[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        head.fit(bad)
    with pytest.raises(ValueError, match="features of 1 jets are NaN"):
        detectors[head.name].score(bad)
    bad[3, 2] = 1e30
    with pytest.raises(ValueError, match="infinity for 1 of 30 jets: they are far beyond"):
        values(head.objective, detectors[head.name].params, bad)


def test_a_fit_that_diverges_is_refused():
    with pytest.raises(ValueError, match="autoencoder is NaN or infinite by step"):
        replace(HEADS[0], peak_lr=1e30, steps=40).fit(sheet(100))


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"batch": 0}, {"peak_lr": 0.0}, {"components": -1}, {"latent": 0}, {"hidden": (8, 0)}],
    ids=str,
)
def test_settings_out_of_range(change):
    """When they are made, not when they are used."""
    with pytest.raises(ValueError, match=next(iter(change))):
        AutoEncoder(**change)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_arrays_that_are_missing_or_of_another_shape(head, detectors):
    state = detectors[head.name].state()
    for name, x in state.items():
        with refused("missing|must have the shape"):
            head.restore({key: value for key, value in state.items() if key != name})
        with refused("must have the shape"):
            head.restore(state | {name: np.ones((*x.shape, 2))})
        with refused("NaN or infin"):
            head.restore(state | {name: np.full(x.shape, np.inf)})


def test_compiled_once_an_objective():
    first, again = (Reconstruction(TableCodec(2, hidden=(3,))) for _ in range(2))
    assert network_head._compiled(first) is network_head._compiled(again)
    assert network_head._compiled(first) is not network_head._compiled(Reconstruction(TableCodec(2, hidden=(4,))))
