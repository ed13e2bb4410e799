"""Which of the public formats a file is in, told by its content."""

from itertools import islice
from pathlib import Path

import h5py

from jetclr.data.readers import lists, npy, reader
from jetclr.data.readers.checks import existing_file, reading
from jetclr.errors import UserError

HDF5, ROOT, ARCHIVE = "an HDF5 file", "a ROOT file", "an archive"
READERS = {
    HDF5: ("toptag", "jetnet", "lhco", "aspen"),
    ROOT: ("jetclass",),
    ARCHIVE: ("qg", "arrays"),
    "a NumPy array": ("arrays",),
    "a Parquet file": ("arrays",),
    "an Arrow file": ("arrays",),
}
MAGICS = {
    b"root": ROOT,
    b"PK": ARCHIVE,
    npy.MAGIC: "a NumPy array",
    lists.PARQUET: "a Parquet file",
    lists.ARROW: "an Arrow file",
    b"FEA1": "a Feather file of version 1 (write it again: version 2 can be read)",
    b"\xff\xff\xff\xff": "an Arrow stream (write it again as an Arrow file)",
    b"\x1f\x8b": "compressed with gzip (unpack it)",
    b"BZh": "compressed with bzip2 (unpack it)",
    b"\xfd7zXZ": "compressed with xz (unpack it)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd (unpack it)",
    b"\x80": "a pickle, perhaps, and those are never read",
}
HEAD = 1024
NAMED = 12  # things in a file that a sentence names


def recognise(path: Path) -> str:
    """The format of a file, one of `FORMATS`.

    Raises UserError telling what the file is, if no format fits or several do, if there is no such file, and for a ROOT
    file if uproot is missing.
    """
    if (path / "metadata.json").is_file():
        raise UserError(f"{path} is a jet store already")
    kind = _kind(existing_file(path))
    formats = READERS.get(kind, ())
    if kind == ROOT:
        _need_uproot(path)
    fits = [name for name in formats if reader(name).recognises(path)]
    if len(fits) == 1:
        return fits[0]
    advice = "give --format to choose" if fits else "give --format if you know better"
    if len(fits) > 1:
        raise UserError(f"{path} is {kind} that may be {' or '.join(fits)}; {advice}")
    if len(formats) == 1:  # its reader knows best what is wrong
        try:
            reader(formats[0]).rows(path)
        except UserError as error:
            raise UserError(f"{path} is {kind} of no known format: {error}; {advice}") from None
    if formats:
        raise UserError(f"{path} is {kind} {_holding(path, kind)}, and none of {', '.join(formats)}; {advice}")
    raise UserError(f"{path} is {kind}, and no format that jetclr knows")


def _kind(path: Path) -> str:
    with reading(path, "a file"), path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return "empty"
    if h5py.is_hdf5(path):  # its mark may follow a block of the user's
        return HDF5
    for magic, kind in MAGICS.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive (unpack it)"
    try:
        printable = head.decode("utf-8", errors="strict" if len(head) < HEAD else "ignore")
    except UnicodeDecodeError:
        printable = "\0"
    if all(character.isprintable() or character.isspace() for character in printable):
        return f"text, {printable[:20]!r}"
    return f"of an unknown kind, and begins with {head[:8]!r}"


def _need_uproot(path: Path) -> None:
    try:
        import uproot  # noqa: F401
    except ImportError as error:
        raise UserError(f"{path} is a ROOT file; it needs uproot: pip install 'jetclr[root]' ({error})") from None


def _holding(path: Path, kind: str) -> str:
    try:
        if kind == ARCHIVE:
            with npy.arrays(path) as found:
                return f"holding {npy.described(found)}"
        with reading(path, "HDF5"), h5py.File(path, "r", locking=False) as file:
            names = [str(name) for name in islice(file, NAMED)]
            more = len(file) - len(names)
    except UserError as error:
        return f"({error})"
    return f"holding {names}" + (f" and {more} more" if more > 0 else "")
