"""An iterator in a thread gives what it gives without one, and never outlives its reader."""

import threading
from collections.abc import Iterator

import pytest

from jetclr.data.ahead import ahead


@pytest.mark.parametrize("depth", [1, 3])
def test_items_come_in_order_and_are_made_ahead(depth: int) -> None:
    made: list[int] = []
    enough = threading.Event()

    def items() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            if i == depth:
                enough.set()
            yield i

    with ahead(items(), depth) as ready:
        first = next(ready)
        assert enough.wait(10)  # without being asked for
        assert [first, *ready] == list(range(20))
    assert made == list(range(20))


def test_what_cannot_begin_is_told() -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise ArithmeticError("no first")

    with ahead(Broken(), 2) as ready, pytest.raises(ArithmeticError, match="no first"):
        next(ready)


def test_an_error_comes_where_its_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ArithmeticError("no second")

    with ahead(items(), 2) as ready:
        assert next(ready) == 1
        with pytest.raises(ArithmeticError, match="no second"):
            next(ready)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_reader_that_leaves_ends_the_thread_and_closes_what_it_read(error: type[BaseException]) -> None:
    closed: list[str] = []
    before = threading.active_count()

    def items(name: str) -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(name)

    def through(source: Iterator[int]) -> Iterator[int]:
        with ahead(source, 1) as inner:
            yield from inner

    def leave() -> None:
        with ahead(through(items("inner")), 1) as ready:
            next(ready)
            raise error

    with pytest.raises(error):
        leave()
    assert closed == ["inner"]
    assert threading.active_count() == before
