"""Scores against scikit-learn's, closed forms and brute force."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist, mahalanobis
from scipy.stats import multivariate_normal
from sklearn.covariance import EmpiricalCovariance
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.svm import OneClassSVM

from probes.anomaly.contrastive import Contrastive
from probes.anomaly.distance import Mahalanobis, RelativeMahalanobis
from probes.anomaly.forest import Forest
from probes.anomaly.mixture import FLOOR, Mixture
from probes.anomaly.neighbours import Neighbours
from probes.anomaly.support import SupportVectors
from tests.probes.anomaly.features import background, strange


def both(jets=300):
    return np.concatenate([background(jets, seed=3), strange(jets)])


def test_mahalanobis():
    x, t = background(1000), both()
    oracle = EmpiricalCovariance().fit(x[:, :-1]).mahalanobis(t[:, :-1])
    scores = Mahalanobis(shrink=0.0).fit(x).score(t)
    np.testing.assert_allclose(scores**2, oracle, rtol=1e-6)
    inverse = np.linalg.inv(np.cov(x[:, :-1].T, ddof=0))
    assert scores[5] == pytest.approx(mahalanobis(t[5, :-1], x[:, :-1].mean(axis=0), inverse))
    # Fewer components leave part of the distance out.
    assert (Mahalanobis(shrink=0.0, components=3).fit(x).score(t) < scores).all()


def test_mahalanobis_does_not_mind_units_nor_dependent_features():
    x, t = background(1000), both()
    scores = Mahalanobis().fit(x).score(t)
    units = np.array([1e-3, 7.0, 1e3, 2.0, 1.0, 5.0])
    np.testing.assert_allclose(Mahalanobis().fit(x * units - 3).score(t * units - 3), scores, rtol=1e-6)
    twice, again = (np.column_stack([a, a[:, 0] + a[:, 1]]) for a in (x, t))
    assert np.isfinite(Mahalanobis().fit(twice).score(again)).all()
    with pytest.raises(ValueError, match="depend on the others"):
        Mahalanobis(shrink=0.0).fit(twice)


def test_relative_mahalanobis():
    """Between the groups of a background a jet is as usual as within them to the plain distance, not to this one."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 4)) + 8 * np.eye(4)[rng.integers(2, size=2000)]
    usual, between = x[:500], rng.normal(size=(500, 4)) + 4 * np.array([1, 1, 0, 0])
    t, truth = np.concatenate([usual, between]), np.repeat([0, 1], 500)
    head = RelativeMahalanobis(groups=2, shrink=0.0)
    detector = head.fit(x)
    assert roc_auc_score(truth, Mahalanobis().fit(x).score(t)) < 0.6
    assert roc_auc_score(truth, detector.score(t)) > 0.95
    group = (x[:, 1] > x[:, 0]).astype(int)
    means = np.stack([x[group == g].mean(axis=0) for g in (0, 1)])
    within, whole = np.linalg.inv(np.cov((x - means[group]).T, ddof=0)), np.linalg.inv(np.cov(x.T, ddof=0))
    near = np.min([[mahalanobis(one, m, within) ** 2 for one in t[::50]] for m in means], axis=0)
    far = [mahalanobis(one, x.mean(axis=0), whole) ** 2 for one in t[::50]]
    np.testing.assert_allclose(detector.score(t[::50]), near - far, rtol=1e-6, atol=1e-6)


def test_neighbours():
    x, t = background(400), both(50)
    detector = Neighbours(neighbours=3, components=4).fit(x)
    distance = cdist(detector.whitened(t), detector.whitened(x))
    np.testing.assert_allclose(detector.score(t), np.sort(distance, axis=1)[:, :3].mean(axis=1), rtol=1e-6)
    few = Neighbours(neighbours=3, bank=100).fit(x, seed=1)
    assert few.bank.shape == (100, 5)
    assert not np.array_equal(few.bank, Neighbours(neighbours=3, bank=100).fit(x, seed=2).bank)


def test_mixture():
    x, t = background(1200), both()
    detector = Mixture(gaussians=(3,)).fit(x)
    z = detector.whitened(t)
    covariances = [np.linalg.inv(factor @ factor.T) for factor in detector.factors]
    parts = [
        weight * multivariate_normal(mean, covariance).pdf(z)
        for weight, mean, covariance in zip(detector.weights, detector.means, covariances, strict=True)
    ]
    np.testing.assert_allclose(detector.score(t), -np.log(np.sum(parts, axis=0)), rtol=1e-5)
    oracle = GaussianMixture(3)
    oracle.weights_, oracle.means_, oracle.precisions_cholesky_ = detector.weights, detector.means, detector.factors
    np.testing.assert_allclose(detector.score(t), -oracle.score_samples(z), rtol=1e-9)


def test_the_number_of_gaussians_is_chosen_on_held_out_jets():
    assert len(Mixture(gaussians=(1, 4)).fit(background(600)).weights) == 1
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)) + 8 * np.array([[0, 0], [1, 0], [0, 1]])[rng.integers(3, size=600)]
    detector = Mixture(gaussians=(1, 3)).fit(x)
    np.testing.assert_allclose(detector.weights, 1 / 3, atol=0.06)
    assert np.linalg.eigvalsh(np.linalg.inv(detector.factors[0] @ detector.factors[0].T)).min() > FLOOR


def test_forest():
    x, t = background(800), both()
    detector = Forest(trees=30, jets=128).fit(x, seed=4)
    oracle = IsolationForest(n_estimators=30, max_samples=128, random_state=4).fit(detector.whitened(x))
    np.testing.assert_allclose(detector.score(t), -oracle.score_samples(detector.whitened(t)), rtol=1e-12)
    small = Forest(trees=5).fit(x[:50])
    oracle = IsolationForest(n_estimators=5, max_samples=50, random_state=0).fit(small.whitened(x[:50]))
    np.testing.assert_allclose(small.score(t), -oracle.score_samples(small.whitened(t)), rtol=1e-12)


def test_a_forest_that_is_no_forest():
    detector = Forest(trees=3, jets=32).fit(background(200))
    state = detector.state()
    loop = state["children"].copy()
    loop[loop[:, 0] > 0] = 0
    for name, wrong in (
        ("children", loop),
        ("children", np.where(state["children"] > 0, 10**6, -1)),
        ("children", state["children"].astype(np.float64)),
        ("children", np.column_stack([state["children"][:, 0], np.full(len(loop), -1)])),
        ("roots", state["roots"] - 1),
        ("roots", state["roots"] + len(loop)),
        ("component", state["component"] + 6),
        ("depth", -state["depth"]),
    ):
        with pytest.raises(ValueError, match="isolation forest"):
            detector.head.restore(state | {name: wrong})


def test_support_vectors():
    x, t = background(300), both()
    detector = SupportVectors(outside=0.2, inverse_width=0.5).fit(x)
    z = detector.whitened(x)
    oracle = OneClassSVM(nu=0.2, gamma=0.5 / 5).fit(z)
    np.testing.assert_allclose(
        detector.score(t), -oracle.decision_function(detector.whitened(t)), rtol=1e-9, atol=1e-12
    )
    assert np.mean(detector.score(x) > 0) == pytest.approx(0.2, abs=0.03)


def test_contrastive():
    """A direction that the background does not take; the score by hand."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 8)) + 5 * np.eye(8)[0]
    t = np.concatenate([x[:100], -x[100:200], rng.normal(size=(100, 8))])
    detector = Contrastive(temperature=0.3).fit(x)
    cosine = 1 - cdist(t, x, "cosine")
    np.testing.assert_allclose(detector.score(t), -0.3 * np.log(np.exp(cosine / 0.3).mean(axis=1)), rtol=1e-9)
    np.testing.assert_allclose(detector.score(1e3 * t), detector.score(t), rtol=1e-9)
    assert detector.score(t[:100]).max() < detector.score(t[100:200]).min()
    assert np.abs(detector.score(t)).max() <= 1
    assert detector.score(np.zeros((1, 8)))[0] == pytest.approx(0, abs=1e-12)
