"""Verbs that make and show stores: generate, convert, join, inspect."""

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from jetclr.data.options import Detector, Options
from jetclr.errors import UserError
from jetclr.verbs import Format, Part, Process, Shares, Stores, app


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
    """Join what `--shard` made, as if it had been made at once: stores, or files of embeddings. Or join any stores.

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
