"""The jets of every process: what they hold, that they are those of FastJet, and that a seed decides them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import vector

from jetclr.data import pythia
from jetclr.data.chunk import JetChunk, check_chunk, join_chunks
from jetclr.data.clustering import antikt_jets
from jetclr.data.matching import Particles, delta_r
from jetclr.data.particles import charges, known, types
from jetclr.data.processes import NOT_SHIPPED_TUNES, PROCESSES, TUNES, Detector, Options, Recipe, recipe
from jetclr.data.pythia import Counts, generate_unit, signal_events
from jetclr.errors import UserError

pytest.importorskip("pythia8mc", reason="generating is an optional extra")
fastjet = pytest.importorskip("fastjet", reason="generating is an optional extra")

MIXED = {"dijet": Options(signal_fraction=0.3)}
COORDINATES = {"pt": np.float32, "eta": np.float32, "phi": np.float32}


@cache
def unit(process: str, options: Options | None = None, jets: int = 100, seed: int = 12345) -> tuple[JetChunk, Counts]:
    """Made once and used by many tests, which leave it as it is."""
    return generate_unit(recipe(process, options or MIXED.get(process)), seed, jets)


@pytest.mark.parametrize("process", PROCESSES)
def test_jets_lie_in_the_window(process: str) -> None:
    made, (chunk, counts) = recipe(process), unit(process)
    jets, window = chunk.jets, made.window
    check_chunk(chunk)
    assert len(chunk.offsets) == 101
    assert counts.jets >= 100
    leading = jets["jet_index"] == 0 if made.dijets else np.ones(100, bool)
    assert (jets["jet_pt"][leading] > window.pt_min).all()
    assert (jets["jet_pt"][leading] < window.pt_max).all()
    assert (np.abs(jets["jet_eta"]) < window.eta_max).all()
    assert set(jets["label"].tolist()) == ({0, 6} if made.dijets else {made.label})
    assert (jets["missing_pt"] >= 0).all()
    expected = dict.fromkeys(("jet_pt", "jet_eta", "jet_phi", "jet_mass", "missing_pt"), np.float32)
    expected |= {"label": np.int32}
    if made.dijets:
        expected |= {"event": np.int64, "jet_index": np.int8, "dijet_mass": np.float32}
    assert {name: v.dtype for name, v in jets.items()} == expected
    columns = COORDINATES | {"charge": np.int8, "type": np.int8, "pdg": np.int32}
    assert {name: v.dtype for name, v in chunk.constituents.items()} == columns


@pytest.mark.parametrize("process", PROCESSES)
def test_every_constituent_is_known_and_visible(process: str) -> None:
    parts = unit(process)[0].constituents
    pdg = parts["pdg"].astype(np.int64)
    assert known(pdg).all()  # else its charge and type would be guessed as 0
    assert not np.isin(np.abs(pdg), (12, 14, 16)).any()
    np.testing.assert_array_equal(parts["charge"], charges(pdg))
    np.testing.assert_array_equal(parts["type"], types(pdg))
    assert (parts["type"] > 0).all()
    assert abs(parts["charge"].mean()) < 0.1
    charged = parts["type"] == 1
    assert 0.4 < charged.mean() < 0.7  # two of three pions
    assert (np.abs(parts["charge"][charged]) == 1).all()
    assert not parts["charge"][(parts["type"] == 2) | (parts["type"] == 3)].any()


@pytest.mark.parametrize("process", ["qcd", "top"])
def test_constituents_add_up_to_their_jet(process: str) -> None:
    chunk, _ = unit(process)
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
    made = recipe("qcd")
    instance, _hook = pythia.make_pythia(made, 3)
    particles = pythia.next_events(instance, 3)
    seen = pythia.observe(particles, made, 3, 0)
    jets = antikt_jets(seen.momentum, seen.offsets, 0.8, 100.0)
    for e in range(3):
        mine = np.arange(seen.offsets[e], seen.offsets[e + 1])
        expected = textbook_anti_kt(seen.momentum[:, mine].T, mine, radius=0.8)
        expected = {members: p for members, p in expected.items() if np.hypot(p[0], p[1]) > 100}
        numbers = np.flatnonzero(jets.event == e)
        found = {frozenset(jets.index[jets.offsets[j] : jets.offsets[j + 1]]): jets.momentum[:, j] for j in numbers}
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


@pytest.mark.parametrize("process", ["qcd", "semivisible", "dijet"])
def test_jets_are_those_of_fastjet_for_what_pythia_calls_visible(process: str) -> None:
    """The same events once more, one at a time, particle by particle, through both libraries' own interfaces."""
    made = replace(recipe(process), match=None)
    if process == "dijet":
        made = recipe("dijet", Options(signal_fraction=1.0)).signal or made
    first, _hook = pythia.make_pythia(made, 8)
    again, _hook2 = pythia.make_pythia(made, 8)
    chunk = pythia.jets_of(pythia.next_events(first, 40), made, 8)
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, made.window.radius)
    expected: list[tuple[float, ...]] = []
    for _ in range(40):
        assert again.next()
        final = [p for p in again.event if p.isFinal()]
        seen = [fastjet.PseudoJet(p.px(), p.py(), p.pz(), p.e()) for p in final if p.isVisible()]
        lost = [p for p in final if not p.isVisible()]
        missing = float(np.hypot(sum(p.px() for p in lost), sum(p.py() for p in lost)))
        sequence = fastjet._swig.ClusterSequence(seen, definition)
        jets = fastjet._swig.sorted_by_pt(sequence.inclusive_jets(20.0))
        inside = [j for j in jets if abs(j.eta()) < made.window.eta_max]
        high = [j for j in inside if made.window.pt_min < j.pt() < made.window.pt_max]
        if made.dijets:
            pair = [abs(j.eta()) < made.window.eta_max for j in jets[:2]]
            high = list(jets[:2]) if pair == [True, True] and jets[0].pt() > made.window.pt_min else []
        expected += [(j.pt(), j.m(), len(j.constituents()), missing) for j in high]
    found = np.stack([chunk.jets["jet_pt"], chunk.jets["jet_mass"], np.diff(chunk.offsets), chunk.jets["missing_pt"]])
    assert len(expected) > 5
    assert found.shape[1] == len(expected)

    def in_order(values: np.ndarray) -> np.ndarray:
        return values[np.argsort(values[:, 0])]

    np.testing.assert_allclose(in_order(found.T), in_order(np.array(expected)), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("process", PROCESSES)
def test_fewer_jets_are_the_first_of_more(process: str) -> None:
    few = unit(process, jets=34)[0]
    assert_prefix(few, unit(process)[0])


def test_detector_and_interactions_keep_that() -> None:
    options = Options(detector=Detector(), mpi=True)
    assert_prefix(unit("qcd", options, jets=5)[0], unit("qcd", options, jets=20)[0])


def assert_prefix(few: JetChunk, more: JetChunk) -> None:
    jets = len(few.offsets) - 1
    np.testing.assert_array_equal(few.offsets, more.offsets[: jets + 1])
    for name, values in few.jets.items():
        np.testing.assert_array_equal(values, more.jets[name][:jets], err_msg=name)
    for name, values in few.constituents.items():
        np.testing.assert_array_equal(values, more.constituents[name][: few.offsets[-1]], err_msg=name)


def test_another_seed_gives_other_jets() -> None:
    assert not np.isin(unit("w")[0].jets["jet_pt"], unit("w", seed=12346)[0].jets["jet_pt"]).any()


# Medians: bosons keep their mass within the radius but for neutrinos, and some radiation comes on top.
@pytest.mark.parametrize(
    ("process", "mass", "below", "above"),
    [("w", 80.4, 2, 5), ("z", 91.2, 2, 6), ("higgs", 125, 6, 4), ("top", 173, 4, 9)],
)
def test_masses_are_where_they_belong(process: str, mass: float, below: float, above: float) -> None:
    found = unit(process)[0].jets["jet_mass"]
    assert mass - below < np.median(found) < mass + above
    near = np.abs(found - mass) < 0.15 * mass
    assert near.mean() > 0.55
    assert (np.abs(unit("qcd")[0].jets["jet_mass"] - mass) < 0.15 * mass).mean() < 0.3


def test_gluons_radiate_more_than_quarks() -> None:
    def mean(process: str) -> float:
        return float(np.diff(unit(process)[0].offsets).mean())

    assert 1.3 < mean("gluon") / mean("quark") < 1.8  # 9/4 in the limit of high energy
    assert mean("quark") < mean("qcd") < mean("gluon")


def test_higgs_bosons_decay_to_b_quarks_and_w_bosons_do_not() -> None:
    """A B hadron's decay gives leptons and kaons."""

    def leptons(process: str) -> float:
        kind = unit(process)[0].constituents["type"]
        return float(np.isin(kind, (4, 5)).sum() / 100)

    assert leptons("higgs") > 2 * leptons("w")


def test_the_invisible_fraction_is_invisible() -> None:
    shy, bold = (unit("semivisible", Options(invisible_fraction=f))[0].jets for f in (0.6, 0.1))
    assert shy["missing_pt"].mean() > 2 * bold["missing_pt"].mean()
    share = [(j["jet_pt"] / (j["jet_pt"] + j["missing_pt"])).mean() for j in (shy, bold)]
    assert share[0] < share[1] - 0.1
    plain = unit("qcd")[0].jets["missing_pt"]
    assert plain.mean() < 0.3 * bold["missing_pt"].mean()


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_dark_mesons_decay_as_asked(fraction: float) -> None:
    if fraction == 1:
        made = replace(recipe("semivisible"), pythia=recipe("semivisible").pythia | dark(1.0))
    else:
        made = recipe("semivisible", Options(invisible_fraction=fraction))
    instance, _hook = pythia.make_pythia(made, 5)
    particles = pythia.next_events(instance, 60)
    kind, mother = np.abs(particles.pdg), particles.mother
    from_meson = np.isin(kind[mother], (4900111, 4900113, 4900211, 4900213)) & (kind != kind[mother])
    dark_pairs, quark_pairs = ((from_meson & chosen).sum() / 2 for chosen in (kind == 51, kind < 6))
    decays = dark_pairs + quark_pairs
    assert decays > 300
    assert abs(dark_pairs / decays - fraction) <= 4 * np.sqrt(fraction * (1 - fraction) / decays)
    assert from_meson.sum() == 2 * decays  # to nothing else
    assert not ((particles.status > 0) & (kind > 4_900_000)).any()  # nothing dark is left but dark matter


def dark(fraction: float) -> dict[str, str | list[str]]:
    from jetclr.data.processes import dark_sector

    return dark_sector(2000.0, fraction)


def test_the_resonance_peaks_over_a_falling_background() -> None:
    signal = unit("dijet", Options(signal_fraction=1.0))[0].jets["dijet_mass"][::2]
    background = unit("dijet", Options(signal_fraction=0.0))[0].jets["dijet_mass"][::2]
    assert np.median(signal) == pytest.approx(3500, rel=0.03)
    assert (np.abs(signal - 3500) < 350).mean() > 0.7
    low, high = ((background > start) & (background < start + 900) for start in (2400, 3300))
    assert low.sum() > 1.5 * high.sum()
    lighter = unit("dijet", Options(signal_fraction=1.0, resonance_mass=3000.0), jets=60)[0].jets["dijet_mass"][::2]
    assert np.median(lighter) == pytest.approx(3000, rel=0.03)
    boson = unit("dijet", Options(signal_fraction=1.0))[0].jets["jet_mass"]
    assert 75 < np.median(boson) < 105


def test_two_jets_an_event() -> None:
    jets = unit("dijet")[0].jets
    assert jets["jet_index"].tolist() == [0, 1] * 50
    assert jets["event"].tolist() == np.repeat(np.arange(50), 2).tolist()
    assert jets["label"].tolist() == np.repeat(np.where(signal_events(0, 50, 0.3), 6, 0), 2).tolist()
    assert (jets["jet_pt"][::2] >= jets["jet_pt"][1::2]).all()
    for name in ("dijet_mass", "missing_pt"):
        assert (jets[name][::2] == jets[name][1::2]).all()
    lorentz = vector.array({name: jets[f"jet_{name}"].astype(float) for name in ("pt", "eta", "phi", "mass")})
    np.testing.assert_allclose((lorentz[::2] + lorentz[1::2]).mass, jets["dijet_mass"][::2], rtol=1e-5)
    later, _ = generate_unit(recipe("dijet", MIXED["dijet"]), 12345, 20, 1000)
    assert later.jets["event"].tolist() == np.repeat(np.arange(1000, 1010), 2).tolist()
    assert later.jets["label"].tolist() == np.repeat(np.where(signal_events(1000, 10, 0.3), 6, 0), 2).tolist()


@pytest.mark.parametrize("fraction", [0.0, 5e-324, 1e-30, 1e-9, 0.01, 0.29, 1 / 3, 0.5, 0.7, 0.999, 1.0])
def test_signal_is_as_much_as_asked(fraction: float) -> None:
    whole = signal_events(0, 3000, fraction)
    assert np.abs(np.cumsum(whole) - fraction * np.arange(1, 3001)).max() <= 1 + 1e-9
    for size in (1, 7, 250):  # units cut the events anywhere
        parts = [signal_events(first, min(size, 3000 - first), fraction) for first in range(0, 3000, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_signal_comes_at_no_fixed_interval() -> None:
    assert len(np.unique(np.diff(np.flatnonzero(signal_events(0, 3000, 0.02))))) > 10


def final_photons(*events: list[tuple[float, float, float]]) -> Particles:
    """Events of nothing but photons: (pT, eta, phi)."""
    pt, eta, phi = np.array([photon for event in events for photon in event]).T
    offsets = np.cumsum([0] + [len(event) for event in events]).astype(np.int64)
    number = np.arange(len(pt))
    momentum = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)])
    return Particles(offsets, np.full(len(pt), 22), np.ones(len(pt), np.int64), number, momentum)


def test_which_events_are_dijets() -> None:
    events = [
        [(1300, 0.0, 0.0), (900, 1.0, 3.0), (300, 0.0, 1.5)],
        [(1300, 0.0, 0.0), (900, 2.6, 3.0), (300, 0.0, 1.5)],  # the second one lies outside: the third is no stand-in
        [(1300, 2.6, 0.0), (1250, 0.0, 3.0)],
        [(1190, 0.0, 0.0), (1180, 0.0, 3.0)],
        [(1300, 0.0, 0.0), (15, 0.0, 3.0)],
        [(25, -2.4, 1.0), (1300, 2.4, 0.0)],
        [(7001, 0.0, 1.0), (6900, 0.0, -2.0)],
    ]
    jets = pythia.jets_of(final_photons(*events), recipe("dijet"), 1).jets
    np.testing.assert_allclose(jets["jet_pt"], [1300, 900, 1300, 25], rtol=1e-6)
    np.testing.assert_allclose(jets["jet_eta"], [0, 1, 2.4, -2.4], atol=1e-6)
    pair = [vector.obj(pt=pt, eta=eta, phi=phi, mass=0) for pt, eta, phi in events[0][:2]]
    assert jets["dijet_mass"][0] == pytest.approx((pair[0] + pair[1]).mass, rel=1e-6)


def test_which_jets_are_in_the_window() -> None:
    jets = [(600, 0.0, 0.0), (560, 1.9, 0.0), (640, -1.9, 0.0), (600, 2.1, 1.0), (540, 0.0, 1.5), (660, 0.0, 3.0)]
    found = pythia.jets_of(final_photons(jets), recipe("qcd"), 1).jets["jet_pt"]
    np.testing.assert_allclose(np.sort(found), [560, 600, 640], rtol=1e-6)


def test_options_have_their_effect() -> None:
    plain = unit("qcd")[0]
    narrow = unit("qcd", Options(radius=0.4))[0]
    low = unit("qcd", Options(pt_min=200.0, pt_max=250.0))[0]
    central = unit("qcd", Options(eta_max=0.5), jets=40)[0]
    busy = unit("qcd", Options(mpi=True), jets=40)[0]

    def multiplicity(chunk: JetChunk) -> float:
        return float(np.diff(chunk.offsets).mean())

    def at_the_rim(chunk: JetChunk) -> float:
        eta, phi = (np.repeat(chunk.jets[f"jet_{name}"], np.diff(chunk.offsets)) for name in ("eta", "phi"))
        far = delta_r(chunk.constituents["eta"], chunk.constituents["phi"], eta, phi) > 0.5
        return float(far.sum() / (len(chunk.offsets) - 1))

    assert 1.15 * multiplicity(narrow) < multiplicity(plain) < multiplicity(busy)
    assert at_the_rim(plain) < 0.85 * at_the_rim(busy)
    assert narrow.jets["jet_mass"].mean() < 0.8 * plain.jets["jet_mass"].mean()
    assert ((low.jets["jet_pt"] > 200) & (low.jets["jet_pt"] < 250)).all()
    assert (np.abs(central.jets["jet_eta"]) < 0.5).all()


def test_a_detector_sees_tracks_and_cells() -> None:
    options = Options(detector=Detector(granularity=0.2))
    for process in ("qcd", "semivisible"):
        chunk, _ = unit(process, options, jets=60)
        parts = chunk.constituents
        assert set(np.abs(parts["pdg"]).tolist()) <= {11, 13, 22, 130, 211}
        neutral = parts["charge"] == 0
        assert np.isin(parts["pdg"][neutral], (22, 130)).all()
        rows = parts["eta"][neutral] / 0.2
        np.testing.assert_allclose(rows - np.floor(rows), 0.5, atol=1e-4)  # the cells' centres
        assert (parts["pt"][~neutral] > 0.4).all()
    assert np.diff(unit("qcd", options, jets=60)[0].offsets).mean() < np.diff(unit("qcd")[0].offsets).mean()


def test_what_cannot_be_found_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that next to no jet hits."""
    monkeypatch.setattr(pythia, "HOPELESS_EVENTS", 300)
    made = recipe("qcd", Options(pt_min=550.0, pt_max=550.001))
    with pytest.raises(UserError, match=r"only 0 of [0-9]+ events of qcd gave a jet as asked; widen the pT window"):
        generate_unit(made, 1, 10)


def test_a_refused_setting_is_an_error() -> None:
    made = replace(recipe("qcd"), pythia={"HardQCD:everything": ["on", "off"]})
    with pytest.raises(RuntimeError, match="HardQCD:everything = on"):
        pythia.make_pythia(made, 1)


def test_tunes_are_those_that_pythia_ships() -> None:
    """With every parton distribution in Pythia itself, unless we say that it is not."""
    import pythia8mc

    for tune in range(1, 35):
        instance = pythia8mc.Pythia("", False)
        instance.readString("Print:errors = off")
        known = instance.readString(f"Tune:pp = {tune}")
        assert known == (tune in TUNES)
        if known:
            assert instance.settings.word("PDF:pSet").startswith("LHAPDF") == (tune in NOT_SHIPPED_TUNES)


def test_another_tune_gives_other_jets_and_the_default_one_the_same() -> None:
    plain, named, weak = (unit("qcd", Options(tune=t), jets=60)[0] for t in (None, 14, 26))
    assert_prefix(named, unit("qcd")[0])
    assert_prefix(plain, named)
    assert not np.isin(weak.jets["jet_pt"], plain.jets["jet_pt"]).any()
    check_chunk(weak)
    # A variation of A14 with alpha_s = 0.111 in the final-state shower, where Monash has 0.1365.
    assert np.diff(weak.offsets).mean() < 0.85 * np.diff(plain.offsets).mean()


def naive_jets(made: Recipe, seed: int, events: int) -> np.ndarray:
    """(pT, mass, multiplicity) by the plain loop of a textbook: no veto, one particle at a time, classic FastJet."""
    instance, _ = pythia.make_pythia(made, seed, veto=False)
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, made.window.radius)
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
        for jet in sequence.inclusive_jets(made.window.pt_min):
            p = vector.obj(px=jet.px(), py=jet.py(), pz=jet.pz(), E=jet.e())
            matched = made.match is None or any(all(m.deltaR(p) < 0.8 for m in top) for top in tops)
            if p.pt < made.window.pt_max and abs(p.eta) < made.window.eta_max and matched:
                found.append((p.pt, p.mass, len(jet.constituents())))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("process", ["qcd", "top"])
def test_same_physics_as_the_plain_loop(process: str) -> None:
    """Some two minutes a process. pTHat starts at 400 here, as the plain loop is too slow from the recipe's."""
    from scipy.stats import ks_2samp

    made = replace(recipe(process), pt_hat_min=400.0)
    plain = naive_jets(made, 77, 15_000)
    units = [generate_unit(made, 1000 + u, 1000) for u in range(4)]
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
