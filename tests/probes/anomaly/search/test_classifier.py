"""The ensemble of boosted trees."""

import numpy as np
import pytest
from scipy.stats import norm

from probes.anomaly.search.classifier import Trees

QUICK = Trees(members=2, trees=60, leaves=8)


def two_normals(events, share, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.uniform(size=events) < share
    return rng.normal(size=(events, 1)) + y[:, None], y


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_log_odds_are_those_of_equally_frequent_kinds(share):
    fitted = QUICK.fit(*two_normals(20_000, share), seed=3)
    at = np.array([[-0.5], [0.5], [1.5]])
    np.testing.assert_allclose(fitted.log_odds(at), norm.logpdf(at[:, 0], 1) - norm.logpdf(at[:, 0]), atol=0.3)


def test_weights_count_events():
    x, y = two_normals(20_000, 0.5)
    # Background is made a normal about 1 too, by its likelihood ratio: then there is nothing to tell.
    weights = np.where(y, 7.0, np.exp(norm.logpdf(x[:, 0], 1) - norm.logpdf(x[:, 0])))
    assert abs(QUICK.fit(x, y, weights=weights).log_odds(np.array([[1.0]]))[0]) < 0.1
    assert QUICK.fit(x, y).log_odds(np.array([[2.0]]))[0] > 1


def test_members_differ_and_the_same_seed_gives_the_same_bits():
    x, y = two_normals(2000, 0.5)
    told = []
    fitted = QUICK.fit(x, y, seed=5, progress=told.append)
    one, other = (member.decision_function(x) for member in fitted.members)
    assert told == [1, 1]
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(fitted.log_odds(x), QUICK.fit(x, y, seed=5).log_odds(x))
    assert not np.array_equal(fitted.log_odds(x), QUICK.fit(x, y, seed=6).log_odds(x))


def test_bad_input_is_refused():
    x, y = two_normals(100, 0.5)
    with pytest.raises(ValueError, match="events of both kinds"):
        QUICK.fit(x, np.ones(100, bool))
    with pytest.raises(ValueError, match=r"features \[jets, 1\]"):
        QUICK.fit(x, y).log_odds(np.zeros((3, 2)))
    for wrong in ({"members": 0}, {"leaves": 1}, {"learning_rate": 0.0}, {"held_out": 1.0}, {"l2": -1.0}):
        with pytest.raises(ValueError, match="are needed"):
            Trees(**wrong)
