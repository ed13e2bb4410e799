"""How a process begins in which a device is measured: as a command begins, but with programs kept where we say."""

from pathlib import Path

import jax

from jetclr import startup


def start_here(programs: Path | None = None, devices: int = 0) -> None:
    """Called once in a process of its own, before it uses a device.

    Compiled programs are kept in the folder `programs`, or nowhere; a CPU is made `devices` devices, or one if that
    is 0.
    """
    startup.keep_memory()
    jax.config.update("jax_compilation_cache_dir", None if programs is None else str(programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", startup.SHORT_SECONDS)
    jax.config.update("jax_num_cpu_devices", max(devices, 1))
