"""Distance correlation and mass sculpting against brute force, scipy and closed forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.spatial.distance import jensenshannon

from probes.dependence import distance_correlation, jensen_shannon, mass_sculpting, random_distance_correlation


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def every_pair(x, y, w):
    """The definition, with all distances written down."""
    w = w / w.sum()

    def centred(v):
        distance = np.abs(v[:, None] - v)
        mean = distance @ w
        return distance - mean[:, None] - mean + w @ mean

    a, b = centred(x), centred(y)
    pair = np.outer(w, w)
    spread = np.sqrt((pair * a * a).sum() * (pair * b * b).sum())
    return np.sqrt(max((pair * a * b).sum(), 0) / spread) if spread > 0 else 0.0


@given(st.integers(0, 10_000), st.integers(1, 70), st.sampled_from([None, 0]), st.booleans())
def test_distance_correlation_equals_the_definition(seed, jets, decimals, weighted):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=jets)
    y = rng.normal(size=jets) + rng.choice([0, 1]) * x**2
    w = rng.integers(0, 3, jets) * rng.random(jets) if weighted else np.ones(jets)
    w[rng.integers(jets)] = 1.0
    if decimals is not None:
        x, y = np.round(x, decimals), np.round(y, decimals)
    found = distance_correlation(x, y, w)
    assert found == pytest.approx(every_pair(x, y, w), abs=1e-7)
    assert distance_correlation(y, x, w) == pytest.approx(found, abs=1e-7)
    if not weighted:
        assert distance_correlation(x, y) == pytest.approx(found, abs=1e-7)


def test_whole_weights_are_copies_of_jets():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 200))
    y += np.abs(x)
    copies = rng.integers(0, 4, 200)
    found = distance_correlation(x, y, copies.astype(float))
    assert found == pytest.approx(distance_correlation(np.repeat(x, copies), np.repeat(y, copies)), rel=1e-9)


def test_jets_without_weight_do_not_exist():
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    w = (np.arange(50) > 1).astype(float)
    far = np.where(w > 0, x, 1e250)
    assert distance_correlation(far, y, w) == pytest.approx(distance_correlation(x[2:], y[2:]), rel=1e-9)


def test_a_jet_of_hardly_any_weight_gives_a_number():
    x, y = np.array([0.0, 0.0, 0.0, 1.0]), np.arange(4.0)
    for weight in (1e-16, 1e-20, 1e-200):
        assert distance_correlation(x, y, np.array([1.0, 1.0, 1.0, weight])) == pytest.approx(0, abs=1e-6)


def test_distance_correlation_has_its_limits():
    rng = np.random.default_rng(0)
    x = rng.normal(size=4000)
    for offset, scale in ((600, 1.0), (0, -2.0), (0, 1e-200), (0, 1e200)):
        assert distance_correlation(x, offset + scale * x) == pytest.approx(1)
    # No linear correlation, but all of the other is known: Székely's point.
    assert abs(np.corrcoef(x, x**2)[0, 1]) < 0.1
    assert distance_correlation(x, x**2) > 0.4
    assert distance_correlation(x, np.full(4000, 0.1)) == 0
    assert distance_correlation(np.full(3, 0.1), np.arange(3.0)) == 0


def test_independent_jets_have_the_correlation_of_shuffles():
    rng = np.random.default_rng(0)
    x, y = rng.gamma(3, size=6), rng.normal(size=6)
    every = [distance_correlation(x[list(order)], y) ** 2 for order in itertools.permutations(range(6))]
    assert random_distance_correlation(x, y) == pytest.approx(np.sqrt(np.mean(every)), rel=1e-9)
    x, y = rng.normal(size=(2, 3000))
    assert random_distance_correlation(x, y) == pytest.approx(np.sqrt(3.2 / 3000), rel=0.05)
    drawn = [distance_correlation(x, rng.permutation(y)) ** 2 for _ in range(40)]
    assert random_distance_correlation(x, y) == pytest.approx(np.sqrt(np.mean(drawn)), rel=0.15)
    assert random_distance_correlation(x, np.zeros(3000)) == 0


def test_distance_correlation_of_two_normals_in_closed_form():
    """Székely, Rizzo & Bakirov, Ann. Statist. 35 (2007) 2769, theorem 7."""
    rho = 0.6
    x, noise = np.random.default_rng(1).normal(size=(2, 100_000))
    found = distance_correlation(x, rho * x + np.sqrt(1 - rho**2) * noise)
    top = rho * np.arcsin(rho) + np.sqrt(1 - rho**2) - rho * np.arcsin(rho / 2) - np.sqrt(4 - rho**2) + 1
    assert found == pytest.approx(np.sqrt(top / (1 + np.pi / 3 - np.sqrt(3))), abs=0.01)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_jensen_shannon_equals_scipy(cells):
    p, q = np.array(cells, float).T
    if p.sum() == 0 or q.sum() == 0:
        with pytest.raises(ValueError, match="must hold jets"):
            jensen_shannon(p, q)
        return
    assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-12)
    assert jensen_shannon(q, p) == pytest.approx(jensen_shannon(p, q), abs=1e-15)
    assert jensen_shannon(p, 7 * p) == pytest.approx(0, abs=1e-15)


def test_jensen_shannon_by_hand():
    assert jensen_shannon(np.array([3.0, 0.0]), np.array([0.0, 1.0])) == 1
    # Entropy of (3/4, 1/4) less half of that of (1/2, 1/2).
    expected = -0.75 * np.log2(0.75) - 0.25 * np.log2(0.25) - 0.5
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(expected)


def spectrum(jets=4000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(3, 25, jets), rng


def test_a_score_of_noise_does_not_sculpt():
    mass, rng = spectrum(1000)
    inside = []
    for seed in range(30):
        found = mass_sculpting(rng.normal(size=len(mass)), mass, eps_b=(0.5, 0.1), seed=seed)
        inside.append(found.jsd < found.random_jsd_high)
        assert (found.random_jsd < found.random_jsd_high).all()
    assert 0.85 <= np.mean(inside) <= 1
    assert np.mean(found.random_jsd / found.jsd) == pytest.approx(1, abs=0.6)
    assert found.distance_correlation < 2 * found.random_distance_correlation


def test_random_cuts_have_the_divergence_of_shuffled_scores():
    mass, rng = spectrum(800)
    found = mass_sculpting(mass, mass, eps_b=(0.2,), bins=20, draws=400)
    shuffled = [mass_sculpting(rng.permutation(mass), mass, eps_b=(0.2,), bins=20, draws=1).jsd[0] for _ in range(60)]
    assert found.random_jsd[0] == pytest.approx(np.mean(shuffled), rel=0.15)


def test_a_score_that_is_the_mass_cuts_a_window():
    mass, _ = spectrum()
    found = mass_sculpting(mass, mass, eps_b=(0.5, 0.1))
    assert (found.jsd > 20 * found.random_jsd_high).all()
    assert found.jsd[1] > found.jsd[0]
    assert found.distance_correlation == pytest.approx(1)
    np.testing.assert_allclose(found.before.sum(), 1)
    np.testing.assert_allclose(found.after.sum(axis=1), 1)
    median = np.quantile(mass, 0.5)
    assert found.after[0][found.edges[1:] < median].sum() == 0
    # Above the cut the shape stays: twice the share.
    above = found.edges[:-1] > median
    np.testing.assert_allclose(found.after[0][above], 2 * found.before[above], rtol=1e-9)
    for shares, jsd in zip(found.after, found.jsd, strict=True):
        assert jsd == pytest.approx(jensen_shannon(shares, found.before))


def test_ties_and_jets_beyond_the_edges_count_with_their_share():
    mass = np.array([10.0, 30.0, 50.0, 70.0, -5.0, 500.0])
    scores = np.array([3.0, 2.0, 2.0, 2.0, 1.0, 1.0])
    found = mass_sculpting(scores, mass, eps_b=(1.0, 0.5, 1 / 3), edges=np.array([0.0, 40.0, 80.0]), draws=5)
    np.testing.assert_allclose(found.before, [0.5, 0.5])
    np.testing.assert_allclose(found.after, [[0.5, 0.5], [5 / 9, 4 / 9], [2 / 3, 1 / 3]])
    assert found.jsd[0] == 0
    flat = mass_sculpting(np.zeros(6), mass, eps_b=(0.5,), edges=np.array([0.0, 40.0, 80.0]), draws=5)
    np.testing.assert_allclose(flat.after[0], flat.before)


def test_repeats_and_follows_its_seed():
    mass, rng = spectrum(500)
    scores = rng.normal(size=500)
    first, again, other = (mass_sculpting(scores, mass, eps_b=(0.1,), draws=50, seed=s) for s in (1, 1, 2))
    assert first.random_jsd == again.random_jsd != other.random_jsd
    assert first.jsd == other.jsd


def test_bad_input_is_refused_in_plain_english():
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    hole = np.where(np.arange(30) == 4, np.inf, x)
    with refused("1 of 30 x are NaN"):
        distance_correlation(hole, y)
    with refused("one of each for each jet"):
        distance_correlation(x, y[1:])
    with refused("one of each for each jet"):
        distance_correlation(x, y, np.ones(3))
    for weights in (-np.ones(30), np.zeros(30)):
        with pytest.raises(ValueError, match="weights must not be negative"):
            distance_correlation(x, y, weights)
    with refused("one or more"):
        distance_correlation(x[:0], y[:0])
    with refused("one of each for each jet"):
        random_distance_correlation(x, y[1:])
    with refused("two jets"):
        random_distance_correlation(x[:1], y[:1])
    with refused("same bins"):
        jensen_shannon(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="negative"):
        jensen_shannon(np.array([1.0, -1.0]), np.ones(2))
    with refused("30 scores but 29 masses"):
        mass_sculpting(x, y[1:])
    with refused("1 of 30 mass are NaN"):
        mass_sculpting(x, hole, eps_b=(0.5,))
    for settings, message in (
        ({"eps_b": (0.5, 0.01)}, "keep one of the 30 jets"),
        ({"eps_b": ()}, "each eps_b"),
        ({"eps_b": (1.5,)}, "each eps_b"),
        ({"eps_b": (0.5,), "bins": 0}, "one bin"),
        ({"eps_b": (0.5,), "draws": 0}, "one draw"),
        ({"eps_b": (0.5,), "edges": np.array([0.0, 0.0, 1.0])}, "must rise"),
        ({"eps_b": (0.5,), "edges": np.array([0.0])}, "must rise"),
    ):
        with pytest.raises(ValueError, match=message):
            mass_sculpting(x, y, **settings)
    with pytest.raises(ValueError, match="same mass"):
        mass_sculpting(x, np.ones(30), eps_b=(0.5,))
