"""Figures of a benchmark, by what is drawn in them."""

import io
import warnings

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from matplotlib.colors import to_hex

from probes import plots
from probes.plots import Band, Look, Reliability, Spectrum

LOOKS = {"a": Look("#111111"), "b": Look("#222222", plots.DASHES[1], "s"), "$c_": Look("#333333", marker="^")}


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def roc(auc_like=2.0):
    x = np.linspace(0, 1, 101)
    return x, x**auc_like


def band(middle, bound=None):
    middle = np.array(middle, float)
    bound = np.zeros(len(middle), bool) if bound is None else np.array(bound)
    return Band(10.0 ** np.arange(2, 2 + len(middle)), middle, 0.9 * middle, 1.1 * middle, bound)


def coloured(ax, name):
    return [line for line in ax.lines if to_hex(line.get_color()) == LOOKS[name].colour]


def every_figure():
    x = np.linspace(0, 3, 5)
    line = (x, 1 - x / 10, 0.9 - x / 10, 1 - x / 20)
    lines = {"AUC": {"a": band([0.9, 0.95]), "b": band([0.8, 0.9])}}
    spectrum = Spectrum(
        np.arange(5.0), np.full(4, 0.25), {"a": np.array([0.1, 0.2, 0.3, 0.4]), "$c_": np.full(4, 0.25)}
    )
    jets = Reliability(np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.0, 0.8]), np.array([100, 0, 25]), "ECE $0.1_")
    return {
        "rejections": plots.rejections({"one": {"a": roc(), "b": roc(3)}, "two": {"$c_": roc(1.5)}}, LOOKS),
        "label_efficiency": plots.label_efficiency(
            {**lines, "R50": {"a": band([10, 500], [False, True])}}, LOOKS
        ),
        "overview": plots.overview({"a": roc(), "$c_": roc(3)}, "AUC", lines["AUC"], LOOKS),
        "layers": plots.layers(
            {"a": {"one": (0.9, 0.8, 0.95), "two": (0.92, 0.9, 0.93)}, "b": {"two": (0.7, 0.6, 0.9)}}, "AUC", LOOKS
        ),
        "similarities": plots.similarities(
            {"rotation": {"a": line, "b": line}, "boost": {"a": (x, x - 3, x - 4, x - 2)}},
            {"rotation": "angle [rad]", "boost": "rapidity"}, LOOKS,
        ),
        "dots": plots.dots(
            {"AUC": {"nominal": {"a": (0.9, 0.8, 0.95)}, "pile-up": {"a": (0.8, 0.7, 0.85), "b": (0.7, 0.6, 0.9)}},
             "change": {"pile-up": {"a": (-0.1, -0.12, -0.08), "b": (0.01, -0.02, 0.04)}}}, LOOKS,
        ),
        "mass_spectra": plots.mass_spectra({"x": spectrum, "$y_": spectrum}, LOOKS),
        "divergence": plots.divergence({"a": (np.array([0.5, 0.01, 0.1]), np.array([0.1, 0.3, 0.2]))}, LOOKS),
        "reliability": plots.reliability({"a": jets, "$c_": jets}, LOOKS),
    }  # fmt: skip


@pytest.fixture(scope="module")
def drawn():
    return every_figure()


def test_all_are_drawn_without_a_warning_and_with_labelled_axes(drawn):
    for name, figure in drawn.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure.savefig(io.BytesIO(), format="svg")
        for ax in figure.axes:
            assert ax.get_xlabel(), name
        assert figure.axes[0].get_ylabel() or name == "dots"


def test_rejection_panels_share_their_axis(drawn):
    left, right = drawn["rejections"].axes
    assert left.get_ylim() == right.get_ylim()
    assert (left.get_title(loc="left"), right.get_ylabel()) == ("one", "")
    faint, _ = coloured(left, "a")
    np.testing.assert_allclose(faint.get_ydata() * faint.get_xdata() ** 2, 1)


def test_label_efficiency_has_a_band_but_for_bounds(drawn):
    auc, r50 = drawn["label_efficiency"].axes
    assert (auc.get_xscale(), auc.get_yscale(), r50.get_yscale()) == ("log", "linear", "log")
    assert [t.get_text() for t in auc.get_xticklabels()] == ["100", "1k"]
    line, points, bounds = coloured(r50, "a")
    np.testing.assert_allclose(line.get_xydata(), [(100, 10), (1000, 500)])
    np.testing.assert_allclose(points.get_xydata(), [(100, 10)])
    np.testing.assert_allclose(bounds.get_xydata(), [(1000, 500)])
    drawn = np.concatenate([path.vertices for path in auc.collections[0].get_paths()])
    assert (drawn[:, 1].min(), drawn[:, 1].max()) == pytest.approx((0.9 * 0.9, 1.1 * 0.95))
    banded = [path.vertices for path in r50.collections[0].get_paths()]
    assert max((v[:, 1].max() for v in banded), default=0) < 500


def test_layers_stand_at_their_own_place_even_if_some_are_missing(drawn):
    ax = drawn["layers"].axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["one", "two"]
    (a,), (b,) = coloured(ax, "a"), coloured(ax, "b")
    assert a.get_xdata().round().tolist() == [0, 1]
    assert b.get_xdata().round().tolist() == [1]
    segments = np.concatenate([c.get_segments()[0] for c in ax.collections])
    assert {0.6, 0.9} <= set(segments[:, 1].round(9))


def test_dots_are_in_rows_with_zero_marked_where_signs_differ(drawn):
    auc, change = drawn["dots"].axes
    assert [t.get_text() for t in auc.get_yticklabels()] == ["nominal", "pile-up"]
    (a,), (b,) = coloured(auc, "a"), coloured(auc, "b")
    np.testing.assert_allclose(a.get_xdata(), [0.9, 0.8])
    assert a.get_ydata()[1] < b.get_ydata()[0]
    assert a.get_ydata().round().tolist() == [0, 1]

    def at_zero(ax):
        return [line for line in ax.lines if list(line.get_xdata()) == [0, 0]]

    assert not at_zero(auc)
    assert at_zero(change)


def test_similarities_share_the_vertical_axis(drawn):
    first, second = drawn["similarities"].axes
    assert first.get_ylim() == second.get_ylim()
    assert second.get_ylim()[0] <= -4
    assert (first.get_xlabel(), second.get_xlabel()) == ("angle [rad]", "rapidity")


def test_mass_spectra_show_before_and_after(drawn):
    figure = drawn["mass_spectra"]
    before, *after = figure.axes[0].patches
    np.testing.assert_allclose(before.get_data().values, 0.25)
    np.testing.assert_allclose(after[0].get_data().values, [0.1, 0.2, 0.3, 0.4])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["before the cut", "a", r"\$c_"]


def test_divergence_is_drawn_in_the_order_of_the_cut(drawn):
    line = drawn["divergence"].axes[0].lines[0]
    np.testing.assert_allclose(line.get_xydata(), [(0.01, 0.3), (0.1, 0.2), (0.5, 0.1)])


def test_reliability_leaves_empty_bins_out_and_bars_are_binomial(drawn):
    ax = drawn["reliability"].axes[0]
    (line,) = coloured(ax, "a")
    np.testing.assert_allclose(line.get_xydata(), [(0.1, 0.2), (0.9, 0.8)])
    bars = np.array(ax.collections[0].get_segments())
    np.testing.assert_allclose(bars[:, 1, 1] - bars[:, 0, 1], [2 * 0.04, 2 * 0.08])
    assert ax.texts[0].get_text() == r"ECE \$0.1_"


def test_a_value_outside_its_interval_has_one_bar():
    """An interval of percentiles need not hold the value; matplotlib refuses bars of negative length."""
    points = {"one": (0.5, 0.6, 0.7), "two": (0.5, 0.2, 0.4)}
    for ax in (
        plots.layers({"a": points}, "AUC", LOOKS).axes[0],
        plots.dots({"AUC": {row: {"a": interval} for row, interval in points.items()}}, LOOKS).axes[0],
    ):
        lengths = [np.ptp(segment, axis=0).max() for segment in ax.collections[0].get_segments()]
        np.testing.assert_allclose(lengths, [0.2, 0.3])


def test_what_cannot_be_drawn_is_refused():
    empty = {
        "ROC curves": lambda: plots.rejections({}, LOOKS),
        "label efficiencies": lambda: plots.label_efficiency({}, LOOKS),
        "layers": lambda: plots.layers({}, "AUC", LOOKS),
        "similarities": lambda: plots.similarities({}, {}, LOOKS),
        "points": lambda: plots.dots({}, LOOKS),
        "mass spectra": lambda: plots.mass_spectra({}, LOOKS),
        "divergences": lambda: plots.divergence({}, LOOKS),
        "reliability curves": lambda: plots.reliability({}, LOOKS),
    }
    for what, call in empty.items():
        with refused(f"nothing to draw: there are no {what}"):
            call()
    with refused(r"no look for \['z'\]"):
        plots.divergence({"z": roc()}, LOOKS)
    with refused("AUC of a: 1 values are NaN"):
        plots.label_efficiency({"AUC": {"a": band([0.9, np.nan])}}, LOOKS)
    with refused("the layers of a: 1 values are NaN"):
        plots.layers({"a": {"one": (0.9, np.inf, 1.0)}}, "AUC", LOOKS)


def test_global_settings_stay():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    every_figure()
    assert dict(mpl.rcParams) == before
