"""Quark and gluon files, written as the public ones are: np.savez_compressed of X and y."""

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import vector
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data.chunk import JetChunk, check_chunk, join_chunks
from jetclr.data.kinematics import LARGEST_PHI
from jetclr.data.readers import Reader, momenta, npy, qg, reader
from jetclr.data.store import Store, StoreWriter
from jetclr.errors import UserError
from tests.jetclr.data.readers.mutations import storm

# Masses, charges and types by hand; heavy particles and light ones.
KNOWN = {
    22: (0, 0, 3), 211: (0.13957, 1, 1), -211: (0.13957, -1, 1), 321: (0.493677, 1, 1), 130: (0.497611, 0, 2),
    2212: (0.938272, 1, 1), -2212: (0.938272, -1, 1), 2112: (0.939565, 0, 2), 11: (0.000511, -1, 4),
    -13: (0.105658, 1, 5),
}  # fmt: skip


def content(jets: int = 30, slots: int = 17, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """X and y: slow and fast particles in no order, phi in [0, 2 pi), padding last."""
    rng = np.random.default_rng(seed)
    x = np.zeros((jets, slots, 4))
    for i in range(jets):
        n = int(rng.integers(1, slots + 1))
        x[i, :n, 0] = rng.exponential(3, n) + 0.05
        x[i, :n, 1] = rng.uniform(-1.7, 1.7) + rng.normal(0, 0.3, n)
        x[i, :n, 2] = (rng.uniform(0, 7) + rng.normal(0, 0.3, n)) % (2 * np.pi)
        x[i, :n, 3] = rng.choice(list(KNOWN), n)
    return x, (np.arange(jets) % 3 == 0).astype(np.float64)


def write(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    np.savez_compressed(path, X=x, y=y)
    return path


def read(path: Path) -> JetChunk:
    chunks = list(qg.read(path, 0, qg.rows(path)))
    for chunk in chunks:
        check_chunk(chunk)
    return join_chunks(chunks)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("qg") / "QG_jets.npz", *content())


@pytest.mark.parametrize("kind", ["<f8", "<f4", ">f8"])
def test_every_value_agrees_with_vector(tmp_path: Path, kind: str) -> None:
    assert isinstance(reader("qg"), Reader)
    x, y = content()
    path = write(tmp_path / "a.npz", x.astype(kind), y)
    x = x.astype(kind).astype(np.float64)
    assert qg.recognises(path)
    chunk = read(path)
    for i in range(30):
        real = x[i, :, 0] > 0
        pt, rapidity, phi, pdg = x[i, real].T
        mass = np.array([KNOWN[int(n)][0] for n in pdg])
        pz = np.sqrt(pt**2 + mass**2) * np.sinh(rapidity)
        p = vector.array({"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pz, "mass": mass})
        np.testing.assert_allclose(p.rapidity, rapidity, atol=1e-9)
        at = slice(chunk.offsets[i], chunk.offsets[i + 1])
        for name, expected in (("pt", p.pt), ("eta", p.eta), ("phi", p.phi)):
            np.testing.assert_allclose(chunk.constituents[name][at], expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(chunk.constituents["pdg"][at], pdg)
        np.testing.assert_array_equal(chunk.constituents["charge"][at], [KNOWN[int(n)][1] for n in pdg])
        np.testing.assert_array_equal(chunk.constituents["type"][at], [KNOWN[int(n)][2] for n in pdg])
        jet = p.sum()
        for name in ("pt", "eta", "phi", "mass"):
            np.testing.assert_allclose(chunk.jets[f"jet_{name}"][i], getattr(jet, name), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(chunk.jets["label"], y)
    np.testing.assert_array_equal(chunk.jets["row"], np.arange(30))
    kinds = {"charge": np.int8, "type": np.int8, "pdg": np.int32, "pt": np.float32}
    assert {name: chunk.constituents[name].dtype for name in kinds} == kinds
    assert qg.LABELS == {0: "gluon", 1: "quark"}


def test_rapidity_is_not_pseudorapidity(tmp_path: Path) -> None:
    """A slow proton of rapidity 1 and pT 0.1 GeV: sinh(eta) = sqrt(1 + (m/pT)^2) sinh(y), far from 1."""
    x = np.array([[[0.1, 1.0, 0.5, 2212]]])
    eta = read(write(tmp_path / "a.npz", x, np.ones(1))).constituents["eta"]
    np.testing.assert_allclose(eta, np.arcsinh(np.sqrt(1 + (0.938272 / 0.1) ** 2) * np.sinh(1.0)), rtol=1e-6)
    assert eta[0] > 3


def test_azimuths_are_wrapped(file: Path) -> None:
    x, _ = content()
    assert (x[..., 2] > np.pi).any()
    phi = read(file).constituents["phi"]
    assert (np.abs(phi) <= LARGEST_PHI).all()
    assert phi.min() < -1
    assert phi.max() > 1


@given(st.floats(0.01, 1e3), st.floats(-8, 8), st.floats(-np.pi, np.pi), st.sampled_from([0.0, 0.14, 0.94]))
def test_momenta_agree_with_vector(pt: float, rapidity: float, phi: float, mass: float) -> None:
    p = momenta.from_rapidity(*(np.array([v]) for v in (pt, rapidity, phi, mass)))[:, 0]
    q = vector.obj(px=p[0], py=p[1], pz=p[2], E=p[3])
    np.testing.assert_allclose([q.pt, q.rapidity], [pt, rapidity], rtol=1e-6, atol=1e-6)
    # Of E^2 - p^2 the rounding remains.
    np.testing.assert_allclose(q.E**2 - q.p**2, mass**2, atol=1e-12 * q.E**2)


@pytest.mark.parametrize(("start", "stop"), [(0, 30), (0, 1), (7, 29), (29, 30), (25, 99), (5, 5)])
def test_a_range_is_the_same_jets(file: Path, start: int, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(file)
    monkeypatch.setattr(qg, "ROWS", 4)
    chunks = list(qg.read(file, start, stop))
    assert [len(c.offsets) - 1 for c in chunks][:-1] == [4] * (len(chunks) - 1)
    if start == stop:
        assert chunks == []
        return
    part = join_chunks(chunks)
    low, high = whole.offsets[start], whole.offsets[min(stop, 30)]
    for name, values in part.constituents.items():
        np.testing.assert_array_equal(values, whole.constituents[name][low:high])
    for name, values in part.jets.items():
        np.testing.assert_array_equal(values, whole.jets[name][start:stop])


def test_a_store_can_be_made(tmp_path: Path, file: Path) -> None:
    with StoreWriter(tmp_path / "s", {}) as writer:
        for chunk in qg.read(file, 0, 30):
            writer.append(chunk)
    assert Store(tmp_path / "s").column("label").sum() == 10


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    return str(caught.value)


def test_other_files_get_one_sentence(tmp_path: Path, file: Path) -> None:
    x, y = content(5)
    assert "there is no file" in refused(tmp_path / "none.npz")
    assert "is a folder" in refused(tmp_path)
    np.savez(tmp_path / "a.npz", X=x[..., :3], y=y)
    assert "not in the qg layout, X [n, M, 4] and y [n]; it holds X float64 [5, 17, 3], y" in refused(
        tmp_path / "a.npz"
    )
    assert not qg.recognises(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", X=x, y=y[:4])
    assert "not in the qg layout" in refused(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", X=x.astype(np.int64), y=y)
    assert "X must be float32 or float64" in refused(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", X=np.asfortranarray(x), y=y)
    assert "'X' of" in refused(tmp_path / "d.npz")
    assert "is in Fortran order" in refused(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", X=x, y=np.array([None] * 5))
    assert "'y' of" in refused(tmp_path / "e.npz")
    assert "Python objects, which are never read" in refused(tmp_path / "e.npz")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(file.read_bytes()[:2000])
    assert "truncated, damaged or another format" in refused(cut)


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        ((3, 0, 3), 9999, "jet 3 of .* has a particle with the PDG number 9999"),
        ((3, 0, 3), 211.5, "jet 3 of .* has PDG number = 211.5"),
        ((3, 0, 3), np.nan, "jet 3 of .* has PDG number = nan"),
        ((3, 0, 3), 0, "jet 3 of .* PDG number 0"),
        ((3, 0, 0), 0, "jet 3 of .* has a constituent with pt = 0"),
        ((3, 0, 0), -1, "jet 3 of .* has a constituent with pt = -1"),
        ((3, 0, 0), np.inf, "jet 3 of .* has a constituent with pt = inf"),
        ((3, 0, 1), np.nan, "jet 3 of .* has a constituent with .*rapidity = nan"),
        ((3, 0, 1), 900, "jet 3 of .* has a constituent with .*rapidity = 900"),
        ((3, 0, 2), 180, "jet 3 of .* phi = 180; .* phi in radians"),
    ],
)
def test_bad_particles_are_named(tmp_path: Path, at: tuple[int, ...], value: float, says: str) -> None:
    x, y = content(6)
    x[at] = value
    with pytest.raises(UserError, match=says):
        read(write(tmp_path / "a.npz", x, y))


@pytest.mark.parametrize(("value", "says"), [(2, "has label 2"), (0.5, "has label = 0.5"), (np.nan, "label = nan")])
def test_bad_labels_are_named(tmp_path: Path, value: float, says: str) -> None:
    x, y = content(6)
    y[4] = value
    with pytest.raises(UserError, match=f"jet 4 of .* {says}"):
        read(write(tmp_path / "a.npz", x, y))


def test_damaged_numbers_are_found_by_their_sum(tmp_path: Path) -> None:
    """Bits that still make floats: only the checksum of the archive tells."""
    x, y = content(6)
    np.savez(tmp_path / "a.npz", X=x, y=y)
    whole = (tmp_path / "a.npz").read_bytes()
    at = whole.index(x[2].tobytes())
    (tmp_path / "b.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert "Bad CRC-32" in refused(tmp_path / "b.npz")


def test_what_a_header_claims_is_not_believed(tmp_path: Path) -> None:
    x, y = content(6)
    np.save(tmp_path / "x.npy", x)
    npy = (tmp_path / "x.npy").read_bytes()
    for shape in ("(6, 17, 4)", "(9, 17, 4)", "(6, 99999999999, 4)", "(99999999999, 0, 4)", "(6, -17, 4)"):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            header, data = npy[:128], npy[128:]
            header = header.replace(b"(6, 17, 4), }" + b" " * 10, f"{shape}, }}".encode().ljust(23))
            archive.writestr("X.npy", header + data)
            np.save(tmp_path / "y.npy", y)
            archive.write(tmp_path / "y.npy", "y.npy")
        if shape == "(6, 17, 4)":
            assert len(read(tmp_path / "a.npz").offsets) == 7
        else:
            assert "cannot be read as NumPy arrays" in refused(tmp_path / "a.npz")


@pytest.mark.parametrize(("slots", "step"), [(100, 4096), (1_000, 524), (400_000, 1)])
def test_a_piece_is_smaller_for_wider_rows(tmp_path: Path, slots: int, step: int) -> None:
    np.save(tmp_path / "a.npy", np.broadcast_to(np.float64(0), (2, slots, 4)))
    with npy.arrays(tmp_path / "a.npy") as found:
        assert npy.step_for(found["array"], 4096) == step
        assert len(list(npy.read_rows(found["array"], 0, 2, step))) == (2 if step == 1 else 1)


def test_a_large_array_is_never_held(tmp_path: Path) -> None:
    """160 MB in 160 kB, which are inflated a piece at a time on the way to the last jets."""
    jet = np.zeros((100, 4))
    jet[0] = 1, 0.5, 1, 211
    jets = 50_000
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape, row in (("X", (jets, 100, 4), jet), ("y", (jets,), np.zeros(1))):
            with archive.open(f"{name}.npy", "w") as member:
                header = {"descr": "<f8", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for _ in range(jets // 1000):
                    member.write(row.tobytes() * 1000)
    tracemalloc.start()
    try:
        (chunk,) = qg.read(tmp_path / "a.npz", jets - 1000, jets)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(chunk.jets["row"], np.arange(jets - 1000, jets))
    assert qg.rows(tmp_path / "a.npz") == jets
    assert 1e6 < peak < 60e6


def test_damaged_files_get_jets_or_a_sentence(tmp_path: Path) -> None:
    toll = storm("qg", write(tmp_path / "a.npz", *content(20)), 40)
    assert not [*toll.faults, *toll.crashes, *toll.hangs], str(toll)
    assert toll.refused


@pytest.mark.slow
def test_a_thousand_damaged_files(tmp_path: Path) -> None:
    x, y = content(20)
    np.savez(tmp_path / "stored.npz", X=x, y=y)
    for path in (write(tmp_path / "deflated.npz", x, y), tmp_path / "stored.npz"):
        toll = storm("qg", path, 500, seed=1)
        assert not [*toll.faults, *toll.crashes, *toll.hangs], str(toll)
