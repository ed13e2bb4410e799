"""Files that pandas itself writes, as the public ones were: read again by pandas, and by us."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import vector

from jetclr.data.chunk import join_chunks
from jetclr.data.readers import lhco, toptag
from jetclr.data.readers.recognise import recognise

# PyTables tells that names such as 0 cannot be Python attributes.
pytestmark = pytest.mark.filterwarnings("ignore::tables.NaturalNameWarning")


def particles(rng: np.random.Generator, n: int) -> vector.MomentumNumpy4D:
    """Massive particles around one axis, hardest first."""
    pt = np.sort(rng.exponential(8, n))[::-1] + 0.5
    eta, phi = rng.uniform(-1.5, 1.5) + rng.normal(0, 0.2, n), rng.uniform(-3, 3) + rng.normal(0, 0.2, n)
    return vector.array({"pt": pt, "eta": eta, "phi": phi, "mass": rng.uniform(0, 0.9, n)})


def test_the_top_tagging_reference(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{c}_{i}" for i in range(200) for c in ("E", "PX", "PY", "PZ")] + [
        f"truth{c}" for c in ("E", "PX", "PY", "PZ")
    ]
    table = np.zeros((50, 804), np.float32)
    for i, n in enumerate(rng.integers(1, 80, 50)):
        p = particles(rng, int(n))
        table[i, : 4 * n] = np.column_stack([p.E, p.px, p.py, p.pz]).ravel()
        table[i, 800:] = 700 * (i % 2)
    frame = pd.DataFrame(table, columns=names)
    frame["ttv"], frame["is_signal_new"] = np.int64(1), np.arange(50) % 2
    file = tmp_path / "val.h5"
    frame.to_hdf(file, key="table", format="table", complib="blosc", complevel=5)

    assert recognise(file) == "toptag"
    assert toptag.rows(file) == 50
    found = join_chunks([*toptag.read(file, 0, 20), *toptag.read(file, 20, 50)])
    again = pd.read_hdf(file, key="table")
    for i in range(50):
        values = again.iloc[i][:800].to_numpy(np.float64).reshape(200, 4)
        values = values[values[:, 0] > 0]
        p = vector.array(dict(zip(("E", "px", "py", "pz"), values.T, strict=True)))
        mine = slice(found.offsets[i], found.offsets[i + 1])
        for name in ("pt", "eta", "phi"):
            np.testing.assert_allclose(found.constituents[name][mine], getattr(p, name), rtol=1e-6, atol=1e-6)
        jet = p.sum()
        np.testing.assert_allclose(found.jets["jet_pt"][i], jet.pt, rtol=1e-6)
        np.testing.assert_allclose(found.jets["jet_mass"][i] ** 2, jet.mass2, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(found.jets["label"], again["is_signal_new"])
    np.testing.assert_array_equal(found.jets["split"], 1)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_lhc_olympics(tmp_path: Path, labelled: bool) -> None:
    rng = np.random.default_rng(1)
    events = np.zeros((12, 2101 if labelled else 2100))
    for row in events:
        jets = [particles(rng, 40), particles(rng, 30)]
        flat = np.concatenate([np.column_stack([j.pt * 10, j.eta, j.phi]) for j in jets])
        row[: flat.size] = flat[np.argsort(-flat[:, 0])].ravel()
    if labelled:
        events[9:, 2100] = 1
    file = tmp_path / "events_anomalydetection_v2.h5"
    pd.DataFrame(events).to_hdf(file, key="df", mode="w", complib="blosc", complevel=9)

    assert recognise(file) == "lhco"
    assert lhco.rows(file) == 12
    found = join_chunks(list(lhco.read(file, 0, 12)))
    assert set(np.diff(found.offsets) > 0) == {True}
    again = pd.read_hdf(file, key="df").to_numpy()
    first, second = found.jets["jet_index"] == 0, found.jets["jet_index"] == 1
    np.testing.assert_array_equal(found.jets["event"][first], found.jets["event"][second])
    for jet, event in enumerate(found.jets["event"]):
        pt, eta, phi = again[event, :2100].reshape(700, 3).T
        mine = slice(found.offsets[jet], found.offsets[jet + 1])
        at = np.abs(found.constituents["pt"][mine, None] / np.maximum(pt, 1e-9) - 1).argmin(1)
        assert len(set(at)) == len(at)
        np.testing.assert_allclose(found.constituents["pt"][mine], pt[at], rtol=1e-6)
        np.testing.assert_allclose(found.constituents["eta"][mine], eta[at], rtol=1e-5, atol=1e-6)
        turn = found.constituents["phi"][mine] - phi[at]
        np.testing.assert_allclose(np.cos(turn), 1, atol=1e-6)
    pair = [
        vector.array({n: found.jets[f"jet_{n}"][part].astype(float) for n in ("pt", "eta", "phi", "mass")})
        for part in (first, second)
    ]
    np.testing.assert_allclose(found.jets["dijet_mass"][first], (pair[0] + pair[1]).mass, rtol=1e-5)
    if labelled:
        np.testing.assert_array_equal(found.jets["label"], again[found.jets["event"], 2100])
    else:
        assert "label" not in found.jets
