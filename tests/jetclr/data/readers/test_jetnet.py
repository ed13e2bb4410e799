"""JetNet files as the JetNet library reads them: two float data sets, coordinates relative to the jet."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import vector

from jetclr.data.chunk import JetChunk, check_chunk, join_chunks
from jetclr.data.readers import jetnet
from jetclr.errors import UserError
from tests.jetclr.data.readers.mutations import storm


def jets(count: int = 20, constituents: int = 30, seed: int = 0) -> dict[str, np.ndarray]:
    """Jets near phi = 0 whose mask is not always at the end; multiplicity is the mask's sum."""
    rng = np.random.default_rng(seed)
    mask = rng.random((count, constituents)) < 0.7
    mask[:, 0] = True
    shape = mask.shape
    particles = [rng.normal(0, 0.2, shape), rng.normal(0, 0.2, shape), rng.exponential(0.05, shape) + 1e-4]
    features = [rng.uniform(800, 1600, count), rng.normal(0, 1, count), rng.uniform(20, 200, count), mask.sum(1)]
    return {
        "particle_features": np.stack([*(x * mask for x in particles), mask], axis=-1).astype(np.float32),
        "jet_features": np.stack(features, axis=-1).astype(np.float32),
    }


def write(path: Path, arrays: dict[str, np.ndarray], **options: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **options)
    return path


def everything(path: Path) -> JetChunk:
    return join_chunks(list(jetnet.read(path, 0, jetnet.rows(path))))


@pytest.mark.parametrize("options", [{}, {"chunks": True, "compression": "gzip"}])
def test_every_value_agrees_with_vector(tmp_path: Path, options: dict[str, object]) -> None:
    arrays = jets()
    chunk = everything(write(tmp_path / "t.hdf5", arrays, **options))
    check_chunk(chunk)
    for i in range(20):
        jet_pt, jet_eta, jet_mass, multiplicity = arrays["jet_features"][i].astype(np.float64)
        eta, phi, pt, _ = arrays["particle_features"][i][arrays["particle_features"][i, :, 3] == 1].astype(np.float64).T
        assert len(pt) == multiplicity
        # Relative coordinates, undone by a scale and a boost along the beam: a shift in eta for massless particles.
        p = vector.array({"pt": pt, "eta": eta, "phi": phi, "mass": np.zeros_like(pt)})
        p = p.scale(jet_pt).boostZ(beta=np.tanh(jet_eta))
        mine = slice(chunk.offsets[i], chunk.offsets[i + 1])
        np.testing.assert_allclose(chunk.constituents["pt"][mine], p.pt, rtol=1e-6)
        np.testing.assert_allclose(chunk.constituents["eta"][mine], p.eta, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(chunk.constituents["phi"][mine], p.phi, rtol=1e-6, atol=1e-6)
        for name, value in (("jet_pt", jet_pt), ("jet_eta", jet_eta), ("jet_mass", jet_mass), ("jet_phi", 0)):
            assert chunk.jets[name][i] == value
            assert chunk.jets[name].dtype == np.float32
    np.testing.assert_array_equal(chunk.jets["row"], np.arange(20))
    assert chunk.jets["row"].dtype == np.int64
    assert "split" not in chunk.jets


@pytest.mark.parametrize(
    ("name", "label"),
    [("g.hdf5", "gluon"), ("q150.hdf5", "quark"), ("t30.hdf5", "top"), ("w.h5", "W"), ("z150.hdf5", "Z")],
)
def test_the_label_is_the_name(tmp_path: Path, name: str, label: str) -> None:
    chunk = everything(write(tmp_path / name, jets(5, 150 if "150" in name else 30)))
    assert chunk.jets["label"].dtype == np.int32
    assert [jetnet.LABELS[i] for i in chunk.jets["label"]] == [label] * 5


@pytest.mark.parametrize("name", ["top.hdf5", "b.hdf5", "t15.hdf5", "t.hdf5.h5", "T.hdf5"])
def test_another_name_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, jets())
    assert jetnet.recognises(path)  # so that this sentence is what a user sees
    for act in (lambda: jetnet.rows(path), lambda: list(jetnet.read(path, 0, 5))):
        with pytest.raises(UserError, match=r"must be called g\.hdf5"):
            act()


def test_phi_is_wrapped(tmp_path: Path) -> None:
    arrays = jets()
    arrays["particle_features"][2, 0] = [0.1, 3.5, 0.2, 1]
    arrays["particle_features"][3, 0] = [0.1, np.float32(np.pi), 0.2, 1]
    chunk = everything(write(tmp_path / "t.hdf5", arrays))
    check_chunk(chunk)
    np.testing.assert_allclose(chunk.constituents["phi"][chunk.offsets[2]], 3.5 - 2 * np.pi, rtol=1e-6)
    np.testing.assert_allclose(abs(chunk.constituents["phi"][chunk.offsets[3]]), np.pi, rtol=1e-6)


def test_the_mask_decides_and_pt_of_zero_is_dropped(tmp_path: Path) -> None:
    arrays = jets(6)
    whole = everything(write(tmp_path / "t.hdf5", arrays))
    particles = arrays["particle_features"]
    particles[particles[..., 3] == 0] = [9, 9, 0.3, 0.2]  # noise behind the mask
    chunk = everything(write(tmp_path / "q.hdf5", arrays))
    np.testing.assert_array_equal(chunk.constituents["pt"], whole.constituents["pt"])
    particles[2, 0] = [0.1, 0.1, 0, 1]
    chunk = everything(write(tmp_path / "w.hdf5", arrays))
    assert (np.diff(whole.offsets) - np.diff(chunk.offsets)).tolist() == [0, 0, 1, 0, 0, 0]


def test_a_jet_that_is_all_masked_is_given_as_such(tmp_path: Path) -> None:
    arrays = jets(6)
    arrays["particle_features"][4, :, 3] = 0
    chunk = everything(write(tmp_path / "t.hdf5", arrays))
    assert np.flatnonzero(np.diff(chunk.offsets) == 0).tolist() == [4]
    with pytest.raises(UserError, match="jet 4 has no constituents"):
        check_chunk(chunk)


@pytest.mark.parametrize(
    ("name", "at", "value", "says"),
    [
        ("particle_features", (3, 0, 2), -0.1, "jet 3 of .* has a constituent with pT_rel not above 0"),
        ("particle_features", (3, 0, 2), np.nan, "jet 3 of .* has a constituent with pT_rel not above 0"),
        ("particle_features", (4, 0, 0), np.inf, "jet 4 of .* has a constituent with eta_rel beyond"),
        ("particle_features", (5, 0, 1), 90, "jet 5 of .* has a constituent with phi_rel beyond"),
        ("particle_features", (6, 29, 3), np.nan, "jet 6 of .* has a mask that is not a number"),
        ("jet_features", (7, 0), 0, "jet 7 of .* has a pT that is not a positive number"),
        ("jet_features", (8, 0), np.nan, "jet 8 of .* has a pT that is not a positive number"),
        ("jet_features", (9, 1), -50, "jet 9 of .* has an eta beyond 20"),
        ("jet_features", (9, 2), np.inf, "jet 9 of .* has a mass that is not a number from 0"),
    ],
)
def test_bad_jets_are_named(tmp_path: Path, name: str, at: tuple[int, ...], value: float, says: str) -> None:
    arrays = jets()
    arrays[name][at] = value
    with pytest.raises(UserError, match=says):
        everything(write(tmp_path / "t.hdf5", arrays))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"particle_features": np.zeros((20, 30, 3), np.float32)}, r"should be numbers of shape \[N, M, 4\] and is"),
        ({"jet_features": np.zeros((20, 4), "S4")}, r"should be numbers of shape \[N, 4\] and is \|S4"),
        ({"jet_features": jets(19)["jet_features"]}, "different numbers of rows"),
        ({"jet_features": None}, "has no 'jet_features', so it is not in the jetnet layout; it holds"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, change: dict[str, np.ndarray | None], says: str) -> None:
    arrays = {name: values for name, values in (jets() | change).items() if values is not None}
    with pytest.raises(UserError, match=says):
        jetnet.rows(write(tmp_path / "t.hdf5", arrays))


def test_damaged_files(tmp_path: Path) -> None:
    toll = storm("jetnet", write(tmp_path / "t.hdf5", jets(60), chunks=True, compression="gzip"), 40)
    assert not toll.faults, toll
    assert not toll.hangs, toll
    assert len(toll.refused) > 10, toll


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"chunks": True, "compression": "gzip", "shuffle": True}])
def test_many_damaged_files(tmp_path: Path, options: dict[str, object]) -> None:
    toll = storm("jetnet", write(tmp_path / "t.hdf5", jets(60), **options), 500, seed=1)
    print(toll, toll.sentences())
    assert not toll.faults, toll
    assert not toll.hangs, toll
