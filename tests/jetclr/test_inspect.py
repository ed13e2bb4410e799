"""One store, two stores: what is printed, the numbers behind it, the picture; and stores that are bad on purpose."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import norm

from jetclr import compare
from jetclr.compare import Column, Sample, distance, distances, unit_of
from jetclr.data import pieces as pieces_module
from jetclr.data.chunk import JetChunk, join_chunks, slice_chunk
from jetclr.data.pieces import pieces
from jetclr.data.store import Store, StoreWriter
from jetclr.errors import UserError
from jetclr.inspect import default_picture, inspect, inspect_stores, report, show, to_json
from probes.plots import ratios
from tests.conftest import write_toy_store
from tests.toys import toy_chunk

NAMES = {"labels": {"0": "QCD", "1": "top"}}


def write(path: Path, chunk: JetChunk, metadata: dict[str, Any] = NAMES) -> Path:
    with StoreWriter(path, metadata, block_jets=64) as writer:
        writer.append_sound(chunk)
    return path


def printed(*paths: Path) -> str:
    """What is shown on a terminal of 100 columns."""
    said = io.StringIO()
    show(inspect([report(Store(path)) for path in paths]), Console(file=said, width=100))
    return said.getvalue()


def sample(store: Store, most: int) -> Sample:
    found = Sample(store, most)
    for piece in pieces(store):
        found.add(piece)
    return found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two stores: the second has charges, a pT scale of 1.1 and ten jets of the first."""
    a, b = toy_chunk(np.random.default_rng(1), 200), toy_chunk(np.random.default_rng(2), 250)
    b = b._replace(jets=b.jets | {"jet_pt": b.jets["jet_pt"] * np.float32(1.1)})
    return write(tmp_path / "a", a), write(tmp_path / "b", join_chunks([b, slice_chunk(a, 30, 40)]))


def test_one_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = write_toy_store(tmp_path / "s", 300, 1)
    inspect_stores(store, None, default_picture(store, None), tmp_path / "x" / "s.json")
    said = capsys.readouterr().out
    assert "300 jets" in said
    assert "label: 0 (QCD) 150 (50.0%), 1 (top) 150 (50.0%)" in said
    assert "No flags for" in said
    assert "flag:" not in said
    assert (store / "histograms.png").read_bytes()[:4] == b"\x89PNG"
    assert len(Store(store)) == 300
    found = json.loads((tmp_path / "x" / "s.json").read_text())
    assert list(found) == ["stores"]
    (one,) = found["stores"]
    assert (one["jets"], one["labels"], one["splits"], one["flags"]) == (300, {"0": 150, "1": 150}, None, [])
    label, mass = Store(store).column("label"), Store(store).column("jet_mass").astype(float)
    for value, name in ((0, "QCD"), (1, "top")):
        x = mass[label == value]
        expected = [150, x.min(), *np.quantile(x, (0.16, 0.5, 0.84)), x.max()]
        np.testing.assert_allclose(list(one["columns"]["jet_mass"][name].values()), expected)
    assert "label" not in one["columns"]
    inspect_stores(store, None, tmp_path / "again.svg")
    assert "<svg" in (tmp_path / "again.svg").read_text()


def test_two_stores(pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = default_picture(*pair)
    assert picture == tmp_path / "a" / "against-b.png"
    inspect_stores(*pair, picture, tmp_path / "ab.json")
    said = capsys.readouterr().out.replace("\n", " ")
    assert "10 jets of the first store are in the second too; the first is jet 30, the same" in said
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "ab.json"}
    found = json.loads((tmp_path / "ab.json").read_text())
    (flag,) = found["between"]["flags"]
    assert (flag["name"], flag["jets"], flag["first"]) == ("overlap", 10, 30)
    by_name = {d["column"]: d for d in found["between"]["distances"]}
    assert set(by_name) == {
        *("jet_pt", "jet_eta", "jet_phi", "jet_mass", "multiplicity"),
        *("constituent pt", "constituent Δeta", "constituent Δphi"),
    }
    assert next(iter(by_name)) == "jet_pt"
    assert by_name["jet_pt"]["unit"] == "GeV"
    a, b = (np.sort(Store(path).column("jet_pt").astype(float)) for path in pair)
    assert by_name["jet_pt"]["wasserstein"] == pytest.approx(by_quantiles(a, b), rel=1e-6)
    assert by_name["jet_pt"]["medians"] == pytest.approx([np.median(a), np.median(b)])
    assert by_name["jet_pt"]["ks_p_value"] < 1e-6
    assert by_name["constituent pt"]["ks_p_value"] is None
    assert by_name["jet_phi"]["ks_p_value"] > 1e-3


def by_quantiles(a: np.ndarray, b: np.ndarray) -> float:
    """The distance as the area between the quantile functions: each repeated to a common number of values."""
    n = math.lcm(len(a), len(b))
    return float(np.abs(np.repeat(np.sort(a), n // len(a)) - np.repeat(np.sort(b), n // len(b))).mean())


def column(values: np.ndarray, of_jets: bool = True) -> Column:
    return Column(values.astype(float), np.arange(len(values)), of_jets)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99), st.floats(-3, 3), st.floats(0.5, 20))
def test_distances_move_and_scale_as_they_should(n: int, m: int, seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n), rng.normal(size=m)
    found = distance("x", column(a), column(b))
    assert found.wasserstein == pytest.approx(by_quantiles(a, b))
    moved = distance("x", column(a * scale + shift), column(b * scale + shift))
    assert moved.wasserstein == pytest.approx(found.wasserstein * scale)
    if found.relative is not None:
        assert moved.relative == pytest.approx(found.relative)
    assert distance("x", column(a), column(a + shift)).wasserstein == pytest.approx(abs(shift), abs=1e-12)


def test_relative_distance_and_what_chance_does() -> None:
    """A normal sample has a spread of one standard deviation; equal samples are as far apart as chance says."""
    a = norm.ppf((np.arange(20_000) + 0.5) / 20_000) * 5
    assert distance("x", column(a), column(a + 1)).relative == pytest.approx(1 / (5 * norm.ppf(0.84)), rel=1e-3)
    rng = np.random.default_rng(0)
    true, told = [], []
    for _ in range(30):
        x, y = rng.normal(size=3000), rng.normal(size=500)
        found = distance("x", column(x), column(y))
        true.append(found.relative)
        told.append(found.by_chance)
    assert np.mean(told) == pytest.approx(np.mean(true), rel=0.25)


def test_chance_knows_that_constituents_of_a_jet_come_together() -> None:
    rng = np.random.default_rng(0)
    jet = np.repeat(np.arange(300), 20)
    true, told = [], []
    for _ in range(30):
        x, y = (Column(np.repeat(rng.normal(size=300), 20), jet, False) for _ in range(2))
        found = distance("x", x, y)
        true.append(found.relative)
        told.append(found.by_chance)
    assert np.mean(told) == pytest.approx(np.mean(true), rel=0.25)
    assert found.ks_p_value is None


def test_constant_columns_and_columns_of_one_store() -> None:
    one, two = column(np.ones(5)), column(np.full(4, 2.0))
    same = distance("x", one, one)
    assert (same.wasserstein, same.relative, same.by_chance, same.ks_p_value) == (0, 0, None, None)
    assert distance("x", column(np.ones(10)), column(np.ones(10))).ks_p_value == 1
    assert (distance("x", one, two).wasserstein, distance("x", one, two).relative) == (1, None)
    spread = column(np.arange(9))
    empty = column(np.array([]))
    found = distances({"a": spread, "b": one, "c": one, "d": empty}, {"a": spread, "b": two, "d": spread})
    assert [d.column for d in found] == ["b", "a"]  # no spread at all is the farthest


def test_units_are_those_of_the_common_names() -> None:
    names = ("jet_pt", "constituent pt", "constituent Δphi", "constituent Δeta", "jet_eta", "tau1", "pt", "fancy")
    assert [unit_of(name) for name in names] == ["GeV", "GeV", "rad", "", "", "", "", ""]


def test_constituents_are_taken_about_the_axis_and_codes_left_out(tmp_path: Path) -> None:
    chunk = JetChunk(
        np.array([0, 2]),
        {
            "pt": np.array([2, 1], np.float32), "eta": np.array([0.5, 1], np.float32),
            "phi": np.array([3.1, -3.1], np.float32), "charge": np.array([-1, 1], np.int8),
            "pdg": np.array([211, -11], np.int32),
        },
        {"jet_eta": np.array([0.7], np.float32), "jet_phi": np.array([3.1], np.float32), "row": np.array([7])},
    )  # fmt: skip
    columns = sample(Store(write(tmp_path / "s", chunk, {})), 10).columns()
    assert list(columns) == [
        *("jet_eta", "jet_phi", "multiplicity"),
        *("constituent pt", "constituent charge", "constituent Δeta", "constituent Δphi"),
    ]
    np.testing.assert_allclose(columns["constituent Δeta"].values, [-0.2, 0.3], atol=1e-6)
    np.testing.assert_allclose(columns["constituent Δphi"].values, [0, 2 * np.pi - 6.2], atol=1e-6)


def test_a_sample_of_a_large_store_is_even_and_knows_the_extremes_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces_module, "PIECE_JETS", 30)
    chunk = toy_chunk(np.random.default_rng(0), 400)
    number = np.arange(400, dtype=np.float32)
    store = Store(write(tmp_path / "s", chunk._replace(jets=chunk.jets | {"number": number})))
    found = sample(store, 150)
    assert found.jets == 150
    columns = found.columns()
    taken = columns["number"].values
    assert len(np.unique(taken)) == 150
    assert np.all(np.diff(taken) > 0)
    assert abs(taken.mean() - 199.5) < 4 * 400 / math.sqrt(12 * 150)
    np.testing.assert_array_equal(columns["jet_pt"].values, chunk.jets["jet_pt"][taken.astype(int)])
    few = np.unique(columns["constituent pt"].jet)
    assert len(few) == found.jets_of_constituents < 30
    assert 75 < len(columns["constituent pt"].values) < 300
    expected = [chunk.constituents["pt"][chunk.offsets[j] : chunk.offsets[j + 1]] for j in taken[few].astype(int)]
    np.testing.assert_array_equal(columns["constituent pt"].values, np.concatenate(expected))
    for label in (0, 1):
        q = found.quantiles()["number"][label]
        mine = number[chunk.jets["label"] == label]
        assert (q.jets, q.low, q.high) == (len(mine), mine.min(), mine.max())
        assert q.median == np.median(taken[chunk.jets["label"][taken.astype(int)] == label])
    whole = sample(store, 10**6)
    assert (whole.jets, whole.jets_of_constituents) == (400, 400)
    assert len(whole.columns()["constituent pt"].values) == chunk.offsets[-1]


def test_a_sampled_store_is_said_to_be(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "random jets" not in printed(*pair)
    monkeypatch.setattr(compare, "MOST", 100)
    assert "quantiles and distances are of 100 random jets" in printed(*pair).replace("\n", " ")


def test_a_hundred_columns_are_enough(pair: tuple[Path, Path]) -> None:
    for said in (printed(pair[0]), printed(*pair)):
        assert max(len(line) for line in said.splitlines()) <= 100
        rows = [line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│")]
        assert {"jet_pt", "multiplicity"} <= set(rows)  # not folded over lines
    assert "constituent Δeta" in rows


def test_a_store_full_of_faults_is_still_told_of_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NaN, infinite, empty, out of order, no label, and a name that would be markup: no traceback, no NaN in JSON."""
    chunk = toy_chunk(np.random.default_rng(0), 130)
    columns = {name: values.copy() for name, values in chunk.constituents.items()}
    columns["pt"][:40] = np.nan
    columns["eta"][50] = np.inf
    columns["phi"] += np.float32(9)
    jets = {name: values.copy() for name, values in chunk.jets.items() if name != "label"}
    jets["jet_mass"][3:60] = np.nan
    jets["[bold]$x\x1b"] = np.full(130, np.inf)
    bad = write(tmp_path / "bad", JetChunk(chunk.offsets, columns, jets), {"labels": {}, "note": "[red]\x1b[31m"})
    good = write_toy_store(tmp_path / "漢 good", 130, 3)  # the font has no such letter
    for other in (None, good):
        inspect_stores(bad, other, tmp_path / "x.png", tmp_path / "x.json")
        said = capsys.readouterr().out
        assert "[bold]$x" in said
        assert "\x1b" not in said
        assert "57 jets have a jet_mass that is NaN or infinite; the first is jet 3." in said
        text = (tmp_path / "x.json").read_text()
        assert "NaN" not in text.replace("is NaN or infinite", "")
        assert "Infinity" not in text
        (tmp_path / "x.png").unlink()
    mass = json.loads(text)["stores"][0]["columns"]["jet_mass"]["all jets"]
    assert mass["jets"] == 130
    assert mass["high"] == np.nanmax(jets["jet_mass"])
    infinite = json.loads(text)["stores"][0]["columns"]["[bold]$x\x1b"]["all jets"]
    assert list(infinite.values()) == [130, None, None, None, None, None]


@pytest.mark.parametrize(("value", "median"), [(3e38, -3e38), (1.5e308, None)])
def test_values_that_stand_for_none_overflow_nothing(tmp_path: Path, value: float, median: float | None) -> None:
    """Those of float32 are drawn and compared; those near the end of float64 count as infinite."""
    chunk = toy_chunk(np.random.default_rng(0), 60)
    column = np.where(np.arange(60) == 7, value, -value)
    paths = [write(tmp_path / name, chunk._replace(jets=chunk.jets | {"x": column})) for name in "ab"]
    for other in (None, paths[1]):
        inspect_stores(paths[0], other, tmp_path / "x.png", tmp_path / "x.json")
    text = (tmp_path / "x.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    found = json.loads(text)
    assert found["stores"][0]["columns"]["x"]["QCD"]["median"] == median
    assert [d["wasserstein"] for d in found["between"]["distances"] if d["column"] == "x"] == [0] * (median is not None)


def test_stores_of_empty_jets_have_their_multiplicity_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (toy_chunk(np.random.default_rng(seed), 20) for seed in (0, 1))
    a, b = (JetChunk(np.zeros(21, np.int64), {n: v[:0] for n, v in c.constituents.items()}, {}) for c in (a, b))
    stores = write(tmp_path / "a", a), write(tmp_path / "b", b)
    inspect_stores(*stores, tmp_path / "x.png")
    said = capsys.readouterr().out
    assert "20 jets have no constituents" in said
    assert "multiplicity" in said
    assert (tmp_path / "x.png").exists()


def test_labels_of_one_name_and_too_many_labels_stay_apart(tmp_path: Path) -> None:
    chunk = toy_chunk(np.random.default_rng(0), 90)
    twice = write(tmp_path / "twice", chunk, {"labels": {"0": "jet", "1": "jet"}})
    (one,) = to_json(inspect([report(Store(twice))]))["stores"]
    assert list(one["columns"]["jet_pt"]) == ["label 0 (jet)", "label 1 (jet)"]
    many = chunk._replace(jets=chunk.jets | {"label": np.arange(90, dtype=np.int32)})
    (one,) = to_json(inspect([report(Store(write(tmp_path / "many", many)))]))["stores"]
    assert list(one["columns"]["jet_pt"]) == ["all jets"]
    assert one["columns"]["jet_pt"]["all jets"]["jets"] == 90


def test_mistakes_are_told_before_any_work(pair: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = pair
    with pytest.raises(UserError, match=r"its name must end in \.png"):
        inspect_stores(a, b, tmp_path / "x.jpg")
    with pytest.raises(UserError, match="are one store"):
        inspect_stores(a, tmp_path / "b" / ".." / "a", tmp_path / "x.png")
    with pytest.raises(UserError, match="there is no store at"):
        inspect_stores(a, tmp_path / "nothing", tmp_path / "x.png")
    with pytest.raises(UserError, match=r"x\.png cannot be written"):
        inspect_stores(a, None, a / "metadata.json" / "x.png")
    with pytest.raises(UserError, match="is a folder"):
        inspect_stores(a, None, tmp_path / "x.png", b)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_picture_is_whole_or_not_there(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(UserError, match=r"x\.png cannot be written: No space left on device"):
        inspect_stores(*pair, tmp_path / "x.png")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_stores_of_one_name_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def watched(columns: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(list(next(iter(columns.values()))))
        return ratios(columns, *arguments, **options)

    monkeypatch.setattr("jetclr.inspect.ratios", watched)
    for folder in ("x", "y"):
        write_toy_store(tmp_path / folder / "test", 20, 0)
    inspect_stores(tmp_path / "x" / "test", tmp_path / "y" / "test", tmp_path / "p.png")
    assert seen == [["x/test", "y/test"]]
