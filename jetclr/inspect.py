"""What is in a store: counts and ranges on the terminal, histograms by label in a picture."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape

from jetclr.data.store import Store, make_parent
from jetclr.errors import UserError
from jetclr.report import data_histograms
from probes.report import terminal_table

PICTURES = (".png", ".svg", ".pdf")


def inspect_store(path: Path, picture: Path) -> None:
    """Print counts and ranges of the store at `path` and draw its histograms to `picture`, replacing an older one."""
    if picture.suffix not in PICTURES:
        raise UserError(f"cannot draw to {picture}: its name must end in {', '.join(PICTURES)}")
    store = Store(path)
    console = Console()
    make_parent(picture)
    console.print(
        f"[bold]{escape(str(path))}[/bold]: {len(store):,} jets, {store.metadata[0]['constituents']:,} constituents"
    )
    facts = {k: v for k, v in store.metadata[0]["source"].items() if isinstance(v, str | int | float)}
    console.print(", ".join(f"{k} {v}" for k, v in facts.items()), style="dim", markup=False, highlight=False)
    label, names = store.by_label()
    rows = []
    for column in (*store.columns, "multiplicity"):
        values = store.column(column)
        for value, name in names.items():
            if column != "label":
                x = values[label == value].astype(np.float64)
                numbers = (x.min(), *np.quantile(x, (0.16, 0.5, 0.84)), x.max())
                rows.append((column, name, f"{len(x):,}", *(f"{v:,.4g}" for v in numbers)))
    console.print(terminal_table(rows, ("column", "label", "jets", "min", "16 %", "median", "84 %", "max")))
    data_histograms(store).savefig(picture, dpi=120)
    console.print(f"histograms: {picture}", highlight=False)
