"""`jetclr join`: the parts that shards wrote -> what would have been written at once; and stores -> one store.

Parts are copied block by block through the writers that made them. What a part says of itself decides its place, and
whether it belongs to the others.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jetclr import __version__
from jetclr.data.columns import FORMATS, SHARD, WHOLE, describe, new_file, read_batches, refuse_output, settings_of
from jetclr.data.generate import joined_metadata, shared_settings
from jetclr.data.shard import Shard
from jetclr.data.sinks.format import Described
from jetclr.data.store import Store, StoreWriter, refuse_existing
from jetclr.data.units import first_difference
from jetclr.errors import UserError
from jetclr.progress import jet_progress

DAMAGED = (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, UserError)


def join(paths: Sequence[Path], out: Path) -> int:
    """Join stores, or files of embeddings, into a new one at `out`; returns the number of jets.

    Parts made with `--shard` are put in order and give what would have been written without; stores made otherwise
    are joined as they are named. In bounded memory. Raises UserError, naming it, for a part that is missing, doubled,
    damaged or of another work, and for an existing `out`; then nothing is left at `out`.
    """
    refuse_existing(out)
    for path in paths:
        if not path.exists():
            raise UserError(f"there is nothing at {path}")
        if path.is_dir() != paths[0].is_dir():
            raise UserError(f"{paths[0]} and {path} cannot be joined: one is a folder, the other a file")
    return _join_stores(paths, out) if paths[0].is_dir() else _join_files(paths, out)


@dataclass(frozen=True)
class _Part:
    """What a shard wrote: the jets in it, and `whole`, all that it must share with the other parts.

    `whole` has at least "jets", those of all parts together, and "unit_jets". Raises what is in DAMAGED.
    """

    path: Path
    shard: Shard
    jets: int
    whole: dict[str, Any]

    def __post_init__(self) -> None:
        if self.whole["unit_jets"] < 1:
            raise ValueError(f"units of {self.whole['unit_jets']} jets")
        expected = len(self.jets_of(self.shard))
        if self.jets != expected:
            raise ValueError(f"{self.jets:,} jets where {expected:,} belong")

    def jets_of(self, shard: Shard) -> range:
        """The jets that belong to a shard of the same work."""
        return shard.jets(self.whole["jets"], self.whole["unit_jets"])


def _in_order(parts: Sequence[_Part]) -> list[Path]:
    """Where the parts are, in the order of their jets; raises UserError unless they are one work, each part once."""
    one, count = parts[0], parts[0].shard.count
    found: dict[int, Path] = {}
    for part in parts:
        _refuse_difference(part.path, part.whole, one.path, one.whole)
        if part.shard.count != count:
            raise UserError(f"{part.path} is part {part.shard}, and {one.path} is part {one.shard}: they do not fit")
        if part.shard.index in found:
            raise UserError(f"{found[part.shard.index]} and {part.path} are both part {part.shard}; name one of them")
        found[part.shard.index] = part.path
    missing = [str(s) for s in (Shard(i, count) for i in range(count)) if s.index not in found and one.jets_of(s)]
    if missing:
        raise UserError(
            f"missing beside {one.path}: part {', part '.join(missing)}; name it, or make it with --shard and the "
            "same settings"
        )
    return [found[index] for index in sorted(found)]


def _refuse_difference(path: Path, its: dict[str, Any], other: Path, others: dict[str, Any]) -> None:
    if difference := first_difference(its, others):
        name, mine, known = difference
        raise UserError(f"{path} does not belong to {other}: it has {name} = {mine}, not {known}")


class _Opened(NamedTuple):
    """What is known of a store: its metadata, jets, and the types of its columns."""

    path: Path
    source: dict[str, Any]
    jets: int
    constituents: dict[str, str]
    columns: dict[str, str]


def _open(path: Path) -> _Opened:
    store = Store(path)
    first = store.blocks[0]
    types = [{name: str(x.dtype) for name, x in columns.items()} for columns in (first.constituents, first.jets)]
    return _Opened(path, store.metadata[0]["source"], len(store), *types)


def _join_stores(paths: Sequence[Path], out: Path) -> int:
    stores = [_open(path) for path in paths]  # one at a time, as each holds its files open
    one = stores[0]
    if any("shard" in store.source for store in stores):
        order = _in_order([_store_part(store) for store in stores])
        source = {store.path: store.source for store in stores}
        metadata = joined_metadata([source[path] for path in order], out)
    else:
        order = [store.path for store in stores]
        metadata = _independent_metadata(stores)
    for store in stores:
        _refuse_difference(
            store.path, {"constituents": store.constituents} | store.columns,
            one.path, {"constituents": one.constituents} | one.columns,
        )  # fmt: skip
    total = sum(store.jets for store in stores)
    # Column `source` counts the source files of its own store; together they are counted through.
    files = [len(store.source.get("sources", ())) for store in stores]
    shifts = {store.path: sum(files[:i]) for i, store in enumerate(stores)}
    with StoreWriter(out, metadata) as writer, jet_progress("joining", total) as advance:
        for path in order:
            first, shift = writer.jets, shifts[path]
            for chunk in Store(path).chunks():
                copied = chunk._replace(  # a view that waits for its block to fill would keep its file open
                    constituents={name: chunk.constituents[name].copy() for name in one.constituents},
                    jets={name: chunk.jets[name].copy() for name in one.columns},
                )
                if "source" in copied.jets:
                    copied.jets["source"][:] += shift
                writer.append(copied, source=str(path), first_jet=writer.jets - first)
                advance(len(chunk.offsets) - 1)
    return total


def _store_part(store: _Opened) -> _Part:
    if "shard" not in store.source:
        raise UserError(f"{store.path} was not made with --shard, as others were; join those first")
    try:
        part = _Part(store.path, Shard.parse(store.source["shard"]), store.jets, shared_settings(store.source))
        units = part.jets_of(part.shard)[:: part.whole["unit_jets"]]
        if len(units) != len(store.source["unit_counts"]["tried"]):
            raise ValueError("unit_counts")
    except DAMAGED as error:
        raise UserError(f"{store.path} does not say rightly which part it is ({error}); make it again") from None
    return part


def _independent_metadata(stores: Sequence[_Opened]) -> dict[str, Any]:
    """Where the jets come from, and what their labels mean; raises UserError where the stores disagree on that."""
    labels: dict[int, tuple[str, Path]] = {}
    seen: set[Path] = set()
    for path, source, *_ in stores:
        if path.resolve() in seen:
            raise UserError(f"{path} is named twice; name it once")
        seen.add(path.resolve())
        for value, name in source.get("labels", {}).items():
            known, where = labels.setdefault(int(value), (name, path))
            if known != name:
                raise UserError(f"label {value} is {known!r} in {where} and {name!r} in {path}, so they stay apart")
    sources = [file for store in stores for file in store.source.get("sources", ())]
    return {
        "made_by": f"jetclr {__version__} join",
        "labels": {str(value): name for value, (name, _) in sorted(labels.items())},
        **({"sources": sources} if sources else {}),
        "joined": [{"store": store.path.name, "jets": store.jets, "source": store.source} for store in stores],
    }


def _join_files(paths: Sequence[Path], out: Path) -> int:
    refuse_output(out)
    for path in paths:
        if FORMATS.get(path.suffix) is not FORMATS[out.suffix]:
            raise UserError(f"{path} and {out} are not of one format; parts are joined in the format they have")
    files = [(path, describe(path)) for path in paths]
    order = _in_order([_file_part(path, described) for path, described in files])
    attributes = files[0][1].attributes
    whole = json.loads(attributes[WHOLE])
    unsharded = {name: value for name, value in attributes.items() if name not in (SHARD, WHOLE)}
    with (
        new_file(out, unsharded, whole["unit_jets"]) as sink,
        jet_progress("joining", whole["jets"]) as advance,
    ):
        for path in order:
            for batch in read_batches(path, whole["columns"], whole["unit_jets"]):
                sink.append(batch)
                advance(len(batch[whole["columns"][0]]))
    return int(whole["jets"])


def _file_part(path: Path, described: Described) -> _Part:
    attributes: Mapping[str, str] = described.attributes
    if SHARD not in attributes:
        raise UserError(f"{path} was not made by `jetclr embed --shard`; only its parts are joined")
    try:
        whole = json.loads(attributes[WHOLE])
        if not whole["columns"] or sorted(whole["columns"]) != sorted(described.columns):
            raise ValueError(f"it holds {', '.join(described.columns)}")
        shared = settings_of(attributes) | whole | {"type": described.columns}
        return _Part(path, Shard.parse(attributes[SHARD]), described.jets, shared)
    except DAMAGED as error:
        raise UserError(f"{path} does not say rightly which part it is ({error}); make it again") from None
