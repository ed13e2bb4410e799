"""Signals that ask a long job to stop: it finishes its step, saves and leaves."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT)


class Stopped:
    """Whether a signal has asked to stop, and which."""

    def __init__(self, agreed: Callable[[int], bool] | None) -> None:
        self.signal: int | None = None
        self._agreed = agreed
        self._asked = 0

    def __call__(self) -> bool:
        """Whether to stop now; asked once a step, first before the first one."""
        if self._agreed is None:
            return self.signal is not None
        # Counted from 1 in every process: JAX's runtime knows no step before the first that it is asked about, and
        # stops at the one after the latest that any process has asked about.
        self._asked += 1
        if not self._agreed(self._asked):
            return False
        self.signal = self.signal or signal.SIGTERM  # perhaps another process of the run got it
        return True


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """While inside, SIGTERM raises SystemExit(143), so that half-written outputs are removed on the way out."""
    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_signals(agreed: Callable[[int], bool] | None = None) -> Iterator[Stopped]:
    """While inside, the first SIGTERM or SIGINT is only noted; a second one acts as it always does.

    Several processes must stop at the same step: then JAX's runtime has SIGTERM, tells the others, and `agreed(n)` says
    whether all stop when they ask for the n-th time; SIGINT is passed on to it.
    """
    stopped = Stopped(agreed)
    handled = HANDLED if agreed is None else (signal.SIGINT,)
    before = {number: signal.getsignal(number) for number in handled}

    def note(number: int, frame: FrameType | None) -> None:
        stopped.signal = number
        restore()
        if agreed is not None:
            os.kill(os.getpid(), signal.SIGTERM)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in handled:
        signal.signal(number, note)
    try:
        yield stopped
    finally:
        restore()
