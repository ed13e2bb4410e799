"""One process at a time in a folder, as far as the disk knows of locks."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jetclr.errors import UserError

LOCK = ".lock"


@contextmanager
def only_process(folder: Path, refusal: str, *, wait: bool = False) -> Iterator[bool]:
    """Hold `folder` while inside; yields False on a disk without locks, as on some clusters.

    Raises UserError with `refusal` if another process has it, unless it is to `wait`. However this process ends, the
    system lets go.
    """
    with open(folder / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            raise UserError(refusal) from None
        except OSError:
            held = False
        yield held
