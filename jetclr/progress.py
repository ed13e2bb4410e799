"""Progress on the terminal: a live bar where there is one, a plain line now and then where there is not."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as RichTask
from rich.text import Text

PLAIN_SECONDS = 10.0


class _Rate(ProgressColumn):
    """Units a second, named."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self.unit}/s", style="cyan")


@contextmanager
def jet_progress(what: str, total: int | None, *, unit: str = "jets", done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how far `what` has come; yields `advance(n)`. `done` were there before and do not count as speed."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(unit),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(what, total=total, completed=done)
            yield lambda n: progress.advance(task, n)
        return
    start = last = time.monotonic()
    count, told = done, -1

    def advance(n: int) -> None:
        nonlocal count, last
        count += n
        now = time.monotonic()
        if now - last >= PLAIN_SECONDS:
            last = now
            report(now)

    def report(now: float) -> None:
        nonlocal told
        if count == told:
            return
        told = count
        rate = (count - done) / max(now - start, 1e-9)
        share = "" if total is None else f" of {total:,}"
        left = "" if total is None or rate == 0 else f", {(total - count) / rate:,.0f} s left"
        print(f"{what}: {count:,}{share} {unit}, {rate:,.0f} {unit}/s{left}", file=sys.stderr, flush=True)

    yield advance
    report(time.monotonic())


@contextmanager
def training_progress(steps: int, done: int, batch: int) -> Iterator[Callable[[int, float], None]]:
    """The training line: step, loss, jets/s, time left; yields `show(step, loss)`."""
    console = Console(stderr=True)
    start = time.monotonic()

    def rate(now: int) -> float:
        return (now - done) * batch / max(time.monotonic() - start, 1e-9)

    if console.is_terminal:
        columns = (
            TextColumn("pretraining step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=steps, completed=done, note="compiled")
            yield lambda now, loss: progress.update(
                task, completed=now, note=f"loss {loss:.3f}  [cyan]{rate(now):,.0f} jets/s[/cyan]"
            )
        return
    last = start

    def show(now: int, loss: float) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            left = (steps - now) * batch / max(rate(now), 1e-9)
            line = f"step {now:,} of {steps:,}, loss {loss:.3f}, {rate(now):,.0f} jets/s, {left:,.0f} s left"
            print(line, file=sys.stderr, flush=True)

    yield show


@contextmanager
def no_progress() -> Iterator[Callable[[int, float], None]]:
    """Show nothing: what the processes do that are not the first."""
    yield lambda now, loss: None
