"""LHC Olympics files laid down as pandas' "fixed" format does, clustered anew with FastJet's own interface."""

from pathlib import Path

import fastjet
import h5py
import numpy as np
import pytest
import vector

from jetclr.data.chunk import JetChunk, check_chunk, join_chunks
from jetclr.data.readers import lhco
from jetclr.errors import UserError
from tests.jetclr.data.readers.mutations import storm


def events(count: int = 30, seed: int = 0, labels: bool = True) -> np.ndarray:
    """Two back-to-back sprays and some soft particles, zero-padded, in any order; the label behind."""
    rng = np.random.default_rng(seed)
    table = np.zeros((count, 2101))
    for i in range(count):
        pieces = []
        axis = rng.uniform(-np.pi, np.pi)
        for phi, hardness in ((axis, 40), (axis + np.pi, 30), (0.0, 0.4)):
            n = int(rng.integers(20, 80))
            width = 0.2 if hardness > 1 else 2
            pieces.append([rng.exponential(hardness, n), rng.normal(0, width, n), phi + rng.normal(0, width, n)])
        particles = np.concatenate(pieces, axis=1).T
        particles[:, 2] = np.arctan2(np.sin(particles[:, 2]), np.cos(particles[:, 2]))
        table[i, : 3 * len(particles)] = rng.permutation(particles).ravel()
    table[:, 2100] = rng.integers(2, size=count)
    return table if labels else table[:, :2100]


def write(path: Path, values: np.ndarray, items: np.ndarray | None = None) -> Path:
    """The frame `values` under the key df, with what pandas writes beside it."""
    items = np.arange(values.shape[1]) if items is None else items
    with h5py.File(path, "w") as file:
        frame = file.create_group("df")
        frame.attrs.update({"CLASS": b"GROUP", "VERSION": b"1.0", "TITLE": b"", "encoding": b"UTF-8"})
        frame.attrs.update({"pandas_type": b"frame", "ndim": 2, "nblocks": 1, "axis0_variety": b"regular"})
        frame["axis0"], frame["axis1"], frame["block0_items"] = items, np.arange(len(values)), items
        block = frame.create_dataset(
            "block0_values",
            data=values,
            chunks=(min(16, len(values)), values.shape[1]),
            compression="gzip",
            shuffle=True,
        )
        block.attrs.update({"CLASS": b"CARRAY", "VERSION": b"1.1", "TITLE": b"", "transposed": True})
    return path


def everything(path: Path) -> JetChunk:
    return join_chunks(list(lhco.read(path, 0, lhco.rows(path))))


def clustered(event: np.ndarray) -> list[tuple[fastjet.PseudoJet, set[int]]]:
    """The jets of one event above 20 GeV, hardest first, with the places of their particles; one particle at a time."""
    particles = []
    for place, (pt, eta, phi) in enumerate(event[:2100].astype(np.float64).reshape(700, 3)):
        if pt > 0:
            p = vector.obj(pt=pt, eta=eta, phi=phi, mass=0)
            particles.append(fastjet.PseudoJet(p.px, p.py, p.pz, p.E))
            particles[-1].set_user_index(place)
    sequence = fastjet.ClusterSequence(particles, fastjet.JetDefinition(fastjet.antikt_algorithm, 1.0))
    jets = fastjet.sorted_by_pt(sequence.inclusive_jets(20))
    return [((jet.px(), jet.py(), jet.pz(), jet.E()), {c.user_index() for c in jet.constituents()}) for jet in jets]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_jets_agree_with_fastjet_event_by_event(tmp_path: Path, kind: type) -> None:
    table = events().astype(kind)
    path = write(tmp_path / "events_anomalydetection_v2.h5", table)
    assert lhco.recognises(path)
    assert lhco.rows(path) == 30
    chunk = everything(path)
    check_chunk(chunk)
    assert len(chunk.offsets) == 61
    for i, event in enumerate(table):
        pair = clustered(event)[:2]
        momenta = [vector.obj(px=p[0], py=p[1], pz=p[2], E=p[3]) for p, _ in pair]
        for rank, (jet, (_, places)) in enumerate(zip(momenta, pair, strict=True)):
            at = 2 * i + rank
            for name, value in (("pt", jet.pt), ("eta", jet.eta), ("phi", jet.phi), ("mass", jet.mass)):
                np.testing.assert_allclose(chunk.jets[f"jet_{name}"][at], value, rtol=1e-5, atol=1e-6)
            mine = np.stack([chunk.constituents[name] for name in ("pt", "eta", "phi")], axis=1)
            mine = mine[chunk.offsets[at] : chunk.offsets[at + 1]]
            expected = event[:2100].reshape(700, 3)[sorted(places)]
            order, known = np.argsort(mine[:, 0]), np.argsort(expected[:, 0])
            np.testing.assert_allclose(mine[order], expected[known], rtol=1e-6, atol=1e-6)
            assert chunk.jets["jet_index"][at] == rank
            np.testing.assert_allclose(chunk.jets["dijet_mass"][at], (momenta[0] + momenta[1]).mass, rtol=1e-6)
            assert chunk.jets["row"][at] == chunk.jets["event"][at] == i
            assert chunk.jets["label"][at] == event[2100]
    kinds = {name: values.dtype.name for name, values in chunk.jets.items()}
    assert kinds == {
        "jet_pt": "float32", "jet_eta": "float32", "jet_phi": "float32", "jet_mass": "float32", "row": "int64",
        "event": "int64", "jet_index": "int8", "dijet_mass": "float32", "label": "int32",
    }  # fmt: skip


def test_black_boxes_have_no_label(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", events(5, labels=False))
    assert lhco.recognises(path)
    chunk = everything(path)
    assert "label" not in chunk.jets
    np.testing.assert_array_equal(chunk.jets["jet_pt"], everything(write(tmp_path / "b.h5", events(5))).jets["jet_pt"])


def test_events_with_fewer_than_two_jets_are_left_out(tmp_path: Path) -> None:
    table = events(8)
    table[2, :2100] = 0
    table[5, :2100] = 0
    table[5, 300:303] = [500, 0.1, 0.2]
    table[6, :2100] = 0
    table[6, :6] = [500, 0.1, 0.2, 19.9, 0.1, -2.9]
    chunk = everything(write(tmp_path / "a.h5", table))
    assert chunk.jets["event"].tolist() == [0, 0, 1, 1, 3, 3, 4, 4, 7, 7]
    table[6, 3] = 20.1
    assert 6 in everything(write(tmp_path / "b.h5", table)).jets["event"]
    table[:, :2100] = 0
    empty = everything(write(tmp_path / "c.h5", table))
    assert len(empty.offsets) == 1  # none, but a chunk all the same


def test_any_range_of_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.h5", events(40))
    whole = everything(path)
    monkeypatch.setattr(lhco, "EVENTS", 7)
    pieces = [chunk for start, stop in ((0, 3), (3, 25), (25, 99)) for chunk in lhco.read(path, start, stop)]
    assert len(pieces) > 5
    joined = join_chunks(pieces)
    for name, values in joined.jets.items():
        np.testing.assert_array_equal(values, whole.jets[name])
    np.testing.assert_array_equal(joined.constituents["pt"], whole.constituents["pt"])


def test_the_file_of_features_is_named(tmp_path: Path) -> None:
    names = [f"{name}j{jet}" for jet in (1, 2) for name in ("px", "py", "pz", "m", "tau1", "tau2", "tau3")]
    items = np.array([*names, "label"], "S6")
    path = write(tmp_path / "events_anomalydetection_v2.features.h5", np.zeros((9, 15)), items)
    assert lhco.recognises(path)
    for act in (lambda: lhco.rows(path), lambda: list(lhco.read(path, 0, 9))):
        with pytest.raises(UserError, match=r"no particles; convert the file of events .* events_anomalydetection_v2"):
            act()


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        ((3, 0), -1, "event 3 of .* has a particle with pT = -1"),
        ((3, 0), np.nan, "event 3 of .* has a particle with pT = nan"),
        ((4, 1), 800, "event 4 of .* has a particle with .* eta = 800"),
        ((5, 2), np.inf, "event 5 of .* has a particle with .* phi = inf"),
        ((6, 2100), 0.5, "event 6 of .* has label 0.5; the lhco layout knows"),
    ],
)
def test_bad_events_are_named(tmp_path: Path, at: tuple[int, int], value: float, says: str) -> None:
    table = events(8)
    table[at] = value
    with pytest.raises(UserError, match=says):
        everything(write(tmp_path / "a.h5", table))


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", events(5)[:, :2099])
    assert not lhco.recognises(path)
    with pytest.raises(UserError, match=r"should be numbers of shape \[N, 2101\] or \[N, 2100\] and is float64"):
        lhco.rows(path)


def test_damaged_files(tmp_path: Path) -> None:
    toll = storm("lhco", write(tmp_path / "a.h5", events(20)), 40)
    assert not toll.faults, toll
    assert not toll.hangs, toll
    assert len(toll.refused) > 10, toll


@pytest.mark.slow
def test_many_damaged_files(tmp_path: Path) -> None:
    toll = storm("lhco", write(tmp_path / "a.h5", events(20).astype(np.float32)), 1000, seed=1)
    print(toll, toll.sentences())
    assert not toll.faults, toll
    assert not toll.hangs, toll
