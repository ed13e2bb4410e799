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

    def __call__(self, step: int) -> bool:
        """Whether to stop now that `step` is done; asked once a step, in order."""
        if self._agreed is None:
            return self.signal is not None
        if not self._agreed(step):
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

    Several processes must stop at the same step: then JAX's runtime has SIGTERM, tells the others, and `agreed(step)`
    says whether this is the step; SIGINT is passed on to it.
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
