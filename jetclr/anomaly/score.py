"""`jetclr score`: a fitted head's score of every jet of stores, or of every row of a file of embeddings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jetclr.anomaly.saved import PIECE, SavedHead, describe, open_head, scores_of, stream_scores
from jetclr.data.columns import new_file, refuse_output
from jetclr.data.readers.checks import reading
from jetclr.data.readers.hdf5 import dataset, find, opened
from jetclr.data.store import Store
from jetclr.errors import UserError
from jetclr.progress import jet_progress

SCORE = "score"


def score_files(head_path: Path, inputs: Sequence[Path], out: Path) -> int:
    """Write the score of each jet beside all its columns of numbers to `out`, in the format of its ending.

    `inputs` are stores, or for a head fitted on a file of embeddings one such HDF5 file. Returns the number of jets.
    Raises UserError, and leaves nothing, for a head or an input that will not do.
    """
    refuse_output(out)
    head = open_head(head_path)
    if head.seen is None:
        if len(inputs) != 1 or not inputs[0].is_file():
            raise UserError(f"{head_path} was fitted on embeddings; give one HDF5 file of embeddings to score")
        return _score_embeddings(head, inputs[0], out)
    store = Store(*inputs)
    if SCORE in store.columns:
        raise UserError(f"{store} has a column {SCORE!r} already")
    with new_file(out, {"jetclr_head": describe(head)}, PIECE) as sink, jet_progress("scoring", len(store)) as advance:
        for rows, scores in stream_scores(head, store):
            sink.append({SCORE: scores} | {name: store.column(name, rows.start, rows.stop) for name in store.columns})
            advance(len(rows))
    return len(store)


def _score_embeddings(head: SavedHead, path: Path, out: Path) -> int:
    with opened(path) as file, reading(path, "HDF5"):
        table = dataset(file, path, head.layer, "embeddings")
        if table.ndim != 2 or not len(table):
            raise UserError(f"{head.layer!r} of {path} is no table of embeddings [jets, width]")
        jets = len(table)
        names = [k for k in file if (item := find(file, path, k)) is not None and item.ndim == 1 and len(item) == jets]
        if SCORE in names:
            raise UserError(f"{path} has a column {SCORE!r} already")
        columns = {k: dataset(file, path, k, "embeddings") for k in names}
        with new_file(out, {"jetclr_head": describe(head)}, PIECE) as sink, jet_progress("scoring", jets) as advance:
            for start in range(0, jets, PIECE):
                rows = slice(start, min(start + PIECE, jets))
                where = f"rows {rows.start} to {rows.stop - 1} of {path}"
                scores = scores_of(head.detector, np.asarray(table[rows], np.float32), where)
                sink.append({SCORE: scores} | {k: x[rows] for k, x in columns.items() if x.dtype.kind in "fiub"})
                advance(rows.stop - rows.start)
    return jets
