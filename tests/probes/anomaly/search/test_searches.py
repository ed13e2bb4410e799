"""What all searches promise, and each against densities that are known."""

import numpy as np
import pytest
from scipy.stats import ks_2samp, norm
from sklearn.metrics import roc_auc_score

from probes.anomaly.flow import Flow, fit_flow
from probes.anomaly.search import SEARCHES, Anode, Cathode, Cwola, Idealised, Search, Supervised
from probes.anomaly.search.cathode import interpolated
from probes.anomaly.search.classifier import Trees
from tests.probes.anomaly.search.toys import REGIONS, SIGNAL_MEAN, SIGNAL_SPREAD, toy

TREES = Trees(members=1, trees=50, leaves=6)
# A batch that is not larger than any fold of FEW: one compiled step serves all fits.
FLOW = Flow(layers=2, bins=4, width=16, steps=500, batch=128, peak_lr=5e-3)
FEW = toy(900, 60)


class Told:
    """A reference as a search: it brings along what it is told of `FEW`."""

    def __init__(self, kind, **told):
        self.kind, self.told = kind, told

    def fit(self, *events, seed=0):
        return self.kind.fit(*events, seed=seed, **self.told)


ALL = {
    "CWoLa": Cwola(TREES, folds=2),
    "ANODE": Anode(FLOW, FLOW, folds=2),
    "CATHODE": Cathode(FLOW, TREES, folds=2),
    "idealised": Told(Idealised(TREES, folds=2), background=toy(400, 0, seed=1).x),
    "supervised": Told(Supervised(TREES, folds=2), truth=FEW.signal),
}


@pytest.fixture(scope="module", params=ALL)
def fitted(request):
    return ALL[request.param], ALL[request.param].fit(FEW.x, FEW.mass, REGIONS, seed=4)


def test_registered():
    assert all(isinstance(kind(), Search) for kind in SEARCHES.values())
    assert {name: kind.name for name, kind in SEARCHES.items()} == {name: name for name in SEARCHES}


def test_no_event_scores_itself(fitted):
    """The events of a fold replaced by others: their own model must not notice, the other one must."""
    search, found = fitted
    own = found.fold == 0
    x = np.where(own[:, None], np.random.default_rng(9).uniform(-3, 3, FEW.x.shape), FEW.x)
    again = search.fit(x, FEW.mass, REGIONS, seed=4)
    np.testing.assert_array_equal(again.fold, found.fold)
    first, second = (model(FEW.x, FEW.mass) for model in again.models)
    np.testing.assert_array_equal(first, found.models[0](FEW.x, FEW.mass))
    assert not np.array_equal(second, found.models[1](FEW.x, FEW.mass))
    np.testing.assert_array_equal(found.scores[own], first[own])
    np.testing.assert_array_equal(again.scores[~own], second[~own])


def test_scores_of_other_events(fitted):
    _, found = fitted
    other = toy(300, 20, seed=2)
    each = np.stack([model(other.x, other.mass) for model in found.models])
    np.testing.assert_array_equal(found.score(other.x, other.mass), each.mean(axis=0))
    once = found.score_once(other.x, other.mass, seed=1)
    assert ((once == each[0]) | (once == each[1])).all()
    assert abs(np.mean(once == each[0]) - 0.5) < 0.4
    assert np.isfinite(once).all()
    with pytest.raises(ValueError, match=r"features \[jets, 2\]"):
        found.score(other.x[:, :1], other.mass)


def test_the_same_seed_gives_the_same_bits(fitted):
    search, found = fitted
    again, other = (search.fit(FEW.x, FEW.mass, REGIONS, seed=seed).scores for seed in (4, 8))
    np.testing.assert_array_equal(found.scores, again)
    assert not np.array_equal(found.scores, other)


@pytest.mark.parametrize("name", SEARCHES)
def test_bad_events_are_refused(name):
    search = ALL[name]
    with pytest.raises(ValueError, match="there must be one for each"):
        search.fit(FEW.x, FEW.mass[:-1], REGIONS)
    broken = FEW.x.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="of 1 events are NaN or infinite"):
        search.fit(broken, FEW.mass, REGIONS)
    x, mass = FEW.x[FEW.mass > REGIONS.low], FEW.mass[FEW.mass > REGIONS.low]
    with pytest.raises(ValueError, match="the lower sideband has 0 events; 2 folds need 20"):
        search.fit(x, mass, REGIONS)
    with pytest.raises(ValueError, match="at least two folds"):
        type(search)(folds=1).fit(FEW.x, FEW.mass, REGIONS)


def test_cwola_reaches_the_best_classifier():
    """A fifth of the signal region is signal; the likelihood ratio knows both densities."""
    data = toy(20_000, 2000)
    inside = REGIONS.signal(data.mass)
    found = Cwola(Trees(members=2, leaves=6, fewest_in_leaf=50)).fit(data.x, data.mass, REGIONS)
    best = roc_auc_score(data.signal[inside], data.log_ratio()[inside])
    assert roc_auc_score(data.signal[inside], found.scores[inside]) == pytest.approx(best, abs=0.003)


def test_anode_recovers_the_ratio():
    data = toy(20_000, 3000, drift=0.3)
    found = Anode(FLOW, FLOW, folds=2).fit(data.x, data.mass, REGIONS)
    inside = REGIONS.signal(data.mass)
    share = data.signal[inside].mean()
    expected = np.log(1 - share + share * np.exp(data.log_ratio()[inside]))
    # Where there are events: both tails of the background are left out.
    common = np.abs(data.x[inside]).max(axis=1) < 2.5
    off = (found.scores[inside] - expected)[common]
    assert abs(off.mean()) < 0.1
    assert off.std() < 0.3
    assert expected[common].std() > 0.9
    # No flow is asked about masses that its events did not have.
    few = data.x[:200]
    at_limit, beyond = (found.score(few, np.full(200, float(mass))) for mass in (REGIONS.high, REGIONS.outer_high))
    np.testing.assert_array_equal(at_limit, beyond)


def test_cathode_draws_the_background_of_the_signal_region():
    data, other = toy(20_000, 0, drift=0.4), toy(20_000, 0, drift=0.4, seed=1)
    outside, inside = REGIONS.sidebands(data.mass), REGIONS.signal(other.mass)
    context = REGIONS.scaled(data.mass[outside])
    flow = fit_flow(data.x[outside], context, FLOW)
    drawn = interpolated(flow, REGIONS, other.mass[inside], 4000)
    for feature in range(2):
        assert ks_2samp(drawn[:, feature], other.x[inside, feature]).statistic < 0.06
        assert ks_2samp(drawn[:, feature], data.x[outside, feature]).statistic > 0.15
    both, kind = np.concatenate([drawn, other.x[inside]]), np.arange(len(drawn) + inside.sum()) < len(drawn)
    half = np.arange(len(both)) % 2 == 0
    apart = TREES.fit(both[half], kind[half]).log_odds(both[~half])
    assert abs(roc_auc_score(kind[~half], apart) - 0.5) < 0.03


def test_cathode_is_not_misled_by_features_that_follow_the_mass():
    """Signal hides where the upper sideband's background is: CWoLa takes it for a sideband, CATHODE does not."""
    data = toy(20_000, 600, drift=0.9)
    inside = REGIONS.signal(data.mass)
    trees = Trees(members=2, leaves=6)
    auc = {
        search.name: roc_auc_score(data.signal[inside], search.fit(data.x, data.mass, REGIONS).scores[inside])
        for search in (Cwola(trees, folds=2), Cathode(FLOW, trees, oversampling=2, folds=2))
    }
    assert auc["CATHODE"] > 0.9
    assert auc["CATHODE"] > auc["CWoLa"] + 0.1


def test_references_bound_the_searches():
    data, other = toy(20_000, 300), toy(20_000, 0, seed=1)
    inside = REGIONS.signal(data.mass)
    best = roc_auc_score(data.signal[inside], data.log_ratio()[inside])
    told = {"truth": data.signal}, {"background": other.x[REGIONS.signal(other.mass)]}
    trees = Trees(members=1, leaves=6)
    auc = [
        roc_auc_score(data.signal[inside], kind(trees, folds=3).fit(data.x, data.mass, REGIONS, **known).scores[inside])
        for kind, known in zip((Supervised, Idealised), told, strict=True)
    ]
    assert best - 0.02 < auc[0] < best + 0.005
    assert best - 0.1 < auc[1] < auc[0]


def test_references_refuse_what_they_cannot_use():
    with pytest.raises(ValueError, match="truth must be 0 or 1"):
        Supervised(TREES).fit(FEW.x, FEW.mass, REGIONS, truth=2 * FEW.signal)
    with pytest.raises(ValueError, match="events of both kinds"):
        Supervised(TREES).fit(FEW.x, FEW.mass, REGIONS, truth=np.zeros(960, int))
    with pytest.raises(ValueError, match="of 1 events are NaN or infinite"):
        Idealised(TREES).fit(FEW.x, FEW.mass, REGIONS, background=np.array([[0.0, 1.0], [np.nan, 0.0]]))
    with pytest.raises(ValueError, match="oversampling"):
        Cathode(oversampling=0)


def test_the_toy_is_what_it_says():
    data = toy(40_000, 2000, drift=0.2, seed=3)
    x, mass = data.x[data.signal == 0], data.mass[data.signal == 0]
    np.testing.assert_allclose(np.polyfit((mass - 3500) / 200, x, 1)[0], 0.2, atol=0.02)
    assert REGIONS.signal(data.mass[data.signal == 1]).all()
    ratio = norm.logpdf(SIGNAL_MEAN, SIGNAL_MEAN, SIGNAL_SPREAD) - norm.logpdf(SIGNAL_MEAN)
    assert data.log_ratio().max() <= 2 * ratio + 10
