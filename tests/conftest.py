"""A strict session: array shapes are checked at run time, warnings are errors, and there are eight fake devices."""

import atexit
import os
import pkgutil
import shutil
import tempfile

from jaxtyping import install_import_hook

import tests.strict  # noqa: F401  (the hook names it, and cannot import it)

# Before the packages are first imported: every annotated function then checks its shapes and dtypes. The command line
# is left out: tyro's placeholders are not of the types they stand for.
_CHECKED = [f"jetclr.{m.name}" for m in pkgutil.iter_modules(["jetclr"]) if m.name not in ("cli", "verbs")]
install_import_hook(["augmentations", "probes", *_CHECKED], "tests.strict.check")

# The same few programs are compiled by many tests and by the processes they start: once is enough. Read by JAX.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # xdist's workers inherit that of their parent
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jetclr-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# Nearly all programs of the tests run once and for a moment: they are compiled in a third of the time, to run slower.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",
    ]
)

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from jetclr.cli import main  # noqa: E402
from jetclr.data.store import StoreWriter  # noqa: E402
from tests.toys import toy_chunk  # noqa: E402

# A JAX call takes longer than hypothesis expects of a function; the same examples at every run, so a failure is news.
settings.register_profile("jax", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("jax")

# Started first, or one worker would be left alone with them at the end.
LONG = (
    "tests/test_documentation.py",
    "tests/jetclr/test_step.py",
    "tests/jetclr/test_train.py",
    "tests/jetclr/test_parallel.py",
    "tests/jetclr/benchmark/test_benchmark.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests first; every worker of xdist finds the same order."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(scope="module", autouse=True)
def programs_are_dropped() -> Iterator[None]:
    """After each module: thousands of programs are more mappings of memory than a process may have, and it dies."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def blank_figures() -> Iterator[None]:
    """Figures are saved empty: to set their text takes most of the time of a command that writes a page."""
    save = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, *to, **settings: save(Figure(), *to, **settings))
        yield


CONFIG = Path(__file__).parent / "tiny_config.py"


def write_toy_store(path: Path, jets: int, seed: int, block_jets: int = 100) -> Path:
    """A store of toy jets, half of them three-pronged, in blocks small enough that there are several."""
    with StoreWriter(path, {"labels": {"0": "QCD", "1": "top"}}, block_jets=block_jets) as writer:
        writer.append(toy_chunk(np.random.default_rng(seed), jets))
    return path


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Toy stores "train" (600 jets), "fit" and "test" (300 each)."""
    folder = tmp_path_factory.mktemp("stores")
    return {
        name: write_toy_store(folder / name, jets, seed)
        for seed, (name, jets) in enumerate({"train": 600, "fit": 300, "test": 300}.items())
    }


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, stores: dict[str, Path]) -> Path:
    """A finished run of 8 steps, probed once, with checkpoints at 4 and 8; read only."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    assert main(["pretrain", str(CONFIG), "--workdir", str(workdir), "--data.train", str(stores["train"])]) == 0
    return workdir
