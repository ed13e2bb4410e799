"""Overlaid histograms with their ratio, by what is drawn in them."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from probes import plots
from probes.plots import distributions


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def lower(figure: Figure, panel: int = 0):
    return figure.axes[panel].child_axes[0]


def drawn(ax):
    """Shares as they are drawn, one array a sample (the bands lie between them), and the edges."""
    lines = [patch.get_data() for patch in ax.patches if not patch.get_fill()]
    return [line.values for line in lines], lines[0].edges


def points(ax):
    """x, y and half the error bar of the points of one sample, which are all that is drawn as bars."""
    (bars,) = ax.containers
    x, y = bars.lines[0].get_data()
    (segments,) = (line.get_segments() for line in bars.lines[2])
    return x, y, np.array([s[1, 1] - s[0, 1] for s in segments]) / 2


def test_shares_and_ratio_are_the_counts_by_hand():
    a = np.repeat([0.0, 1.0, 2.0], [50, 30, 20])
    b = np.repeat([0.0, 1.0, 2.0], [100, 60, 240])
    figure = plots.ratios({"n": {"old": a, "new": b}}, {"n": "GeV"})
    (old, new), edges = drawn(figure.axes[0])
    np.testing.assert_allclose(edges, [-0.5, 0.5, 1.5, 2.5])
    np.testing.assert_allclose(old, [0.5, 0.3, 0.2])
    np.testing.assert_allclose(new, [0.25, 0.15, 0.6])
    x, y, error = points(lower(figure))
    np.testing.assert_allclose(x, [0, 1, 2])
    np.testing.assert_allclose(y, [0.5, 0.5, 3.0])
    np.testing.assert_allclose(error, np.sqrt([100, 60, 240]) / 400 / [0.5, 0.3, 0.2])
    (band,) = (patch.get_data() for patch in lower(figure).patches)
    np.testing.assert_allclose(band.values - 1, 1 / np.sqrt([50, 30, 20]))
    np.testing.assert_allclose(1 - band.baseline, 1 / np.sqrt([50, 30, 20]))
    assert lower(figure).get_xlabel() == "n [GeV]"
    assert [text.get_text() for text in figure.legends[0].texts] == ["old", "new"]


def test_jets_outside_the_range_count_in_the_shares():
    values = np.concatenate([np.linspace(0, 1, 99_990), np.full(10, 1e3)])
    (old, new), edges = drawn(plots.ratios({"x": {"a": values, "b": values}}).axes[0])
    assert edges[-1] < 1.1
    assert old.sum() == pytest.approx(new.sum())
    assert 0.99 < old.sum() < 0.9999


def test_errors_allow_for_groups_as_jets_drawn_again_and_again_do():
    """Ten equal constituents a jet: the spread over repeated samples, which sqrt(count) would put 3.2 times too low."""
    rng = np.random.default_rng(0)
    edges = np.linspace(0, 1, 6)
    jets = np.repeat(np.arange(200), 10)
    found = [distributions._shares(np.repeat(rng.random(200), 10), edges, jets) for _ in range(400)]
    spread = np.std([share for share, _ in found], axis=0)
    told = np.mean([error for _, error in found], axis=0)
    # Of a fixed number of jets the count is binomial, which is narrower than Poisson by sqrt(1 - 1/5).
    np.testing.assert_allclose(spread, told * np.sqrt(0.8), rtol=0.15)
    values = rng.random(3000)
    alone, groups = distributions._shares(values, edges, None), distributions._shares(values, edges, np.arange(3000))
    np.testing.assert_allclose(groups[1], alone[1])
    far = np.array([-1.0, 0.0, 0.5, 1.0, 1.0, 2.0])  # both edges of the last bin count, and nothing outside
    share, error = distributions._shares(far, edges, np.array([0, 0, 0, 1, 1, 1]))
    np.testing.assert_allclose(share * 6, [1, 0, 1, 0, 2])
    np.testing.assert_allclose(error * 6, [1, 0, 1, 0, 2])


def test_axes_are_logarithmic_where_values_or_heights_span_much():
    rng = np.random.default_rng(0)
    values = {
        "pt": 10 ** rng.uniform(-2, 2, 5000),
        "eta": rng.uniform(-1, 1, 5000),
        "d0": rng.standard_cauchy(5000),
        "n": np.round(10 ** rng.uniform(0, 3, 5000)),
    }
    figure = plots.ratios({name: {"a": v, "b": v[::-1]} for name, v in values.items()})
    scales = [(ax.get_xscale(), ax.get_yscale()) for ax in figure.axes]
    assert scales == [("log", "linear"), ("linear", "linear"), ("linear", "log"), ("linear", "log")]
    assert lower(figure).get_xscale() == "log"
    edges = drawn(figure.axes[0])[1]
    np.testing.assert_allclose(np.diff(np.log(edges)), np.log(edges[1] / edges[0]))
    np.testing.assert_allclose(points(lower(figure))[0], np.sqrt(edges[1:] * edges[:-1]))
    np.testing.assert_allclose(points(lower(figure))[1], 1)


def test_ratios_out_of_the_range_are_marked_at_its_edge_and_bins_without_reference_left_out():
    a = np.repeat([0.0, 1.0, 2.0, 4.0], [1000, 1000, 1000, 100])
    b = np.repeat([0.0, 1.0, 3.0, 4.0], [20, 1000, 700, 3000])
    ax = lower(plots.ratios({"x": {"a": a, "b": b}}))
    low, high = ax.get_ylim()
    assert (low, high) == (0, 4)
    x, y, _ = points(ax)
    assert 3 not in x
    np.testing.assert_allclose(y, np.array([20, 1000, 0]) / 4720 * 3100 / 1000)
    beyond = [line for line in ax.lines if line.get_marker() == "^" and len(line.get_xdata())]
    (mark,) = beyond
    np.testing.assert_array_equal(mark.get_xdata(), [4])
    assert low < mark.get_ydata()[0] < high


def test_several_samples_are_compared_with_the_first():
    rng = np.random.default_rng(0)
    figure = plots.ratios({"x": {n: rng.normal(size=500) for n in ("a", "b", "c")}}, colours={"b": "#112233"})
    colours = {to_hex(bars.lines[0].get_color()) for bars in lower(figure).containers}
    assert colours == {"#112233", plots.COLOURS[2]}


@pytest.mark.parametrize("panels", [1, 2, 4, 5])
def test_nothing_is_cut_off_and_panels_do_not_touch(tmp_path: Path, panels: int):
    rng = np.random.default_rng(0)
    two = {"$\\frac{$ _x_": rng.normal(size=400), "b": rng.normal(size=300)}
    figure = plots.ratios({f"column {i}": two for i in range(panels)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "x.png")
    assert len(figure.axes) == panels
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    width, height = figure.canvas.get_width_height()
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
        for other in boxes[:i]:
            assert min(box.x1, other.x1) <= max(box.x0, other.x0) + 1 or min(box.y1, other.y1) <= max(box.y0, other.y0)


def test_constant_values_and_empty_bins_are_drawn():
    figure = plots.ratios({"x": {"a": np.full(9, 2.5), "b": np.full(3, 2.5)}})
    x, y, _ = points(lower(figure))
    np.testing.assert_allclose((x[0], y[0]), (2.5, 1))
    assert len(x) == 1


@pytest.mark.parametrize(
    "values",
    [
        np.array([3e38, -3e38, 0]),  # such as stand for "no value" in some files; all float64 so large are whole
        np.array([1.7e308, -1.7e308]),
        2.0**63 + np.arange(300),
        np.array([1, 1 + 1e-15]),
    ],
    ids=["float32", "float64", "uint64", "rounding"],
)
def test_values_at_the_ends_of_float64_are_drawn(values):
    for figure in (plots.histograms({"x": {"a": values}}), plots.ratios({"x": {"a": values, "b": values[:2]}})):
        figure.savefig(io.BytesIO(), dpi=30)
        edges = drawn(figure.axes[0])[1]
        assert (np.diff(edges) > 0).all()


def test_what_cannot_be_drawn_is_refused():
    good = np.arange(5.0)
    with refused("nothing to draw: there are no columns"):
        plots.ratios({})
    with refused("nothing to draw: there are no samples beside the first"):
        plots.ratios({"x": {"a": good}})
    with refused("x of b: 1 values are NaN or infinite"):
        plots.ratios({"x": {"a": good, "b": np.array([1.0, np.nan])}})
    with refused(r"y: needs values of \['a', 'b'\], got \['a'\]"):
        plots.ratios({"x": {"a": good, "b": good}, "y": {"a": good, "b": good[:0]}})
