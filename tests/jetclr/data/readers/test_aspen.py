"""Aspen Open Jets as published: four data sets, up to 150 zero-padded candidates, centimetres."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import vector

from jetclr.data.chunk import JetChunk, check_chunk, join_chunks
from jetclr.data.names import CONSTITUENT_COLUMNS, CONSTITUENT_TYPES
from jetclr.data.readers import aspen
from jetclr.errors import UserError
from tests.jetclr.data.readers.mutations import storm

HYPOTHESES = {211: 1, -211: -1, 130: 0, 22: 0, 11: -1, -11: 1, 13: -1, -13: 1, 1: 0, 2: 0}


def jets(count: int = 20, seed: int = 0) -> dict[str, np.ndarray]:
    """Massive candidates of every kind; impact parameters of the neutral ones are no numbers."""
    rng = np.random.default_rng(seed)
    candidates = np.zeros((count, 150, 11), np.float32)
    kinematics = np.zeros((count, 4), np.float32)
    for i in range(count):
        n = int(rng.integers(len(HYPOTHESES), 151))
        pdg = np.resize(list(HYPOTHESES), n)
        charge = np.array([HYPOTHESES[x] for x in pdg.tolist()])
        pt, eta, phi = rng.exponential(8, n) + 0.2, rng.normal(-0.7, 0.3, n), rng.uniform(-np.pi, np.pi, n)
        p = vector.array({"pt": pt, "eta": eta, "phi": phi, "mass": rng.uniform(0, 0.5, n)})
        tracks = np.where(charge[:, None] == 0, np.nan, rng.normal(0, 0.01, (n, 4)))
        tracks[0 if charge[0] == 0 else 2, 1] = np.inf
        columns = [p.px, p.py, p.pz, p.E, *tracks.T, charge, pdg, rng.random(n)]
        candidates[i, :n] = np.column_stack(columns)
        jet = p.sum()
        kinematics[i] = jet.pt, jet.eta, jet.phi, rng.uniform(0, 200)
    info = np.column_stack([np.full(count, 278_820), rng.integers(1, 2000, count), rng.integers(1, 2**33, count)])
    return {
        "event_info": info,
        "jet_kinematics": kinematics,
        "PFCands": candidates,
        "jet_tagging": rng.random((count, 13)).astype(np.float32),
    }


def write(path: Path, arrays: dict[str, np.ndarray], **options: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **({"chunks": True, "compression": "gzip"} | options))
    return path


def everything(path: Path) -> JetChunk:
    return join_chunks(list(aspen.read(path, 0, aspen.rows(path))))


def test_every_value_agrees_with_vector(tmp_path: Path) -> None:
    arrays = jets()
    path = write(tmp_path / "a.h5", arrays)
    assert aspen.recognises(path)
    chunk = everything(path)
    check_chunk(chunk)
    assert set(chunk.constituents) == set(CONSTITUENT_COLUMNS)
    for i, padded in enumerate(arrays["PFCands"].astype(np.float64)):
        real = padded[padded[:, 3] > 0]
        mine = {name: values[chunk.offsets[i] : chunk.offsets[i + 1]] for name, values in chunk.constituents.items()}
        p = vector.array({"px": real[:, 0], "py": real[:, 1], "pz": real[:, 2], "E": real[:, 3]})
        for name, expected in (("pt", p.pt), ("eta", p.eta), ("phi", p.phi)):
            np.testing.assert_allclose(mine[name], expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(chunk.jets["jet_mass"][i], p.sum().mass, rtol=1e-6)
        for candidate, charge, pdg, puppi in zip(range(len(real)), *real[:, 8:].T, strict=True):
            assert (mine["charge"][candidate], mine["pdg"][candidate]) == (charge, pdg)
            np.testing.assert_allclose(mine["puppi"][candidate], puppi)
            found = [mine[name][candidate] for name in ("d0", "d0_error", "dz", "dz_error")]
            expected = 10 * real[candidate, 4:8] if charge else [0, 0, 0, 0]  # cm -> mm
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    kinds = {name: chunk.constituents[name].dtype.name for name in ("charge", "type", "pdg", "d0", "puppi")}
    assert kinds == {"charge": "int8", "type": "int8", "pdg": "int32", "d0": "float32", "puppi": "float32"}


def test_charged_candidates_without_details_of_a_track_have_no_impact_parameters(tmp_path: Path) -> None:
    """CMS writes -1 for all four; taken for centimetres, soft pions would be displaced by 10 mm."""
    arrays = jets()
    arrays["PFCands"][3, 0, 4:8] = -1
    arrays["PFCands"][3, 1, 4:8] = [-1, 0.01, -1, 0.01]  # a track that is 10 mm away
    chunk = everything(write(tmp_path / "a.h5", arrays))
    first = chunk.offsets[3]
    found = [[chunk.constituents[name][first + i] for name in aspen.TRACK] for i in range(2)]
    np.testing.assert_allclose(found, [[0, 0, 0, 0], [-10, 0.1, -10, 0.1]], rtol=1e-6)
    assert chunk.constituents["charge"][first] == 1


def test_types_are_the_hypotheses(tmp_path: Path) -> None:
    chunk = everything(write(tmp_path / "a.h5", jets()))
    expected = {
        211: "charged hadron", -211: "charged hadron", 130: "neutral hadron", 22: "photon", 11: "electron",
        -11: "electron", 13: "muon", -13: "muon", 1: "neutral hadron", 2: "photon",
    }  # fmt: skip
    for pdg, name in expected.items():
        found = chunk.constituents["type"][chunk.constituents["pdg"] == pdg]
        assert len(found)
        assert (found == CONSTITUENT_TYPES.index(name)).all()


def test_columns_of_jets(tmp_path: Path) -> None:
    arrays = jets()
    chunk = everything(write(tmp_path / "a.h5", arrays))
    for number, name in enumerate(("jet_pt", "jet_eta", "jet_phi", "softdrop_mass")):
        np.testing.assert_array_equal(chunk.jets[name], arrays["jet_kinematics"][:, number])
        assert chunk.jets[name].dtype == np.float32
    for number, name in enumerate(("run", "luminosity_block", "event")):
        np.testing.assert_array_equal(chunk.jets[name], arrays["event_info"][:, number])
        assert chunk.jets[name].dtype == np.int64
    for number in range(13):
        np.testing.assert_array_equal(chunk.jets[f"jet_tagging_{number}"], arrays["jet_tagging"][:, number])
    np.testing.assert_array_equal(chunk.jets["row"], np.arange(20))
    assert aspen.LABELS == {}
    assert not {"label", "split"} & set(chunk.jets)


def test_numbers_of_events_may_be_floating_point(tmp_path: Path) -> None:
    arrays = jets()
    integers = arrays["event_info"]
    arrays["event_info"] = integers.astype(np.float64)
    chunk = everything(write(tmp_path / "a.h5", arrays))
    np.testing.assert_array_equal(chunk.jets["event"], integers[:, 2])
    arrays["event_info"][3, 0] += 0.5
    with pytest.raises(UserError, match=r"jet 3 of .* has run = 278820\.5"):
        everything(write(tmp_path / "b.h5", arrays))


@pytest.mark.parametrize(
    ("name", "at", "value", "says"),
    [
        ("PFCands", (3, 0, 5), np.nan, "jet 3 of .* has a charged constituent whose d0_error is not a number"),
        ("PFCands", (4, 1, 6), np.inf, "jet 4 of .* has a charged constituent whose dz is not a number"),
        ("PFCands", (4, 1, 4), 1e38, "jet 4 of .* has a charged constituent whose d0 is not a number"),
        ("PFCands", (5, 2, 0), np.nan, "jet 5 of .* has a constituent with pt = nan"),
        ("PFCands", (6, 2, 3), np.inf, "jet 6 of .* has a constituent with"),
        ("PFCands", (6, 2, 3), -1e30, "jet 6 of .* has a constituent with .* E = -1e.30"),
        ("PFCands", (7, 2, slice(0, 2)), 0, "jet 7 of .* has a constituent with pt = 0"),
        ("PFCands", (8, 2, 8), 0.5, "jet 8 of .* has charge = 0.5"),
        ("PFCands", (9, 2, 9), np.nan, "jet 9 of .* has PDG number = nan"),
        ("jet_kinematics", (2, 2), np.nan, "jet 2 of .* has a phi that is no azimuth in radians"),
    ],
)
def test_bad_jets_are_named(tmp_path: Path, name: str, at: tuple[int, ...], value: float, says: str) -> None:
    arrays = jets()
    arrays[name][at] = value
    with pytest.raises(UserError, match=says):
        everything(write(tmp_path / "a.h5", arrays))


@pytest.mark.parametrize("name", ["event_info", "jet_kinematics", "PFCands", "jet_tagging"])
def test_other_layouts_are_refused(tmp_path: Path, name: str) -> None:
    arrays = jets()
    without = write(tmp_path / "a.h5", {k: v for k, v in arrays.items() if k != name})
    assert not aspen.recognises(without)
    with pytest.raises(UserError, match=f"has no '{name}', so it is not in the aspen layout"):
        aspen.rows(without)
    with pytest.raises(UserError, match="should be numbers of shape"):
        aspen.rows(write(tmp_path / "b.h5", arrays | {name: arrays[name][..., :-1]}))


def test_damaged_files(tmp_path: Path) -> None:
    toll = storm("aspen", write(tmp_path / "a.h5", jets()), 40)
    assert not toll.faults, toll
    assert not toll.hangs, toll
    assert len(toll.refused) > 10, toll


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"chunks": None, "compression": None}])
def test_many_damaged_files(tmp_path: Path, options: dict[str, object]) -> None:
    toll = storm("aspen", write(tmp_path / "a.h5", jets(), **options), 500, seed=1)
    print(toll, toll.sentences())
    assert not toll.faults, toll
    assert not toll.hangs, toll
