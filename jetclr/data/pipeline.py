"""Stores -> shuffled, padded batches, through Grain: sharded by process, prefetched, resumable at any step. Numpy only.

Grain's element is a whole batch: item i of `BatchSource` is the i-th batch of a seeded permutation that never ends.
The permutation is over windows of blocks: each epoch shuffles the blocks, cuts them into windows of `window_blocks`,
and shuffles all jets of a window together. A store that fits in one window (262,144 jets) is shuffled globally; a
larger one is read from the disk in long stretches, each window's blocks asked for while the one before is used up.
Two windows should fit in memory. Measured: batches of 1,024 jets of 50 constituents from a store of 7.8 million jets
(6 GiB), process and page cache held to 1 GiB together: 1.3 ms in the median, 1.9 ms on average, 525,000 jets/s; with
windows of 64 blocks, which did not fit, the disk was read a thousand times over.

Jets may be selected and weighted (`sampling`): an epoch then draws each as often as its weight says. A batch is a tuple
of pieces, one or, with `buckets`, several that are padded to different lengths.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Float32, Int64

from jetclr.data.buckets import Layout, choose_layout, fits, multiplicities
from jetclr.data.pieces import is_number
from jetclr.data.sampling import EACH_JET_ONCE, Draws, EachOnce, Sampling, jet_weights
from jetclr.data.store import Store
from jetclr.errors import UserError

Batch = dict[str, Float32[np.ndarray, "_ *_"]]
"""One piece of a batch, padded: column name -> [B, N], and with labels "label" -> [B].

Pieces differ in both, so these names are not bound here."""

Rows = Callable[[int], Int64[np.ndarray, " rows"]]
"""Of a piece of so many jets, the rows that this process reads."""

# Batches at the start of a run, by whose multiplicities the lengths of pieces are chosen.
LAYOUT_BATCHES = 64


@dataclass(frozen=True)
class Slice:
    """Which jets of a store: of each block the share [start, stop), so that every part sees every region of it."""

    start: float = 0.0
    stop: float = 1.0

    def rows(
        self, jets: Int64[np.ndarray, " blocks"]
    ) -> tuple[Int64[np.ndarray, " blocks"], Int64[np.ndarray, " blocks"]]:
        """First row and number of rows taken of blocks with `jets` jets."""
        first = np.round(jets * self.start).astype(np.int64)
        return first, np.round(jets * self.stop).astype(np.int64) - first

    def indices(self, store: Store) -> Int64[np.ndarray, " jets"]:
        """The jets' indices in the store, ascending."""
        first, count = self.rows(np.diff(store.starts))
        pieces = [np.arange(s + f, s + f + c) for s, f, c in zip(store.starts[:-1], first, count, strict=True)]
        return np.concatenate(pieces)


class _Epoch(NamedTuple):
    order: np.ndarray  # blocks in the order they are visited
    ends: np.ndarray  # draws up to the end of each window
    offset: float  # of the systematic draws


class BatchSource:
    """Random access to the batches of a run, for Grain: a pure function of (seed, item).

    `batch` jets of up to `constituents` constituents, padded to `slots`, over all processes; of each piece this one
    reads only `rows` (None: all), so the batches are the same for any number of processes. `extras` are constituent
    columns that are read beside pt, eta and phi; with `label` the jets' column "label" is too. With `buckets`, rising
    lengths below `constituents`, jets of a batch are in rising order of multiplicity and `layout` has several
    pieces. Raises UserError if stores lack a column, if there are fewer jets than one batch needs, and for whatever
    `jet_weights` finds wrong.
    """

    def __init__(
        self,
        store: Store,
        *,
        batch: int,
        constituents: int,
        seed: int,
        steps: int,
        slots: int = 0,
        extras: tuple[str, ...] = (),
        part: Slice = Slice(),
        sampling: Sampling = EACH_JET_ONCE,
        window_blocks: int = 16,
        buckets: tuple[int, ...] = (),
        rows: Rows | None = None,
        label: bool = False,
    ) -> None:
        check_extras(store, extras)
        if label:
            check_label(store)
        self.store, self._batch, self._extras, self._label = store, batch, extras, label
        self._constituents, self._room = constituents, max(slots - constituents, 0)
        self._seed, self._steps, self._window_blocks = seed, steps, window_blocks
        first, count = part.rows(np.diff(store.starts))
        self._draws: Draws | EachOnce = EachOnce(store.starts, first, count)
        if sampling != EACH_JET_ONCE:
            self._draws = Draws(store.starts, jet_weights(store, sampling, first, count))
        self._per_epoch = self._draws.jets // batch
        if self._per_epoch == 0:
            raise UserError(f"{store} leaves {self._draws.jets:,} jets to train on, fewer than one batch of {batch}")
        self._rows: Rows = np.arange if rows is None else rows
        # Of this source, not of the class: several sources live at once, and each forgets its windows with itself.
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._window = lru_cache(maxsize=3)(self._make_window)
        self.full: Layout = ((batch, constituents + self._room),)
        """Of a batch that does not fit into `layout`: one piece, padded in full."""
        self.layout = self._choose_layout(buckets) if buckets else self.full
        """(jets, slots) of the pieces of nearly every batch."""

    @property
    def jets(self) -> int:
        """How many jets are drawn in an epoch."""
        return self._draws.jets

    def __len__(self) -> int:
        return self._steps

    def __repr__(self) -> str:
        return f"BatchSource({self.store}, batch={self._batch}, seed={self._seed})"

    def __getitem__(self, item: int) -> tuple[Batch, ...]:
        jets, layout = self.arranged(int(item))
        ends = np.cumsum([n for n, _ in layout])
        rows = [self._rows(n) for n, _ in layout]
        mine = np.concatenate([jets[end - n :][r] for end, (n, _), r in zip(ends, layout, rows, strict=True)])
        read = self.store.gather(mine, self._constituents, self._extras)
        cuts = np.cumsum([len(r) for r in rows])[:-1]
        parts = {name: np.split(x, cuts) for name, x in read.items()}
        pieces: list[Batch] = [
            {name: _padded(values[piece], slots) for name, values in parts.items()}
            for piece, (_, slots) in enumerate(layout)
        ]
        if self._label:
            label = _labels(self.store, mine)
            pieces = [piece | {"label": x} for piece, x in zip(pieces, np.split(label, cuts), strict=True)]
        return tuple(pieces)

    def arranged(self, item: int) -> tuple[Int64[np.ndarray, " batch"], Layout]:
        """Indices in the store of the jets of the whole batch `item` in the order of its pieces, and its layout."""
        jets = self.indices(item)
        if self.layout == self.full:
            return jets, self.full
        counts = multiplicities(self.store, jets, self._constituents)
        order = np.argsort(counts, kind="stable")
        room = self._room
        short = tuple((n, slots - room) for n, slots in self.layout)
        return jets[order], self.layout if fits(counts[order], short) else self.full

    def _choose_layout(self, buckets: tuple[int, ...]) -> Layout:
        drawn = [multiplicities(self.store, self.indices(i), self._constituents) for i in range(LAYOUT_BATCHES)]
        chosen = choose_layout(np.stack(drawn), (*buckets, self._constituents))
        return tuple((jets, length + self._room) for jets, length in chosen)

    def indices(self, item: int) -> Int64[np.ndarray, " batch"]:
        """Indices in the store of the jets of the whole batch `item`."""
        epoch, within = divmod(item, self._per_epoch)
        ends = self._epoch(epoch).ends
        start, stop = within * self._batch, (within + 1) * self._batch
        pieces = []
        for window in range(int(np.searchsorted(ends, start, side="right")), len(ends)):
            begin = int(ends[window - 1]) if window else 0
            if begin >= stop:
                break
            low, high = max(start - begin, 0), min(stop, int(ends[window])) - begin
            if high > low:
                pieces.append(self._window(epoch, window)[low:high])
                self._read_ahead(epoch, window, low, high, int(ends[window]) - begin)
        return np.concatenate(pieces)

    def _make_epoch(self, epoch: int) -> _Epoch:
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self.store.blocks))
        offset = self._draws.offset(rng)
        ends = np.cumsum(self._draws.per_block(offset)[order])
        last = np.arange(self._window_blocks - 1, len(order) - 1, self._window_blocks)
        return _Epoch(order, np.append(ends[last], ends[-1]), offset)

    def _blocks(self, epoch: int, window: int) -> np.ndarray:
        return self._epoch(epoch).order[window * self._window_blocks : (window + 1) * self._window_blocks]

    def _make_window(self, epoch: int, window: int) -> Int64[np.ndarray, " jets"]:
        rng = np.random.default_rng([self._seed, epoch, window])
        offset = self._epoch(epoch).offset
        blocks = self._blocks(epoch, window).tolist()
        return rng.permutation(np.concatenate([self._draws.in_block(block, offset) for block in blocks]))

    def _read_ahead(self, epoch: int, window: int, low: int, high: int, size: int) -> None:
        """Ask for as large a share of the next window's blocks as this batch uses up of the present one's."""
        if len(self._epoch(epoch).ends) == 1:
            return  # one window holds the store: it is in memory after the first epoch
        epoch, window = (epoch, window + 1) if window + 1 < len(self._epoch(epoch).ends) else (epoch + 1, 0)
        blocks = self._blocks(epoch, window)
        for block in blocks[len(blocks) * low // size : len(blocks) * high // size]:
            self.store.will_need(int(block))


def check_extras(store: Store, extras: Sequence[str]) -> None:
    """Raise UserError if a store has not all of the constituent columns `extras`, as numbers; it is named."""
    for block in store.blocks:
        if missing := [name for name in extras if name not in block.constituents]:
            raise UserError(
                f"{block.path.parent} has no constituent column {missing[0]!r} (data.extras); it has "
                f"{', '.join(block.constituents)}"
            )
        if odd := [name for name in extras if not is_number(block.constituents[name])]:
            raise UserError(f"the constituent column {odd[0]!r} (data.extras) of {block.path.parent} holds no numbers")


def check_label(store: Store) -> None:
    """Raise UserError if a store has no jet column "label" of numbers; it is named."""
    for block in store.blocks:
        if "label" not in block.jets:
            raise UserError(
                f"{block.path.parent} has no column 'label', by which the objective compares jets; its columns are "
                f"{', '.join(block.jets)}. Give stores with labels, or an objective without"
            )
        if not is_number(block.jets["label"]):
            raise UserError(f"the column 'label' of {block.path.parent} holds no numbers")


def _labels(store: Store, indices: Int64[np.ndarray, " B"]) -> Float32[np.ndarray, " B"]:
    """The labels of the jets `indices`, of whatever blocks."""
    block_of = np.searchsorted(store.starts, indices, side="right") - 1
    found = np.empty(len(indices), np.float32)
    for block in np.unique(block_of):
        store.blocks[block].check()
        mine = block_of == block
        found[mine] = store.blocks[block].jets["label"][indices[mine] - store.starts[block]]
    return found


def _padded(values: Float32[np.ndarray, "B N"], slots: int) -> Float32[np.ndarray, "B S"]:
    """Jets with `slots` slots: more, or fewer where the others are empty."""
    if slots <= values.shape[1]:
        return np.ascontiguousarray(values[:, :slots])
    return np.pad(values, ((0, 0), (0, slots - values.shape[1])))


def training_batches(
    source: BatchSource, start: int = 0, *, prefetch: int = 4
) -> grain.DatasetIterator[tuple[Batch, ...]]:
    """Grain's iterator over the batches of a run from number `start` on, read ahead in a thread.

    Batch i is a function of (seed, i) alone, so the position of a run in its data is its step: nothing else needs to
    be saved to go on exactly, on any number of processes.
    """
    dataset = grain.MapDataset.source(source).slice(slice(start, None))
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch)))


def sequential_batches(
    store: Store, indices: Int64[np.ndarray, " jets"], batch: int, constituents: int, extras: Sequence[str] = ()
) -> Iterator[tuple[Batch, int]]:
    """The jets `indices` in order, as (batch, jets in it); the last batch is filled up with empty jets."""
    for start in range(0, len(indices), batch):
        rows = indices[start : start + batch]
        jets = store.gather(rows, constituents, extras)
        yield {k: np.pad(v, ((0, batch - len(rows)), (0, 0))) for k, v in jets.items()}, len(rows)
