"""Augmenting on the host does to jets what augmentations do, and both are measured; so is simulating."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jetclr.bench import augment, generate, numpy_views
from jetclr.bench.augment import bench_augment
from jetclr.bench.generate import bench_generate
from jetclr.bench.numpy_views import HostJets
from jetclr.bench.sizes import config_of
from jetclr.errors import UserError
from tests.inline import inline_processes
from tests.toys import toy_batch


@pytest.fixture
def jets() -> HostJets:
    batch = toy_batch(0, 12)
    return HostJets(*(batch[name].astype(np.float64) for name in HostJets._fields))


def apart(jets: HostJets) -> np.ndarray:
    """Distances between all slots of each jet."""
    d_eta = jets.eta[:, :, None] - jets.eta[:, None]
    d_phi = np.angle(np.exp(1j * (jets.phi[:, :, None] - jets.phi[:, None])))
    return np.hypot(d_eta, d_phi)


@pytest.mark.parametrize("view", [numpy_views.rotate, numpy_views.translate])
def test_turning_and_moving_keep_distances(
    jets: HostJets, view: Callable[[np.random.Generator, HostJets], HostJets]
) -> None:
    found = view(np.random.default_rng(0), jets)
    real = jets.pt > 0
    pairs = real[:, :, None] & real[:, None]
    np.testing.assert_allclose(apart(found)[pairs], apart(jets)[pairs], atol=1e-9)
    np.testing.assert_array_equal(found.pt, jets.pt)
    assert not found.eta[~real].any()
    assert not found.phi[~real].any()
    assert (np.abs(found.eta - jets.eta)[real] > 1e-6).mean() > 0.9


def test_smearing_moves_soft_constituents_most(jets: HostJets) -> None:
    many = HostJets(*(np.repeat(x, 400, axis=0) for x in jets))
    found = numpy_views.smear(np.random.default_rng(0), many)
    pulls = ((found.eta - many.eta) * np.maximum(many.pt, 0.1) / 0.1)[many.pt > 0]
    assert pulls.std() == pytest.approx(1, abs=0.01)
    assert not found.eta[many.pt == 0].any()


def test_splitting_fills_padding_and_keeps_what_is_collinear_safe(jets: HostJets) -> None:
    found = numpy_views.split_collinear(np.random.default_rng(0), jets)
    before, after = ((x.pt > 0).sum(axis=1) for x in (jets, found))
    assert (after >= before).all()
    assert (after <= np.minimum(2 * before, jets.pt.shape[1])).all()
    assert (after > before).any()
    for of in (lambda x: 1.0, lambda x: x.eta, lambda x: np.cos(x.phi), lambda x: np.sin(x.phi) * x.eta):
        np.testing.assert_allclose((found.pt * of(found)).sum(axis=1), (jets.pt * of(jets)).sum(axis=1))


def test_augmenting_is_measured_beside_numpy_and_a_step(
    monkeypatch: pytest.MonkeyPatch, stores: dict[str, Path]
) -> None:
    monkeypatch.setattr(augment, "fresh_processes", inline_processes)
    monkeypatch.setattr(augment, "start_here", lambda: None)
    monkeypatch.setattr(augment, "train_turn", lambda *_: {"ms_per_step": 200.0})
    monkeypatch.setattr(augment, "_LEAST_SECONDS", 0.0)
    config = config_of("small")
    config = replace(config, data=replace(config.data, constituents=8, slots=8), batch=8)
    small, large = bench_augment(config, "small", [stores["train"]], batch=16, steps=1, repeats=1)
    assert (small["batch"], large["batch"]) == (8, 16)
    assert small["ratio"] == pytest.approx(small["numpy_ms"] / small["ms"], rel=1e-3)
    assert small["step_share"] == pytest.approx(small["ms"] / 200, rel=1e-3)
    assert small["jets_per_s"] == pytest.approx(8000 / small["ms"], rel=0.01)
    assert "step_share" not in large


def test_generating_is_measured_by_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int, int]] = []

    def fake(process: str, out: Path, *, jets: int, seed: int, unit_jets: int) -> int:
        assert 2 <= unit_jets <= jets
        made.append((process, jets, seed))
        sum(range(100_000))
        return jets

    monkeypatch.setattr(generate, "generate", fake)
    rows = list(bench_generate(("qcd", "dijet"), jets=7, repeats=2))
    assert made == [("qcd", 8, 0), ("dijet", 8, 0), ("qcd", 8, 1), ("dijet", 8, 1)]
    assert [row["what"] for row in rows] == ["qcd", "dijet"]
    assert all(row["jets_per_s"] > 0 and row["runs"] == 2 for row in rows)
    made.clear()
    assert "semivisible" in [row["what"] for row in bench_generate(jets=2, repeats=1)]
    with pytest.raises(UserError, match="unknown process 'topp'; known: top, qcd"):
        next(bench_generate(("topp",), jets=2, repeats=1))


def test_generating_needs_pythia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    with pytest.raises(UserError, match="generate"):
        next(bench_generate(jets=2, repeats=1))
