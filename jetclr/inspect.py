"""What is in a store, what is wrong with it, how it differs from another: on the terminal, as JSON, in a picture."""

import math
import os
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from jetclr.compare import Column, Distance, Quantiles, Sample, distances, unit_of
from jetclr.data.flags import Faults, Flag, flags_between, label_name, split_name
from jetclr.data.pieces import pieces
from jetclr.data.store import Store, make_parent, write_json
from jetclr.errors import UserError
from probes.plots import histograms, palette, ratios
from probes.report import terminal_table

WIDTH = 100
"""Of what is printed into a file or a pipe."""
PICTURES = (".png", ".svg", ".pdf")
MOST_PANELS = 18
SMALLEST_P = 1e-16


@dataclass(frozen=True)
class StoreReport:
    """What one store holds: S jets in the sample of `columns`; `label_names` also names labels without jets."""

    path: Path
    faults: Faults
    sample: Sample
    flags: list[Flag]
    columns: dict[str, Column]
    quantiles: dict[str, dict[float | None, Quantiles]]

    @property
    def store(self) -> Store:
        """The store that this is about."""
        return self.faults.store


@dataclass(frozen=True)
class Inspection:
    """One store or two; `between` and `distances` are empty for one."""

    stores: list[StoreReport]
    between: list[Flag]
    distances: list[Distance]


def inspect_stores(store: Path, other: Path | None, picture: Path, json: Path | None = None) -> None:
    """Print what is in a store and what is wrong with it, against another if there is one, and draw it to `picture`.

    `json` gets the same numbers. Files that are there are replaced. Raises UserError if a store cannot be read, or
    `picture` or `json` cannot be written.
    """
    if picture.suffix not in PICTURES:
        raise UserError(f"cannot draw to {picture}: its name must end in {', '.join(PICTURES)}")
    if other is not None and other.resolve() == store.resolve():
        raise UserError(f"{store} and {other} are one store; name another to compare it with, or none")
    stores = [Store(path) for path in (store, other) if path is not None]
    for file in (picture, json):
        if file is not None:
            make_parent(file)
    inspection = inspect([report(one) for one in stores])
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    show(inspection, console)
    _draw(inspection, picture)
    console.print(_plain(f"histograms: {picture}"), soft_wrap=True)
    if json is not None:
        try:
            write_json(json, to_json(inspection))
        except OSError as error:
            raise UserError(f"{json} cannot be written: {error.strerror}") from None


def default_picture(store: Path, other: Path | None) -> Path:
    """Where the picture goes if nothing else is said: into the first store."""
    return store / ("histograms.png" if other is None else f"against-{other.resolve().name}.png")


def report(store: Store) -> StoreReport:
    """Read a store once, from its first jet to its last. Raises UserError if it is damaged."""
    if len(store) == 0:
        raise UserError(f"{store.paths[0]} holds no jets")
    faults, sample = Faults(store), Sample(store)
    for piece in pieces(store):
        faults.add(piece)
        sample.add(piece)
    return StoreReport(store.paths[0], faults, sample, faults.flags(), sample.columns(), sample.quantiles())


def inspect(stores: list[StoreReport]) -> Inspection:
    """One store, or the second against the first."""
    if len(stores) == 1:
        return Inspection(stores, [], [])
    a, b = stores
    return Inspection(stores, flags_between(a.faults, b.faults), distances(a.columns, b.columns))


def show(inspection: Inspection, console: Console) -> None:
    """Print counts, flags and one table; plain text, whatever a store's names hold."""
    for one in inspection.stores:
        _show_store(one, console)
        _show_flags(one.flags, console, f"No flags for {one.path}.")
        console.print()
    if len(inspection.stores) == 1:
        console.print(_quantile_table(inspection.stores[0]))
    else:
        _show_flags(inspection.between, console, "No flags between the two stores.")
        console.print()
        console.print(_distance_table(inspection))
        console.print(_plain(
            "Distance: Wasserstein, in the unit and in spreads (half of the central 68 %) of the first store. By "
            "chance: about what two equal stores of these sizes have, in spreads. KS p: Kolmogorov-Smirnov test, for "
            "columns of jets."), style="dim")  # fmt: skip
    for one in inspection.stores:
        jets, few = one.sample.jets, one.sample.jets_of_constituents
        if few < len(one.store):
            which = "all jets" if jets == len(one.store) else f"{jets:,} random jets"
            text = f"{one.path}: quantiles and distances are of {which}, those of constituents of {few:,} of them."
            console.print(_plain(text), style="dim", soft_wrap=True)


def to_json(inspection: Inspection) -> dict[str, Any]:
    """The numbers of an inspection as JSON can hold them: None for what is not defined, never NaN."""
    found: dict[str, Any] = {"stores": [_store_json(one) for one in inspection.stores]}
    if len(inspection.stores) > 1:
        found["between"] = {
            "flags": [asdict(flag) for flag in inspection.between],
            "distances": [d._asdict() | {"medians": list(d.medians)} for d in inspection.distances],
        }
    return found


def _store_json(one: StoreReport) -> dict[str, Any]:
    return {
        "path": str(one.path),
        "jets": len(one.store),
        "constituents": _constituents(one),
        "jets_sampled": one.sample.jets,
        "jets_sampled_for_constituents": one.sample.jets_of_constituents,
        "labels": {f"{v:g}": jets for v, jets in one.faults.by("label").items()} if _has(one, "label") else None,
        "label_names": {str(value): name for value, name in one.store.label_names.items()},
        "splits": {split_name(v): jets for v, jets in one.faults.by("split").items()} if _has(one, "split") else None,
        "flags": [asdict(flag) for flag in one.flags],
        "columns": {
            name: {_label(one, value): q._asdict() for value, q in by_label.items()}
            for name, by_label in one.quantiles.items()
        },
    }


def _show_store(one: StoreReport, console: Console) -> None:
    head = Text(str(one.path), style="bold")
    console.print(head.append(f": {len(one.store):,} jets, {_constituents(one):,} constituents", style="not bold"))
    source = one.store.metadata[0]["source"]
    facts = {k: v for k, v in source.items() if isinstance(v, str | int | float)}
    if facts:
        console.print(_plain(", ".join(f"{k} {v}" for k, v in facts.items())), style="dim")
    for column, name in (("label", lambda v: label_name(v, one.store.label_names)), ("split", split_name)):
        if _has(one, column):
            shares = list(one.faults.by(column).items())
            told = [f"{name(v)} {jets:,} ({jets / len(one.store):.1%})" for v, jets in shares[:20]]
            rest = f" and {len(shares) - 20} more" if len(shares) > 20 else ""
            console.print(_plain(f"{column}: {', '.join(told)}{rest}"))


def _show_flags(flags: list[Flag], console: Console, none: str) -> None:
    for flag in flags:
        console.print(Text.assemble(("flag: ", "bold yellow"), _plain(flag.text)))
    if not flags:
        console.print(_plain(none), style="green")


def _quantile_table(one: StoreReport) -> Any:
    rows = []
    for name, by_label in one.quantiles.items():
        for value, q in by_label.items():
            numbers = (None if v is None else f"{v:,.4g}" for v in q[1:])
            rows.append((name, _label(one, value), f"{q.jets:,}", *numbers))
    return terminal_table(rows, ("column", "label", "jets", "min", "16 %", "median", "84 %", "max"))


def _distance_table(inspection: Inspection) -> Any:
    rows = []
    for d in inspection.distances:
        p = None if d.ks_p_value is None else (f"{d.ks_p_value:.2g}" if d.ks_p_value > SMALLEST_P else "< 1e-16")
        apart = f"{d.wasserstein:.3g} {d.unit}".strip()
        numbers = (None if v is None else f"{v:.2g}" for v in (d.relative, d.by_chance))
        rows.append((d.column, *(f"{v:,.3g}" for v in d.medians), apart, *numbers, p))
    columns = ("column", "median 1", "median 2", "distance", "spreads", "by chance", "KS p")
    return terminal_table(rows, columns)


def _draw(inspection: Inspection, picture: Path) -> None:
    """Write the picture, whole or not at all."""
    partial = picture.with_name(f".{picture.name}.{os.getpid()}.partial")
    try:
        with warnings.catch_warnings():  # a name may use letters the font lacks
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure = _one_figure(inspection.stores[0]) if len(inspection.stores) == 1 else _two_figure(inspection)
            figure.savefig(partial, dpi=120, facecolor="white", format=picture.suffix[1:])
        os.replace(partial, picture)
    except OSError as error:
        raise UserError(f"{picture} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def _one_figure(one: StoreReport) -> Any:
    label = one.sample.labels()
    groups = list(next(iter(one.quantiles.values())))
    shown = {name: column for name, column in one.columns.items() if column.of_jets and len(column.values)}
    values = {
        name: {_label(one, g): c.values if g is None else c.values[label[c.jet] == g] for g in groups}
        for name, c in list(shown.items())[:MOST_PANELS]
    }
    names = {_label(one, g): None for g in groups}
    return histograms(values, {n: unit_of(n) for n in values}, palette(list(names)))


def _two_figure(inspection: Inspection) -> Any:
    a, b = inspection.stores
    names = _series(a.path, b.path)
    # In the order of the store, and not of the distances: pictures of several pairs can then be laid side by side.
    far = {d.column for d in inspection.distances[:MOST_PANELS]}
    shown = [name for name in a.columns if name in far]
    pair = {name: dict(zip(names, (a.columns[name], b.columns[name]), strict=True)) for name in shown}
    values = {name: {which: c.values for which, c in two.items()} for name, two in pair.items()}
    groups = {name: {which: c.jet for which, c in two.items() if not c.of_jets} for name, two in pair.items()}
    return ratios(values, {n: unit_of(n) for n in shown}, groups=groups)


def _series(a: Path, b: Path) -> tuple[str, str]:
    """Two different names for two stores, as short as can be."""
    mine, others = a.resolve().parts, b.resolve().parts
    for parts in range(1, max(len(mine), len(others)) + 1):
        names = "/".join(mine[-parts:]), "/".join(others[-parts:])
        if names[0] != names[1]:
            break
    return names


def _label(one: StoreReport, value: float | None) -> str:
    if value is None or not _has(one, "label"):
        return "all jets"
    names = one.store.label_names
    name = names.get(int(value)) if math.isfinite(value) else None
    if name is None or list(names.values()).count(name) > 1:  # else two labels would be taken for one
        return f"label {label_name(value, names)}"
    return name


def _has(one: StoreReport, column: str) -> bool:
    return column in one.store.columns


def _constituents(one: StoreReport) -> int:
    return sum(jets * n for n, jets in one.faults.multiplicities.items())


def _plain(text: str) -> Text:
    """Text without markup and control characters, which a store's names may hold."""
    return Text("".join(c if c.isprintable() else " " for c in text))
