"""JetClass files, written here with uproot: jagged branches, and labels of the three types of the public files."""

import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
import vector

from jetclr.data.chunk import JetChunk, check_chunk, join_chunks
from jetclr.data.readers import Reader, jetclass, reader
from jetclr.data.store import Store, StoreWriter
from jetclr.errors import UserError
from tests.jetclr.data.readers.mutations import storm

LABEL_TYPES = {"QCD": np.float32} | dict.fromkeys(("Hbb", "Hcc", "Hgg", "H4q", "Hqql"), np.bool_)
LABEL_TYPES |= dict.fromkeys(("Zqq", "Wqq", "Tbqq", "Tbl"), np.int32)
TYPES = ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")


def branches(jets: int = 40, seed: int = 0) -> dict[str, Any]:
    """What a file holds: branch name -> values; jets on both sides of the detector."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 30, jets)
    total = int(counts.sum())
    axis_eta = np.repeat(rng.uniform(-2, 2, jets), counts)
    axis_phi = np.repeat(rng.uniform(-np.pi, np.pi, jets), counts)
    deta, dphi = rng.normal(0, 0.2, (2, total))
    p = vector.array({
        "pt": rng.exponential(10, total) + 0.5, "eta": axis_eta + deta, "phi": axis_phi + dphi,
        "mass": rng.uniform(0, 0.9, total),
    })  # fmt: skip
    kind = rng.integers(-1, 5, total)
    parts = {"px": p.px, "py": p.py, "pz": p.pz, "energy": p.E, "deta": deta * np.sign(axis_eta), "dphi": dphi}
    parts |= {name: rng.normal(0, 1, total) for name in ("d0val", "d0err", "dzval", "dzerr")}
    parts["charge"] = np.where(np.isin(kind, (0, 3, 4)), rng.choice([-1, 1], total), 0)
    jagged = {f"part_{name}": ak.unflatten(np.asarray(v, np.float32), counts) for name, v in parts.items()}
    jagged |= {f"part_is{name}": ak.unflatten((kind == i).astype(np.int32), counts) for i, name in enumerate(TYPES)}
    q = vector.zip(
        {name: ak.values_astype(jagged[f"part_{name}"], np.float64) for name in ("px", "py", "pz", "energy")}
    )
    q = ak.sum(q, axis=1)
    scalars = {"jet_pt": q.pt, "jet_eta": q.eta, "jet_phi": q.phi, "jet_energy": q.energy, "jet_nparticles": counts}
    names = ("jet_sdmass", "jet_tau1", "jet_tau2", "jet_tau3", "jet_tau4", "aux_genpart_eta", "aux_genpart_phi")
    names += ("aux_genpart_pid", "aux_genpart_pt", "aux_truth_match")
    scalars |= {name: rng.exponential(1, jets) for name in names}
    label = np.arange(jets) % 10
    flags = {f"label_{name}": (label == i).astype(t) for i, (name, t) in enumerate(LABEL_TYPES.items())}
    return jagged | {name: np.asarray(v, np.float32) for name, v in scalars.items()} | flags


def write(path: Path, content: dict[str, Any], baskets: int = 3, compression: Any = None, tree: str = "tree") -> Path:
    """A file of several baskets a branch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    types = {
        name: f"var * {ak.flatten(v).type.content}" if isinstance(v, ak.Array) else v.dtype
        for name, v in content.items()
    }
    jets = len(next(iter(content.values())))
    cuts = np.linspace(0, jets, baskets + 1).astype(int)
    with uproot.recreate(path, compression=compression or uproot.ZLIB(1)) as file:
        out = file.mktree(tree, types)
        for low, high in pairwise(cuts):
            out.extend({name: v[low:high] for name, v in content.items()})
    return path


def read(path: Path) -> JetChunk:
    chunks = list(jetclass.read(path, 0, jetclass.rows(path)))
    for chunk in chunks:
        check_chunk(chunk)
    return join_chunks(chunks)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("jetclass") / "jets.root", branches())


def test_every_value_agrees_with_vector(file: Path) -> None:
    """The oracle reads with uproot into awkward, and asks vector."""
    assert isinstance(reader("jetclass"), Reader)
    assert jetclass.recognises(file)
    chunk = read(file)
    with uproot.open(file) as opened:
        tree = opened["tree"].arrays()
    p = vector.zip({n: ak.values_astype(tree[f"part_{n}"], np.float64) for n in ("px", "py", "pz", "energy")})
    np.testing.assert_array_equal(np.diff(chunk.offsets), ak.num(p))
    for name in ("pt", "eta", "phi"):
        np.testing.assert_allclose(chunk.constituents[name], ak.flatten(getattr(p, name)), rtol=1e-6, atol=1e-6)
    for name, branch in {"d0": "d0val", "d0_error": "d0err", "dz": "dzval", "dz_error": "dzerr"}.items():
        np.testing.assert_array_equal(chunk.constituents[name], ak.flatten(tree[f"part_{branch}"]))
        assert chunk.constituents[name].dtype == np.float32
    np.testing.assert_array_equal(chunk.constituents["charge"], ak.flatten(tree["part_charge"]))
    expected = np.zeros(chunk.offsets[-1])
    for number, name in enumerate(TYPES, 1):
        expected[ak.to_numpy(ak.flatten(tree[f"part_is{name}"])) == 1] = number
    np.testing.assert_array_equal(chunk.constituents["type"], expected)
    assert chunk.constituents["type"].dtype == chunk.constituents["charge"].dtype == np.int8
    assert set(expected) == set(range(6))
    jets = ak.sum(p, axis=1)
    for name in ("pt", "eta", "phi"):
        np.testing.assert_allclose(chunk.jets[f"jet_{name}"], ak.to_numpy(getattr(jets, name)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(chunk.jets["jet_mass"], ak.to_numpy(jets.mass), rtol=1e-3, atol=2e-2)
    for name, branch in {"softdrop_mass": "jet_sdmass", "tau1": "jet_tau1", "tau4": "jet_tau4"}.items():
        np.testing.assert_array_equal(chunk.jets[name], ak.to_numpy(tree[branch]))
    for name in ("aux_genpart_pid", "aux_truth_match"):
        np.testing.assert_array_equal(chunk.jets[name], ak.to_numpy(tree[name]))
    np.testing.assert_array_equal(chunk.jets["label"], np.arange(40) % 10)
    np.testing.assert_array_equal(chunk.jets["row"], np.arange(40))
    assert chunk.jets["row"].dtype == np.int64
    assert chunk.jets["label"].dtype == np.int32
    assert "split" not in chunk.jets


def test_vectors_that_root_wrote() -> None:
    """uproot writes no std::vector branches, which the public files have; ROOT 6.40 wrote these four jets.

    Jet j = 0 ... 3 has the constituents i = 0 ... j + 1 with pT = 10 (i + 1), deta = 0.1 (i + 1), phi = 0.2 i + j % 3
    about an axis at eta = 0.5 (-1)^j (1 + j % 3), d0 = 0.01 i, dz = 0.03 i and one flag, i % 5; its label is 3 j.
    """
    chunk = read(Path(__file__).with_name("jetclass_vectors.root"))
    j = np.repeat(np.arange(4), [2, 3, 4, 5])
    i = np.concatenate([np.arange(n) for n in (2, 3, 4, 5)])
    np.testing.assert_array_equal(chunk.offsets, [0, 2, 5, 9, 14])
    expected = {
        "pt": 10 * (i + 1), "eta": (-1.0) ** j * 0.5 * (1 + j % 3) + 0.1 * (i + 1), "phi": 0.2 * i + j % 3,
        "d0": 0.01 * i, "d0_error": 0.02, "dz": 0.03 * i, "dz_error": 0.04, "type": i % 5 + 1,
        "charge": np.array([1, 0, 0, -1, 1])[i % 5],
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(chunk.constituents[name], values, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(chunk.jets["label"], [0, 3, 6, 9])
    np.testing.assert_array_equal(chunk.jets["softdrop_mass"], [50, 51, 52, 53])
    np.testing.assert_array_equal(chunk.jets["aux_genpart_pid"], 25)
    p = vector.array({name: expected[name] for name in ("pt", "eta", "phi")} | {"mass": np.zeros(14)})
    jets = [p[j == k].sum() for k in range(4)]
    np.testing.assert_allclose(chunk.jets["jet_mass"], [jet.mass for jet in jets], rtol=1e-4)
    np.testing.assert_allclose(chunk.jets["jet_eta"], [jet.eta for jet in jets], rtol=1e-6)


def test_labels_are_those_of_the_branches(file: Path) -> None:
    assert list(jetclass.LABELS.values()) == list(LABEL_TYPES)
    assert list(jetclass.LABELS) == list(range(10))


def test_the_flipped_deta_is_not_used(file: Path) -> None:
    """The branch says eta minus the axis for jets at eta > 0, and the opposite for the others."""
    chunk = read(file)
    with uproot.open(file) as opened:
        deta, axis = opened["tree"]["part_deta"].array(), opened["tree"]["jet_eta"].array()
    flipped = ak.to_numpy(ak.flatten(deta + axis))
    backward = np.repeat(ak.to_numpy(axis) < 0, np.diff(chunk.offsets))
    assert 0.2 < backward.mean() < 0.8
    assert np.corrcoef(chunk.constituents["eta"][backward] - flipped[backward], ak.flatten(deta)[backward])[0, 1] < -0.5


@pytest.mark.parametrize(("start", "stop"), [(0, 40), (0, 1), (7, 29), (13, 14), (30, 99), (5, 5)])
def test_a_range_is_the_same_jets(file: Path, start: int, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans and chunks need not agree with the baskets."""
    whole = read(file)
    monkeypatch.setattr(jetclass, "SPAN_ROWS", 11)
    monkeypatch.setattr(jetclass, "ROWS", 4)
    chunks = list(jetclass.read(file, start, stop))
    assert all(0 < len(c.offsets) - 1 <= 4 for c in chunks)
    if start == stop:
        assert chunks == []
        return
    part = join_chunks(chunks)
    low, high = whole.offsets[start], whole.offsets[min(stop, 40)]
    np.testing.assert_array_equal(part.offsets, whole.offsets[start : stop + 1] - low)
    for name, values in part.constituents.items():
        np.testing.assert_array_equal(values, whole.constituents[name][low:high])
    for name, values in part.jets.items():
        np.testing.assert_array_equal(values, whole.jets[name][start:stop])


def test_a_span_is_smaller_for_larger_jets(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetclass, "SPAN_BYTES", 10_000)
    with jetclass._tree(file) as tree:
        assert 1 < jetclass._span_rows(tree) < 20
    assert len(list(jetclass.read(file, 0, 40))) > 2


@pytest.mark.parametrize("compression", [uproot.LZMA(1), uproot.LZ4(1), uproot.ZSTD(1)])
def test_compressions(tmp_path: Path, file: Path, compression: Any) -> None:
    other = read(write(tmp_path / "a" / "b.root", branches(), compression=compression))
    for name, values in read(file).constituents.items():
        np.testing.assert_array_equal(other.constituents[name], values)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train_100M/HToBB_000.root", 0),
        ("val_5M/HToBB_000.root", 1),
        ("JetClass/Pythia/test_20M/sub/HToBB_000.root", 2),
        ("val/HToBB.root", 1),
        ("jets_train_3.root", 0),
        ("train_100M/jets_val.root", 1),
        ("JetClass_Pythia_test_20M_part0/a.root", 2),
        ("test_of_something0/a.root", None),
        ("test/sub/a.root", None),
        ("training/contest.root", None),
        ("train_test.root", None),
    ],
)
def test_the_split_is_told_by_the_path(path: str, split: int | None) -> None:
    assert jetclass.split_of(Path("/data") / path) == split


def test_the_split_is_a_column_of_a_store(tmp_path: Path) -> None:
    source = write(tmp_path / "val_5M" / "HToBB_120.root", branches())
    with StoreWriter(tmp_path / "s", {}) as writer:
        for chunk in jetclass.read(source, 0, 40):
            writer.append(chunk)
    split = Store(tmp_path / "s").column("split")
    assert split.dtype == np.int8
    np.testing.assert_array_equal(split, np.ones(40))


def test_missing_branches_are_named(tmp_path: Path) -> None:
    content = branches(5)
    for name in ("part_px", "label_Tbl"):
        del content[name]
    path = write(tmp_path / "a.root", content)
    assert not jetclass.recognises(path)
    with pytest.raises(UserError, match=r"no branches \['part_px', 'label_Tbl'\]"):
        jetclass.rows(path)


def test_optional_branches_may_be_missing(tmp_path: Path) -> None:
    content = {name: v for name, v in branches(5).items() if not name.startswith("aux_")}
    jets = read(write(tmp_path / "a.root", content)).jets
    assert "tau4" in jets
    assert not any(name.startswith("aux_") for name in jets)


def test_other_files_get_one_sentence(tmp_path: Path) -> None:
    other = write(tmp_path / "other.root", branches(5), tree="Events")
    assert not jetclass.recognises(other)
    with pytest.raises(UserError, match=r"no tree 'tree', so it is not JetClass; it holds \['Events \(TTree\)'\]"):
        jetclass.rows(other)
    with uproot.recreate(tmp_path / "new.root") as file:
        file.mkrntuple("tree", {"part_px": np.ones(5, np.float32)})
    with pytest.raises(UserError, match=r"no tree 'tree', .*; it holds \['tree \(ROOT::RNTuple\)'\]"):
        jetclass.rows(tmp_path / "new.root")
    flat = branches(5)
    flat["part_px"] = np.ones(5, np.float32)
    with pytest.raises(UserError, match="branch 'part_px' is 'float'"):
        jetclass.rows(write(tmp_path / "flat.root", flat))
    (tmp_path / "text.root").write_text("no ROOT at all")
    with pytest.raises(UserError, match="cannot be read as ROOT; it is truncated, damaged or another format"):
        jetclass.rows(tmp_path / "text.root")
    with pytest.raises(UserError, match="there is no file"):
        jetclass.rows(tmp_path / "none.root")
    assert jetclass.rows(write(tmp_path / "empty.root", branches(5), baskets=0)) == 0


def test_lengths_that_differ_are_named(tmp_path: Path) -> None:
    content = branches(6)
    content["part_dzerr"] = ak.concatenate([content["part_dzerr"][:4], [[1.0]], content["part_dzerr"][5:]])
    content["part_dzerr"] = ak.values_astype(content["part_dzerr"], np.float32)
    with pytest.raises(UserError, match=r"jet 4 of .* constituents in part_px and 1 in part_dzerr"):
        read(write(tmp_path / "a.root", content))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("label_Hcc", 1, "jet 3 of .* exactly one label set and has {'label_Hcc': 1.0, 'label_Hgg': 1.0}"),
        ("label_Hgg", 0, "jet 3 of .* exactly one label set and has none"),
        ("label_QCD", np.nan, "jet 3 of .* exactly one label"),
        ("jet_phi", np.inf, "jet 3 of .* jet_phi = inf"),
        ("jet_energy", 0, "jet 3 of .* jet_energy = 0"),
        ("part_px", np.nan, "jet 3 of .* constituent with pt = nan"),
        ("part_energy", np.inf, "jet 3 of .* has a constituent with"),
        ("part_charge", 0.5, "jet 3 of .* has part_charge = 0.5"),
        ("part_charge", np.nan, "jet 3 of .* has part_charge = nan"),
    ],
)
def test_bad_jets_are_named(tmp_path: Path, name: str, value: float, says: str) -> None:
    content = branches(6)
    if name.startswith("part_"):
        counts, flat = ak.num(content[name]), ak.to_numpy(ak.flatten(content[name])).copy()
        flat[counts[:3].to_numpy().sum()] = value
        content[name] = ak.unflatten(flat, counts)
    else:
        content[name][3] = value
    with pytest.raises(UserError, match=says):
        read(write(tmp_path / "a.root", content))


def test_a_missing_uproot_names_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uproot", None)
    with pytest.raises(UserError, match=r"pip install 'jetclr\[root\]'"):
        jetclass.rows(file)
    assert not jetclass.recognises(file)


def test_damaged_files_get_jets_or_a_sentence(tmp_path: Path) -> None:
    for path in damageable(tmp_path):
        toll = storm("jetclass", path, 40)
        assert not [*toll.faults, *toll.crashes, *toll.hangs], str(toll)
        assert toll.refused


def damageable(folder: Path) -> list[Path]:
    vectors = shutil.copy(Path(__file__).with_name("jetclass_vectors.root"), folder)
    return [write(folder / "a.root", branches(8), baskets=2), Path(vectors)]


@pytest.mark.slow
def test_a_thousand_damaged_files(tmp_path: Path) -> None:
    for path in damageable(tmp_path):
        toll = storm("jetclass", path, 1000, seed=1)
        assert not [*toll.faults, *toll.crashes, *toll.hangs], str(toll)
