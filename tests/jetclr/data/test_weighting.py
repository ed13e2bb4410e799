"""Weights by hand and by brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data.weighting import MOST_DRAWS, FlatSpectrum, Weighting
from jetclr.errors import UserError


def draw_weights(columns: dict[str, np.ndarray], balance: str = "", flat: str = "") -> np.ndarray:
    return Weighting.fit(columns, balance=balance, flat=flat)(columns)


def flat_weights(values: np.ndarray, **settings: float) -> np.ndarray:
    return FlatSpectrum.fit(values, **settings)(values)


@pytest.mark.parametrize("labels", [np.array([0, 0, 0, 7]), np.array([1.5, 1.5, 1.5, -2], np.float32)])
def test_balanced_weights_by_hand(labels: np.ndarray) -> None:
    np.testing.assert_allclose(draw_weights({"label": labels}, balance="label"), [2 / 3, 2 / 3, 2 / 3, 2])


def test_flat_weights_by_hand() -> None:
    """Ten bins of one whole number each, with 1 to 10 jets: weights in the ratio 1/n, mean one."""
    values = np.repeat(np.arange(10), np.arange(1, 11))
    np.testing.assert_allclose(flat_weights(values, bins=10), 5.5 / np.arange(1, 11)[values])


def test_integers_share_bins_of_whole_numbers() -> None:
    """0 to 6 in bins of two, the last of one number: each number equally often, whatever the bins."""
    values = np.repeat(np.arange(7), 10)
    np.testing.assert_allclose(flat_weights(values, bins=4), 1)


def test_a_falling_spectrum_becomes_flat() -> None:
    pt = (500 + np.random.default_rng(0).exponential(40, 200_000)).astype(np.float32)
    weights = flat_weights(pt, bins=20, most=1e4)
    assert weights.mean() == pytest.approx(1)
    low, high = np.quantile(pt, (0.001, 0.999))
    drawn, _ = np.histogram(
        pt, 13, (low, high), weights=weights
    )  # bins of another width than those it was made flat in
    np.testing.assert_allclose(drawn[:-1] / drawn[:-1].mean(), 1, atol=0.25)
    assert (weights[pt > high] == weights[pt < high].max()).all()  # the edge bin's
    assert (weights[pt < low] == weights[np.argmin(np.abs(pt - low - 1))]).all()


@given(st.integers(0, 1000), st.floats(1.5, 30), st.integers(2, 60))
def test_no_jet_is_drawn_too_often_and_the_mean_stays_one(seed: int, most: float, bins: int) -> None:
    values = np.random.default_rng(seed).exponential(1, 2000) ** 2
    weights = flat_weights(values, bins=bins, most=most)
    assert weights.mean() == pytest.approx(1)
    assert weights.max() <= most
    free = weights < most
    low, high = np.quantile(values, (0.001, 0.999), method="inverted_cdf")
    at = np.clip(((values - low) / (high - low) * bins).astype(int), 0, bins - 1)
    inside = free & (values >= low) & (values <= high)
    sums = np.bincount(at[inside], weights[inside], minlength=bins)
    sums = sums[sums > 0]
    np.testing.assert_allclose(sums, sums.max())  # bins that are not capped are drawn equally often


@pytest.mark.parametrize("values", [np.full(5, 3.0), np.full(1, 2), np.arange(2.0)], ids=str)
def test_few_or_equal_values_are_no_fault(values: np.ndarray) -> None:
    np.testing.assert_allclose(flat_weights(values), np.ones(len(values)))


def test_flat_is_taken_within_each_class() -> None:
    rng = np.random.default_rng(1)
    label = (rng.random(40_000) < 0.9).astype(np.int32)
    mass = np.where(label, rng.exponential(30, 40_000), rng.uniform(0, 300, 40_000)).astype(np.float32)
    weights = draw_weights({"label": label, "jet_mass": mass}, balance="label", flat="jet_mass")
    for value in (0, 1):
        mine = label == value
        assert weights[mine].sum() == pytest.approx(20_000)
        np.testing.assert_allclose(weights[mine] / weights[mine].mean(), flat_weights(mass[mine]))
    assert weights[label == 1].max() / weights[label == 1].mean() == pytest.approx(MOST_DRAWS)


@pytest.mark.parametrize(
    ("columns", "balance", "flat", "says"),
    [
        ({"label": np.zeros(3)}, "", "jet_pt", "there is no column 'jet_pt' to weight jets by; there is label"),
        ({"jet_pt": np.array([1.0, np.nan])}, "", "jet_pt", "the column 'jet_pt' is not finite"),
        ({"day": np.zeros(3, "M8[D]")}, "", "day", "the column 'day' holds no numbers"),
        ({"jet_pt": np.arange(5000.0)}, "jet_pt", "", "has 5,000 values, too many to be equally frequent"),
    ],
)
def test_columns_that_will_not_do(columns: dict[str, np.ndarray], balance: str, flat: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        draw_weights(columns, balance=balance, flat=flat)


def test_weights_found_from_some_jets_are_given_to_others() -> None:
    rng = np.random.default_rng(3)
    columns = {"label": rng.integers(0, 3, 90_000) * 5, "jet_pt": rng.exponential(50, 90_000).astype(np.float32)}
    part = {name: x[::3] for name, x in columns.items()}
    whole = Weighting.fit(columns, balance="label", flat="jet_pt")
    assert whole(columns).mean() == pytest.approx(1)
    np.testing.assert_array_equal(whole(part), whole(columns)[::3])
    assert Weighting.fit(part, balance="label", flat="jet_pt")(columns).mean() == pytest.approx(1, abs=0.03)
    with pytest.raises(ValueError, match="values that are not known"):
        whole({"label": np.array([5, 7]), "jet_pt": np.ones(2, np.float32)})


def test_other_weights_are_taken_into_account() -> None:
    """Classes are equal after them."""
    label, weight = np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 2.0, 2.0])
    found = weight * Weighting.fit({"label": label}, balance="label", weight=weight)({"label": label})
    np.testing.assert_allclose(found, [0.5, 1.5, 1, 1])
