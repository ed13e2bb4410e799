"""The page and the figures of a benchmark."""

import dataclasses
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex

from jetclr.benchmark import figures, page
from jetclr.benchmark.results import Curve
from jetclr.errors import UserError
from tests.jetclr.benchmark.example import empty, example, many_classes

BENCHMARK = example()
FEW = dataclasses.replace(BENCHMARK, similarity=[], robustness=[], sculpting=[], calibration=[], regression=[])
EVIL = '<script>alert("1")</script> $\\frac{$ _x_ \u6b63'


@pytest.fixture(scope="module")
def drawn():
    return {drawing.name: drawing for drawing in figures.figures(BENCHMARK)}


def test_page_has_words_figures_and_tables_and_no_script(tmp_path):
    path = tmp_path / "new" / "page.html"
    page.write_page(BENCHMARK, path)
    source = path.read_text()
    assert source.count("<figure>") == 8
    assert source.count("<table") == 11
    assert "Pretraining raises the AUC: +0.0057" in source
    assert "<script" not in source
    assert "default-src &#x27;none&#x27;" in source or "default-src 'none'" in source
    assert set(re.findall(r"https?://[^\s\"<]*", source)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip
    assert [title for title, *_ in page.SECTIONS if f">{title}</h2>" not in source] == []
    assert len(source) < 1_500_000


def test_page_is_the_same_bytes_twice():
    scored = dataclasses.replace(empty(), scores=BENCHMARK.scores)
    assert page.build_page(scored).html() == page.build_page(scored).html()


def test_what_was_not_measured_leaves_nothing_behind(tmp_path):
    page.write_page(empty(), tmp_path / "empty.html")
    source = (tmp_path / "empty.html").read_text()
    assert "<figure>" not in source
    assert "<table" not in source
    assert re.findall(r"<h2[^>]*>([^<]*)<", source) == ["What it comes to", "What was done"]
    assert figures.write_figures(empty(), tmp_path / "figures") == []


def test_many_classes_have_no_roc_curve():
    names = [drawing.name for drawing in figures.figures(many_classes())]
    assert names == ["layers", "label_efficiency"]


def test_names_are_escaped_and_letters_that_the_font_lacks_are_no_fault(tmp_path):
    scores = [
        dataclasses.replace(s, representation=EVIL) if s.representation == "EFP d<=5" else s for s in BENCHMARK.scores
    ]
    named = dataclasses.replace(empty(), scores=scores)
    figures.write_figures(named, tmp_path)
    source = page.build_page(named).html()
    assert "<script" not in source
    assert "&lt;script&gt;" in source


def test_folder_in_the_way_is_said_plainly(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        page.write_page(empty(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        figures.write_figures(BENCHMARK, tmp_path / "file")


def test_figures_are_written_for_papers(tmp_path):
    written = figures.write_figures(FEW, tmp_path / "figures")
    assert [path.name for path in written[::2]] == ["roc.png", "layers.png", "label_efficiency.png", "overview.png"]
    assert {path.suffix for path in written[1::2]} == {".pdf"}
    assert all(path.stat().st_size > 5000 for path in written)
    assert len(list((tmp_path / "figures").iterdir())) == len(written), "nothing half written stays"
    assert written[1].read_bytes().startswith(b"%PDF")


def test_every_figure_has_a_caption_and_words_for_who_cannot_see_it(drawn):
    assert list(drawn) == ["roc", "layers", "label_efficiency", "invariance", "robustness", "mass_spectra",
                           "mass_divergence", "calibration"]  # fmt: skip
    for drawing in drawn.values():
        assert len(drawing.caption) > 60
        assert drawing.alt


def test_colour_is_the_family_and_dash_the_kind():
    looks = figures.looks_of(BENCHMARK)
    assert looks["toptag"].colour == looks["toptag untrained"].colour == looks["toptag fine-tuned"].colour
    assert looks["toptag seed 1"].colour == looks["toptag seed 1 untrained"].colour != looks["toptag"].colour
    family = [looks[n] for n in ("toptag", "toptag untrained", "toptag fine-tuned", "toptag from scratch")]
    assert len({str(look.dash) for look in family}) == 4
    networks = [look for name, look in looks.items() if name in ("PFN", "EFN", "ParticleNet-lite", "transformer")]
    assert len({look.colour for look in networks} | {looks["toptag"].colour}) == 5
    assert len({(look.colour, str(look.dash), look.marker) for look in looks.values()}) == len(looks)


def test_with_one_run_everything_in_the_main_figures_has_a_colour_of_its_own():
    scores = [s for s in BENCHMARK.scores if not s.representation.startswith("toptag seed 1")]
    looks = figures.looks_of(dataclasses.replace(BENCHMARK, scores=scores))
    shown = ("toptag", "EFP d<=5", "transformer", "OmniLearned embeddings", "toptag fine-tuned")
    assert len({looks[name].colour for name in shown}) == len(shown)


def test_label_efficiency_is_mean_and_standard_deviation_of_the_usual_probe(drawn):
    entries = [e for e in BENCHMARK.efficiency if (e.representation, e.probe) == ("toptag", "logistic")]
    axes = drawn["label_efficiency"].figure.axes[0]
    line = next(line for line in axes.lines if len(line.get_xdata()) == 4)
    assert to_hex(line.get_color()) == figures.looks_of(BENCHMARK)["toptag"].colour
    np.testing.assert_allclose(line.get_ydata(), [np.mean(e.auc) for e in entries])
    band = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    first = entries[0].auc
    assert {np.round(np.mean(first) + sign * np.std(first, ddof=1), 9) for sign in (-1, 1)} <= set(band[:, 1].round(9))


def test_overview_is_of_the_best_run_and_its_own():
    drawing = figures.overview(BENCHMARK)
    assert "toptag seed 1" not in drawing.alt
    assert "toptag from scratch" in drawing.alt
    assert figures.overview(many_classes()) is None


def test_curves_without_any_background_are_left_out():
    none = Curve((0.0, 1.0), (0.0, 0.0))
    scores = [dataclasses.replace(s, roc=none if s.representation == "toptag" else s.roc) for s in BENCHMARK.scores]
    drawing = figures.figures(dataclasses.replace(BENCHMARK, scores=scores))[0]
    assert "toptag," not in drawing.alt
    assert "EFP d<=5" in drawing.alt
