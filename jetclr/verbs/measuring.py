"""Verbs that say what work costs: cost, bench."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from jetclr.errors import UserError
from jetclr.verbs import Format, Process, Stores, Which, app


@app.command
def cost(config: Positional[Path]) -> None:
    """Print what a training step costs on any number of devices: FLOPs, bytes between them, memory, time.

    Any setting of CONFIG can be overridden: jetclr cost CONFIG --help lists them.

    Args:
        config: A config file (.py) or a run's config.json.
    """
    raise AssertionError("main() parses this verb, whose options depend on the config")


What = Literal["train", "data", "embed", "export", "augment", "generate", "scaling"]


@app.command
def bench(
    what: Positional[What],
    paths: Positional[Stores] = (),
    size: Literal["small", "paper"] | None = None,
    data: Stores = (),
    against: Path | None = None,
    python: str | None = None,
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32",
    steps: int | None = None,
    devices: int | None = None,
    process: tuple[Process, ...] = (),
    format: Format = "auto",
    jets: int | None = None,
    batch: int = 1024,
    constituents: int = 50,
    formats: tuple[str, ...] = (".h5",),
    checkpoint: Which = "latest",
    repeats: int = 5,
    seconds: float = 4.0,
) -> None:
    """Measure speed on this machine; prints JSON lines.

    Args:
        what: train: training steps, beside another program and the machine's peak. data: converting files, and reading
            shuffled batches, with the memory it takes. embed: embedding whole stores, beside the encoder alone; or,
            with --size, the encoder beside PyTorch, and padded beside bucketed jets. export: a run's exported encoder,
            one jet at a time with one thread and many with all cores, beside JAX's own. augment: both views on the
            device, beside NumPy. generate: simulating jets. scaling: training on ever more devices of this host.
        paths: data: Files to convert, repeated until there are enough jets; or stores, which are only read. embed,
            export: A run.
        size: train, augment, scaling, embed: The study's network of width 1000 (paper) or a small one of 128 (small).
        data: Stores of the jets to use; if not given, train, augment, scaling and embed --size make some up, and export
            takes random ones.
        against: train: A program that trains the same, called with the jets and sizes, to measure in turns with ours.
        python: train, embed --size: The Python that runs the other program, or PyTorch; this one if not given.
        precision: train, scaling: In which numbers the network computes.
        steps: train, augment, scaling: Steps in a turn; 10 if not given, or 3 with --size paper.
        devices: scaling: The most devices; all accelerators, or as many as a CPU has cores, if not given.
        process: generate: Processes to measure; all if not given.
        format: data: Layout of the files; auto looks into them.
        jets: data: How many jets to convert (1,000,000 if not given). generate: How many of each process (2,000).
        batch: data, export, embed --size: Jets in a batch that is read, or encoded. augment: Of the larger batch.
        constituents: data: The hardest constituents that are read.
        formats: embed: Endings of the files to write.
        checkpoint: embed, export: The newest, the one with the best validation probe, or that of a step.
        repeats: Runs of which the median is taken.
        seconds: data, export, embed --size: How long a run reads, or encodes.
    """
    given = locals()
    from jetclr.bench.machine import print_rows

    _refuse_options_of_others(what, given)
    print_rows(_ROWS[_kind(what, size)](given))


Given = Mapping[str, Any]
Rows = Iterator[dict[str, Any]]


def _train(given: Given) -> Rows:
    from jetclr.bench.peer import Peer
    from jetclr.bench.sizes import config_of
    from jetclr.bench.train import bench_train

    if given["against"] is None and given["python"] is not None:
        raise UserError("--python says what runs the program that --against names: name one")
    peer = None if given["against"] is None else Peer(given["against"], given["python"] or sys.executable)
    size, stores = _size(given), given["data"]
    config = config_of(size, given["precision"])
    return bench_train(config, size, stores, steps=_steps(given), repeats=given["repeats"], peer=peer)


def _augment(given: Given) -> Rows:
    from jetclr.bench.augment import bench_augment
    from jetclr.bench.sizes import config_of

    size, stores = _size(given), given["data"]
    numbers = {name: given[name] for name in ("batch", "repeats")}
    return bench_augment(config_of(size), size, stores, steps=_steps(given), **numbers)


def _scaling(given: Given) -> Rows:
    from jetclr.bench.scaling import bench_scaling
    from jetclr.bench.sizes import config_of

    size, stores = _size(given), given["data"]
    numbers = {name: given[name] for name in ("devices", "repeats")}
    return bench_scaling(config_of(size, given["precision"]), size, stores, steps=_steps(given), **numbers)


def _encoder(given: Given) -> Rows:
    from jetclr.bench.encoder import bench_encoder
    from jetclr.bench.sizes import config_of

    size, stores = _size(given), given["data"]
    numbers = {name: given[name] for name in ("batch", "repeats", "seconds")}
    return bench_encoder(config_of(size), size, stores, python=given["python"] or sys.executable, **numbers)


def _generate(given: Given) -> Rows:
    from jetclr.bench.generate import bench_generate

    jets = 2000 if given["jets"] is None else given["jets"]
    return bench_generate(given["process"], jets=jets, repeats=given["repeats"])


def _data(given: Given) -> Rows:
    from jetclr.bench.data import bench_data

    if not given["paths"]:
        raise UserError("bench data converts files or reads stores: name some")
    jets = 1_000_000 if given["jets"] is None else given["jets"]
    numbers = {name: given[name] for name in ("format", "batch", "constituents", "repeats", "seconds")}
    return bench_data(given["paths"], jets=jets, **numbers)


def _embed(given: Given) -> Rows:
    from jetclr.bench.embed import bench_embed

    return bench_embed(
        _run(given), given["data"], given["formats"], repeats=given["repeats"], which=given["checkpoint"]
    )


def _export(given: Given) -> Rows:
    from jetclr.export.bench import bench_export

    numbers = {name: given[name] for name in ("batch", "repeats", "seconds")}
    return bench_export(_run(given), given["data"], **numbers, which=given["checkpoint"])


def _run(given: Given) -> Path:
    if len(given["paths"]) != 1:
        raise UserError(f"bench {given['what']} measures one run, and got {len(given['paths'])} paths")
    run: Path = given["paths"][0]
    return run


def _size(given: Given) -> Literal["small", "paper"]:
    return given["size"] or "small"


def _steps(given: Given) -> int:
    steps: int | None = given["steps"]
    return {"small": 10, "paper": 3}[_size(given)] if steps is None else steps


def _kind(what: str, size: str | None) -> str:
    """Embedding with a run and encoding with a size are different measurements."""
    return "embed --size" if what == "embed" and size is not None else what


_ROWS: dict[str, Callable[[Given], Rows]] = {
    "train": _train,
    "data": _data,
    "embed": _embed,
    "embed --size": _encoder,
    "export": _export,
    "augment": _augment,
    "generate": _generate,
    "scaling": _scaling,
}

_TAKES = {
    "train": {"size", "data", "against", "python", "precision", "steps", "repeats"},
    "data": {"paths", "format", "jets", "batch", "constituents", "repeats", "seconds"},
    "embed": {"paths", "data", "formats", "checkpoint", "repeats"},
    "embed --size": {"size", "data", "python", "batch", "repeats", "seconds"},
    "export": {"paths", "batch", "data", "checkpoint", "repeats", "seconds"},
    "augment": {"size", "data", "batch", "steps", "repeats"},
    "generate": {"process", "jets", "repeats"},
    "scaling": {"size", "data", "precision", "steps", "devices", "repeats"},
}

_DEFAULTS = {name: one.default for name, one in inspect.signature(bench).parameters.items() if name != "what"}


def _refuse_options_of_others(what: str, given: Given) -> None:
    kind = _kind(what, given["size"])
    others = [name for name, default in _DEFAULTS.items() if name not in _TAKES[kind] and given[name] != default]
    if "paths" in others:
        raise UserError(f"bench {kind} takes no path, and got {', '.join(map(str, given['paths']))}")
    if others:
        raise UserError(f"bench {kind} does not take {', '.join(f'--{name}' for name in others)}")
