"""One self-contained HTML page out of tables and figures, and the same tables for terminals and Markdown.

A page needs no network: styles and figures are inside, there is no script, and a content policy forbids both. All
text is escaped, because names of runs come from strangers. It follows the reader's light or dark mode, prints, and
fits a phone.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from probes.metrics import Estimate
from probes.plots import INK, curves, histograms, palette, projection, roc, similarity, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

__all__ = [
    "PROBE_COLUMNS",
    "Number",
    "Page",
    "curves",
    "histograms",
    "markdown_table",
    "palette",
    "probe_row",
    "projection",
    "roc",
    "similarity",
    "terminal_table",
]

PROBE_COLUMNS = ("representation", "probe", "AUC", "accuracy", "R30", "R50")
"""Columns of a table of linear probes; R30 and R50 are 1/eps_B at eps_S = 0.3 and 0.5."""

FULL_LINE = 110
"""Letters in a row of a table above which intervals are set below their values, to fit the page."""

LARGEST_SVG = 400_000
"""Bytes of drawing commands above which a figure may become a picture."""

Row = Sequence[object]


class Number(str):
    """Text of a number, as "+0.0057 [+0.0041, +0.0072]": set to the right, what follows the value smaller."""


def probe_row(representation: str, probe: str, estimates: Mapping[str, Estimate]) -> Row:
    """One row under `PROBE_COLUMNS` from the estimates of `metrics.evaluate_scores`.

    Raises ValueError naming the estimates that are missing.
    """
    missing = [key for key in ("auc", "accuracy", "r30", "r50") if key not in estimates]
    if missing:
        raise ValueError(f"no estimate of {missing}; there are {sorted(estimates)}")
    return representation, probe, *(estimates[key] for key in ("auc", "accuracy", "r30", "r50"))


def terminal_table(rows: Sequence[Row], columns: Sequence[str], title: str | None = None) -> Table:
    """The rows as a rich table; text in cells is shown as it is, never read as markup.

    Raises ValueError if a row has another number of cells than there are columns.
    """
    from rich.table import Table
    from rich.text import Text

    _check_rows(rows, columns)
    table = Table(title=None if title is None else Text(title), header_style="bold", title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if _numeric(rows, i) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell_text(c))) for c in row))
    return table


def markdown_table(
    rows: Sequence[Row], columns: Sequence[str], strong: Collection[int] = (), groups: Mapping[int, str] | None = None
) -> str:
    """The rows as a Markdown table, numbers to the right.

    Rows `strong` have their first cell and their estimates in bold; `groups[i]` is a heading above row i.

    Raises ValueError if a row has another number of cells than there are columns.
    """
    _check_rows(rows, columns)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    lines = [line([markdown_text(c) for c in columns])]
    lines.append("|" + "|".join(" ---: " if _numeric(rows, i) else " --- " for i in range(len(columns))) + "|")
    for i, row in enumerate(rows):
        if groups and i in groups:
            lines.append(line([f"*{markdown_text(groups[i])}*", *[""] * (len(columns) - 1)]))
        emphasised = (
            [j == 0 or isinstance(c, Estimate) for j, c in enumerate(row)] if i in strong else [False] * len(row)
        )
        lines.append(line([_markdown_cell(c, bold) for c, bold in zip(row, emphasised, strict=True)]))
    return "\n".join(lines) + "\n"


class Page:
    """An HTML page filled from top to bottom, then written in one piece.

    >>> page = Page("Linear probes", "untrained against trained")
    >>> page.section("What was done", "Logistic regression on frozen embeddings.")
    >>> page.facts({"training jets": "10,000"})
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._body: list[str] = []
        self._sections: list[str] = []
        self._figures = 0

    def section(self, title: str, text: str = "") -> None:
        """Start a section; blank lines in `text` part its paragraphs."""
        self._sections.append(title)
        self._body.append(f'<h2 id="section-{len(self._sections)}">{_escape(title)}</h2>')
        self._body += [f"<p>{_escape(part)}</p>" for part in re.split(r"\n\s*\n", text) if part.strip()]

    def figure(self, fig: Figure, caption: str, alt: str) -> None:
        """Add a figure; `alt` says in words what it shows, for readers who cannot see it."""
        self._figures += 1
        picture = _picture(fig, f"f{self._figures}-", alt)
        text = f"<figcaption><b>Figure {self._figures}.</b> {_escape(caption)}</figcaption>"
        self._body.append(f'<figure><div class="wide" tabindex="0">{picture}</div>{text}</figure>')

    def table(
        self,
        rows: Sequence[Row],
        columns: Sequence[str],
        caption: str = "",
        strong: Collection[int] = (),
        groups: Mapping[int, str] | None = None,
    ) -> None:
        """Add a table; intervals of estimates are set smaller.

        Rows `strong` have their first cell and their estimates in bold; `groups[i]` is a heading above row i.

        Raises ValueError if a row has another number of cells than there are columns.
        """
        _check_rows(rows, columns)
        kind = [' class="n"' if _numeric(rows, i) else "" for i in range(len(columns))]
        head = "".join(f'<th scope="col"{k}>{_escape(c)}</th>' for c, k in zip(columns, kind, strict=True))
        body = ""
        for i, row in enumerate(rows):
            if groups and i in groups:
                body += f'<tr><th class="g" scope="rowgroup" colspan="{len(columns)}">{_escape(groups[i])}</th></tr>'
            body += "<tr>"
            for j, (cell, k) in enumerate(zip(row, kind, strict=True)):
                text = _html_cell(cell)
                bold = i in strong and (j == 0 or isinstance(cell, Estimate))
                body += f"<td{k}><b>{text}</b></td>" if bold else f"<td{k}>{text}</td>"
            body += "</tr>"
        text = f"<caption><span>{_escape(caption)}</span></caption>" if caption else ""
        # A wide table scrolls by itself instead of widening the page; tabindex lets the keyboard scroll it.
        texts = [[column, *(cell_text(row[j]) for row in rows)] for j, column in enumerate(columns)]
        dense = ' class="dense"' if sum(max(map(len, column)) for column in texts) > FULL_LINE else ""
        table = f"<table{dense}>{text}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        self._body.append(f'<div class="wide" tabindex="0">{table}</div>')

    def facts(self, facts: Mapping[str, object]) -> None:
        """Add a short list of names and values: seeds, versions, counts."""
        items = "".join(f"<div><dt>{_escape(k)}</dt><dd>{_html_cell(v)}</dd></div>" for k, v in facts.items())
        self._body.append(f"<dl>{items}</dl>")

    def html(self) -> str:
        """The whole page as text."""
        links = "".join(
            f'<li><a href="#section-{i}">{_escape(t)}</a></li>' for i, t in enumerate(self._sections, start=1)
        )
        contents = f'<nav aria-label="Contents"><ol>{links}</ol></nav>' if len(self._sections) > 2 else ""
        subtitle = f'<p class="subtitle">{_escape(self.subtitle)}</p>' if self.subtitle else ""
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{_escape(self.title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
            f"<header><h1>{_escape(self.title)}</h1>{subtitle}</header>\n{contents}\n"
            + "\n".join(self._body)
            + "\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: str | Path) -> None:
        """Write the page to `path`, whole or not at all: a page that is there can be read at any moment.

        Raises OSError if the folder does not exist or cannot be written.
        """
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(self.html())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _picture(fig: Figure, prefix: str, alt: str) -> str:
    """The figure as inline SVG, or as PNG where that takes less than half the bytes of a heavy drawing."""
    with style():
        file = io.BytesIO()
        fig.savefig(file, format="svg", dpi=150, metadata={"Date": None})
        svg = file.getvalue().decode("utf-8")
        if len(svg) > LARGEST_SVG:
            file = io.BytesIO()
            fig.savefig(file, format="png", dpi=200, facecolor="white", metadata={"Software": None})
            if 2 * file.tell() * 4 / 3 < len(svg):
                data = base64.b64encode(file.getvalue()).decode("ascii")
                width = round(fig.get_figwidth() * 96)
                return f'<img src="data:image/png;base64,{data}" alt="{_escape(alt)}" {_size(width)}>'
    return _inline(svg, prefix, alt, round(fig.get_figwidth() * 96))


def _inline(svg: str, prefix: str, alt: str, width: int) -> str:
    """An SVG file as an element of a page: ids of its own, the page's ink, a text for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    svg = svg.replace(INK, "currentColor")
    # The page sets the size: matplotlib's width and height in points would keep a phone from shrinking it.
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    opening = f'<svg role="img" aria-label="{_escape(alt)}" {_size(width)} '
    return re.sub(r"\n\s+", "\n", svg.replace("<svg ", opening, 1))


def _size(width: int) -> str:
    """As wide as drawn, less on a narrow page; panels side by side stop shrinking while they can be read."""
    return f'style="width:{width}px;min-width:{640 if width > 700 else 0}px"'


def clean(text: str) -> str:
    """Text without control characters, which neither HTML nor a terminal can show."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text).replace("\n", " ")


def _escape(text: object) -> str:
    return html.escape(clean(str(text)), quote=True)


def cell_text(value: object) -> str:
    """A cell as every kind of table shows it."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is."""
    # A bracket alone is only text; one before "(" or "[" would begin a link.
    return re.sub(r"([\\|`*_<]|\](?=[(\[]))", r"\\\1", clean(text))


def _markdown_cell(value: object, strong: bool) -> str:
    text = markdown_text(cell_text(value))
    if not strong or not text.strip():
        return text
    number, *interval = text.split(" ", 1) if isinstance(value, Estimate) else [text.strip()]
    return " ".join([f"**{number}**", *interval])


def _html_cell(value: object) -> str:
    text = cell_text(value)
    if isinstance(value, Estimate | Number) and " " in text:
        number, interval = text.split(" ", 1)
        return f"{_escape(number)} <small>{_escape(interval)}</small>"
    return _escape(text)


def _numeric(rows: Sequence[Row], column: int) -> bool:
    cells = [row[column] for row in rows if row[column] is not None]
    return bool(cells) and all(
        isinstance(c, int | float | Estimate | Number) and not isinstance(c, bool) for c in cells
    )


def _check_rows(rows: Sequence[Row], columns: Sequence[str]) -> None:
    for i, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(f"row {i} has {len(row)} cells for {len(columns)} columns {list(columns)}")


_CSS = """
:root{--ink:#23272e;--soft:#626a75;--line:#dfe3e8;--paper:#fff;--panel:#f6f7f9;--link:#1f5fbf}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7eb;--soft:#9aa3ae;--line:#343a42;--paper:#14171b;--panel:#1c2026;
--link:#86b4ff}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:62rem;margin:0 auto;padding:2.5rem 1.25rem 4rem;overflow-wrap:anywhere}
h1{font-size:clamp(1.5rem,4vw,2.1rem);line-height:1.2;margin:0;letter-spacing:-.015em}
h2{font-size:1.3rem;line-height:1.3;margin:3rem 0 .75rem;padding-top:1.1rem;border-top:1px solid var(--line)}
p{max-width:44rem;margin:.75rem 0}
.subtitle{color:var(--soft);font-size:1.05rem;margin:.4rem 0 0}
nav ol{display:flex;flex-wrap:wrap;gap:.35rem 1.4rem;list-style:none;margin:1.5rem 0 0;padding:0;font-size:.92rem}
a{color:var(--link);text-underline-offset:.15em}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(11.5rem,1fr));gap:.9rem 1.5rem;margin:1.25rem 0;
padding:1.1rem 1.25rem;background:var(--panel);border-radius:.6rem}
dt{color:var(--soft);font-size:.82rem;line-height:1.35}
dd{margin:.1rem 0 0;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto;margin:1.25rem 0}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;color:var(--soft);padding-bottom:.6rem}
caption span{display:block;max-width:min(59.5rem,100vw - 2.5rem)}
th{text-align:left;font-weight:600;border-bottom:1.5px solid var(--ink);white-space:nowrap;vertical-align:bottom}
td{border-bottom:1px solid var(--line);vertical-align:baseline}
th,td{padding:.45rem .9rem .45rem 0}
.n{text-align:right;white-space:nowrap;padding:.45rem 0 .45rem 1.1rem}
.g{font-weight:600;color:var(--soft);padding-top:1.1rem;border-bottom:1px solid var(--line)}
td b{font-weight:650}
td b small{font-weight:400}
small{color:var(--soft);font-size:.84em}
.dense small{display:block;line-height:1.25}
.dense th{white-space:normal}
.dense .n{padding-left:.8rem}
figure{margin:1.75rem 0}
figure .wide{margin:0}
figure svg,figure img{display:block;max-width:100%;height:auto}
figure img{background:#fff;border-radius:.4rem}
figcaption{color:var(--soft);font-size:.92rem;max-width:44rem;margin-top:.6rem}
figcaption b{color:var(--ink);font-weight:600}
@media (max-width:40rem){body{font-size:15px}main{padding-top:1.5rem}}
@media print{:root{--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--panel:#fff;--link:#000}
main{max-width:none;padding:0}nav{display:none}h2{break-after:avoid}figure,dl,tr{break-inside:avoid}
.wide{overflow:visible}figure svg,figure img{min-width:0!important}dl{border:1px solid var(--line)}}
"""
