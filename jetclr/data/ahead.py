"""What comes next is made while the present is used: an iterator in a thread of its own."""

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class _End(NamedTuple):
    """After the last item: what the items ended with, None if they are all."""

    error: BaseException | None


@contextmanager
def ahead(items: Iterable[T], depth: int) -> Iterator[Iterator[T]]:
    """The items, up to `depth` of them made by a thread before they are asked for.

    What making them raises is raised where the item would have come. The thread has ended when the context is left,
    also before the last item; a generator is then closed.
    """
    ready: queue.Queue[T | _End] = queue.Queue(depth)
    left = threading.Event()

    def make() -> None:
        error: BaseException | None = None
        try:
            source = iter(items)
            for item in source:
                ready.put(item)
                if left.is_set():
                    break
            if close := getattr(source, "close", None):
                close()
        except BaseException as raised:
            error = raised
        ready.put(_End(error))

    def taken() -> Iterator[T]:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        left.set()
        while thread.is_alive():  # it may wait for room
            try:
                ready.get(timeout=0.05)
            except queue.Empty:
                continue
