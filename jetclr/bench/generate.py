"""`jetclr bench generate`: how fast jets of each process are simulated on all cores."""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jetclr.bench.machine import Row, core_seconds, refuse_settings, say
from jetclr.data import pythia
from jetclr.data.generate import UNIT_JETS, generate
from jetclr.data.processes import PROCESSES
from jetclr.data.units import cores
from jetclr.errors import UserError


def bench_generate(processes: Sequence[str] = (), *, jets: int, repeats: int) -> Iterator[Row]:
    """Generate `jets` jets of each process, those of `processes` or all, in `repeats` turns, each of its own seed.

    The jets are shared equally among as many workers as there are cores, and starting them counts. Yields a row for
    each process: medians of `jets_per_s` and `jets_per_s_per_core`, of the time that cores worked. Raises UserError for
    an unknown process and without Pythia and FastJet.
    """
    refuse_settings({"jets": (jets, 2), "repeats": (repeats, 1)})
    for name in processes:
        if name not in PROCESSES:
            raise UserError(f"unknown process {name!r}; known: {', '.join(PROCESSES)}")
    pythia.load_generators()
    names = tuple(processes) or tuple(PROCESSES)
    asked = jets + jets % 2  # dijets come in pairs, also in a unit
    share = -(-asked // cores())
    unit = min(UNIT_JETS, share + share % 2)
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="jetclr-bench-", ignore_cleanup_errors=True) as folder:
        for number in range(repeats):
            for name in names:
                say(f"generate {name}, run {number + 1} of {repeats}")
                start, worked = time.perf_counter(), core_seconds()
                generate(name, Path(folder) / f"{name}-{number}", jets=asked, seed=number, unit_jets=unit)
                took[name].append((time.perf_counter() - start, core_seconds() - worked))
    for name in names:
        seconds, work = (statistics.median(x) for x in zip(*took[name], strict=True))
        yield {
            "bench": "generate",
            "what": name,
            "jets": asked,
            "workers": cores(),
            "jets_per_s": round(asked / seconds, 1),
            "jets_per_s_per_core": round(asked / work, 1),
            "runs": repeats,
        }
