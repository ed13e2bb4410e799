"""One table of results, for whoever sets it (terminal, Markdown, LaTeX, HTML)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from probes.metrics import Estimate
from probes.report import Number, Row


@dataclass(frozen=True)
class Table:
    """Rows of cells with what is said about them.

    Where there is little room, `folded` columns move below the first one and `optional` ones are left out.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[Row]
    caption: str
    strong: frozenset[int] = frozenset()
    groups: Mapping[int, str] = field(default_factory=dict)
    folded: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def is_number(self, column: str) -> bool:
        """Whether a column holds numbers, which are set to the right."""
        at = self.columns.index(column)
        cells = [row[at] for row in self.rows if row[at] is not None]
        return bool(cells) and all(isinstance(cell, int | float | Estimate | Number) for cell in cells)
