"""Tables of a benchmark: what is in them, and that they fit where they are shown."""

import dataclasses
import re
import sys

import pytest
from rich.cells import cell_len

from jetclr.benchmark import rows, selection
from jetclr.benchmark.results import Benchmark
from jetclr.benchmark.summary import sentences
from jetclr.benchmark.tables import latex, markdown, print_benchmark
from probes.metrics import Estimate
from tests.jetclr.benchmark.example import around, empty, example, many_classes

BENCHMARK = example()
EVIL = "[bold]a|b</b> \\input{x} $\\frac{$ 100%_#&~^\x1b[31m"


def changed(benchmark: Benchmark, name: str, **values) -> Benchmark:
    """With other values in the scores of one representation."""
    scores = [dataclasses.replace(s, **values) if s.representation == name else s for s in benchmark.scores]
    return dataclasses.replace(benchmark, scores=scores)


def printed(monkeypatch, capsys, benchmark, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: width > 0, raising=False)
    print_benchmark(benchmark)
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize("width", [80, 120, 160])
@pytest.mark.parametrize("made", [example, many_classes, empty])
def test_nothing_is_wider_than_the_terminal(monkeypatch, capsys, made, width):
    text = printed(monkeypatch, capsys, made(), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    if made is not empty:
        assert "0.9819" in text
        assert "toptag untrained" in text


def test_what_is_piped_has_a_line_a_row_with_everything(monkeypatch, capsys):
    text = printed(monkeypatch, capsys, BENCHMARK, 0)
    line = next(line for line in text.splitlines() if line.startswith("toptag *"))
    assert re.sub(" +", " ", line) == (
        "toptag * embedding logistic 1,280 0.9819 [0.9797, 0.9841] 0.9349 [0.9301, 0.9397] >318 178 [125, 278] 7.2 "
        "0.9827"
    )


def test_a_narrow_terminal_sets_intervals_and_layers_below(monkeypatch, capsys):
    lines = printed(monkeypatch, capsys, BENCHMARK, 80).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("toptag *"))
    assert lines[at].split() == ["toptag", "*", "0.9819", "0.9349", ">318", "178"]
    below = re.sub(" +", " ", lines[at + 1].strip())
    assert below == "embedding, logistic [.9797, .9841] [.9301, .9397] [125, 278]"


def test_headline_groups_and_choice():
    table = rows.headline(BENCHMARK)
    names = [row[0] for row in table.rows]
    assert names[:8:2] == ["toptag *", "toptag untrained", "toptag seed 1", "toptag seed 1 untrained"]
    assert [table.groups[i] for i in sorted(table.groups)] == list(selection.GROUPS)
    assert {names[i] for i in table.strong} == {
        n for n in names if names.count(n) == 2 or n in ("toptag *", "EFP d<=5 *")
    }
    # No choice, nothing in bold.
    assert not {"transformer *", "PFN"} & {names[i] for i in table.strong}


def test_what_is_best_and_first_follows_validation_and_never_test_jets():
    better = changed(BENCHMARK, "PFN", test=BENCHMARK.scores[0].test | {"auc": around(0.999, 0.0001)})
    assert "transformer *" in [row[0] for row in rows.headline(better).rows]
    validated = changed(BENCHMARK, "PFN", validation_auc=0.999)
    names = [row[0] for row in rows.headline(validated).rows]
    assert "PFN *" in names
    assert "transformer" in names
    assert [s.representation for s in selection.featured(better)] == [
        s.representation for s in selection.featured(BENCHMARK)
    ]
    assert any("is PFN with" in sentence for sentence in sentences(validated))


def test_a_layer_other_than_the_main_one_is_shown_where_it_was_chosen():
    scores = [
        dataclasses.replace(s, chosen=(s.layer, s.probe) == ("layer_2", "MLP")) if s.representation == "toptag" else s
        for s in BENCHMARK.scores
    ]
    shown = [row[:3] for row in rows.headline(dataclasses.replace(BENCHMARK, scores=scores)).rows if "toptag" in row[0]]
    assert shown[:3] == [
        ("toptag", "layer_2", "MLP"),
        ("toptag", "embedding", "logistic"),
        ("toptag", "embedding", "LDA"),
    ]


def test_controls_follow_their_runs_by_name_or_are_shared():
    other = dataclasses.replace(BENCHMARK.comparisons[0], a="toptag seed 1", b="toptag untrained")
    both = dataclasses.replace(BENCHMARK, comparisons=[other])
    assert selection.control_of(both, "toptag seed 1") == "toptag seed 1 untrained"
    # Two runs from the same weights have one control; of many classes nothing is compared.
    scores = [s for s in BENCHMARK.scores if s.representation != "toptag seed 1 untrained"]
    for comparisons in ([other], []):
        shared = dataclasses.replace(BENCHMARK, scores=scores, comparisons=comparisons)
        assert selection.control_of(shared, "toptag seed 1") == "toptag untrained"
    wider = [dataclasses.replace(s, width=9) if s.representation == "toptag untrained" else s for s in scores]
    stranger = dataclasses.replace(BENCHMARK, scores=wider, comparisons=[])
    assert selection.control_of(stranger, "toptag seed 1") is None
    alone = dataclasses.replace(BENCHMARK, scores=[s for s in BENCHMARK.scores if s.kind != "untrained"])
    assert selection.control_of(alone, "toptag") is None
    assert "There is no untrained control" in sentences(alone)[0]


def test_label_efficiency_is_mean_and_spread_and_bounds_stay_bounds():
    entry = dataclasses.replace(
        BENCHMARK.efficiency[0], auc=(0.9, 0.92, 0.94), r50=(100.0, 140.9, 120.0), r50_is_bound=(False, True, False)
    )
    made = dataclasses.replace(BENCHMARK, efficiency=[entry])
    assert rows.label_efficiency(made, "AUC").rows == [("toptag", "logistic", "0.9200 ± 0.0200")]
    assert rows.label_efficiency(made, "R50").rows == [("toptag", "logistic", ">120")]
    one = dataclasses.replace(entry, auc=(0.9,), r50=(55.55,), r50_is_bound=(False,))
    made = dataclasses.replace(BENCHMARK, efficiency=[one])
    assert rows.label_efficiency(made, "AUC").rows == [("toptag", "logistic", "0.9000")]
    assert rows.label_efficiency(made, "R50").rows == [("toptag", "logistic", "55.5")]
    assert not rows.label_efficiency(many_classes(), "R50").rows


def test_many_classes_have_their_rejections_in_a_table_of_their_own():
    tables = rows.tables(many_classes())
    assert tables["by_class"].columns[1:4] == ("Hbb", "Hcc", "Hgg")
    assert tables["by_class"].rows[0] == ("toptag", "40.0", "80.0", "120", "160", "200", "240", "280", "320", ">1820")
    assert "R50" not in tables["headline"].columns
    assert "by_class" not in rows.tables(BENCHMARK)


def test_labels_are_a_column_only_where_they_differ():
    assert "labels" not in rows.headline(BENCHMARK).columns
    assert "Labelled jets used, validation included: 70,000." in rows.headline(BENCHMARK).caption
    assert "labels" in rows.headline(changed(BENCHMARK, "PFN", labels=60_000)).columns


@pytest.mark.parametrize(
    ("auc", "p", "words"),
    [
        (Estimate(0.0057, 0.0041, 0.0072), 1e-9, "Pretraining raises the AUC: +0.0057 [+0.0041, +0.0072]"),
        (Estimate(-0.0057, -0.0072, -0.0041), 1e-9, "Pretraining lowers the AUC: -0.0057"),
        (Estimate(0.001, -0.001, 0.003), 0.3, "does not change the AUC by more than chance"),
        (Estimate(0.001, 0.0001, 0.003), 0.06, "does not change the AUC by more than chance"),
        (Estimate(0.001, -0.0001, 0.003), 0.04, "does not change the AUC by more than chance"),
    ],
)
def test_words_claim_no_more_than_both_tests_allow(auc, p, words):
    compared = dataclasses.replace(BENCHMARK.comparisons[0], auc=auc, delong_p=p)
    first = sentences(dataclasses.replace(BENCHMARK, comparisons=[compared]))[0]
    assert words in first
    assert ("DeLong p < 0.0001" if p < 1e-4 else f"DeLong p = {p:.2g}") in first


def test_summary_says_what_limits_it():
    told = " ".join(sentences(BENCHMARK))
    assert "71 predictors have been measured" in told
    assert "OmniLearned embeddings: 3 jets left out." in told
    assert "One training seed" not in told
    assert "One training seed" in " ".join(sentences(dataclasses.replace(BENCHMARK, seeds=[])))
    assert "not told apart from it on these test jets: +0.0006" in told
    assert "below it on these test jets: -0.0028" in told


def test_captions_keep_test_jets_and_draws_apart():
    tables = rows.tables(BENCHMARK)
    assert "bootstrap intervals over the test jets" in tables["headline"].caption
    assert (
        "standard deviation over draws of the labels; it is apart from the error"
        in tables["label_efficiency_auc"].caption
    )
    assert "differ by their seed alone" in tables["seeds"].caption
    assert "not corrected for there being 5" in tables["comparisons"].caption


def test_markdown_has_every_table_and_a_row_is_a_row():
    text = markdown(BENCHMARK)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        table.title for table in rows.tables(BENCHMARK).values()
    ]
    assert "| **toptag \\*** | embedding | logistic | 1,280 | **0.9819** [0.9797, 0.9841] |" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert "|" not in markdown(empty())


def latex_tables(text):
    """Bodies of tabulars as lists of cells, and their column letters."""
    for letters, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line for line in body.splitlines() if line.endswith(r" \\") and "multicolumn" not in line]
        yield letters, [re.split(r"(?<!\\)&", line.removesuffix(r" \\")) for line in lines]


@pytest.mark.parametrize("made", [example, many_classes])
def test_latex_is_balanced_and_every_row_has_its_cells(made):
    text = latex(made())
    found = list(latex_tables(text))
    assert len(found) == len(rows.tables(made(), full=False))
    for letters, lines in found:
        assert {len(line) for line in lines} == {len(letters)}
    bare = re.sub(r"\\.", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert all(ord(c) < 128 for c in text)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\begin{table*}") == len(found)
    labels = re.findall(r"\\label\{([^}]*)\}", text)
    assert len(set(labels)) == len(found)
    if made is example:
        assert r"\textbf{toptag *}" in text
        assert r"$>$318" in text
        assert r"$-$0.0028 {\scriptsize {[}$-$0.0043, $-$0.0013]}" in text


def test_names_are_shown_as_they_are_and_never_obeyed(monkeypatch, capsys):
    evil = changed(BENCHMARK, "EFP d<=5", representation=EVIL)
    assert "[bold]a|b</b> \\input{x} $\\frac{$ 100%_#&~^ [31m" in printed(monkeypatch, capsys, evil, 0)
    assert r"a\|b\</b> \\input{x}" in markdown(evil)
    text = latex(evil)
    assert r"\input" not in text
    assert r"\textbackslash{}input\{x\} \$\textbackslash{}frac\{\$ 100\%\_\#\&\textasciitilde{}" in text
    for letters, lines in latex_tables(text):
        assert {len(line) for line in lines} == {len(letters)}
    assert "\x1b" not in text + markdown(evil)


def test_nothing_measured_is_no_tables():
    assert rows.tables(empty()) == {}
    assert "tabular" not in latex(empty())
