"""The command line. Each verb imports what it needs when it runs, so that help is quick and light."""

import logging
import shlex
import signal
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional
from tyro.constructors import PrimitiveConstructorSpec

from jetclr import UserError, __version__
from jetclr.data.options import Detector, Options
from jetclr.data.shard import Shard
from jetclr.errors import EXIT_AGAIN
from jetclr.signals import sigterm_exits

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

app = tyro.extras.SubcommandApp()
Stores = tuple[Path, ...]
Process = Literal["top", "qcd", "quark", "gluon", "w", "z", "higgs", "semivisible", "dijet"]
Format = Literal["auto", "toptag", "jetclass", "jetnet", "lhco", "qg", "aspen", "arrays"]
Which = Annotated[Literal["latest", "best"] | int, tyro.conf.arg(metavar="latest|best|STEP")]
# Of one word, so that "None" is a mistake too, and not no shard at all.
Part = Annotated[
    Shard | None,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="I/N",
        instance_from_str=lambda words: Shard.parse(words[0]),
        is_instance=lambda value: value is None or isinstance(value, Shard),
        str_from_instance=lambda value: [str(value)],
    ),
]


def _shares(words: list[str]) -> tuple[float, ...]:
    try:
        return tuple(map(float, words))
    except ValueError:
        raise UserError(f"--split is {' '.join(words)}; it must be three numbers") from None


# Of three words, so that the paths may follow them.
Shares = Annotated[
    tuple[float, float, float] | None,
    PrimitiveConstructorSpec(
        nargs=3,
        metavar="FLOAT FLOAT FLOAT",
        instance_from_str=_shares,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [str(value)] if value is None else [str(share) for share in value],
    ),
]


@app.command
def generate(
    out: Positional[Path],
    process: Process,
    jets: int,
    seed: int = 0,
    workers: int | None = None,
    shard: Part = None,
    options: Annotated[Options, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = Options(),
    detector: bool = False,
    detector_settings: Annotated[Detector, tyro.conf.arg(name="")] = Detector(),
) -> None:
    """Generate jets with Pythia 8 and FastJet into a new store.

    Args:
        out: The store to make.
        process: Hadronic tops; QCD; light quarks or gluons; hadronic W or Z; Higgs to bb; dark showers; QCD dijets with
            a resonance among them.
        jets: How many jets; dijet: two an event.
        seed: One seed gives the same jets with any number of workers.
        workers: Processes; all cores if not given.
        shard: Make only part I (from 0) of N of the jets; `jetclr join` puts the parts together.
        detector: Simulate a simple detector.
    """
    from jetclr.data.generate import generate as run

    if detector_settings != Detector() and not detector:
        raise UserError("settings of the detector were given, but not --detector")
    if detector:
        options = replace(options, detector=detector_settings)
    numbers = {"jets": jets, "seed": seed}
    numbers |= {f.name: value for f in fields(options) if (value := getattr(options, f.name)) not in (None, False)}
    numbers.pop("detector", None)
    if detector:
        numbers |= {"detector": True} | {
            f.name: value for f in fields(Detector) if (value := getattr(detector_settings, f.name)) != f.default
        }
    words = [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in numbers.items()]
    flags = " ".join([f"--process {process}", *words, *([] if shard is None else [f"--shard {shard}"])])
    command = f"jetclr generate {flags} {out.name}"
    made = run(process, out, jets=jets, options=options, seed=seed, workers=workers, shard=shard, command=command)
    print(f"{out}: {made:,} {process} jets")


@app.command
def convert(
    paths: Annotated[Positional[Stores], tyro.conf.arg(metavar="SRC... OUT")],
    format: Format = "auto",
    where: str = "",
    derive: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    fraction: float = 1.0,
    split: Shares = None,
    balance: str = "",
    flat: str = "",
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Convert public jet files to a store; the same command again goes on where one was interrupted.

    Args:
        paths: Files to read, in order, and the store to make.
        format: Layout of the files; auto looks into them.
        where: Keep jets for which this holds, such as "jet_pt > 500 & abs(jet_eta) < 2".
        derive: A new column, "name = expression"; may be given several times.
        fraction: Share of the rows to take, by a hash: those of 0.1 are among those of 0.2.
        split: Shares of train, validation and test; what the files say if not given, else 0.8 0.1 0.1.
        balance: Write weights that make the values of this column (label) equally frequent.
        flat: Write weights that make the spectrum of this column (jet_pt, jet_mass) flat.
        seed: Of the hash for --fraction and --split.
        workers: Processes; all cores if not given.
    """
    if len(paths) < 2:
        raise UserError("convert needs at least one file to read and, last, the store to make")
    from jetclr.data.convert import convert as run
    from jetclr.data.selection import Selection

    selection = Selection(where, derive, fraction, split, seed)
    options = {"where": where, "derive": derive, "fraction": fraction, "split": split, "balance": balance,
               "flat": flat, "seed": seed}  # fmt: skip
    given = [word for name, value in options.items() if value for word in _words(f"--{name}", value)]
    command = shlex.join(["jetclr", "convert", "--format", format, *given, *map(str, paths)])
    jets = run(
        format,
        paths[:-1],
        paths[-1],
        selection=selection,
        balance=balance,
        flat=flat,
        workers=workers,
        command=command,
    )
    print(f"{paths[-1]}: {jets:,} jets")


def _words(flag: str, value: Any) -> list[str]:
    """An option as it is written on the command line."""
    if flag == "--derive":
        return [f"{flag}={text}" for text in value]
    # With "=", because a formula may begin with a minus.
    return [flag, *map(str, value)] if isinstance(value, tuple) else [f"{flag}={value}"]


@app.command
def join(paths: Annotated[Positional[Stores], tyro.conf.arg(metavar="PART... OUT")]) -> None:
    """Join what `--shard` made, as if it had been made at once: stores, .h5 or .parquet files. Or join any stores.

    Args:
        paths: The parts, in any order if `--shard` made them, and the store or file to make.
    """
    if len(paths) < 2:
        raise UserError("join needs at least one part and, last, the store or file to make")
    from jetclr.data.join import join as run

    print(f"{paths[-1]}: {run(paths[:-1], paths[-1]):,} jets")


@app.command
def inspect(
    store: Positional[Path],
    other: Positional[Path | None] = None,
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Print counts, ranges and flags of a store and draw its histograms; with a second one, compare the two.

    Args:
        store: The store.
        other: A store to compare it with: histograms with their ratio, distances, jets that are in both.
        out: Picture to write (.png, .svg or .pdf); STORE/histograms.png or STORE/against-OTHER.png if not given.
        json: File to write the same numbers to.
    """
    from jetclr.inspect import default_picture, inspect_stores

    inspect_stores(store, other, out or default_picture(store, other), json)


@app.command
def pretrain(config: Positional[Path], workdir: Path) -> None:
    """Pretrain an encoder without labels, on all devices; the same command again resumes.

    Any setting of CONFIG can be overridden: jetclr pretrain CONFIG --help lists them.

    Args:
        config: A config file (.py) or a run's config.json.
        workdir: The run folder: checkpoints, metrics.jsonl, TensorBoard events.
    """
    raise AssertionError("main() parses this verb, whose options depend on the config")


@app.command
def embed(run: Positional[Path], stores: Annotated[Positional[Stores], tyro.conf.arg(metavar="STORE... OUT")],
          layers: tuple[str, ...] = ("embedding",), shard: Part = None,
          checkpoint: Which = "latest") -> None:  # fmt: skip
    """Write the frozen embeddings of all jets of stores, beside their jet-level columns.

    Args:
        run: A pretraining run.
        stores: Stores to read, and the file to make: OUT.h5 or OUT.parquet.
        layers: Which layers to write.
        shard: Embed only part I (from 0) of N of the jets; `jetclr join` puts the parts together.
        checkpoint: The newest, the one with the best validation probe, or that of a step.
    """
    if len(stores) < 2:
        raise UserError("embed needs a run, at least one store and, last, the file to make")
    from jetclr.embed import embed_store

    jets, widths = embed_store(run, stores[:-1], stores[-1], layers, shard=shard, which=checkpoint)
    print(f"{stores[-1]}: {jets:,} jets, " + ", ".join(f"{name} [{width}]" for name, width in widths.items()))


@app.command
def probe(
    run: Positional[Path],
    train: Stores,
    test: Stores,
    json: Path | None = None,
    overwrite: bool = False,
    seed: int = 0,
    checkpoint: Which = "latest",
) -> None:
    """Fit linear probes on frozen layers and print their table, beside the untrained encoder and raw constituents.

    Args:
        run: A pretraining run.
        train: Labelled stores to fit on.
        test: Labelled stores to measure on.
        json: File to write the same numbers to.
        overwrite: Replace that file if it exists.
        seed: Of the split that chooses L2, and of the bootstrap.
        checkpoint: The newest, the one with the best validation probe, or that of a step.
    """
    from jetclr.data.store import make_parent, refuse_existing, write_json
    from jetclr.evaluate import probe_run, to_json

    if json is not None and not overwrite:
        refuse_existing(json)
    from jetclr.tables import print_evaluation

    if json is not None:
        make_parent(json)
    evaluation = probe_run(run, train, test, seed=seed, which=checkpoint)
    print_evaluation(evaluation)
    if json is not None:
        write_json(json, to_json(evaluation))


@app.command
def report(
    run: Positional[Path],
    data: Stores,
    probe: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    checkpoint: Which = "latest",
) -> None:
    """Write one self-contained HTML page about a run.

    Args:
        run: A pretraining run.
        data: Stores whose jets are shown.
        probe: What `jetclr probe --json` wrote; RUN/probe.json if it is there.
        out: The page; RUN/report.html if not given.
        overwrite: Replace the page if it exists.
        checkpoint: The newest, the one with the best validation probe, or that of a step.
    """
    from jetclr.data.store import Store, refuse_existing
    from jetclr.report import write_report

    out = out or run / "report.html"
    if not overwrite:
        refuse_existing(out)
    default = run / "probe.json"
    write_report(run, Store(*data), probe or (default if default.exists() else None), out, which=checkpoint)
    print(out)


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


def _named_config(arguments: list[str], usage: str) -> Any:
    """The settings of the config file that stands among the arguments; the defaults if only help is asked for."""
    from jetclr import config as configs

    named = [a for a in arguments if not a.startswith("-") and Path(a).suffix in (".py", ".json")]
    if not named and arguments and not arguments[0].startswith("-"):
        named = arguments[:1]
    if not named and not {"-h", "--help"} & set(arguments):
        raise UserError(f"{usage.split()[1]} needs a config file: {usage}")
    return configs.load(Path(named[0])) if named else configs.Config()


def _pretrain(arguments: list[str]) -> int:
    """Parse `pretrain` against the settings of its config file, and run it."""
    from jetclr import config as configs
    from jetclr import distributed
    from jetclr.train import pretrain as run

    loaded = _named_config(arguments, "jetclr pretrain CONFIG.py --workdir RUN")

    @dataclass(frozen=True)
    class Pretrain:
        """Pretrain an encoder without labels; the same command again resumes."""

        config_file: Annotated[Positional[Path], tyro.conf.arg(metavar="CONFIG")]
        """A config file (.py) or a run's config.json."""
        workdir: Path
        """The run folder: checkpoints, metrics.jsonl, TensorBoard events."""
        config: Annotated[configs.Config, tyro.conf.arg(name="")]
        peers: Annotated[distributed.Peers, tyro.conf.arg(name="")] = field(default_factory=distributed.Peers)
        stop_at: int | None = None
        """Stop after this step, saved."""
        profile: bool = False
        """Write a trace of a few steps into the run folder, for TensorBoard's profile plugin."""

    default: Any = Pretrain(tyro.MISSING, tyro.MISSING, loaded)
    try:
        chosen = tyro.cli(Pretrain, prog="jetclr pretrain", args=arguments, default=default)
    except ValueError as error:  # of settings that cannot be
        raise UserError(str(error)) from None
    with distributed.joined(chosen.peers):
        outcome = run(chosen.config, chosen.workdir, stop_at=chosen.stop_at, profile=chosen.profile)
        if distributed.is_first():
            state = "finished" if outcome.step >= chosen.config.steps else "stopped, saved; the same command resumes"
            print(f"{chosen.workdir}: step {outcome.step:,} of {chosen.config.steps:,}, {state}", flush=True)
    if outcome.signal is None:
        return 0
    return EXIT_INTERRUPTED if outcome.signal == signal.SIGINT else EXIT_AGAIN


def _cost(arguments: list[str]) -> int:
    """Parse `cost` against the settings of its config file, and print its table."""
    from jetclr import config as configs
    from jetclr.cost import step_cost
    from jetclr.scaling import Plan, print_cost

    loaded = _named_config(arguments, "jetclr cost CONFIG.py")

    @dataclass(frozen=True)
    class Cost:
        """Print what a training step costs on any number of devices: FLOPs, bytes between them, memory, time."""

        config_file: Annotated[Positional[Path], tyro.conf.arg(metavar="CONFIG")]
        """A config file (.py) or a run's config.json."""
        config: Annotated[configs.Config, tyro.conf.arg(name="")]
        plan: Annotated[Plan, tyro.conf.arg(name="")] = field(default_factory=Plan)
        devices: int | None = None
        """How many devices; mesh.data x mesh.fsdp of the config if not given, or 1."""
        fsdp: int | None = None
        """Devices over which parameters are split; mesh.fsdp of the config if not given."""

    default: Any = Cost(tyro.MISSING, loaded)
    try:
        chosen = tyro.cli(Cost, prog="jetclr cost", args=arguments, default=default)
    except ValueError as error:  # of settings that cannot be
        raise UserError(str(error)) from None
    mesh = chosen.config.mesh
    fsdp = mesh.fsdp if chosen.fsdp is None else chosen.fsdp
    devices = max(mesh.data, 1) * fsdp if chosen.devices is None else chosen.devices
    if fsdp < 1 or devices % fsdp:
        raise UserError(f"--fsdp {fsdp} does not divide the {devices} devices")
    print_cost(str(chosen.config_file), chosen.config, step_cost(chosen.config, devices // fsdp, fsdp), chosen.plan)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error told in one sentence, 130 after Ctrl-C.

    SIGTERM ends it with status 143, cleaned up; pretraining saves and ends with 75, to be started again, and so it ends
    when another process of the run is lost.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"jetclr {__version__}")
        return 0
    # Orbax comments on its own options and logs tracebacks of errors that we tell in a sentence.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        if arguments[:1] == ["pretrain"]:
            return _pretrain(arguments[1:])
        if arguments[:1] == ["cost"]:
            return _cost(arguments[1:])
        with sigterm_exits():
            app.cli(prog="jetclr", args=arguments)
    except UserError as error:
        print(f"jetclr: {error}", file=sys.stderr)
        return EXIT_ERROR
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        print(f"jetclr: {error.strerror or error}{place}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("jetclr: interrupted; nothing half-written was kept", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
