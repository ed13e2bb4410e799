"""Real processes that train: started, watched through what they write, and killed."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from jetclr.logs import read_metrics
from tests.conftest import CONFIG

PATIENCE = 240
"""Seconds after which a test gives up on a process: far beyond what it takes, since machines are shared."""


class Training:
    """`jetclr pretrain` on the tiny config in a process of its own."""

    def __init__(self, workdir: Path, store: Path, *flags: str, devices: int = 1) -> None:
        command = [sys.executable, "-m", "jetclr.cli", "pretrain", str(CONFIG), "--workdir", str(workdir)]
        # In a file: a pipe that nobody reads would fill, and cannot be looked at before the end.
        handle, name = tempfile.mkstemp(suffix=".err", dir=workdir.parent)
        self._err = Path(name)
        with open(handle, "w") as err:
            self.process = subprocess.Popen(
                [*command, "--data.train", str(store), *flags],
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
            )
        self.workdir = workdir

    def wait_until(self, ready: Callable[[], bool]) -> bool:
        """Whether `ready` came true before the process ended."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            if ready():
                return True
            assert time.monotonic() < deadline, f"nothing came of {self.process.args}"
            time.sleep(0.01)
        return False

    def wait_for_rows(self, rows: int) -> bool:
        """Whether metrics.jsonl had that many lines before the process ended."""
        return self.wait_until(lambda: len(read_metrics(self.workdir)) >= rows)

    def wait_until_said(self, words: str) -> bool:
        """Whether standard error held `words` before the process ended."""
        return self.wait_until(lambda: words in self._err.read_text())

    def end(self, seconds: float = PATIENCE) -> tuple[int, str, str]:
        """Exit status, standard output and standard error once it has ended."""
        out, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, self._err.read_text()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal."""
        self.process.send_signal(number)


def peers(count: int, workdir: Path, store: Path, *flags: str, devices: int) -> list[Training]:
    """`count` processes of one run over loopback, each with so many devices."""
    port = free_port()
    return [
        Training(
            workdir, store, *flags, "--coordinator", f"127.0.0.1:{port}", "--num-processes", str(count),
            "--process-id", str(index), devices=devices,
        )
        for index in range(count)
    ]  # fmt: skip


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def said(err: str) -> list[str]:
    """The lines that we print, without those of the libraries below."""
    return [line for line in err.splitlines() if re.match(r"jetclr: ", line)]
