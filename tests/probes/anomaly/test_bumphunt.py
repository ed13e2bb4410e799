"""Is a global p-value true on background, and is a bump found where it was put?"""

import dataclasses

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy.stats import kstest, norm

from probes.anomaly.bumphunt import bump_hunt
from tests.probes.anomaly.pyhf_model import pyhf_p_value

EDGES = np.linspace(2800.0, 4800.0, 21)
MIDDLE = np.sqrt(EDGES[1:] * EDGES[:-1])


def of_the_family(mass):
    return mass**-6.0 * (1 - mass / 14_000) ** 8


def of_two_exponentials(mass):
    """No dijet function: its logarithm is a soft maximum of two straight lines."""
    return np.exp(-mass / 350) + 0.004 * np.exp(-mass / 1100)


def expected(shape, total):
    shares = shape(MIDDLE) * np.diff(EDGES)
    return total * shares / shares.sum()


def bump(events, mass=3500.0, width=70.0):
    return events * np.diff(norm.cdf(EDGES, mass, width))


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


@pytest.mark.parametrize(
    ("shape", "total"),
    [
        (of_the_family, 100),
        (of_two_exponentials, 50_000),
        pytest.param(of_the_family, 20_000, marks=pytest.mark.slow),
        pytest.param(of_two_exponentials, 2000, marks=pytest.mark.slow),
    ],
)
def test_p_values_are_uniform_on_background(shape, total):
    experiments, inner = 500, 99
    counts = np.random.default_rng(8).poisson(expected(shape, total), (experiments, 20))
    found = [
        bump_hunt(c, EDGES, region=(3300, 3700), widths=(2, 4), pseudo_experiments=inner, seed=i)
        for i, c in enumerate(counts)
    ]
    for name in ("global_p_value", "region_p_value", "fit_p_value"):
        p = np.array([getattr(hunt, name).value for hunt in found])
        # In units of the finite number of pseudo-experiments each p-value is the upper edge of a step.
        smooth = p - np.random.default_rng(0).uniform(0, 1 / (inner + 1), experiments)
        if name == "region_p_value":
            # Without an excess there is nothing to tell experiments apart: p is 1.
            assert np.mean(p == 1) == pytest.approx(0.5, abs=0.1)
            smooth = 2 * smooth[p <= 0.45] / 0.9
        assert kstest(smooth, "uniform").pvalue > 0.01, name


@pytest.mark.parametrize("total", [2000, 50_000])
def test_a_bump_is_found_where_it_is_and_measured(total):
    """Of 12 experiments with a bump of six times the root of its background."""
    background = expected(of_two_exponentials, total)
    region = (EDGES[:-1] >= 3300) & (EDGES[1:] <= 3700)
    inside = bump(1.0)[region].sum()
    injected = 6 * np.sqrt(background[region].sum()) / inside
    rng = np.random.default_rng(3)
    hunts = [
        bump_hunt(rng.poisson(background + bump(injected)), EDGES, region=(3300, 3700), pseudo_experiments=300)
        for _ in range(12)
    ]
    assert np.median([hunt.global_p_value.value for hunt in hunts]) < 0.03
    assert np.median([hunt.region_p_value.value for hunt in hunts]) < 0.01
    assert np.mean([hunt.best.low < 3500 < hunt.best.high for hunt in hunts]) >= 0.75
    excess = [(hunt.region.counted - hunt.region.background, hunt.region.counted, hunt.region.error) for hunt in hunts]
    value, counted, error = np.array(excess).T
    assert value.mean() == pytest.approx(injected * inside, abs=3 * np.sqrt(np.mean(counted + error**2) / 12))


def test_windows_that_are_told_are_what_they_say():
    counts = np.random.default_rng(1).poisson(expected(of_the_family, 5000) + bump(300))
    hunt = bump_hunt(counts, EDGES, region=(3300, 3700), pseudo_experiments=50)
    for window in (hunt.best, hunt.region):
        inside = (EDGES[:-1] >= window.low) & (EDGES[1:] <= window.high)
        assert window.counted == counts[inside].sum()
        by_pyhf = pyhf_p_value(window.counted, window.background, window.error)
        assert window.local_p_value == pytest.approx(by_pyhf, rel=1e-4)
    best = (EDGES[:-1] >= hunt.best.low) & (EDGES[1:] <= hunt.best.high)
    assert hunt.background[best].sum() == pytest.approx(hunt.best.background, rel=1e-6)
    assert hunt.background_error[best].max() < hunt.best.error < hunt.background_error[best].sum() * (1 + 1e-9)
    assert hunt.best.local_p_value <= hunt.region.local_p_value


def test_looking_elsewhere_costs():
    """The more windows, the larger the global p-value of the same best one; one window alone has nearly its local."""
    counts = np.random.default_rng(2).poisson(expected(of_the_family, 20_000))
    counts[7:9] += 55
    region = (float(EDGES[7]), float(EDGES[9]))
    few, many = (
        bump_hunt(counts, EDGES, region=region, widths=widths, pseudo_experiments=4000)
        for widths in [(2,), range(1, 9)]
    )
    assert (few.best.low, few.best.high) == region
    assert many.global_p_value.value > few.global_p_value.value > few.region_p_value.value
    assert few.region_p_value.value == pytest.approx(few.best.local_p_value, abs=4 * few.region_p_value.error)


def test_same_seed_same_bits_and_another_seed_nearly():
    counts = np.random.default_rng(4).poisson(expected(of_the_family, 3000))
    first, again, other = (bump_hunt(counts, EDGES, pseudo_experiments=400, seed=seed) for seed in (1, 1, 2))
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    assert (first.region, first.region_p_value) == (None, None)
    assert other.best == first.best
    both = np.hypot(first.global_p_value.error, other.global_p_value.error)
    assert abs(first.global_p_value.value - other.global_p_value.value) < 4 * both


def test_a_p_value_beyond_the_pseudo_experiments_is_a_bound():
    counts = np.random.default_rng(4).poisson(expected(of_the_family, 3000))
    counts[8:10] += 400
    hunt = bump_hunt(counts, EDGES, pseudo_experiments=99)
    assert hunt.global_p_value.is_upper_bound
    assert hunt.global_p_value.value == pytest.approx(0.01)
    assert str(hunt.global_p_value) == "<0.01"
    quiet = bump_hunt(expected(of_the_family, 3000).round(), EDGES, pseudo_experiments=99)
    assert not quiet.global_p_value.is_upper_bound
    assert quiet.global_p_value.value > 0.9
    assert "+-" in str(quiet.global_p_value)


def test_a_background_the_function_cannot_follow_is_told():
    """Above a turn-on the fit is good; with the turn-on in it is not, whatever the order."""
    edges = np.linspace(2200.0, 4800.0, 27)
    middle = (edges[1:] + edges[:-1]) / 2
    rate = of_the_family(middle) / (1 + np.exp((2600 - middle) / 60))
    counts = np.random.default_rng(6).poisson(40_000 * rate / rate.sum())
    assert bump_hunt(counts, edges, order=5, pseudo_experiments=200).fit_p_value.is_upper_bound
    assert bump_hunt(counts[9:], edges[9:], pseudo_experiments=200).fit_p_value.value > 0.05


def test_spectra_that_cannot_be_scanned_are_refused():
    counts = expected(of_the_family, 3000).round()
    cases = {
        "one edge more than bins": ((counts, EDGES[1:]), {}),
        "counts must be whole": ((counts + 0.5, EDGES), {}),
        "none negative": ((counts - 200, EDGES), {}),
        "too few": ((np.zeros(20), EDGES), {}),
        "edges must rise": ((counts, EDGES[::-1]), {}),
        "below the collision energy of 4000": ((counts, EDGES), {"collision_energy": 4000.0}),
        "2 to 5 parameters, got order 6": ((counts, EDGES), {"order": 6}),
        "at least one pseudo-experiment": ((counts, EDGES), {"pseudo_experiments": 0}),
        "widths of windows must lie between 1 and 15": ((counts, EDGES), {"widths": (2, 16)}),
        "widths of windows": ((counts, EDGES), {"widths": ()}),
        "5 bins are too few for windows and a function of 4": ((counts[:5], EDGES[:6]), {}),
        "must rise and end at edges of bins; near are": ((counts, EDGES), {"region": (3310.0, 3700.0)}),
        "leaves too few bins outside": ((counts, EDGES), {"region": (2800.0, 3700.0)}),
    }
    for message, (spectrum, settings) in cases.items():
        with refused(message):
            bump_hunt(*spectrum, **settings)
