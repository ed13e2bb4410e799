"""Nearest neighbours against scikit-learn and brute force."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from probes import neighbours
from probes.linear import fit_lda
from probes.neighbours import fit_neighbours
from probes.probe import Probe


def refused(message):
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def jets(count, classes=2, features=6, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(count) % classes)
    places = np.random.default_rng(7).normal(size=(classes, features))
    return (rng.normal(size=(count, features)) + 0.7 * places[y]).astype(dtype), y


def shares(x, y, test, k, temperature, classes):
    """scikit-learn's vote, with a vote of the nearest neighbour's weight shared out as the classes are."""
    z, z_test = ((a - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64) for a in (x, test))

    def weights(distances):
        return np.exp((distances.min(axis=1, keepdims=True) - distances) / temperature)

    model = KNeighborsClassifier(k, metric="cosine", weights=weights, algorithm="brute").fit(z, y)
    total = weights(model.kneighbors(z_test)[0]).sum(axis=1, keepdims=True)
    return (model.predict_proba(z_test) * total + np.bincount(y, minlength=classes) / len(y)) / (total + 1)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("k", [1, 7, 150, 300])
def test_votes_are_those_of_scikit_learn(classes, k, monkeypatch):
    monkeypatch.setattr(neighbours, "SIMILARITIES", 7000)  # several blocks
    x, y = jets(300, classes)
    test, _ = jets(101, classes, seed=1)
    probe = fit_neighbours(x, y, neighbours=[k], temperature=0.1, validation=(test, jets(101, classes, seed=1)[1]))
    assert probe.neighbours == k
    logits = probe.logits(test)
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, shares(x, y, test, k, 0.1, classes), atol=2e-4)
    if classes == 2:
        np.testing.assert_allclose(probe.score(test), logits[:, 1] - logits[:, 0])
        assert isinstance(probe, Probe)


def test_number_of_neighbours_is_that_of_the_lowest_cross_entropy():
    x, y = jets(400, 3)
    test, truth = jets(300, 3, seed=1)
    probe = fit_neighbours(x, y, neighbours=[1, 5, 40, 350, 9999], validation=(test, truth))
    costs = {k: log_loss(truth, shares(x, y, test, k, 0.07, 3)) for k in (1, 5, 40, 350)}
    assert probe.neighbours == min(costs, key=costs.__getitem__)


def test_without_validation_jets_some_are_held_out_and_join_the_bank_afterwards():
    x, y = jets(500)
    probe = fit_neighbours(x, y)
    assert probe.bank.shape == (500, 6)
    assert 1 < probe.neighbours <= 400
    test, truth = jets(2000, seed=3)
    straight = roc_auc_score(truth, fit_lda(x, y).score(test))  # the best there is for two such classes
    assert straight - 0.08 < roc_auc_score(truth, probe.score(test)) <= straight + 0.01
    few = fit_neighbours(x[:6], y[:6], neighbours=[50])
    assert few.neighbours <= 6


def test_a_bank_limits_the_jets_and_is_reproducible():
    x, y = jets(500)
    probe, again = (fit_neighbours(x, y, bank=100, seed=5) for _ in range(2))
    assert probe.bank.shape == (100, 6)
    assert sum(probe.jets) == 100
    np.testing.assert_array_equal(probe.bank, again.bank)
    assert not np.array_equal(probe.bank, fit_neighbours(x, y, bank=100, seed=6).bank)


def test_scores_are_finite_where_a_class_has_no_neighbour_and_for_the_mean_jet():
    x = np.array([[1.0, 0.1], [1.0, 0.2], [1.0, -0.2], [-1.0, 0.1], [-1.0, -0.1], [-1.0, 0.0]])
    y = np.array([1, 1, 1, 0, 0, 0])
    probe = fit_neighbours(x, y, neighbours=[2], validation=(x, y))
    scores = probe.score(np.array([[5.0, 0.0], [-5.0, 0.0], x.mean(axis=0).tolist()]))
    assert np.isfinite(scores).all()
    assert scores[0] > 1 > -1 > scores[1]


def test_bad_input_is_refused_in_plain_english():
    x, y = jets(40, features=3)
    broken = x.copy()
    broken[3, 2] = np.nan
    for features, labels, message in (
        (broken, y, "1 jets are NaN or infinite"),
        (x, np.zeros(40, int), "of one class"),
        (x, y[:-1], "40 jets but labels"),
        (np.ones((40, 3), np.float32), y, "collapsed"),
    ):
        with refused(message):
            fit_neighbours(features, labels)
    for settings in ({"bank": 1}, {"temperature": 0.0}, {"neighbours": []}, {"neighbours": [0]}):
        with refused("must be positive"):
            fit_neighbours(x, y, **settings)
    probe = fit_neighbours(x, y)
    with refused("1 jets are NaN"):
        probe.score(broken)
    with refused("takes features"):
        probe.score(x[:, :2])
    with refused("two classes; this probe has 4"):
        fit_neighbours(*jets(40, 4)).score(jets(5)[0])
