"""Somebody else's training program, measured beside ours.

It is called as `PYTHON PEER JETS.npy --dim 128 --ff 256 --layers 4 --heads 4 --batch 128 --steps 10 --constituents 50
--threads 2`, where JETS.npy is float32 [jets, constituents, 3]: pT in GeV, eta and phi about the jet axis, zero-padded.
Its last line of output is a JSON object with at least `jets_per_s`, `ms_per_step` and `peak_rss_mb`.
"""

import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jetclr.config import Config
from jetclr.errors import UserError

TELLS = ("jets_per_s", "ms_per_step", "peak_rss_mb")


@dataclass(frozen=True)
class Peer:
    """A program and the Python that runs it."""

    program: Path
    python: str

    def __post_init__(self) -> None:
        if not self.program.is_file():
            raise UserError(f"there is no program {self.program} to measure against")
        refuse_python(self.python)

    def train(self, jets: Path, config: Config, steps: int, threads: int) -> dict[str, Any]:
        """One run: what it printed. Raises UserError if it fails, or prints none of `TELLS`."""
        encoder = config.encoder
        settings = {
            "dim": encoder.width,
            "ff": encoder.feedforward,
            "layers": encoder.layers,
            "heads": encoder.heads,
            "batch": config.batch,
            "steps": steps,
            "constituents": config.data.constituents,
            "threads": threads,
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        return told(self.python, [str(self.program), str(jets), *words], TELLS)


def refuse_python(python: str) -> None:
    """Raise UserError unless there is such a program."""
    if shutil.which(python) is None:
        raise UserError(f"--python {python} is no program that can be run")


def told(python: str, words: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Run a Python program; returns the JSON object in its last line.

    Raises UserError, with what the program said last, if it fails, or if one of `names` is not there or no number
    above 0.
    """
    program = words[0]
    try:
        done = subprocess.run([python, *words], capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise UserError(f"{python} cannot be run: {error.strerror}") from None
    if done.returncode:
        raise UserError(f"{program} failed with status {done.returncode}: {_last(done.stderr) or 'it said nothing'}")
    line = _last(done.stdout)
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise UserError(f"{program} must print a JSON object last, and printed {line[:200]!r}; {_last(done.stderr)}")
    for name in names:
        value = row.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UserError(f"{program} tells {name} = {value!r}; it must be a number above 0")
    return row


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
