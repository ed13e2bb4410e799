"""NumPy arrays on disk, alone (.npy) or in an archive (.npz), read in order and a few rows at a time.

An array in an archive is compressed as a whole: its rows are inflated one after the other and never held together.
What a header claims is compared with the bytes that are there before anything is read; objects (pickles) are refused.
"""

import io
import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from jetclr.data.readers.checks import existing_file, printable, reading
from jetclr.errors import UserError

MAGIC = b"\x93NUMPY"
KIND = "NumPy arrays"
HEADER_BYTES = 10_000  # NumPy's own limit to a header that it trusts
PIECE_BYTES = 16 << 20
MAX_ARRAYS = 1_000


@runtime_checkable
class Bytes(Protocol):
    """An open file, or a member of an archive."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...


class Array(NamedTuple):
    """An array that has been found and not been read: the header of it, and the open file that yields its bytes."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool  # columns first
    begin: int  # first byte of the numbers
    file: Bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one row along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@contextmanager
def arrays(path: Path) -> Iterator[dict[str, Array]]:
    """The arrays of a .npz file by name, or the one of a .npy file, named "array"; open as long as the block lasts.

    Raises UserError for what is neither, and for arrays of another length than they claim.
    """
    with ExitStack() as stack:
        with reading(existing_file(path), KIND):
            file = stack.enter_context(path.open("rb"))
            if file.read(len(MAGIC)) == MAGIC:
                file.seek(0)
                found = {"array": _array(path, "array", file, path.stat().st_size)}
            else:
                found = _members(path, stack.enter_context(zipfile.ZipFile(file)), stack)
        yield found


def described(found: dict[str, Array]) -> str:
    """Names, types and shapes of arrays, in words."""
    each = (f"{name} {array.dtype} {list(array.shape)}" for name, array in found.items())
    return printable(", ".join(each)) or "no arrays"


def _members(path: Path, archive: zipfile.ZipFile, stack: ExitStack) -> dict[str, Array]:
    members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
    if len(members) > MAX_ARRAYS:
        raise UserError(f"{path} holds {len(members):,} arrays; more than {MAX_ARRAYS:,} are no file of jets")
    found = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        found[name] = _array(path, name, stack.enter_context(archive.open(member)), member.file_size)
    return found


def _array(path: Path, name: str, file: Bytes, size: int) -> Array:
    head = io.BytesIO(file.read(HEADER_BYTES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        version = np.lib.format.read_magic(head)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name!r} is in version {version} of the .npy format")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(head)
    array = Array(path, name, tuple(shape), dtype, fortran and len(shape) > 1, head.tell(), file)
    whole = dtype.hasobject or math.prod(shape) * dtype.itemsize + head.tell() == size  # of a pickle nothing is known
    if not whole or any(length < 0 for length in shape):
        raise ValueError(f"{name!r} claims shape {list(shape)} of {dtype} and has {size:,} bytes with its header")
    return array


def readable(array: Array) -> Array:
    """The array itself; raises UserError for Python objects, Fortran order and rows that are empty or are no jet's."""
    if array.dtype.hasobject:
        raise UserError(
            f"{array.name!r} of {array.path} holds Python objects, which are never read; save it as numbers"
        )
    if array.fortran:
        raise UserError(f"{array.name!r} of {array.path} is in Fortran order; save np.ascontiguousarray of it")
    if not 0 < array.row_bytes <= PIECE_BYTES:
        raise UserError(f"{array.name!r} of {array.path}, {list(array.shape)}, has rows of {array.row_bytes:,} bytes")
    return array


def read_rows(array: Array, start: int, stop: int, step: int) -> Iterator[Shaped[np.ndarray, "..."]]:
    """Rows start:stop of a `readable` array, `step` at a time; for two arrays at once, zip two of these.

    Raises UserError where the file ends early or cannot be inflated.
    """
    for first in range(start, stop, step):
        rows = min(step, stop - first)
        with reading(array.path, KIND):
            if first == start:
                array.file.seek(array.begin + start * array.row_bytes)
            content = array.file.read(rows * array.row_bytes)
            if len(content) != rows * array.row_bytes:
                raise ValueError(f"{array.name!r} ends before row {first + rows}")
        yield np.frombuffer(content, array.dtype).reshape(rows, *array.shape[1:])


def step_for(array: Array, rows: int) -> int:
    """How many rows, at most `rows`, are a piece of bounded size."""
    return max(min(rows, PIECE_BYTES // array.row_bytes), 1)
