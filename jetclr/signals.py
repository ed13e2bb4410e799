"""Signals that ask a long job to stop: it finishes its step, saves and leaves."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT)


class Stopped:
    """Whether a signal has asked to stop, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None


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
def stop_signals() -> Iterator[Stopped]:
    """While inside, the first SIGTERM or SIGINT is only noted; a second one acts as it always does."""
    stopped = Stopped()
    before = {number: signal.getsignal(number) for number in HANDLED}

    def note(number: int, frame: FrameType | None) -> None:
        stopped.signal = number
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in HANDLED:
        signal.signal(number, note)
    try:
        yield stopped
    finally:
        restore()
