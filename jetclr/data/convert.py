"""Public jet files -> a store, in bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jetclr import __version__
from jetclr.data.chunk import JetChunk
from jetclr.data.readers import toptag
from jetclr.data.store import StoreWriter
from jetclr.errors import UserError
from jetclr.progress import jet_progress

READERS: dict[str, tuple[Callable[[Path], Iterator[JetChunk]], dict[int, str]]] = {
    "toptag": (toptag.read, toptag.LABELS),
}


def convert(format: str, sources: Sequence[Path], out: Path) -> int:
    """Read `sources` in the named format, in order, into a new store at `out`; returns the number of jets.

    Raises UserError for an unknown format, an existing `out`, or a source that is not what it should be; then nothing
    is left at `out`.
    """
    if format not in READERS:
        raise UserError(f"unknown format {format!r}; known: {', '.join(READERS)}")
    read, labels = READERS[format]
    metadata = {
        "made_by": f"jetclr {__version__} convert",
        "format": format,
        "sources": [path.name for path in sources],
        "labels": {str(value): name for value, name in labels.items()},
    }
    with StoreWriter(out, metadata) as writer, jet_progress("converting", total=None) as advance:
        for source in sources:
            first = writer.jets
            for chunk in read(source):
                writer.append(chunk, source=str(source), first_jet=writer.jets - first)
                advance(len(chunk.offsets) - 1)
            if writer.jets == first:
                raise UserError(f"{source} holds no jets")
        return writer.jets
