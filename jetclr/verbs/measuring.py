"""Verbs that say what work costs: cost, bench."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from jetclr.errors import UserError
from jetclr.verbs import Format, Stores, Which, app


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
    what: Positional[Literal["data", "embed", "export"]],
    paths: Positional[Stores],
    format: Format = "auto",
    jets: int = 1_000_000,
    batch: int = 1024,
    constituents: int = 50,
    data: Stores = (),
    formats: tuple[str, ...] = (".h5",),
    checkpoint: Which = "latest",
    repeats: int = 5,
    seconds: float = 4.0,
) -> None:
    """Measure speed on this machine; prints JSON lines.

    Args:
        what: data: converting files, and reading shuffled batches, with the memory it takes. embed: embedding whole
            stores, beside the encoder alone. export: a run's exported encoder, one jet at a time with one thread and
            many with all cores, beside JAX's own.
        paths: data: Files to convert, repeated until there are enough jets; or stores, which are only read. embed,
            export: A run.
        format: data: Layout of the files; auto looks into them.
        jets: data: How many jets to convert.
        batch: data, export: Jets in a batch that is read, or encoded.
        constituents: data: The hardest constituents that are read.
        data: embed, export: Stores of the jets to encode; export takes random ones if not given.
        formats: embed: Endings of the files to write.
        checkpoint: embed, export: The newest, the one with the best validation probe, or that of a step.
        repeats: Runs of which the median is taken.
        seconds: data, export: How long a run reads, or encodes.
    """
    from jetclr.bench import bench_data, print_rows

    _refuse_options_of_others(what, locals())
    if what != "data" and len(paths) != 1:
        raise UserError(f"bench {what} measures one run, and got {len(paths)} paths")
    if what == "export":
        from jetclr.export.bench import bench_export

        rows = bench_export(paths[0], data, batch=batch, repeats=repeats, seconds=seconds, which=checkpoint)
    elif what == "embed":
        from jetclr.embed_bench import bench_embed

        rows = bench_embed(paths[0], data, formats, repeats=repeats, which=checkpoint)
    else:
        rows = bench_data(
            paths,
            format=format,
            jets=jets,
            batch=batch,
            constituents=constituents,
            repeats=repeats,
            seconds=seconds,
        )
    print_rows(rows)


_DEFAULTS = {name: one.default for name, one in inspect.signature(bench).parameters.items()}

_TAKES = {
    "data": {"format", "jets", "batch", "constituents", "repeats", "seconds"},
    "embed": {"data", "formats", "checkpoint", "repeats"},
    "export": {"batch", "data", "checkpoint", "repeats", "seconds"},
}


def _refuse_options_of_others(what: str, given: Mapping[str, Any]) -> None:
    others = [name for name in _DEFAULTS if name not in ("what", "paths") and name not in _TAKES[what]]
    if wrong := [f"--{name}" for name in others if given[name] != _DEFAULTS[name]]:
        raise UserError(f"bench {what} does not take {', '.join(wrong)}")
