"""Tables of results on the terminal, in Markdown and in LaTeX; those of a representation benchmark among them."""

import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from jetclr.benchmark.files import read_json, write_json
from jetclr.benchmark.results import Benchmark
from jetclr.benchmark.rows import tables
from jetclr.benchmark.summary import sentences
from jetclr.benchmark.table import Table
from probes.metrics import Estimate
from probes.report import Number, cell_text, clean, markdown_table, markdown_text

__all__ = [
    "latex",
    "latex_tables",
    "markdown",
    "markdown_tables",
    "print_benchmark",
    "print_tables",
    "read_json",
    "write_json",
]

PIPED_WIDTH = 1000
"""Wider than any row: what is no terminal folds nothing."""

TEXT_WIDTH = 110
"""Captions are broken at most here, to be read."""

GAP = 2
NARROWEST = 14
"""Blanks between columns, and how narrow the first one may become."""


def print_benchmark(benchmark: Benchmark) -> None:
    """Print all tables but that of every layer and probe, and last what they come to in words."""
    print_tables(tables(benchmark, full=False), sentences(benchmark))


def markdown(benchmark: Benchmark) -> str:
    """All tables with their captions under headings, after what they come to in words."""
    return markdown_tables(benchmark.facts.suite, tables(benchmark), sentences(benchmark))


def latex(benchmark: Benchmark) -> str:
    """All tables but that of every layer and probe as LaTeX floats."""
    return latex_tables(benchmark.facts.suite, tables(benchmark, full=False))


def print_tables(made: Mapping[str, Table], told: Sequence[str]) -> None:
    """Print tables, each with its caption, and last sentences."""
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    for table in made.values():
        console.print(Text(table.title, style="bold"))
        for line in _fitting(console, table):
            console.print(line, soft_wrap=True)
        _print_text(console, table.caption, "dim")
        console.print()
    for sentence in told:
        _print_text(console, sentence, "")


def markdown_tables(name: str, made: Mapping[str, Table], told: Sequence[str]) -> str:
    """A benchmark's sentences, and its tables with their captions under headings."""
    parts = [f"# Benchmark {markdown_text(name)}\n", *(f"{markdown_text(s)}\n" for s in told)]
    for table in made.values():
        rows = markdown_table(table.rows, table.columns, table.strong, table.groups)
        parts += [f"## {table.title}\n", rows, f"{markdown_text(table.caption)}\n"]
    return "\n".join(parts)


def latex_tables(name: str, made: Mapping[str, Table]) -> str:
    """Tables as LaTeX floats, for \\input in a paper that loads the package booktabs.

    Columns of lesser interest are left out. Names in scripts that LaTeX's own fonts lack need XeLaTeX or LuaLaTeX.
    """
    floats = [_latex_float(table, f"{name}-{short}") for short, table in made.items()]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(floats)


class _Layout(NamedTuple):
    """What one way of setting a table leaves room for."""

    below: bool  # intervals on a line of their own
    folded: tuple[str, ...]  # columns that move below the first
    left_out: tuple[str, ...]


def _fitting(console: Console, table: Table) -> list[Text]:
    """The lines of a table in the roomiest layout that the terminal holds; in the last one the first column breaks."""
    layouts = [
        _Layout(False, (), ()),
        _Layout(False, (), table.optional),
        _Layout(True, (), ()),
        _Layout(True, table.folded, ()),
        _Layout(True, table.folded, table.optional),
    ]
    for layout in layouts:
        cells = _cells(table, layout)
        widths = [max(cell_len(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]
        if sum(widths) + GAP * (len(widths) - 1) <= console.width:
            break
    else:
        widths[0] = max(console.width - sum(widths[1:]) - GAP * (len(widths) - 1), NARROWEST)
        cells = [[_broken(row[0], widths[0]), *row[1:]] for row in cells]
    names = [name for name in table.columns if name not in (*layout.folded, *layout.left_out)]
    right = [table.is_number(name) for name in names]
    lines = _row_lines(cells[0], widths, right, "bold", "bold")
    for i, row in enumerate(cells[1:]):
        if i in table.groups:
            lines += [Text(line, style="italic") for line in textwrap.wrap(table.groups[i], console.width)]
        lines += _row_lines(row, widths, right, "bold" if i in table.strong else "", "dim")
    return lines


def _cells(table: Table, layout: _Layout) -> list[list[list[str]]]:
    """The lines of each cell of each row, the header first."""
    shown = [i for i, name in enumerate(table.columns) if name not in (*layout.folded, *layout.left_out)]
    under = [i for i, name in enumerate(table.columns) if name in layout.folded]
    header = [table.columns[i].split(" ") if layout.below and i else [table.columns[i]] for i in shown]
    rows = [header]
    for row in table.rows:
        cells = [_cell_lines(row[i], layout.below) for i in shown]
        notes = ", ".join(clean(str(row[i])) for i in under if row[i] is not None)
        cells[0] = [*cells[0], f"  {notes}"] if notes else cells[0]
        rows.append(cells)
    return rows


def _cell_lines(value: object, below: bool) -> list[str]:
    text = clean(cell_text(value))
    if not below or not isinstance(value, Estimate | Number) or " " not in text:
        return [text]
    number, interval = text.split(" ", 1)
    return [number, interval.replace("[0.", "[.").replace(", 0.", ", .")]


def _row_lines(
    cells: Sequence[list[str]], widths: Sequence[int], right: Sequence[bool], style: str, below: str
) -> list[Text]:
    """A row as lines, the first in `style` and the others in `below`."""
    height = max(len(cell) for cell in cells)
    lines = []
    for i in range(height):
        parts = [cell[i] if i < len(cell) else "" for cell in cells]
        padded = [
            " " * (width - cell_len(part)) + part if to_right else part + " " * (width - cell_len(part))
            for part, width, to_right in zip(parts, widths, right, strict=True)
        ]
        lines.append(Text((" " * GAP).join(padded).rstrip(), style=style if i == 0 else below))
    return lines


def _broken(cell: list[str], width: int) -> list[str]:
    return [part for line in cell for part in textwrap.wrap(line, width, subsequent_indent="  ") or [""]]


def _print_text(console: Console, text: str, style: str) -> None:
    for line in textwrap.wrap(clean(text), min(console.width, TEXT_WIDTH)):
        console.print(Text(line, style=style), soft_wrap=True)


def _latex_float(table: Table, name: str) -> str:
    shown = [i for i, name in enumerate(table.columns) if name not in table.optional]
    alignment = "".join("r" if table.is_number(table.columns[i]) else "l" for i in shown)
    lines = [" & ".join(_escaped(table.columns[i]) for i in shown) + r" \\", r"\midrule"]
    for i, row in enumerate(table.rows):
        if i in table.groups:
            space = r"\addlinespace" + "\n" if i else ""
            lines.append(rf"{space}\multicolumn{{{len(shown)}}}{{l}}{{\emph{{{_escaped(table.groups[i])}}}}} \\")
        lines.append(" & ".join(_latex_cell(row[j], i in table.strong and j == 0) for j in shown) + r" \\")
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\footnotesize",
            rf"\caption{{{_escaped(table.title)}. {_escaped(table.caption)}}}",
            rf"\label{{tab:{re.sub(r'[^a-z0-9]+', '-', name.lower())}}}",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _latex_cell(value: object, strong: bool) -> str:
    text = clean(cell_text(value))
    if not isinstance(value, Estimate | Number):
        return rf"\textbf{{{_escaped(text)}}}" if strong else _escaped(text)
    # A hyphen before a digit is a sign; alone it stands for "no upper limit".
    signed = re.sub(r"-(?=\d)", "−", text).replace("-", "–")
    number, *interval = signed.split(" ", 1)
    return _escaped(number) + "".join(rf" {{\scriptsize {_escaped(rest)}}}" for rest in interval)


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in clean(text))


_LATEX = {c: rf"\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "±": r"$\pm$",
    "²": "$^2$",
    "–": "--",
    "…": r"\dots{}",
    "[": "{[}",  # after the end of a row a bracket would be its spacing
}
