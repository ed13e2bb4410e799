"""The page as a browser's parser sees it, and figures by what is drawn in them."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from rich.console import Console

from probes import metrics, plots, report
from probes.metrics import Estimate


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


EVIL = '<script>alert("1")</script> & \'$\\frac{$ _x_ [bold]|`\x1b[31m\u202e'
ROWS = [
    ("trained", "logistic", Estimate(0.97832, 0.97614, 0.98031), Estimate(500.0, 500.0, None, True), 1.23456789, None),
    (EVIL, "LDA", Estimate(0.9, 0.8, 0.95), Estimate(103.4, 94.6, 112.2), 2.0, None),
]
COLUMNS = ("representation", "probe", "AUC", "R50", "x", "y")


class Tags(HTMLParser):
    """Every element with its attributes, and the text outside of style."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "elements must close in order"

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def roc_figure(names=("a", "b")):
    rng = np.random.default_rng(0)
    labels = np.arange(3000) % 2
    return plots.roc({n: metrics.roc_curve(rng.normal(size=3000) + 2 * labels, labels) for n in names})


def full_page():
    page = report.Page(EVIL, EVIL)
    page.facts({EVIL: EVIL, "seed": 3, "AUC": ROWS[0][2]})
    for title in ("one", EVIL, "three"):
        page.section(title, f"First {EVIL}.\n\nSecond.")
    page.figure(roc_figure((EVIL, "other")), EVIL, EVIL)
    xy = np.random.default_rng(0).normal(size=(5000, 2))
    page.figure(plots.projection(xy, np.arange(5000) % 2, {0: EVIL, 1: "b"}), "scatter", "points")
    page.table(ROWS, COLUMNS, EVIL)
    return page


def test_page_is_self_contained_well_formed_and_escaped():
    source = full_page().html()
    seen = Tags(source)
    assert seen.open == []
    names = {tag for tag, _ in seen.tags}
    assert not names & {"script", "link", "iframe", "object", "foreignobject", "base", "bold"}
    for tag, attributes in seen.tags:
        assert not [a for a in attributes if a.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    # Names of XML namespaces are no addresses; there must be nothing else that looks like one.
    assert set(re.findall(r"https?://[^\s\"<]*", source)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip
    assert "@import" not in source
    assert "url(#" in source
    assert not re.search(r"url\((?!#)", source)
    assert "\x1b" not in source
    assert 'alert("1")' in "".join(seen.text)
    policy = next(a["content"] for t, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_ids_are_unique_and_every_reference_resolves():
    source = full_page().html()
    ids = re.findall(r'\bid="([^"]+)"', source)
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', source)
    assert references
    assert {a or b for a, b in references} <= set(ids)


def test_figures_follow_the_colour_of_the_page_and_can_be_read_aloud():
    page = report.Page("t")
    page.figure(roc_figure(), "caption", "two curves")
    svg = re.search(r"<svg.*</svg>", page.html(), re.DOTALL).group()
    assert plots.INK not in svg
    assert "currentColor" in svg
    root = ET.fromstring(svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", "two curves")
    assert root.get("viewBox")
    assert root.get("width") is None


def test_heavy_drawings_become_pictures():
    figure = Figure()
    figure.add_subplot().scatter(*np.random.default_rng(0).normal(size=(2, 8000)), c=np.arange(8000))
    page = report.Page("t")
    page.figure(figure, "c", EVIL)
    tag = next(a for t, a in Tags(page.html()).tags if t == "img")
    assert tag["src"].startswith("data:image/png;base64,")
    assert "alert" in tag["alt"]
    assert len(page.html()) < 600_000


def test_projection_is_light_however_many_jets():
    page = report.Page("t")
    xy = np.random.default_rng(0).normal(size=(40_000, 2))
    page.figure(plots.projection(xy, np.arange(40_000) % 2, {0: "QCD", 1: "top"}), "c", "a")
    assert "<svg" in page.html()
    assert len(page.html()) < 800_000


def test_same_page_twice_is_the_same_bytes():
    assert full_page().html() == full_page().html()


def test_write_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    report.Page("first").write(path)
    assert "<h1>first</h1>" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]

    def full_disk(self, target):
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        report.Page("second").write(str(path))
    assert "<h1>first</h1>" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(OSError):
        report.Page("third").write(tmp_path / "missing" / "report.html")


def test_probe_rows_and_tables_agree():
    labels = np.arange(400) % 2
    scores = labels + np.random.default_rng(0).normal(size=400)
    estimates = metrics.evaluate_scores(scores, labels, threshold=0.5, resamples=50)
    row = report.probe_row("trained", "LDA", estimates)
    assert len(row) == len(report.PROBE_COLUMNS)
    lines = report.markdown_table([row], report.PROBE_COLUMNS).splitlines()
    assert lines[0] == "| representation | probe | AUC | accuracy | R30 | R50 |"
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | ---: |"
    assert str(estimates["auc"]).split()[0] in lines[2]
    text = terminal_text([row], report.PROBE_COLUMNS)
    for key in ("auc", "accuracy", "r30", "r50"):
        assert str(estimates[key]) in text
    with pytest.raises(ValueError, match=r"accuracy.*r30.*r50"):
        report.probe_row("a", "b", {"auc": estimates["auc"]})


def terminal_text(rows, columns):
    console = Console(width=200, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(report.terminal_table(rows, columns))
    return capture.get()


def test_terminal_and_markdown_show_strange_names_as_they_are():
    text = terminal_text(ROWS, COLUMNS)
    assert "[bold]|`" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert ">500" in text
    assert "1.235" in text
    lines = report.markdown_table(ROWS, COLUMNS).splitlines()
    assert len(lines) == 4
    for line in lines:
        assert len(re.findall(r"(?<!\\)\|", line)) == len(COLUMNS) + 1
    assert not re.search(r"(?<!\\)<script", lines[3])
    assert "| 0.9783 [0.9761, 0.9803] |" in lines[2]
    link = report.markdown_table([("![x](http://a.b/c)",)], ("name",))
    assert r"![x\](http" in link


def test_rows_of_the_wrong_length_are_refused():
    for call in (report.terminal_table, report.markdown_table, report.Page("t").table):
        with pytest.raises(ValueError, match="row 1 has 1 cells for 2 columns"):
            call([("a", 1), ("b",)], ("name", "value"))


def test_plots_leave_global_settings_alone():
    before = dict(mpl.rcParams)
    full_page().html()
    assert dict(mpl.rcParams) == before
    code = (
        "import sys, numpy as np, probes.report as r\n"
        "assert 'matplotlib' not in sys.modules and 'rich' not in sys.modules and 'sklearn' not in sys.modules\n"
        "r.curves({'a': (np.arange(3.), np.arange(3.))}, 'step')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_histograms_are_normalised_and_keep_their_colours():
    rng = np.random.default_rng(0)
    a, b = rng.normal(600, 20, 5000), rng.normal(620, 20, 300)
    counts = rng.integers(20, 40, 5000)
    figure = plots.histograms({"pT": {"top": a, "QCD": b}, "constituents": {"QCD": counts}}, {"pT": "GeV"})
    first, second = figure.axes
    assert first.get_xlabel() == "pT [GeV]"
    top, _, qcd, _ = first.patches
    for patch, values in ((top, a), (qcd, b)):
        heights, edges, _ = patch.get_data()
        inside = np.mean((values >= edges[0]) & (values <= edges[-1]))
        assert (heights * np.diff(edges)).sum() == pytest.approx(inside)
        assert inside > 0.98
    assert to_hex(second.patches[0].get_edgecolor()) == to_hex(qcd.get_edgecolor()) != to_hex(top.get_edgecolor())
    heights, edges, _ = second.patches[0].get_data()
    np.testing.assert_allclose(heights, np.bincount(counts)[20:] / 5000)
    np.testing.assert_allclose(edges, np.arange(20, 41) - 0.5)


def test_histogram_of_one_value_can_be_drawn():
    for value in (0.0, 5.0, -1e6):
        heights, edges, _ = plots.histograms({"x": {"a": np.full(9, value)}}).axes[0].patches[0].get_data()
        assert (heights * np.diff(edges)).sum() == pytest.approx(1)


def test_roc_shows_rejection_and_fades_where_background_runs_out():
    labels = np.arange(4000) % 2
    scores = labels * 2 + np.random.default_rng(0).normal(size=4000)
    eps_s, eps_b = metrics.roc_curve(scores, labels)
    axes = plots.roc({"a": (eps_s, eps_b)}).axes[0]
    assert axes.get_yscale() == "log"
    faint, sure = (line for line in axes.lines if to_hex(line.get_color()) == plots.COLOURS[0])
    pairs = set(zip(eps_s.round(9), eps_b.round(9), strict=True))
    assert {(round(x, 9), round(1 / y, 9)) for x, y in faint.get_xydata()} <= pairs
    assert len(faint.get_xdata()) <= plots.MOST_POINTS + 2
    assert sure.get_ydata().max() <= 2000 / 10 + 1e-9
    assert faint.get_ydata().max() > 200
    assert faint.get_xdata()[-1] == 1


def test_curves_show_what_is_missing_and_do_not_fail_on_a_diverged_run():
    x = np.arange(6.0)
    figure = plots.curves({"loss": (x, np.array([3, 2, np.nan, np.inf, 1, 0.0])), "lr": (x, x + 1)}, "step", "", True)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), [0, 1, 4])
    assert figure.axes[0].texts[0].get_text() == "3 of 6 points not shown"
    assert not figure.axes[1].texts
    page = report.Page("t")
    page.figure(plots.curves({"loss": (x, np.full(6, np.nan))}, "step", logy=True), "c", "a")
    with refused("equal length"):
        plots.curves({"loss": (x, x[:3])}, "step")


def test_similarity_draws_mean_and_band():
    x = np.linspace(0, 3, 5)
    axes = plots.similarity({"a": (x, 1 - x / 10, 0.9 - x / 10, 1 - x / 20)}).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 1 - x / 10)
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.6, 1.0))


def test_projection_colours_every_jet_by_its_label():
    xy = np.random.default_rng(0).normal(size=(50, 2))
    labels = np.arange(50) % 2
    figure = plots.projection(xy, labels, {0: "QCD", 1: "top"}, {"top": "#111111", "QCD": "#eeeeee"})
    points = figure.axes[0].collections[0]
    assert points.get_rasterized()
    where = {tuple(p): to_hex(c) for p, c in zip(points.get_offsets().data, points.get_facecolors(), strict=True)}
    for jet, label in zip(xy, labels, strict=True):
        assert where[tuple(jet)] == ("#111111" if label else "#eeeeee")


def test_palette_is_stable_and_beyond_six_names_lines_differ_by_dash():
    names = [str(i) for i in range(8)]
    assert plots.palette(["b", "a", "b"]) == {"b": plots.COLOURS[0], "a": plots.COLOURS[1]}
    axes = plots.similarity({n: tuple(np.ones((4, 3)) * np.arange(3)) for n in names}).axes[0]
    looks = {(to_hex(line.get_color()), str(line._dash_pattern)) for line in axes.lines}
    assert len(looks) == 8


def test_names_are_never_mathematics_nor_lost():
    page = report.Page("t")
    for name in ("$x", "a$b$c_{", "_hidden", "日本語", "x" * 300):
        figure = roc_figure((name, "other"))
        assert len(figure.legends[0].get_texts()) == 2
        page.figure(figure, "c", "a")
    assert r"\frac" not in page.html()


def test_nothing_to_draw_is_said_plainly():
    for call in (plots.histograms, plots.roc, plots.similarity, lambda s: plots.curves(s, "x")):
        with refused("nothing to draw"):
            call({})
    with refused("nothing to draw"):
        plots.histograms({"pT": {"top": np.array([])}})
    with refused("pT of top: 1 values are NaN"):
        plots.histograms({"pT": {"top": np.array([1.0, np.nan])}})
    with refused("no name for labels"):
        plots.projection(np.ones((2, 2)), np.array([0, 7]), {0: "QCD"})
    with refused("jets, 2"):
        plots.projection(np.ones((2, 3)), np.array([0, 0]), {0: "QCD"})
