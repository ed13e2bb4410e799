"""What `jetclr export` prints: the files, and how well they agree with JAX."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

FULL_WIDTH = 120


def print_export(out: Path, card: dict[str, Any]) -> None:
    """The folder and the model, a table of differences from JAX, and a line for each thing that was not checked."""
    console = Console(width=None if sys.stdout.isatty() else FULL_WIDTH)
    kept = [f"{name} ({_size((out / name).stat().st_size)})" for name in card["files"].values()]
    outputs = [f"{one['name']} [{', '.join(map(str, one['shape']))}]" for one in card["outputs"]]
    told = card["verification"]
    for line in (
        f"{out}: {', '.join(kept)}, model_card.md",
        f"step {card['step']:,}, {card['dtype']}: {', '.join(outputs)}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print("largest difference from JAX, |a - b| / (1 + |b|)", highlight=False)
    console.print(_differences(told))
    if told["real_jets_of"] is None:
        console.print("no real jets were compared: the stores of the run are not here; name some with --data")
    if "not_run" in told:
        console.print(told["not_run"])
    if told.get("rounding"):
        moved = ", ".join(f"{x:.1e} for {group} jets" for group, x in told["rounding"].items())
        console.print(f"half-precision weights move the layers by at most {moved}", highlight=False)


def _differences(told: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("run by", no_wrap=True)
    table.add_column("output")
    for group, jets in told["jets"].items():
        where = "random jets, empty to full" if group == "random" else f"jets of {', '.join(told['real_jets_of'])}"
        table.add_column(escape(f"{jets} {where}"), justify="right")
    table.add_column("limit", justify="right")
    for runtime, groups in told["differences"].items():
        first = f"{runtime} {told['versions'][runtime]}"
        for output in next(iter(groups.values())):
            table.add_row(
                first, output, *(f"{apart[output]:.1e}" for apart in groups.values()), f"{told['limits'][output]:g}"
            )
            first = ""
    return table


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
