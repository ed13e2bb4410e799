"""What heads share: strange jets score higher, files keep them to the bit, bad input is refused."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from probes.anomaly.contrastive import Contrastive
from probes.anomaly.density import FlowDensity
from probes.anomaly.distance import Mahalanobis, RelativeMahalanobis
from probes.anomaly.files import load, save
from probes.anomaly.forest import Forest
from probes.anomaly.head import Detector, Head
from probes.anomaly.heads import HEADS
from probes.anomaly.mixture import Mixture
from probes.anomaly.neighbours import Neighbours
from probes.anomaly.support import SupportVectors
from probes.anomaly.whitening import FARTHEST
from probes.taggers import Constituents, constituents
from tests.probes.anomaly.features import FEATURES, background, refused, strange
from tests.toys import toy_batch

SMALL = (
    Mahalanobis(),
    RelativeMahalanobis(groups=4),
    Neighbours(bank=500),
    Mixture(gaussians=(1, 3)),
    Forest(trees=40, jets=256),
    SupportVectors(most_jets=300),
    FlowDensity(layers=1, steps=60),
    Contrastive(bank=500),
)
NAMES = [head.name for head in SMALL]

QUICK = {
    "steps": 4,
    "batch": 32,
    "components": 4,
    "latent": 2,
    "hidden": (8,),
    "pixels": 8,
    "hardest": 8,
    "normalising_steps": 4,
    "latent_steps": 2,
    "input_steps": 2,
    "buffer": 64,
}


def quick(kind):
    """A head of a network, of as little work as its settings allow."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in QUICK.items() if name in known})


def inputs_of(head, jets, seed=0):
    """Features or toy jets, as the head sees them."""
    if head.sees == "features":
        return background(jets, seed)
    batch = toy_batch(seed, jets)
    made = constituents(batch["pt"], batch["eta"], batch["phi"], batch["pt"] > 0)
    return Constituents(*(np.asarray(field) for field in made))


@pytest.fixture(scope="module")
def detectors():
    return {head.name: head.fit(background(1500)) for head in SMALL}


def test_every_head_has_a_name():
    assert set(NAMES) <= set(HEADS)
    for name, kind in HEADS.items():
        assert kind.name == name
        assert isinstance(kind(), Head)
        json.dumps(dataclasses.asdict(kind()))


@pytest.mark.parametrize("name", NAMES)
def test_strange_jets_score_higher(detectors, name):
    """Also jets in single precision; relative and contrastive scores are no distances, and are tested by themselves."""
    detector = detectors[name]
    assert isinstance(detector, Detector)
    x = np.concatenate([background(500, seed=2), strange(500)])
    scores = detector.score(x)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(detector.score(x.astype(np.float32)), scores, rtol=2e-3, atol=2e-3)
    if name not in ("relative Mahalanobis", "contrastive"):
        assert roc_auc_score(np.repeat([0, 1], 500), scores) > 0.8
    assert detector.score(x[:0]).shape == (0,)


# Networks take seconds to compile; those of each kind keep their own files in their own tests.
ALL = [name if name in NAMES else pytest.param(name, marks=pytest.mark.slow) for name in HEADS]


@pytest.mark.parametrize("name", ALL)
def test_a_file_keeps_it_to_the_bit(detectors, name, tmp_path):
    head = detectors[name].head if name in NAMES else quick(HEADS[name])
    detector = detectors[name] if name in NAMES else head.fit(inputs_of(head, 120))
    x, path = inputs_of(head, 16, seed=2), tmp_path / "head.npz"
    given = {"thresholds": np.arange(3.0), "file": np.arange(2)}
    save(path, detector, meta={"layer": "embedding", "jets": 1500}, arrays=given)
    again, meta, arrays = load(path, HEADS)
    assert again.head == head
    assert meta == {"layer": "embedding", "jets": 1500}
    assert {key: a.tolist() for key, a in arrays.items()} == {"thresholds": [0, 1, 2], "file": [0, 1]}
    scores = detector.score(x)
    np.testing.assert_array_equal(again.score(x), scores)
    assert len(np.unique(scores)) > 10
    # What is saved again is the same file.
    save(other := tmp_path / "again.npz", again, meta=meta, arrays=arrays)
    assert other.read_bytes() == path.read_bytes()


# That of the flow is in test_flow.py.
@pytest.mark.parametrize(
    "head", [head for head in SMALL if head.name != "normalising flow"], ids=lambda head: head.name
)
def test_same_seed_same_bits(detectors, head):
    x = background(200, seed=2)
    np.testing.assert_array_equal(head.fit(background(1500)).score(x), detectors[head.name].score(x))


@pytest.mark.parametrize("head", SMALL, ids=NAMES)
def test_what_is_refused(detectors, head):
    bad = background(400)
    bad[7, 2] = np.nan
    with refused("1 jets are NaN"):
        head.fit(bad)
    with refused("no feature varies"):
        head.fit(np.ones((400, 3)))
    detector = detectors[head.name]
    with refused(rf"\[jets, {FEATURES}\]"):
        detector.score(background(5)[:, :3])
    with refused("1 jets are NaN"):
        detector.score(bad)
    with refused("1 jets are NaN"):
        detector.score(np.where(np.isnan(bad), np.inf, bad))
    # Finite, with squares that are not.
    far = background(5)
    far[1, 1] = 1e200
    with refused("1 jets are NaN"):
        detector.score(far)
    far[1, 1] = FARTHEST / 1e6
    assert np.isfinite(detector.score(far)).all()
    if head.name != "contrastive":
        with refused("needed at least"):
            head.fit(background(19))


@pytest.mark.parametrize("name", NAMES)
def test_states_that_do_not_fit_are_refused(detectors, name):
    head, state = detectors[name].head, detectors[name].state()
    for missing in state:
        with refused("missing"):
            head.restore({key: x for key, x in state.items() if key != missing})
        if state[missing].size:
            with refused("shape|missing"):
                head.restore(state | {missing: np.repeat(state[missing][..., None], 2, axis=-1)})
        if state[missing].dtype.kind == "f" and state[missing].size:
            with refused("NaN"):
                head.restore(state | {missing: np.full_like(state[missing], np.nan)})
    assert all(x.dtype.kind in "fi" for x in state.values())


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (RelativeMahalanobis, {"groups": 1}),
        (Neighbours, {"neighbours": 0}),
        (Mixture, {"gaussians": ()}),
        (Forest, {"trees": 0}),
        (FlowDensity, {"layers": 0}),
        (FlowDensity, {"steps": 0}),
        (SupportVectors, {"outside": 0.0}),
        (Contrastive, {"temperature": 0.0}),
    ],
)
def test_settings_that_make_no_sense(kind, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)


def test_too_few_jets_for_the_settings():
    x = background(100)
    with pytest.raises(ValueError, match="200 jets at least, got 100"):
        RelativeMahalanobis(groups=10).fit(x)
    with pytest.raises(ValueError, match="200 neighbours cannot be found among 100 jets"):
        Neighbours(neighbours=200).fit(x)
    with pytest.raises(ValueError, match="16 Gaussians in 5 components need 160 jets"):
        Mixture().fit(x)


def test_groups_of_equal_jets():
    """Fewer kinds of jets than groups: no warning, and no division by a spread of rounding."""
    x = np.repeat(np.random.default_rng(0).normal(size=(5, 4)), 60, axis=0)
    assert np.isfinite(RelativeMahalanobis(groups=10).fit(x + 1e-3 * background(300)[:, 1:5]).score(x)).all()
    with pytest.raises(ValueError, match="the jets of a group do not vary"):
        RelativeMahalanobis(groups=10).fit(x)
