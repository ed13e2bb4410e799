"""The house: one-way imports, light entry points, no pickle."""

import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
GRAPH = grimp.build_graph(
    "jetclr", "augmentations", "probes", include_external_packages=True, exclude_type_checking_imports=True
)


def imported_by(package: str) -> set[str]:
    """Everything that modules of a package import directly, external packages by their top name."""
    modules = {package} | GRAPH.find_descendants(package)
    return {found for module in modules for found in GRAPH.find_modules_directly_imported_by(module)}


def tops(package: str) -> set[str]:
    return {name.split(".")[0] for name in imported_by(package)}


def test_augmentations_and_probes_know_nothing_of_the_others() -> None:
    assert not tops("augmentations") & {"jetclr", "probes", "configs", "tests", "haiku"}
    assert not tops("probes") & {"jetclr", "augmentations", "configs", "tests"}


# Networks and polynomials; all other probes are numpy, and quick to import.
WITH_JAX = tuple(f"probes.{name}" for name in ("training", "mlp", "disco", "observables", "efp", "taggers", "anomaly"))


def test_probes_other_than_networks_do_not_import_jax() -> None:
    for module in {"probes"} | GRAPH.find_descendants("probes"):
        if not module.startswith(WITH_JAX):
            assert not GRAPH.chain_exists(importer=module, imported="jax"), module


def test_nobody_imports_configs_or_tests() -> None:
    assert not tops("jetclr") & {"configs", "tests"}


def test_haiku_stays_inside_the_encoder_and_the_networks_of_probes() -> None:
    found = GRAPH.find_modules_that_directly_import("haiku")
    assert {module for module in found if not module.startswith("probes.")} == {"jetclr.encoder"}
    mine = ("probes.mlp", "probes.taggers", "probes.anomaly")
    assert all(module.startswith(mine) for module in found - {"jetclr.encoder"})


@pytest.mark.parametrize("module", ["fitting", "finetune", "representations", "baselines", "jets", "suite"])
def test_what_fits_and_chooses_cannot_open_the_test_jets(module: str) -> None:
    assert not GRAPH.chain_exists(importer=f"jetclr.benchmark.{module}", imported="jetclr.benchmark.sealed")


LAYERS = ["jetclr.features", "jetclr.encoder", "jetclr.step", "jetclr.train", "jetclr.cli"]


@pytest.mark.parametrize(("lower", "upper"), [(a, b) for i, a in enumerate(LAYERS) for b in LAYERS[i + 1 :]])
def test_layers_import_downwards_only(lower: str, upper: str) -> None:
    assert not GRAPH.chain_exists(importer=lower, imported=upper)


@pytest.mark.parametrize("handed", ["jetclr.objectives", "jetclr.optim", "jetclr.sharding"])
def test_what_is_handed_to_the_step_knows_neither_it_nor_the_encoder(handed: str) -> None:
    for above in ("jetclr.step", "jetclr.encoder", "jetclr.train", "jetclr.config"):
        assert not GRAPH.chain_exists(importer=handed, imported=above)


def test_the_data_layer_does_not_import_jax() -> None:
    for module in {"jetclr.data"} | GRAPH.find_descendants("jetclr.data"):
        assert not GRAPH.chain_exists(importer=module, imported="jax"), module


def loaded_by(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `code`."""
    script = f"{code}\nimport sys\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(result.stdout.split("\n")[-2].split())


def test_importing_the_package_is_light() -> None:
    heavy = {"jax", "haiku", "pythia8mc", "fastjet", "matplotlib", "sklearn", "numpy", "tensorboard", "grain", "orbax"}
    assert not loaded_by("import jetclr") & heavy
    assert not loaded_by("import probes") & (heavy - {"numpy"})


def test_help_loads_nothing_heavy() -> None:
    """`jetclr --help` answers in well under a second because of this."""
    code = "from jetclr.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert not loaded_by(code) & {"jax", "numpy", "matplotlib", "sklearn", "pyarrow", "h5py", "pythia8mc"}


def test_no_pickle_no_eval() -> None:
    modules = r"\bimport (pickle|dill|cloudpickle|joblib)\b"
    banned = re.compile(modules + r"|allow_pickle=True|(?<![.\w])eval\(|\bexec\(|torch\.load")  # .eval() is PyTorch's
    for package in ("jetclr", "augmentations", "probes", "configs"):
        for file in (ROOT / package).rglob("*.py"):
            assert not banned.search(file.read_text()), file
