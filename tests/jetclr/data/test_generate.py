"""Runs that generate a store: the same for any number of workers, cut short, resumed, shared out."""

import json
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from jetclr.data import pythia
from jetclr.data.generate import generate, unit_seed
from jetclr.data.join import join
from jetclr.data.processes import Detector, Options, recipe
from jetclr.data.shard import Shard
from jetclr.data.store import Store
from jetclr.data.units import write_unit
from jetclr.errors import UserError

pytest.importorskip("pythia8mc", reason="generating is an optional extra")
pytest.importorskip("fastjet", reason="generating is an optional extra")


def contents(path: Path) -> list[bytes]:
    """Every byte of a store's shards, and its metadata."""
    return [file.read_bytes() for file in sorted(path.iterdir())]


def test_seeds_of_units_do_not_collide() -> None:
    seeds = [unit_seed(p, s, u) for p in ("top", "qcd") for s in range(5) for u in range(1000)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 1
    assert max(seeds) <= 900_000_000


def test_neither_do_those_of_their_signals() -> None:
    background = [unit_seed("dijet", 0, 0) + unit for unit in range(200_000)]
    signal = [pythia._signal_seed(seed) for seed in background]
    assert len({*background, *signal}) == 400_000
    assert [pythia._signal_seed(seed) for seed in (1, 450_000_001, 900_000_000)] == [450_000_001, 1, 450_000_000]


def test_workers_change_nothing_and_metadata_is_complete(tmp_path: Path) -> None:
    for workers in (1, 2):
        generate("qcd", tmp_path / f"w{workers}", jets=25, seed=3, workers=workers, unit_jets=10, command="made so")
    generate("qcd", tmp_path / "other", jets=25, seed=4, workers=2, unit_jets=10, command="made so")
    assert contents(tmp_path / "w1") == contents(tmp_path / "w2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "w1", "w2"]
    store = Store(tmp_path / "w2")
    assert len(store) == 25
    assert not np.isin(store.column("jet_pt"), Store(tmp_path / "other").column("jet_pt")).any()
    assert len(np.unique(store.column("jet_pt"))) == 25  # no unit repeats another
    assert store.label_names == {0: "QCD"}
    assert store.constituents == ["pt", "eta", "phi", "charge", "type", "pdg"]
    assert store.columns == ["jet_pt", "jet_eta", "jet_phi", "jet_mass", "label", "missing_pt"]
    source = store.metadata[0]["source"]
    expected = {"process": "qcd", "seed": 3, "jets": 25, "unit_jets": 10, "command": "made so", "algorithm": "anti-kT"}
    assert source | expected == source
    assert source["window"] == {"radius": 0.8, "pt_min": 550.0, "pt_max": 650.0, "eta_max": 2.0}
    assert source["pythia"]["PartonLevel:MPI"] == "off"
    assert source["recipe"] == "quark and gluon jets as QCD mixes them, particle level"
    assert source | json.loads(json.dumps(recipe("qcd").describe())) == source
    assert set(source["versions"]) == {"jetclr", "pythia8mc", "fastjet"}
    assert source["jets_found"] >= 25
    assert source["jets_per_event"] == source["jets_found"] / source["events"]
    assert source["phase_space_points"] > source["events"]
    assert 0 < source["cross_section_error_pb"] < 0.2 * source["cross_section_pb"]
    # 2.5e4 pb: QCD at 14 TeV above the recipe's pTHat, to the order of magnitude
    assert 1e4 < source["cross_section_pb"] < 1e5


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = {"jets": 25, "seed": 3, "workers": 2, "unit_jets": 10}
    generate("qcd", tmp_path / "whole", **settings)
    assert "FastJet" not in capfd.readouterr().out
    partial = tmp_path / "resumed.partial"
    make_partial(tmp_path / "whole", partial, units=[0, 2])
    kept, torn = (partial / f"unit-0000{u}.npz" for u in (0, 2))
    torn.write_bytes(torn.read_bytes()[:-200])
    before = kept.stat().st_mtime_ns
    with pytest.raises(UserError, match=r"was begun with seed = 3, not 5; .* delete the folder"):
        generate("qcd", tmp_path / "resumed", **settings | {"seed": 5})
    with pytest.raises(UserError, match="was begun with process = qcd, not top"):
        generate("top", tmp_path / "resumed", **settings)
    with pytest.raises(UserError, match=r"was begun with window radius = 0.8, not 0.7"):
        generate("qcd", tmp_path / "resumed", **settings, options=Options(radius=0.7))
    with pytest.raises(UserError, match=r"was begun with detector tracking_efficiency = None, not 0.95"):
        generate("qcd", tmp_path / "resumed", **settings, options=Options(detector=Detector()))
    with full_disk(), pytest.raises(OSError, match="File too large"):
        generate("qcd", tmp_path / "resumed", **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resumed.partial", "whole"]
    assert not list(partial.glob(".*"))
    assert kept.stat().st_mtime_ns == before  # used, not made again
    generate("qcd", tmp_path / "resumed", **settings)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")
    assert not partial.exists()


def test_a_shard_makes_its_own_units_and_resumes(tmp_path: Path) -> None:
    settings = {"jets": 25, "seed": 3, "workers": 2, "unit_jets": 10}
    assert generate("qcd", tmp_path / "whole", **settings) == 25
    expected = Store(tmp_path / "whole").column("jet_pt")
    for index, mine in enumerate([slice(0, 10), slice(10, 25)]):
        assert generate("qcd", tmp_path / f"{index}", **settings, shard=Shard(index, 2)) == len(expected[mine])
        np.testing.assert_array_equal(Store(tmp_path / f"{index}").column("jet_pt"), expected[mine])
    partial = tmp_path / "resumed.partial"
    make_partial(tmp_path / "1", partial, units=[2])
    begun = json.loads((partial / "settings.json").read_text())
    with pytest.raises(UserError, match="was begun with shard = None, not 1/2"):
        generate("qcd", tmp_path / "resumed", **settings, shard=Shard(1, 2))
    (partial / "settings.json").write_text(json.dumps(begun | {"shard": "1/2"}))
    with pytest.raises(UserError, match="was begun with shard = 1/2, not 0/2"):
        generate("qcd", tmp_path / "resumed", **settings, shard=Shard(0, 2))
    assert generate("qcd", tmp_path / "resumed", **settings, shard=Shard(1, 2)) == 15
    assert contents(tmp_path / "resumed") == contents(tmp_path / "1")


def test_a_search_sample_in_shards(tmp_path: Path) -> None:
    """Events are numbered, and signal is drawn, over all units and shards."""
    settings = {"jets": 48, "seed": 2, "workers": 2, "unit_jets": 10, "options": Options(signal_fraction=0.25)}
    generate("dijet", tmp_path / "whole", **settings)
    for i in range(2):
        generate("dijet", tmp_path / f"{i}", **settings, shard=Shard(i, 2))
    join([tmp_path / "1", tmp_path / "0"], tmp_path / "joined")
    assert contents(tmp_path / "joined") == contents(tmp_path / "whole")
    store = Store(tmp_path / "whole")
    assert store.column("event").tolist() == np.repeat(np.arange(24), 2).tolist()
    assert store.column("jet_index").tolist() == [0, 1] * 24
    assert (store.column("label") == 6).sum() == 12
    source = store.metadata[0]["source"]
    assert source["signal_fraction"] == 0.25
    assert source["signal"]["pythia"]["34:m0"] == "3500"
    # 4.9e2 pb: QCD at 14 TeV above the recipe's pTHat of 545 GeV, to the order of magnitude
    assert 1e2 < source["cross_section_pb"] < 2e3
    generate("dijet", tmp_path / "other", **settings | {"options": Options(signal_fraction=0.5)}, shard=Shard(0, 2))
    with pytest.raises(UserError, match=r"does not belong to .*: it has signal_fraction = 0\.5, not 0\.25"):
        join([tmp_path / "1", tmp_path / "other"], tmp_path / "mixed")


def test_a_sample_of_nothing_but_signal_has_no_cross_section(tmp_path: Path) -> None:
    generate("dijet", tmp_path / "out", jets=4, unit_jets=2, options=Options(signal_fraction=1.0))
    source = Store(tmp_path / "out").metadata[0]["source"]
    assert source["cross_section_pb"] == 0
    assert set(Store(tmp_path / "out").column("label").tolist()) == {6}


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 6 kB: here, and in processes started from here."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_dead_worker_is_one_sentence(tmp_path: Path) -> None:
    def kill_one() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        children[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(UserError, match=r"a worker process died .* are kept in .*out\.partial: repeat"):
        generate("qcd", tmp_path / "out", jets=25, workers=2, unit_jets=10)
    killer.join()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_cannot_be_found_leaves_nothing_behind(tmp_path: Path) -> None:
    """The next try, with other options, would be refused for what is left of this one."""
    with pytest.raises(UserError, match=r"only 0 of .* events of w gave a jet as asked; widen the pT window"):
        generate("w", tmp_path / "out", jets=1, options=Options(pt_min=550.0, pt_max=550.0001))
    assert not list(tmp_path.iterdir())


def test_a_strange_work_folder_is_left_alone(tmp_path: Path) -> None:
    strange = tmp_path / "out.partial" / "thesis.tex"
    strange.parent.mkdir()
    strange.touch()
    with pytest.raises(UserError, match=r"out\.partial has no settings\.json"):
        generate("qcd", tmp_path / "out", jets=1)
    assert strange.exists()


def make_partial(store: Path, partial: Path, units: list[int]) -> None:
    """The work folder that a run of 25 QCD jets in units of 10 leaves when it stops after some units."""
    source = json.loads((store / "metadata.json").read_text())["source"]
    names = ["process", "jets", "seed", "unit_jets", *recipe("qcd").describe(), "versions"]
    partial.mkdir(exist_ok=True)
    (partial / "settings.json").write_text(json.dumps({name: source[name] for name in names}))
    for u in units:
        chunk, counts = pythia.generate_unit(recipe("qcd"), unit_seed("qcd", 3, u), min(10, 25 - 10 * u))
        write_unit(partial / f"unit-{u:05d}.npz", chunk, counts)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"jets": 0}, "jets is 0; it must be at least 1"),
        ({"workers": 0}, "workers is 0; it must be at least 1"),
        ({"jets": 10**14}, "jets is 100000000000000; one seed gives at most 100000000"),
        ({"seed": -1}, "seed is -1; it must be from 0 to 4294967295"),
        ({"process": "tau"}, "unknown process 'tau'; known: top, qcd, quark"),
        ({"process": "dijet", "jets": 5}, "jets is 5; dijet gives two jets an event, so it must be even"),
        ({"process": "dijet", "unit_jets": 5}, "unit_jets is 5; dijet gives two jets an event"),
        ({"options": Options(signal_fraction=0.1)}, "process top has no signal_fraction"),
        ({"options": Options(pt_min=800.0)}, "pt_min is 800 and pt_max 650 GeV"),
        ({"out": "there"}, "there already exists"),
        ({"jets": 501, "shard": Shard(0, 3)}, r"0/3 holds no jets: 501 jets come in units of 500, .* may be 2 at most"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    (tmp_path / "there").mkdir()
    call = {"process": "top", "out": "new", "jets": 10} | changes
    call["out"] = tmp_path / str(call["out"])
    with pytest.raises(UserError, match=sentence):
        generate(**call)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    with pytest.raises(UserError, match=r"generating needs Pythia 8 and FastJet: pip install 'jetclr\[generate\]'"):
        generate("top", tmp_path / "out", jets=1)
    assert not list(tmp_path.iterdir())
