"""What the readers of HDF5 files share: opening them, and trusting nothing that a file claims before it is checked.

libhdf5 reads what is not there as zeros, allocates as much as a file asks for and follows links into other files;
h5py raises exceptions of any kind on a damaged file. Here all of this becomes one sentence.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers Blosc, Zstandard and others: pandas and PyTables write Blosc)
import numpy as np
from jaxtyping import Bool, Float64, Int64, Num

from jetclr.data.readers.checks import existing_file, reading
from jetclr.errors import UserError

ROWS = 4096  # of a chunk of jets
LARGEST_ROW = 1 << 20  # bytes; the widest public layout has 17 kB
LARGEST_CHUNK = 1 << 26  # bytes: libhdf5 unpacks the chunks of a file as a whole


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading; raises UserError if there is none or it is no HDF5 file."""
    with reading(path, "HDF5"):
        existing_file(path)
        # Nothing is written, and some network file systems have no locks.
        file = h5py.File(path, "r", locking=False, rdcc_nbytes=LARGEST_CHUNK)
    try:
        yield file
    finally:
        with reading(path, "HDF5"):
            file.close()


def find(file: h5py.File, path: Path, name: str) -> h5py.Dataset | None:
    """The data set `name`, None if there is none; raises UserError for links, which could lead out of the file."""
    node = file
    with reading(path, "HDF5"):
        for part in name.split("/"):
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise UserError(f"{name!r} of {path} is a link to another place, which is not followed")
            node = node[part]
    return node if isinstance(node, h5py.Dataset) else None


def dataset(file: h5py.File, path: Path, name: str, format: str) -> h5py.Dataset:
    """The data set `name`, all of whose rows are in the file.

    Raises UserError if there is none, if it lies in other files, if rows or chunks are too large to be data of jets, or
    if the file holds less than it claims.
    """
    found = find(file, path, name)
    with reading(path, "HDF5"):
        if found is None:
            held = sorted(str(held)[:40] for held in islice(file, 20))  # bytes where a name is no text
            raise UserError(f"{path} has no {name!r}, so it is not in the {format} layout; it holds {held}")
        if found.is_virtual or found.external:
            raise UserError(f"{name!r} of {path} lies in other files, which are not read; copy it into one file")
        if not found.shape:
            raise UserError(f"{name!r} of {path} has no rows")
        if found.dtype.hasobject:
            raise UserError(f"{name!r} of {path} should hold numbers and holds {found.dtype}")
        _refuse_large(found, path, name)
        _refuse_incomplete(found, path, name)
    return found


def _refuse_large(found: h5py.Dataset, path: Path, name: str) -> None:
    row = found.dtype.itemsize * math.prod(found.shape[1:])
    chunk = found.dtype.itemsize * math.prod(found.chunks or ())
    if row > LARGEST_ROW or chunk > LARGEST_CHUNK:
        raise UserError(
            f"{name!r} of {path} has rows of {row:,} bytes in chunks of {chunk:,}; at most {LARGEST_ROW:,} "
            f"and {LARGEST_CHUNK:,} are read: the file is damaged, or should be written in smaller chunks"
        )


def _refuse_incomplete(found: h5py.Dataset, path: Path, name: str) -> None:
    if found.chunks:
        whole = _chunks_are_whole(found, path.stat().st_size)
    else:
        whole = found.id.get_storage_size() == found.dtype.itemsize * math.prod(found.shape)
    if not whole:
        raise UserError(
            f"{path} is incomplete or damaged: {name!r} claims {found.shape[0]:,} rows, and not all are there as they "
            "should be; fetch the file again"
        )


def _chunks_are_whole(found: h5py.Dataset, file_bytes: int) -> bool:
    """Whether every chunk is within the file, and not so large that it would unpack to more than it should.

    libhdf5 gives zeros for chunks that are absent, and unpacks whatever a chunk holds before it looks at the size.
    """
    expected = math.prod(-(-n // c) for n, c in zip(found.shape, found.chunks, strict=True))
    unpacked = found.dtype.itemsize * math.prod(found.chunks)
    most = unpacked + unpacked // 8 + 4096  # what cannot be compressed grows a little
    seen = 0

    def look(chunk: h5py.h5d.StoreInfo) -> bool | None:
        nonlocal seen
        seen += 1
        sound = chunk.size <= most and (chunk.byte_offset or file_bytes) + chunk.size <= file_bytes
        return None if sound and seen <= expected else False  # False ends the iteration

    return found.id.chunk_iter(look) is None and seen == expected


def numbers(
    file: h5py.File, path: Path, name: str, format: str, columns: Sequence[tuple[int | None, ...]], kinds: str = "f"
) -> h5py.Dataset:
    """The data set `name` of numbers, shaped [N, *columns] for one of `columns` (None: any number).

    `kinds` are those of numpy: f for floating point, i and u for integers. Raises UserError for any other, and as
    `dataset` does.
    """
    found = dataset(file, path, name, format)

    def fits(shape: tuple[int | None, ...]) -> bool:
        return len(shape) == found.ndim - 1 and all(w in (None, n) for w, n in zip(shape, found.shape[1:], strict=True))

    if found.dtype.kind not in kinds or not any(fits(shape) for shape in columns):
        wanted = " or ".join(f"[{', '.join(['N', *('M' if n is None else str(n) for n in s)])}]" for s in columns)
        raise UserError(
            f"{path} is not in the {format} layout: {name!r} should be numbers of shape {wanted} "
            f"and is {found.dtype} of shape {list(found.shape)}"
        )
    return found


def same_rows(path: Path, datasets: Mapping[str, h5py.Dataset]) -> int:
    """The number of rows that all have; raises UserError if they disagree."""
    rows = {name: len(found) for name, found in datasets.items()}
    if len(set(rows.values())) > 1:
        raise UserError(f"the data sets of {path} have different numbers of rows: {rows}")
    return next(iter(rows.values()))


def batches(
    path: Path, datasets: Mapping[str, h5py.Dataset], start: int, stop: int, rows: int = ROWS
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Rows start:stop (or to the end) of all data sets, up to `rows` at a time, with the number of the first.

    The file is read along its own chunks, so that each is unpacked once; rows that are wide come fewer at a time.
    """
    stop = min(stop, same_rows(path, datasets))
    width = max(sum(found.dtype.itemsize * math.prod(found.shape[1:]) for found in datasets.values()), 1)
    rows = max(min(rows, LARGEST_CHUNK // width), 1)
    chunk = max(found.chunks[0] if found.chunks else 1 for found in datasets.values())
    step = rows // chunk * chunk if chunk <= rows else max(min(chunk, LARGEST_CHUNK // width), 1)
    first = start
    while first < stop:
        last = min(first - first % step + step, stop)
        with reading(path, "HDF5"):
            pieces = {name: found[first:last] for name, found in datasets.items()}
        for low in range(0, last - first, rows):
            yield first + low, {name: values[low : low + rows] for name, values in pieces.items()}
        first = last


def offsets(real: Bool[np.ndarray, "J N"]) -> Int64[np.ndarray, " J+1"]:
    """Where the constituents of each padded jet start once only the real ones are kept."""
    return np.concatenate([[0], np.cumsum(np.count_nonzero(real, axis=1))]).astype(np.int64)


def double(values: Num[np.ndarray, "*any"]) -> Float64[np.ndarray, "*any"]:
    """In double precision; a NaN stays one, without the warning that numpy has for some of them."""
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64, order="C")
