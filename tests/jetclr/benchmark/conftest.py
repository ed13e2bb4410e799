"""Stores of a benchmark: toy jets of which some have the wrong label, so that nothing tells the classes apart alone."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from jetclr.benchmark import fitting
from jetclr.benchmark.suite import Suite
from jetclr.data.chunk import JetChunk
from jetclr.data.store import StoreWriter
from probes import mlp
from probes.disco import TRAINING, fit_disco
from tests.toys import toy_chunk


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Probes are trained for few steps; and programs are compiled in a quarter of the time, to run slower."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp, "FEWEST_STEPS", 20)
        patch.setattr(fitting, "fit_disco", partial(fit_disco, training=replace(TRAINING, steps=10)))
        yield
    jax.config.update("jax_disable_most_optimizations", False)


WRONG = 0.12
"""Share of jets with the wrong label."""


def noisy_chunk(seed: int, jets: int) -> JetChunk:
    rng = np.random.default_rng(seed)
    chunk = toy_chunk(rng, jets)
    wrong = rng.uniform(size=jets) < WRONG
    label = np.where(wrong, 1 - chunk.jets["label"], chunk.jets["label"]).astype(np.int32)
    return JetChunk(chunk.offsets, chunk.constituents, chunk.jets | {"label": label})


def write(path: Path, chunk: JetChunk) -> Path:
    with StoreWriter(path, {"labels": {"0": "QCD", "1": "top"}}, block_jets=100) as writer:
        writer.append(chunk)
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with stores train (260 jets), val (300), test (400), and another of 300 jets."""
    folder = tmp_path_factory.mktemp("noisy")
    for seed, (name, jets) in enumerate({"train": 260, "val": 300, "test": 400, "other": 300}.items()):
        write(folder / name, noisy_chunk(100 + seed, jets))
    return folder


@pytest.fixture(scope="session")
def suite(folder: Path) -> Suite:
    """The smallest suite that has every part."""
    return Suite(
        "toy",
        (str(folder / "train"),),
        (str(folder / "val"),),
        (str(folder / "test"),),
        shifted={"other": (str(folder / "other"),)},
        constituents=16,
        label_counts=(160,),  # of which 128 are fitted, a batch as that of all: one program less to compile
        draws=2,
        baselines=("raw constituents", "EFP"),
        efp_edges=2,
        taggers=("PFN",),
        most_steps=3,
    )
