"""Verbs that say what work costs: cost, bench."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from jetclr.verbs import Format, Stores, app


@app.command
def cost(config: Positional[Path]) -> None:
    """Print what a training step costs on any number of devices: FLOPs, bytes between them, memory, time.

    Any setting of CONFIG can be overridden: jetclr cost CONFIG --help lists them.

    Args:
        config: A config file (.py) or a run's config.json.
    """
    raise AssertionError("main() parses this verb, whose options depend on the config")


@app.command
def bench(
    what: Positional[Literal["data"]],
    paths: Positional[Stores],
    format: Format = "auto",
    jets: int = 1_000_000,
    batch: int = 1024,
    constituents: int = 50,
    repeats: int = 5,
    seconds: float = 4.0,
) -> None:
    """Measure speed and memory on this machine; prints JSON lines.

    Args:
        what: data: converting files, and reading shuffled batches.
        paths: Files to convert, repeated until there are enough jets; or stores, which are only read.
        format: Layout of the files; auto looks into them.
        jets: How many jets to convert.
        batch: Jets in a batch that is read.
        constituents: The hardest constituents that are read.
        repeats: Runs of which the median is taken.
        seconds: How long a run reads.
    """
    from jetclr.bench import bench_data, print_rows

    print_rows(
        bench_data(
            paths,
            format=format,
            jets=jets,
            batch=batch,
            constituents=constituents,
            repeats=repeats,
            seconds=seconds,
        )
    )
