"""Damaged files for readers: a reader gives jets or one sentence, whatever the bytes are.

`storm` runs in processes of its own, because the C libraries below may crash, hang or ask for all memory:
`python -m tests.jetclr.data.readers.mutations FORMAT FILE FIRST COUNT SEED RESULTS` is one of them.
"""

import faulthandler
import json
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jetclr.data.chunk import check_chunk
from jetclr.data.readers import Reader, reader
from jetclr.errors import UserError

ROOT = Path(__file__).parents[4]
EDGE = 4096  # headers and tables of contents lie in the first or last few kB
BATCH = 250  # mutants a process
PATIENCE = 20  # seconds for one mutant, of a file that takes milliseconds
MEMORY = 4 << 30  # bytes of address space of a process
HUGE = (2**16, 2**31 - 1, 2**31, 2**32 - 1, 10**12, 2**40, 2**63 - 1, 2**63, 2**64 - 1)

Mutation = Callable[[np.random.Generator, bytearray], bytearray]


def _place(rng: np.random.Generator, length: int) -> int:
    """Anywhere, but the first and the last 4 kB get a third each."""
    low, high = ((0, min(EDGE, length)), (max(length - EDGE, 0), length), (0, length))[rng.integers(3)]
    return int(rng.integers(low, high))


def _span(rng: np.random.Generator, length: int) -> slice:
    start = _place(rng, length)
    return slice(start, min(start + int(2 ** rng.uniform(0, 12)), length))


def _truncated(rng: np.random.Generator, content: bytearray) -> bytearray:
    return content[: _place(rng, len(content))]


def _flipped(rng: np.random.Generator, content: bytearray) -> bytearray:
    content[_place(rng, len(content))] ^= 1 << int(rng.integers(8))
    return content


def _flipped_often(rng: np.random.Generator, content: bytearray) -> bytearray:
    for _ in range(int(2 ** rng.uniform(1, 8))):
        content = _flipped(rng, content)
    return content


def _zeroed(rng: np.random.Generator, content: bytearray) -> bytearray:
    span = _span(rng, len(content))
    content[span] = bytes(span.stop - span.start)
    return content


def _doubled(rng: np.random.Generator, content: bytearray) -> bytearray:
    """A span written once more, over other bytes or between them."""
    piece = content[_span(rng, len(content))]
    at = _place(rng, len(content))
    content[at : at + len(piece) * int(rng.integers(2))] = piece
    return content


def _huge(rng: np.random.Generator, content: bytearray) -> bytearray:
    """A count of many where a small one may have been, in either byte order."""
    width = int(rng.choice([4, 8]))
    at = _place(rng, len(content)) // width * width
    number = int(HUGE[rng.integers(len(HUGE))]) % 2 ** (8 * width)
    content[at : at + width] = number.to_bytes(width, "little" if rng.random() < 0.75 else "big")
    return content


MUTATIONS: tuple[Mutation, ...] = (_truncated, _flipped, _flipped_often, _zeroed, _doubled, _huge)


def mutants(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged copies of a file's content, the same for the same seed; each depends on its number alone."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield bytes(MUTATIONS[number % len(MUTATIONS)](rng, bytearray(content)))


def survives(reader: Reader, path: Path) -> str | None:
    """The sentence a reader gives for a file, None if it gives jets; any other exception or warning is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(reader.recognises(path), bool)
        try:
            total = reader.rows(path)
            assert total >= 0
            for chunk in reader.read(path, 0, total):
                assert chunk.offsets[0] == 0
                assert (np.diff(chunk.offsets) >= 0).all()
                assert all(v.shape == (chunk.offsets[-1],) for v in chunk.constituents.values())
                assert all(v.shape == (len(chunk.offsets) - 1,) for v in chunk.jets.values())
                check_chunk(chunk, source=str(path))
        except UserError as error:
            sentence = str(error)
            assert sentence
            assert "\n" not in sentence
            return sentence
    return None


class Toll(NamedTuple):
    """What became of the mutants, by their numbers."""

    read: list[int]
    refused: dict[int, str]  # the sentence
    faults: dict[int, str]  # an exception that is not a UserError, or a warning
    crashes: dict[int, int]  # the signal that ended the process, negative
    hangs: list[int]

    def sentences(self) -> Counter[str]:
        """How often each sentence was given, by its first words after the file, and without numbers."""
        told = (re.sub(r"\S*/mutant/\S+", "FILE", sentence) for sentence in self.refused.values())
        return Counter(re.sub(r"\d+", "N", sentence)[:70] for sentence in told)

    def __str__(self) -> str:
        return (
            f"{len(self.read)} read, {len(self.refused)} refused, {len(self.crashes)} crashes, "
            f"{len(self.hangs)} hangs {self.hangs}, {len(self.faults)} faults {self.faults}"
        )


def storm(format: str, original: Path, count: int, seed: int = 0) -> Toll:
    """Read `count` mutants of a file, each under the original's name, in processes that may crash."""
    toll = Toll([], {}, {}, {}, [])
    results = original.with_name(f"{original.name}.results")
    first = 0
    while first < count:
        results.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.jetclr.data.readers.mutations"]
        arguments = [format, str(original), str(first), str(min(BATCH, count - first)), str(seed), str(results)]
        done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        lines = results.read_text().splitlines() if results.exists() else []
        for number, (kind, text) in enumerate(map(json.loads, lines), first):
            if kind == "read":
                toll.read.append(number)
            else:
                (toll.refused if kind == "refused" else toll.faults)[number] = text
        first += len(lines)
        if done.returncode == 0:
            continue
        if "Timeout (" in done.stderr:
            toll.hangs.append(first)
        elif done.returncode < 0:
            toll.crashes[first] = done.returncode
        else:
            raise RuntimeError(f"mutant {first} of {original.name} ended with {done.returncode}: {done.stderr}")
        first += 1
    return toll


def _batch(format: str, original: Path, first: int, count: int, seed: int, results: Path) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except ImportError:  # not on every platform
        pass
    folder = original.parent / "mutant"
    folder.mkdir(exist_ok=True)
    path = folder / original.name
    chosen = reader(format)
    for mutant in islice(mutants(original.read_bytes(), first + count, seed), first, None):
        path.write_bytes(mutant)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)  # also when a C library does not come back
        try:
            sentence = survives(chosen, path)
            kind, text = ("read", "") if sentence is None else ("refused", sentence)
        except Exception as error:
            kind, text = "fault", f"{type(error).__name__}: {error}"
        faulthandler.cancel_dump_traceback_later()
        with results.open("a") as file:
            file.write(json.dumps([kind, text]) + "\n")


if __name__ == "__main__":
    _format, _original, _first, _count, _seed, _results = sys.argv[1:]
    _batch(_format, Path(_original), int(_first), int(_count), int(_seed), Path(_results))
