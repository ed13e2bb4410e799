"""What the command line does to its process before JAX is imported: keeps compiled programs, and keeps memory.

Both are for a whole process, so importing the package does neither: a program of your own calls what it wants, first.
"""

import ctypes
import glob
import hashlib
import os
import platform
import re
import sys
import warnings
from contextlib import suppress
from pathlib import Path

PROGRAMS_BYTES = 500_000_000
"""Compiled programs of one user; beyond it those that were not used for longest go."""

SHORT_SECONDS = 0.05
"""A program that compiles in less is not kept: reading it back would take as long."""

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8

# What JAX says when a file of the cache cannot be used; it compiles anew and goes on.
_BAD_FILE = r"Error (reading|writing) persistent compilation cache entry for '([^']*)'"

# Of /proc/cpuinfo, on x86, ARM, POWER and RISC-V.
_OF_KIND = {"vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer", "CPU part", "cpu", "isa"}

_kept_in: Path | None = None


def keep_programs() -> Path | None:
    """Have JAX keep what it compiles in the user's cache folder, so that the next start takes seconds less.

    Returns the folder; None where nothing is kept: there is no place for it, the one there may be written by others,
    which is told, or JAX_COMPILATION_CACHE_DIR names another. A kept program gives the same bits as a new one.
    """
    global _kept_in
    base = cache_folder()
    if base is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    # JAX's keys hold the processor's features too; but XLA only logs where they differ, and then dies of SIGILL.
    folder = base / "programs" / machine()
    try:
        for made in (base, base / "programs", folder):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _mine_alone(made):  # a compiled program is code
                print(
                    f"jetclr: compiled programs are not kept, since {made} is not yours alone: remove it, or chmod 700",
                    file=sys.stderr,
                )
                return None
        if not os.access(folder, os.W_OK | os.X_OK):
            return None
        _prune(base / "programs", PROGRAMS_BYTES)
    except OSError:
        return None
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(SHORT_SECONDS))
    _remove_bad_files(folder)
    _kept_in = folder
    return folder


def forget_programs() -> None:
    """Undo `keep_programs` for this process, before it compiles anything.

    For runs of several processes: XLA for GPUs compiles them together, and waits forever for one that has its program
    already, as happens where only the first process's machine kept it.
    """
    global _kept_in
    if _kept_in is not None:
        import jax

        jax.config.update("jax_compilation_cache_dir", None)
        _kept_in = None


def keep_memory() -> bool:
    """Keep memory that is freed for what is allocated next, and run steps on a CPU one after the other.

    Large buffers of a step otherwise go back to the system and come again page by page, in every step; and a step that
    begins before the last one's buffers are free needs its own. Returns whether this C library can do it (glibc).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # One arena: those of threads cannot hold large buffers, and map each anew whatever is said here.
    told = [mallopt(what, to) for what, to in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1))]
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return all(told)


def cache_folder() -> Path | None:
    """Where this user's caches of ours belong on this system; None if there is no home."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if chosen.is_absolute():
        return chosen / "jetclr"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "jetclr"


def machine() -> str:
    """A short name that machines share only if their processors have the same instructions."""
    told = [platform.machine()]
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                name, _, value = line.partition(":")
                if not line.strip():
                    break  # one core is as the next
                if name.strip() in _OF_KIND:
                    told.append(value.strip())
    except OSError:  # no Linux; the host name, since its files are rarely another machine's
        told += [platform.processor(), platform.node()]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _mine_alone(folder: Path) -> bool:
    found = folder.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _prune(folder: Path, most: int) -> None:
    """Remove the files that were not used for longest, until `most` bytes are left.

    JAX's own limit locks every read, and stays broken once a process was killed while it wrote.
    """
    found = []
    for file in folder.glob("*/*"):
        with suppress(FileNotFoundError):  # another process was quicker
            about = file.stat()
            found.append((max(about.st_atime, about.st_mtime), about.st_size, file))
    for _, size, file in sorted(found, reverse=True):
        most -= size
        if most < 0:
            file.unlink(missing_ok=True)


def _remove_bad_files(folder: Path) -> None:
    """Let JAX's warning of a torn file remove it: JAX itself would leave it, and compile at every start."""
    show = warnings.showwarning

    def shown(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: object) -> None:
        found = re.match(_BAD_FILE, str(message))
        if found is None:
            show(message, category, filename, lineno, *rest)  # type: ignore[arg-type]
        elif found[1] == "reading":
            with suppress(OSError):
                for file in folder.glob(f"{glob.escape(found[2])}-*"):
                    file.unlink(missing_ok=True)

    warnings.showwarning = shown  # type: ignore[assignment]
