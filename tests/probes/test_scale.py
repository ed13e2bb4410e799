"""A million jets: every probe within its time and memory, each in a process of its own."""

import json
import subprocess
import sys

import numpy as np
import pytest

JETS, FEATURES = 1_000_000, 512

FITS = {
    "logistic": "from probes.linear import fit_logistic as fit",
    "LDA": "from probes.linear import fit_lda as fit",
    "multinomial": "from probes.multinomial import fit_multinomial as fit",
    "ridge": "from probes.ridge import fit_ridge as fit",
    "kNN": "from probes.neighbours import fit_neighbours as fit",
    "MLP": "from probes.mlp import fit_mlp as fit",
}

SCRIPT = """
import json, resource, sys, time
import numpy as np
{fit}
x, y = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2])
start = time.perf_counter()
probe = fit(x, y)
assert np.isfinite(probe.{read}(x)).all()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([time.perf_counter() - start, peak / 2**20]))
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A memory-mapped table of 2 GiB with forty latent directions, and labels of two and ten classes and a target."""
    folder = tmp_path_factory.mktemp("million")
    rng = np.random.default_rng(0)
    y, classes = rng.integers(0, 2, JETS), rng.integers(0, 10, JETS)
    mix, places, shift = rng.normal(size=(40, FEATURES)), rng.normal(size=(10, 40)), 0.4 * rng.normal(size=40)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (JETS, FEATURES))
    target = np.zeros(JETS)
    for start in range(0, JETS, 10_000):
        rows = slice(start, start + 10_000)
        hidden = rng.normal(size=(10_000, 40)) + places[classes[rows]] + y[rows, None] * shift
        target[rows] = 170 + 30 * hidden[:, 0]
        x[rows] = np.maximum(hidden @ mix / 6 + 0.3, 0) + 0.1 * rng.normal(size=(10_000, FEATURES))
    x.flush()
    for name, values in (("two", y), ("ten", classes), ("target", target)):
        np.save(folder / f"{name}.npy", values)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_a_million_jets_in_ten_minutes_and_eight_gib(name, table):
    labels = {"multinomial": "ten", "ridge": "target"}.get(name, "two")
    read = {"multinomial": "logits", "ridge": "predict"}.get(name, "score")
    command = [sys.executable, "-c", SCRIPT.format(fit=FITS[name], read=read), table / "x.npy", table / f"{labels}.npy"]
    seconds, gib = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert seconds < 600
    assert gib < 8
