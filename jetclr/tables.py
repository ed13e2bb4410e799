"""An evaluation as the table that `jetclr probe` prints."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jetclr.evaluate import Evaluation, ProbeResult
from probes.report import PROBE_COLUMNS

# Wide enough for a row on one line; a narrower terminal gets the intervals below the values.
FULL_WIDTH = 126


def print_evaluation(evaluation: Evaluation) -> None:
    """Print one row a representation and probe, then how the trained embedding compares with the untrained one."""
    console = Console(width=None if sys.stdout.isatty() else FULL_WIDTH)
    jets = evaluation.jets
    console.print(
        f"[bold]{escape(str(evaluation.run))}[/bold], step {evaluation.step:,}: "
        f"linear probes fitted on {jets['train']:,} jets, "
        f"measured on {jets['test']:,}; brackets are 95 % intervals",
        highlight=False,
    )
    console.print(_table(evaluation.results, one_line=console.width >= FULL_WIDTH))
    for name, c in evaluation.against_untrained.items():
        console.print(
            f"{name}, trained - untrained embedding: AUC {c.auc.value:+.4f} [{c.auc.low:+.4f}, {c.auc.high:+.4f}], "
            f"p = {c.auc_p_value:.2g} (paired bootstrap)",
            markup=False,
            highlight=False,
        )


def _table(results: list[ProbeResult], one_line: bool) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1 if one_line else 0, 0, 1))
    columns = PROBE_COLUMNS if one_line else ("representation", *PROBE_COLUMNS[2:])
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < len(columns) - 4 else "right", no_wrap=True)
    for r in results:
        values = [str(r.estimates[name]) for name in ("auc", "accuracy", "r30", "r50")]
        style = "bold" if r.representation == "trained embedding" else ""
        if one_line:
            table.add_row(r.representation, r.probe, *values, style=style)
        else:
            first = Text.assemble(r.representation, ("\n  " + r.probe, "dim"))
            short = (v.replace(" [", "\n[").replace("[0.", "[.").replace(", 0.", ", .") for v in values)
            table.add_row(first, *short, style=style)
    return table
