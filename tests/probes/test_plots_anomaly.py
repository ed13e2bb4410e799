"""Figures of anomaly detection, by what is drawn in them."""

import io
import warnings

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from matplotlib.colors import to_hex

from probes.anomaly.bumphunt import BumpHunt, PValue, Window
from probes.metrics import SignificanceImprovement, significance_improvement
from probes.plots import DASHES, Look
from probes.plots.anomaly import bump, signal_shares, significance_improvements

LOOKS = {"a": Look("#111111"), "b": Look("#222222", DASHES[1], "s"), "$c_": Look("#333333", marker="^")}
SHARES = np.array([0.0, 0.001, 0.01])


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def improvement(shift):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 2000)
    return significance_improvement(rng.normal(size=4000) + shift * labels, labels)


def line(value, shares=SHARES):
    middle = value - shares
    return shares, middle, middle - 0.1, middle + 0.1


def hunt(region=True):
    edges = np.linspace(3000.0, 4000.0, 6)
    window = Window(3200.0, 3600.0, 160, 90.5, 4.25, 1e-5)
    return BumpHunt(
        edges=edges,
        counts=np.array([100, 90, 70, 0, 1]),
        background=np.array([100.0, 60.0, 30.0, 10.0, 2.0]),
        background_error=np.array([5.0, 8.0, 6.0, 2.0, 1.0]),
        deviance=3.0,
        fit_p_value=PValue(0.5, 0.01, False),
        best=window,
        global_p_value=PValue(0.001, 0.001, True),
        region=Window(3200.0, 3800.0, 161, 100.0, 5.0, 1e-4) if region else None,
        region_p_value=PValue(0.002, 0.0004, False) if region else None,
    )


def coloured(ax, name):
    return [drawn for drawn in ax.lines if to_hex(drawn.get_color()) == LOOKS[name].colour]


def every_figure():
    return [
        significance_improvements(
            {"up": {"a": improvement(1.0), "b": improvement(2.0)}, "$down_": {"$c_": improvement(0.5)}}, LOOKS
        ),
        signal_shares({"AUC": {"a": line(0.9), "b": line(0.8)}, "$m_": {"a": line(0.7)}}, "contamination", LOOKS),
        bump(hunt()),
    ]  # fmt: skip


def test_all_are_drawn_without_a_warning_and_with_labelled_axes():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    for figure in every_figure():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure.savefig(io.BytesIO(), format="svg")
        assert figure.axes[-1].get_xlabel()
        assert figure.axes[0].get_ylabel()
    assert dict(mpl.rcParams) == before


def test_significance_is_strong_only_where_the_background_is_known():
    curve = improvement(2.0)
    left, right = significance_improvements({"one": {"a": curve}, "two": {"b": improvement(0.5)}}, LOOKS).axes
    faint, strong, best = coloured(left, "a")
    assert faint.get_alpha() < 0.5
    shown = np.isfinite(strong.get_xdata())
    assert 0 < np.count_nonzero(~shown) < len(shown)
    assert strong.get_xdata()[shown].min() >= curve.eps_s[curve.known].min()
    on_curve = np.interp(strong.get_xdata()[shown], curve.eps_s, curve.sic)
    # Cuts that differ in background alone share one eps_S.
    assert np.median(np.abs(strong.get_ydata()[shown] / on_curve - 1)) < 0.01
    assert best.get_xydata().tolist() == [[curve.eps_s_at_maximum, curve.maximum]]
    assert left.get_ylim() == right.get_ylim()
    assert curve.maximum < left.get_ylim()[1] < 1.2 * curve.maximum
    assert (left.get_title(loc="left"), right.get_ylabel()) == ("one", "")


def test_shares_of_signal_hold_zero_beside_a_logarithmic_axis():
    figure = signal_shares({"AUC": {"a": line(0.9)}, "SIC": {"a": line(3.0, np.array([0.0005, 0.05]))}}, "x", LOOKS)
    with_zero, without = figure.axes
    assert (with_zero.get_xscale(), without.get_xscale()) == ("symlog", "log")
    assert [t.get_text() for t in with_zero.get_xticklabels()] == ["0 %", "0.1 %", "1 %"]
    assert [t.get_text() for t in without.get_xticklabels()] == ["0.05 %", "5 %"]
    (drawn,) = coloured(with_zero, "a")
    np.testing.assert_allclose(drawn.get_xydata(), np.column_stack([SHARES, 0.9 - SHARES]))
    band = np.concatenate([path.vertices for path in with_zero.collections[0].get_paths()])
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.79, 1.0))


def test_one_share_of_zero_alone_is_drawn():
    ax = signal_shares({"AUC": {"a": line(0.9, np.zeros(1))}}, "x", LOOKS).axes[0]
    assert ax.get_xscale() == "linear"


def test_a_bump_shows_counts_background_pulls_and_what_is_claimed():
    figure = bump(hunt())
    above, below = figure.axes
    points = next(drawn for drawn in above.lines if drawn.get_marker() == "o")
    np.testing.assert_allclose(points.get_xydata(), [(3100, 100), (3300, 90), (3500, 70), (3900, 1)])
    np.testing.assert_allclose(above.patches[0].get_data().values, hunt().background)
    pulls = below.patches[0].get_data().values
    np.testing.assert_allclose(pulls[:4], [0, 30 / np.sqrt(124), 40 / np.sqrt(66), -10 / np.sqrt(14)])
    bars = above.collections[0].get_segments()
    assert min(segment[:, 1].min() for segment in bars) > 0
    spans = {tuple(np.sort(p.get_extents().transformed(ax.transData.inverted()).intervalx).round())
             for ax in (above, below) for p in ax.patches if type(p).__name__ == "Rectangle"}  # fmt: skip
    assert spans == {(3200.0, 3600.0)}
    title = above.get_title(loc="left")
    assert "best window 3200 to 3600 GeV, 160 events for 90.5 ± 4.2" in title
    assert "global p <0.001, local p 1e-05, fit p 0.5 ± 0.01" in title
    assert "beforehand 3200 to 3800 GeV, 161 events for 100.0 ± 5.0: p 0.002 ± 0.0004" in title
    ends = [drawn.get_xdata()[0] for drawn in below.lines if drawn.get_linestyle() == ":"]
    assert ends == [3200.0, 3800.0]


def test_without_a_region_none_is_claimed():
    above, below = bump(hunt(region=False)).axes
    assert "beforehand" not in above.get_title(loc="left")
    assert not [drawn for drawn in below.lines if drawn.get_linestyle() == ":"]


def test_what_cannot_be_drawn_is_refused():
    with refused("nothing to draw: there are no significance improvements"):
        significance_improvements({}, LOOKS)
    with refused("nothing to draw: there are no curves of x"):
        significance_improvements({"x": {}}, LOOKS)
    with refused("nothing to draw: there are no shares of signal"):
        signal_shares({}, "x", LOOKS)
    with refused("nothing to draw: there are no lines of AUC"):
        signal_shares({"AUC": {}}, "x", LOOKS)
    with refused(r"no look for \['z'\]"):
        signal_shares({"AUC": {"z": line(0.9)}}, "x", LOOKS)
    with refused("cannot be negative, got -0.1"):
        signal_shares({"AUC": {"a": line(0.9, np.array([-0.1, 0.1]))}}, "x", LOOKS)
    with refused("AUC of a: 1 values are NaN"):
        signal_shares({"AUC": {"a": line(0.9, np.array([np.nan]))}}, "x", LOOKS)
    holed = improvement(1.0)
    bad = SignificanceImprovement(holed.eps_s, holed.sic * np.inf, holed.known, holed.maximum, holed.eps_s_at_maximum)
    with refused("the SIC of a"):
        significance_improvements({"x": {"a": bad}}, LOOKS)
