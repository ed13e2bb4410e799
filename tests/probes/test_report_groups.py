"""Tables with groups of rows, rows in bold and numbers that are text."""

import re

from probes.metrics import Estimate
from probes.report import Number, Page, markdown_table

ROWS = [
    ("a|b", Number("+0.1 ± 0.2"), Estimate(0.97832, 0.97614, 0.98031), "x"),
    ("c", None, Estimate(500.0, 500.0, None, True), "y"),
]
COLUMNS = ("name", "number", "AUC", "text")


def test_markdown_marks_first_cell_and_estimates_and_sets_headings():
    lines = markdown_table(ROWS, COLUMNS, {0}, {1: "a *group*"}).splitlines()
    assert lines[1] == "| --- | ---: | ---: | --- |"
    assert lines[2] == r"| **a\|b** | +0.1 ± 0.2 | **0.9783** [0.9761, 0.9803] | x |"
    assert lines[3] == r"| *a \*group\** |  |  |  |"
    assert lines[4] == "| c | – | >500 | y |"


def test_page_does_the_same():
    page = Page("t")
    page.table(ROWS, COLUMNS, "caption", {0}, {1: "<group>"})
    source = page.html()
    assert '<th class="g" scope="rowgroup" colspan="4">&lt;group&gt;</th>' in source
    assert "<td><b>a|b</b></td>" in source
    assert '<td class="n"><b>0.9783 <small>[0.9761, 0.9803]</small></b></td>' in source
    assert '<td class="n">+0.1 <small>± 0.2</small></td>' in source
    assert '<td class="n">&gt;500</td>' in source


def test_intervals_move_below_in_wide_tables_alone():
    narrow, wide = Page("t"), Page("t")
    narrow.table(ROWS, COLUMNS)
    wide.table([(*row, *row, *row, "z" * 30) for row in ROWS], (*COLUMNS, *COLUMNS, *COLUMNS, "z"))
    assert "<table>" in narrow.html()
    assert re.search('<table class="dense">', wide.html())
