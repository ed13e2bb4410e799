"""Simulated jets: the window, the matching, the clustering; and runs that are cut short, resumed or shared out."""

import json
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vector

from jetclr.data import pythia
from jetclr.data.chunk import JetChunk, join_chunks
from jetclr.data.generate import generate, read_unit, unit_seed, write_unit
from jetclr.data.pythia import RECIPES, Counts, Recipe, Window
from jetclr.data.shard import Shard
from jetclr.data.store import Store
from jetclr.errors import UserError

pytest.importorskip("pythia8mc", reason="generating is an optional extra")
pytest.importorskip("fastjet", reason="generating is an optional extra")


def contents(path: Path) -> list[bytes]:
    """Every byte of a store's shards, and its metadata."""
    return [file.read_bytes() for file in sorted(path.iterdir())]


@pytest.fixture(scope="module", params=["qcd", "top"])
def unit(request: pytest.FixtureRequest) -> tuple[Recipe, JetChunk, Counts]:
    recipe = RECIPES[request.param]
    return recipe, *pythia.generate_unit(recipe, 12345, 60)


def test_jets_lie_in_the_window(unit: tuple[Recipe, JetChunk, Counts]) -> None:
    recipe, chunk, counts = unit
    jets = chunk.jets
    assert len(chunk.offsets) == 61
    assert counts.jets >= 60
    assert (jets["jet_pt"] > 550).all()
    assert (jets["jet_pt"] < 650).all()
    assert (np.abs(jets["jet_eta"]) < 2).all()
    assert (jets["label"] == recipe.label).all()
    assert {name: v.dtype for name, v in jets.items()} == {
        "jet_pt": np.float32, "jet_eta": np.float32, "jet_phi": np.float32, "jet_mass": np.float32, "label": np.int32,
    }  # fmt: skip


def test_constituents_add_up_to_their_jet(unit: tuple[Recipe, JetChunk, Counts]) -> None:
    _, chunk, _ = unit
    assert set(chunk.constituents) == {"pt", "eta", "phi"}
    for j in range(len(chunk.offsets) - 1):
        part = slice(chunk.offsets[j], chunk.offsets[j + 1])
        pt, eta, phi = (chunk.constituents[name][part] for name in ("pt", "eta", "phi"))
        assert (np.diff(pt) <= 0).all()
        massless = vector.array({"pt": pt, "eta": eta, "phi": phi, "mass": np.zeros_like(pt)})
        total = vector.obj(px=massless.px.sum(), py=massless.py.sum(), pz=massless.pz.sum(), E=massless.E.sum())
        jet = vector.obj(**{name: float(chunk.jets[f"jet_{name}"][j]) for name in ("pt", "eta", "phi", "mass")})
        assert total.pt == pytest.approx(jet.pt, rel=1e-5)  # float32
        assert total.deltaR(jet) < 1e-4
        assert total.E <= jet.E * (1 + 1e-5)  # without the particles' masses
        assert total.E > jet.E * 0.98
        # An anti-kT jet is a disc of R = 0.8 in rapidity, which for hard particles is as good as pseudorapidity.
        assert massless.deltaR(jet)[pt > 2].max() < 1.0


def test_anti_kt_agrees_with_the_definition() -> None:
    """The jets of one event, clustered by the textbook's N^3 loop."""
    instance, _hook = pythia.make_pythia(RECIPES["qcd"], 3)
    particles = pythia.next_events(instance, 3)
    event, axis, offsets, index = pythia.cluster(particles, Window(pt_min=100.0, pt_max=np.inf, eta_max=np.inf))
    for e in range(3):
        mine = particles.event == e
        seen = mine & (particles.status > 0) & ~np.isin(np.abs(particles.pdg), (12, 14, 16))
        expected = textbook_anti_kt(particles.momentum[:, seen].T, np.flatnonzero(seen), radius=0.8)
        expected = {members: p for members, p in expected.items() if np.hypot(p[0], p[1]) > 100}
        found = {frozenset(index[offsets[j] : offsets[j + 1]]): axis[:, j] for j in np.flatnonzero(event == e)}
        assert found.keys() == expected.keys()
        for members, p in found.items():
            np.testing.assert_allclose(p, expected[members], rtol=1e-9, atol=1e-9)


def textbook_anti_kt(momenta: np.ndarray, names: np.ndarray, radius: float) -> dict[frozenset[int], np.ndarray]:
    left = [(p, frozenset([int(n)])) for p, n in zip(momenta, names, strict=True)]
    jets = {}
    while left:
        p = np.array([q for q, _ in left])
        pt2 = p[:, 0] ** 2 + p[:, 1] ** 2
        rapidity = 0.5 * np.log((p[:, 3] + p[:, 2]) / (p[:, 3] - p[:, 2]))
        phi = np.arctan2(p[:, 1], p[:, 0])
        dphi = np.abs(phi[:, None] - phi)
        d2 = (rapidity[:, None] - rapidity) ** 2 + np.minimum(dphi, 2 * np.pi - dphi) ** 2
        pairs = np.minimum.outer(1 / pt2, 1 / pt2) * d2 / radius**2
        np.fill_diagonal(pairs, 1 / pt2)  # the distance to the beam
        i, j = sorted(np.unravel_index(np.argmin(pairs), pairs.shape), reverse=True)
        one = left.pop(i)
        if i == j:
            jets[one[1]] = one[0]
        else:
            other = left.pop(j)
            left.append((one[0] + other[0], one[1] | other[1]))
    return jets


def test_top_jets_hold_a_top_and_its_three_quarks() -> None:
    recipe = RECIPES["top"]
    instance, _hook = pythia.make_pythia(recipe, 4)
    particles = pythia.next_events(instance, 60)
    event, axis, _, _ = pythia.cluster(particles, recipe.window)
    inside = pythia.top_inside(particles, event, axis, 0.8)
    assert 0 < inside.sum() < len(inside)
    expected = []
    for j in range(len(event)):
        jet = vector.obj(px=axis[0, j], py=axis[1, j], pz=axis[2, j], E=axis[3, j])
        expected.append(any(all(m.deltaR(jet) < 0.8 for m in top) for top in tops_of(particles, int(event[j]))))
    assert inside.tolist() == expected


def tops_of(particles: pythia.Particles, event: int) -> list[list[vector.VectorObject4D]]:
    """Top quarks with their decay quarks, found by walking the record from each final-state ancestor's parent."""

    def momentum(i: int) -> vector.VectorObject4D:
        px, py, pz, energy = particles.momentum[:, i]
        return vector.obj(px=px, py=py, pz=pz, E=energy)

    def children(i: int) -> list[int]:
        mine = range(particles.offsets[event], particles.offsets[event + 1])
        return [c for c in mine if particles.mother[c] == i and c != i]

    def mass(*members: int) -> float:
        return float(sum((momentum(m) for m in members[1:]), momentum(members[0])).mass)

    tops = []
    for i in range(particles.offsets[event], particles.offsets[event + 1]):
        if abs(particles.pdg[i]) != 6 or any(particles.pdg[c] == particles.pdg[i] for c in children(i)):
            continue
        w = next(c for c in children(i) if abs(particles.pdg[c]) == 24)
        quarks = [c for c in children(i) if abs(particles.pdg[c]) < 6]
        assert mass(w, *quarks) == pytest.approx(mass(i), rel=1e-6)  # nothing of the decay is missing
        while same := [c for c in children(w) if particles.pdg[c] == particles.pdg[w]]:
            w = same[0]
        pair = [c for c in children(w) if abs(particles.pdg[c]) < 6]
        assert len(quarks + pair) == 3
        assert mass(*pair) == pytest.approx(mass(w), rel=1e-6)
        quarks += pair
        tops.append([momentum(m) for m in (i, *quarks)])
    assert len(tops) == 2
    return tops


def test_fewer_jets_are_the_first_of_more(unit: tuple[Recipe, JetChunk, Counts]) -> None:
    recipe, chunk, _ = unit
    few, _ = pythia.generate_unit(recipe, 12345, 23)
    for name, values in few.jets.items():
        np.testing.assert_array_equal(values, chunk.jets[name][:23])
    for name, values in few.constituents.items():
        np.testing.assert_array_equal(values, chunk.constituents[name][: few.offsets[-1]])


@pytest.mark.parametrize("process", ["qcd", "top"])
def test_dropped_events_hold_no_jets(process: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook's verdicts, noted but not obeyed, against what the events turn out to hold."""
    verdicts: list[bool] = []
    judge = pythia._hopeful

    def note(*args: Any) -> bool:
        verdicts.append(judge(*args))
        return True

    monkeypatch.setattr(pythia, "_hopeful", note)
    recipe = replace(RECIPES[process], pt_hat_min=400.0)
    instance, _hook = pythia.make_pythia(recipe, 6)
    dropped = jets = 0
    for _ in range(400):
        verdicts.clear()
        particles = pythia.next_events(instance, 1)
        event, axis, _, _ = pythia.cluster(particles, recipe.window)
        inside = pythia.top_inside(particles, event, axis, 0.8) if recipe.match_top else np.ones(len(event), bool)
        dropped += not verdicts[-1]
        jets += inside.sum()
        assert verdicts[-1] or not inside.any()
    assert dropped > 80
    assert jets > 40


def test_a_refused_setting_is_an_error() -> None:
    recipe = replace(RECIPES["qcd"], pythia={"HardQCD:everything": "on"})
    with pytest.raises(RuntimeError, match="HardQCD:everything = on"):
        pythia.make_pythia(recipe, 1)


def test_seeds_of_units_do_not_collide() -> None:
    seeds = [unit_seed(p, s, u) for p in ("top", "qcd") for s in range(5) for u in range(1000)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 1
    assert max(seeds) <= 900_000_000


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
    assert store.label_names == {0: "QCD", 1: "top"}
    source = store.metadata[0]["source"]
    expected = {"process": "qcd", "seed": 3, "jets": 25, "unit_jets": 10, "command": "made so", "algorithm": "anti-kT"}
    assert source | expected == source
    assert source["window"] == {"radius": 0.8, "pt_min": 550.0, "pt_max": 650.0, "eta_max": 2.0}
    assert source["pythia"]["PartonLevel:MPI"] == "off"
    assert set(source["versions"]) == {"jetclr", "pythia8mc", "fastjet"}
    assert source["jets_found"] >= 25
    assert source["jets_per_event"] == source["jets_found"] / source["events"]
    assert source["phase_space_points"] > source["events"]
    assert 0 < source["cross_section_error_pb"] < 0.2 * source["cross_section_pb"]
    # 3.6e4 pb: QCD at 14 TeV above the recipe's pTHat, to the order of magnitude
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
    names = ["process", "jets", "seed", "unit_jets", "pythia", "algorithm", "window", "match_top"]
    names += ["early_veto", "versions"]
    partial.mkdir(exist_ok=True)
    (partial / "settings.json").write_text(json.dumps({name: source[name] for name in names}))
    for u in units:
        chunk, counts = pythia.generate_unit(RECIPES["qcd"], unit_seed("qcd", 3, u), min(10, 25 - 10 * u))
        write_unit(partial / f"unit-{u:05d}.npz", chunk, counts)


def test_units_are_whole_or_not_there(tmp_path: Path, unit: tuple[Recipe, JetChunk, Counts]) -> None:
    _, chunk, counts = unit
    path = tmp_path / "unit.npz"
    assert read_unit(path, 60) is None
    write_unit(path, chunk, counts)
    kept = read_unit(path, 60)
    assert kept is not None
    assert kept[1] == counts
    np.testing.assert_array_equal(kept[0].constituents["phi"], chunk.constituents["phi"])
    assert read_unit(path, 61) is None
    whole = path.read_bytes()
    for damage in (b"", whole[:100], whole[:-30], whole[:2000] + b"\xff" + whole[2001:]):
        path.write_bytes(damage)
        assert read_unit(path, 60) is None
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"jets": 0}, "jets is 0; it must be at least 1"),
        ({"workers": 0}, "workers is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1; it must be from 0 to 4294967295"),
        ({"process": "higgs"}, "unknown process 'higgs'; known: qcd, top"),
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


def naive_jets(recipe: Recipe, seed: int, events: int) -> np.ndarray:
    """(pT, mass, multiplicity) by the plain loop of a textbook: no veto, one particle at a time, classic FastJet."""
    import fastjet

    instance, _ = pythia.make_pythia(recipe, seed, veto=False)
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, recipe.window.radius)
    found = []
    for _ in range(events):
        assert instance.next()
        event = instance.event
        seen = [p for p in event if p.isFinal() and p.isVisible()]
        inputs = [fastjet.PseudoJet(p.px(), p.py(), p.pz(), p.e()) for p in seen]
        sequence = fastjet._swig.ClusterSequence(inputs, definition)
        tops = []
        for t in event:
            if t.idAbs() == 6 and t.iBotCopyId() == t.index():
                members = [t]
                for d in t.daughterList():
                    w = event[event[d].iBotCopyId()]
                    members += [event[q] for q in w.daughterList()] if w.idAbs() == 24 else [event[d]]
                tops.append([vector.obj(px=m.px(), py=m.py(), pz=m.pz(), E=m.e()) for m in members if m.idAbs() < 7])
        for jet in sequence.inclusive_jets(recipe.window.pt_min):
            p = vector.obj(px=jet.px(), py=jet.py(), pz=jet.pz(), E=jet.e())
            matched = not recipe.match_top or any(all(m.deltaR(p) < 0.8 for m in top) for top in tops)
            if p.pt < recipe.window.pt_max and abs(p.eta) < recipe.window.eta_max and matched:
                found.append((p.pt, p.mass, len(jet.constituents())))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("process", ["qcd", "top"])
def test_same_physics_as_the_plain_loop(process: str) -> None:
    """Some two minutes a process. pTHat starts at 400 here, as the plain loop is too slow from the recipe's."""
    from scipy.stats import ks_2samp

    recipe = replace(RECIPES[process], pt_hat_min=400.0)
    plain = naive_jets(recipe, 77, 15_000)
    units = [pythia.generate_unit(recipe, 1000 + u, 1000) for u in range(4)]
    chunk = join_chunks([c for c, _ in units])
    ours = np.stack([chunk.jets["jet_pt"], chunk.jets["jet_mass"], np.diff(chunk.offsets)], axis=1)
    for column, name in enumerate(("pT", "mass", "multiplicity")):
        p_value = ks_2samp(plain[:, column], ours[:, column]).pvalue
        print(f"{process} {name}: KS p = {p_value:.3f} ({len(plain)} and {len(ours)} jets)")
        assert p_value > 1e-3
    rate = sum(c.jets for _, c in units) / sum(c.events for _, c in units)
    error = np.hypot(rate / np.sqrt(4000), np.sqrt(len(plain)) / 15_000)
    print(f"{process} jets an event: plain {len(plain) / 15_000:.4f}, with veto {rate:.4f} +- {error:.4f}")
    assert abs(rate - len(plain) / 15_000) < 4 * error
