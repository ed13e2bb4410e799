"""Everything that a probe can be put on: layers of runs and of untrained encoders, files of embeddings, baselines.

A representation turns jets into tables of numbers, [jets, width] for each of its layers. It says by `identity` what
these depend on, so that results can be kept; and all but embeddings from a file can be asked about changed jets.

Shapes: B jets, N constituents, D width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py
import jax
import numpy as np
from jaxtyping import Float32, Int64

from augmentations.jets import Jets, center
from jetclr import encoder, step
from jetclr.benchmark.jets import Part
from jetclr.benchmark.results import Kind
from jetclr.checkpoint import Which
from jetclr.config import Config, to_dict
from jetclr.data.pipeline import Batch, sequential_batches
from jetclr.data.readers.checks import reading
from jetclr.data.readers.hdf5 import opened
from jetclr.embed import BATCH as ENCODED_AT_ONCE
from jetclr.embed import encode_batches
from jetclr.errors import UserError
from jetclr.run import open_run, parameters_sha256

Change = Callable[[Batch, int], Batch]
"""What is done to a padded batch of jets, of which the first is number so and so of its part, before it is seen."""

SPARE = 64
"""Empty slots that a change may fill; the hardest constituents are seen afterwards."""

ON_JETS = ""
"""The layer of networks that see the constituents themselves."""

BATCH = 1024
"""Jets that a baseline sees at once."""

STRETCH = 1 << 16
"""Rows of a file that are read at once."""

Table = Float32[np.ndarray, "B D"]
Tables = dict[str, Any]
"""Layer -> [B, D]; of networks on constituents, "" -> `probes.taggers.Constituents`."""


@runtime_checkable
class Representation(Protocol):
    """What can be probed."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def layers(self) -> tuple[str, ...]: ...

    @property
    def main(self) -> str:
        """The layer that is probed where only one is."""
        ...

    @property
    def constituents(self) -> int:
        """How many are seen of a jet, the hardest; 0 where jets are not seen."""
        ...

    @property
    def extras(self) -> tuple[str, ...]:
        """Columns of constituents that are seen beside pt, eta and phi."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON values that the numbers depend on, apart from the jets."""
        ...

    @property
    def whole(self) -> bool:
        """Whether jets can be changed before they are seen."""
        ...

    def tables(self, part: Part, layers: Sequence[str], change: Change | None = None) -> Tables:
        """The layers' numbers for every jet of `part`, after `change`."""
        ...


def batches(
    part: Part, size: int, constituents: int, extras: Sequence[str], change: Change | None
) -> Iterator[tuple[Batch, int]]:
    """The jets of a part, changed if asked, in padded batches of `size` rows, and how many are jets."""
    slots = constituents if change is None else constituents + SPARE
    first = 0
    for batch, jets in sequential_batches(part.store, part.indices, size, slots, extras):
        if change is not None:
            batch = _hardest(change(batch, first), constituents)
        first += jets
        yield batch, jets


def _hardest(batch: Batch, constituents: int) -> Batch:
    order = np.argsort(-batch["pt"], axis=1, kind="stable")[:, :constituents]
    return {name: np.take_along_axis(x, order, axis=1) for name, x in batch.items()}


def jets_of(
    part: Part, constituents: int, extras: Sequence[str], change: Change | None = None, *, centred: bool = True
) -> Jets:
    """The jets of a part as padded arrays, about their centroids if `centred`, for networks that see constituents."""
    pieces = []
    for batch, real in batches(part, BATCH, constituents, extras, change):
        jets = step.to_jets(batch)
        seen = center(jets) if centred else jets
        pieces.append(jax.tree.map(lambda x, real=real: np.asarray(x)[:real], seen))
    return jax.tree.map(lambda *x: np.concatenate(x), *pieces)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Layers of a jetclr encoder, trained or with random weights.

    Its kind is "supervised" where only the architecture matters, because a network is trained from nothing.
    """

    name: str
    kind: Kind
    config: Config
    params: encoder.Params
    main: str = "embedding"
    whole: bool = True

    @property
    def constituents(self) -> int:
        return self.config.data.constituents

    @property
    def extras(self) -> tuple[str, ...]:
        return self.config.data.extras

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(encoder.layer_names(self.config.encoder, self.config.head))

    @property
    def identity(self) -> Mapping[str, Any]:
        settings = {name: to_dict(getattr(self.config, name)) for name in ("features", "encoder", "head")}
        seen = {"constituents": self.constituents, "extras": list(self.extras)}
        own = {} if self.kind == "supervised" else {"parameters": parameters_sha256(self.params)}
        return settings | seen | own

    def tables(self, part: Part, layers: Sequence[str], change: Change | None = None) -> Tables:
        if tuple(layers) == (ON_JETS,):
            # Where angles are as they come, they were in pretraining too.
            centred = self.config.features.center
            return {ON_JETS: jets_of(part, self.constituents, self.extras, change, centred=centred)}
        jets = batches(part, ENCODED_AT_ONCE, self.constituents, self.extras, change)
        return _filled(encode_batches(self.config, self.params, jets, layers), len(part.indices))

    def embed(self, jets: Jets) -> Table:
        return self.layers_of(jets, (self.main,))[self.main]

    def layers_of(self, jets: Jets, layers: Sequence[str]) -> Tables:
        """Layers of padded jets [B, N]."""
        columns = {"pt": jets.pt, "eta": jets.eta, "phi": jets.phi, **jets.extras}
        arrays = {name: np.where(jets.mask, x, 0).astype(np.float32) for name, x in columns.items()}
        pieces = encode_batches(self.config, self.params, _pieces(arrays, ENCODED_AT_ONCE), layers)
        return _filled(pieces, len(arrays["pt"]))


@dataclass(frozen=True, eq=False)
class HandBuilt:
    """Features of a jet that are computed from its constituents without learning."""

    name: str
    compute: Callable[..., Table]  # (pt, eta, phi, mask, **extras), each [B, N], about the jet's centroid
    settings: Mapping[str, Any]
    constituents: int
    extras: tuple[str, ...] = ()
    kind: Kind = "baseline"
    layers: tuple[str, ...] = ("features",)
    main: str = "features"
    whole: bool = True

    @property
    def identity(self) -> Mapping[str, Any]:
        seen = {"constituents": self.constituents, "extras": list(self.extras)}
        return {"baseline": self.name, "settings": dict(self.settings)} | seen

    def tables(self, part: Part, layers: Sequence[str], change: Change | None = None) -> Tables:
        jets = batches(part, BATCH, self.constituents, self.extras, change)
        return _filled(({self.main: self._of(batch, real)} for batch, real in jets), len(part.indices))

    def _of(self, batch: Batch, real: int) -> Table:
        """Of the first `real` jets of a padded batch."""
        jets = center(step.to_jets(batch))
        # A jet that a change has left without constituents has zeros for features.
        there = np.flatnonzero(np.asarray(jets.mask)[:real].any(axis=1))
        arrays = (np.asarray(x)[there] for x in (jets.pt, jets.eta, jets.phi, jets.mask))
        extras = {name: np.asarray(jets.extras[name])[there] for name in self.extras}
        try:
            found = np.asarray(self.compute(*arrays, **extras), np.float32)
        except ValueError as error:
            raise UserError(f"{self.name} cannot be computed: {error}") from None
        out = np.zeros((real, found.shape[1]), np.float32)
        out[there] = found
        return out


@dataclass(frozen=True, eq=False)
class OnConstituents:
    """The constituents themselves, for a network of this name that is trained on them."""

    name: str
    constituents: int
    extras: tuple[str, ...] = ()
    kind: Kind = "supervised"
    layers: tuple[str, ...] = (ON_JETS,)
    main: str = ON_JETS
    whole: bool = True

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"constituents": self.constituents}

    def tables(self, part: Part, layers: Sequence[str], change: Change | None = None) -> Tables:
        return {ON_JETS: jets_of(part, self.constituents, (), change)}


@dataclass(frozen=True, eq=False)
class FromFile:
    """Embeddings that anybody made: data sets [jets, width] of an HDF5 file, a row a jet.

    Rows are the training, validation and test jets of the suite, one after the other, as `jetclr embed` writes them
    for these stores. A jet-level column that the stores have too must be there, and is compared.
    """

    name: str
    path: Path
    layers: tuple[str, ...]
    main: str
    rows: Mapping[str, range]  # of each split
    sha256: str
    kind: Kind = "embeddings"
    whole: bool = False
    constituents: int = 0
    extras: tuple[str, ...] = ()

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"file": self.sha256}

    def tables(self, part: Part, layers: Sequence[str], change: Change | None = None) -> Tables:
        if change is not None or part.split not in self.rows:
            raise UserError(f"{self.path} holds embeddings of the suite's jets only")
        rows = self.rows[part.split]
        with opened(self.path) as file, reading(self.path, "HDF5"):
            return {layer: _taken(file[layer], rows, part.indices) for layer in layers}


def open_pair(path: Path, which: Which, name: str) -> tuple[Encoded, Encoded]:
    """A run's encoder and the same encoder untrained; UserError if the run has no checkpoint."""
    run = open_run(path, which)
    untrained = step.init_params(run.config)
    return Encoded(name, "run", run.config, run.params), Encoded(
        f"{name} untrained", "untrained", run.config, untrained
    )


def _pieces(arrays: Batch, size: int) -> Iterator[tuple[Batch, int]]:
    """Padded arrays in batches of `size` rows, the last one filled up with empty jets."""
    jets = len(arrays["pt"])
    for start in range(0, jets, size):
        part = {name: x[start : start + size] for name, x in arrays.items()}
        real = len(part["pt"])
        yield {name: np.pad(x, ((0, size - real), (0, 0))) for name, x in part.items()}, real


def _taken(stored: h5py.Dataset, rows: range, wanted: Int64[np.ndarray, " B"]) -> Table:
    """Of consecutive rows of a data set the wanted ones, without holding the others: they may be many more."""
    out = np.empty((len(wanted), stored.shape[1]), np.float32)
    for start in range(0, len(rows), STRETCH):
        piece = stored[rows.start + start : min(rows.start + start + STRETCH, rows.stop)]
        mine = (wanted >= start) & (wanted < start + STRETCH)
        out[mine] = piece[wanted[mine] - start]
    return out


def _filled(pieces: Iterator[Tables], jets: int) -> Tables:
    """The pieces of each layer one after the other, written straight into tables of `jets` rows."""
    out: Tables = {}
    start = 0
    for piece in pieces:
        for layer, values in piece.items():
            if layer not in out:
                out[layer] = np.empty((jets, values.shape[1]), np.float32)
            out[layer][start : start + len(values)] = values
        start += len(next(iter(piece.values())))
    return out
