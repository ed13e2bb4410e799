"""Signal region and sidebands."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.anomaly.search import Regions


@given(st.lists(st.floats(100, 10_000), min_size=4, max_size=4, unique=True), st.integers(0, 100))
def test_every_mass_is_in_one_region_at_most(limits, seed):
    outer_low, low, high, outer_high = sorted(limits)
    regions = Regions(low, high, outer_low, outer_high)
    mass = np.concatenate([np.random.default_rng(seed).uniform(0, 11_000, 200), limits])
    parts = np.stack([regions.signal(mass), regions.below(mass), regions.above(mass)]).astype(int)
    within = (mass >= outer_low) & (mass < outer_high)
    np.testing.assert_array_equal(parts.sum(axis=0), within)
    np.testing.assert_array_equal(regions.sidebands(mass), parts[1:].any(axis=0))
    assert mass[parts[1] == 1].max(initial=0) < low
    assert mass[parts[2] == 1].min(initial=1e9) >= high


def test_limits_belong_to_the_region_above():
    regions, mass = Regions(3300, 3700, 3000, 4000), np.array([3000.0, 3300.0, 3700.0, 4000.0])
    assert regions.below(mass).tolist() == [True, False, False, False]
    assert regions.signal(mass).tolist() == [False, True, False, False]
    assert regions.above(mass).tolist() == [False, False, True, False]


def test_scaled_mass():
    scaled = Regions(3300, 3700, 3000, 4000).scaled(np.array([3300, 3500, 3700, 3900], np.float32))
    np.testing.assert_allclose(scaled, [[-1], [0], [1], [2]])


@pytest.mark.parametrize(
    "limits", [(3700, 3300, 3000, 4000), (3300, 3700, 3300, 4000), (3300, 3700, 3000, 3700), (3300, np.nan, 3000, 4000)]
)
def test_limits_that_do_not_rise_are_refused(limits):
    with pytest.raises(ValueError, match="outer_low < low < high < outer_high"):
        Regions(*limits)
