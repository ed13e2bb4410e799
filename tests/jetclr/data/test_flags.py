"""Flags on stores that are bad on purpose, and the hash that copies are found by."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data import pieces as pieces_module
from jetclr.data.chunk import JetChunk, join_chunks, select, slice_chunk
from jetclr.data.content import NO_CONTENT, Copies, content_hash, copies, shared
from jetclr.data.flags import AXIS_RANGE, Faults, Flag, cut_at, flags_between, label_flags, split_flags, uneven
from jetclr.data.pieces import pieces
from jetclr.data.store import Store, StoreWriter
from jetclr.errors import UserError
from tests.conftest import write_toy_store
from tests.toys import toy_chunk


def write(path: Path, chunk: JetChunk, metadata: dict[str, Any] | None = None, block_jets: int = 50) -> Store:
    """A store of a chunk that nobody checked."""
    with StoreWriter(path, {"labels": {"0": "QCD", "1": "top"}} if metadata is None else metadata,
                     block_jets=block_jets) as writer:  # fmt: skip
        writer.append_sound(chunk)
    return Store(path)


def faults(store: Store) -> Faults:
    found = Faults(store)
    for piece in pieces(store):
        found.add(piece)
    return found


def flags(store: Store) -> dict[str, Flag]:
    found = faults(store).flags()
    assert len({flag.name for flag in found}) == len(found)
    return {flag.name: flag for flag in found}


def sound(jets: int = 120, seed: int = 0) -> JetChunk:
    """Toy jets whose arrays may be written to."""
    chunk = toy_chunk(np.random.default_rng(seed), jets)
    return chunk._replace(
        constituents={n: v.copy() for n, v in chunk.constituents.items()},
        jets={n: v.copy() for n, v in chunk.jets.items()},
    )


def with_jets(chunk: JetChunk, **columns: np.ndarray) -> JetChunk:
    return chunk._replace(jets=chunk.jets | columns)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "PIECE_JETS", 30)  # so that blocks of 50 are cut, and jets counted across pieces


def test_a_sound_store_has_no_flags(tmp_path: Path) -> None:
    assert flags(Store(write_toy_store(tmp_path / "s", 130, 0))) == {}


@pytest.mark.parametrize("jets", [[77], [3, 4, 77, 119]])
@pytest.mark.parametrize(
    ("name", "column", "value", "says"),
    [
        ("not finite: constituent pt", "pt", np.nan, "constituents whose pt is NaN or infinite"),
        ("not finite: constituent eta", "eta", -np.inf, "constituents whose eta is NaN or infinite"),
        ("not finite: constituent phi", "phi", np.nan, "constituents whose phi is NaN or infinite"),
        ("pT not positive", "pt", 0.0, "constituents whose pT is not positive"),
        ("phi", "phi", 3.2, "constituents with phi outside [-pi, pi]"),
        ("not finite: jet_mass", "jet_mass", np.nan, "a jet_mass that is NaN or infinite"),
        ("jet_phi", "jet_phi", -3.2, "a jet_phi outside [-pi, pi]"),
    ],
)
def test_a_bad_value_is_flagged_with_the_first_jet(
    tmp_path: Path, jets: list[int], name: str, column: str, value: float, says: str
) -> None:
    chunk = sound()
    if column in chunk.jets:
        chunk.jets[column][jets] = value
    else:
        chunk.constituents[column][chunk.offsets[np.array(jets) + 1] - 1] = value  # the softest, so that order holds
    found = flags(write(tmp_path / "s", chunk))
    assert name in found
    assert set(found) <= {name, "beyond the axis range"}  # what the others are far from too
    have = "1 jet has" if len(jets) == 1 else "4 jets have"
    assert found[name].text.startswith(f"{have} {says}")
    assert found[name].text.endswith(f"the first is jet {jets[0]}.")
    assert (found[name].jets, found[name].first) == (len(jets), jets[0])


def test_phi_of_pi_itself_is_inside(tmp_path: Path) -> None:
    chunk = sound()
    chunk.constituents["phi"][0] = np.float32(np.pi)
    assert "phi" not in flags(write(tmp_path / "s", chunk))


def test_empty_jets_are_flagged_and_no_copies_of_each_other(tmp_path: Path) -> None:
    chunk = sound(90)
    counts = np.diff(chunk.offsets)
    empty = [0, 31, 32, 89]  # at both ends, and two in a row
    keep = np.ones(90, bool)
    keep[empty] = False
    left = select(chunk, keep)
    counts[empty] = 0
    emptied = JetChunk(np.concatenate([[0], np.cumsum(counts)]), left.constituents, chunk.jets)
    found = flags(write(tmp_path / "s", emptied))
    assert list(found) == ["empty"]
    assert (found["empty"].jets, found["empty"].first) == (4, 0)
    np.testing.assert_array_equal(np.flatnonzero(content_hash(emptied) == NO_CONTENT), empty)
    np.testing.assert_array_equal(content_hash(emptied)[keep], content_hash(left))


def test_constituents_out_of_order_are_flagged(tmp_path: Path) -> None:
    chunk = sound()
    for jet in (41, 99):
        start = chunk.offsets[jet]
        for values in chunk.constituents.values():
            values[start : start + 2] = values[start : start + 2][::-1].copy()
    found = flags(write(tmp_path / "s", chunk))
    assert list(found) == ["unsorted"]
    assert (found["unsorted"].jets, found["unsorted"].first) == (2, 41)


@pytest.mark.parametrize(
    ("source", "limit"),
    [
        ({}, AXIS_RANGE),
        ({"window": {"radius": 0.4}}, 0.6),
        ({"window": {"radius": "wide"}}, AXIS_RANGE),
        ({"window": {"radius": float("inf")}}, AXIS_RANGE),
        ({"joined": [{"source": {"window": {"radius": 0.4}}}, {"source": {"window": {"radius": 0.8}}}]}, 1.2),
        ({"joined": [{"source": {"window": {"radius": 0.4}}}, {"source": {}}]}, AXIS_RANGE),
        ({"joined": [3]}, AXIS_RANGE),
    ],
)
def test_the_range_about_the_axis_is_that_of_the_metadata(tmp_path: Path, source: dict[str, Any], limit: float) -> None:
    assert Faults(write(tmp_path / "s", sound(3), source)).range == pytest.approx(limit)


@pytest.mark.parametrize("axis_in_store", [True, False])
def test_pt_beyond_the_range_is_flagged_across_the_seam_of_phi_too(tmp_path: Path, axis_in_store: bool) -> None:
    """One jet on the seam, one with 2 % of its pT at 1.7, one with 0.5 % of it there, one with much of it at 1.4."""
    pt = np.array([50, 50, 98, 2, 99.5, 0.5, 90, 10], np.float32)
    eta = np.array([0, 0, 0, 1.7, 0, -1.7, 1, 1], np.float32)
    phi = np.array([3.1, -3.1, 1, 1, 1, 1, 3, -1.4 + 3 - np.pi + np.pi], np.float32)
    axis = {"jet_eta": np.array([0, 0, 0, 1], np.float32), "jet_phi": np.array([np.pi, 1, 1, 3], np.float32)}
    columns = axis if axis_in_store else {"jet_mass": np.ones(4, np.float32)}
    chunk = JetChunk(np.arange(0, 9, 2), {"pt": pt, "eta": eta, "phi": phi}, columns)
    found = flags(write(tmp_path / "s", chunk))
    assert list(found) == ["beyond the axis range"]
    assert (found["beyond the axis range"].jets, found["beyond the axis range"].first) == (1, 1)
    assert "more than 1% of the pT further than 1.5 from the jet axis" in found["beyond the axis range"].text


def test_copies_within_a_store_and_between_its_splits(tmp_path: Path) -> None:
    chunk = sound(100)
    train = with_jets(chunk, split=np.repeat([2, 0], 50).astype(np.int32))
    again = with_jets(slice_chunk(chunk, 7, 9), split=np.array([0, 2], np.int32))
    found = flags(write(tmp_path / "s", join_chunks([train, again])))
    assert found["duplicates"].text == "2 jets are copies of earlier ones; the first is jet 100, the same as jet 7."
    overlap = found["split overlap"]  # jet 7 is in test, and as jet 100 in train; jet 8 is in test twice
    assert overlap.text == "1 jet of split train is in split test too; the first is jet 100, the same as jet 7."
    assert (overlap.jets, overlap.first) == (1, 100)
    one = flags(write(tmp_path / "one", join_chunks([chunk, slice_chunk(chunk, 3, 4)])))["duplicates"]
    assert one.text == "1 jet is a copy of an earlier one; the first is jet 100, the same as jet 3."


def test_copies_between_stores_are_found_in_any_order_of_constituents(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    train, test = sound(100, 1), sound(80, 2)
    leak = slice_chunk(train, 20, 25)
    jet = np.repeat(np.arange(5), np.diff(leak.offsets))
    order = np.lexsort((rng.random(len(jet)), jet))
    leak = leak._replace(constituents={n: v[order] for n, v in leak.constituents.items()})
    a = faults(write(tmp_path / "a", train))
    b = faults(write(tmp_path / "b", join_chunks([test, leak])))
    (found,) = flags_between(a, b)
    assert (
        found.text == "5 jets of the first store are in the second too; the first is jet 20, the same as jet 80 there."
    )
    assert flags_between(a, faults(write(tmp_path / "c", test))) == []


def test_columns_labels_and_names_that_do_not_fit(tmp_path: Path) -> None:
    chunk = sound(100, 1)
    plain = write(tmp_path / "a", chunk)
    other = sound(300, 2)
    other.jets["label"][:] = np.arange(300) % 10 == 0
    other.jets["label"][:3] = 2
    charged = other._replace(
        constituents=other.constituents | {"charge": other.constituents["pt"]},
        jets={n: v for n, v in other.jets.items() if n != "jet_mass"},
    )
    names = {"labels": {"0": "QCD", "1": "W", "2": "Z"}}
    found = {
        flag.name: flag.text for flag in flags_between(faults(plain), faults(write(tmp_path / "b", charged, names)))
    }
    assert found == {
        "missing columns": "Constituent columns only in the second store: charge.",
        "label names": "Label 1 means top in the first store and W in the second.",
        "missing label": "Only the second store has jets of label 2 (Z).",
        "label shares": "Shares of labels differ between the first and the second store: 0 (QCD) 50.0% and 89.3%, "
        "1 (top) 50.0% and 9.7%; columns may differ for this reason alone.",
    }
    texts = [flag.text for flag in flags_between(faults(plain), faults(Store(tmp_path / "b")))]
    assert "Columns only in the first store: jet_mass." in texts
    bare = chunk._replace(jets={n: v for n, v in sound(100, 3).jets.items() if n != "label"})
    texts = [flag.text for flag in flags_between(faults(write(tmp_path / "c", bare)), faults(plain))]
    assert "Columns only in the second store: label." in texts


def test_labels_rare_unnamed_and_broken(tmp_path: Path) -> None:
    names = {0: "QCD", 1: "top"}
    assert label_flags({0: 90, 1: 10}, names) == []
    (rare,) = label_flags({0: 91, 1: 9}, names)
    assert rare.text == "Label 1 (top) has 0.09 of all jets (9), the fewest of 2 labels."
    assert label_flags(dict.fromkeys(range(10), 5), {}) == []
    (absent,) = label_flags({0: 50, 2: 50}, {0: "QCD", 1: "top", 2: "W"})
    assert absent.text == "No jet has the label 1 (top)."
    (nameless,) = label_flags({0: 50, 1: 50, 7: 60}, names)
    assert nameless.text == "60 jets have labels that the metadata does not name: 7."
    assert label_flags({0: 50}, names) == []  # a store of one process
    chunk = sound(60)
    label = np.where(np.arange(60) < 5, np.nan, chunk.jets["label"]).astype(np.float32)
    label[5:9] = 0.25
    found = flags(write(tmp_path / "s", with_jets(chunk, label=label)))
    assert found["not finite: label"].jets == 5
    assert found["labels not whole"].text == "9 jets have a label that is not a whole number."


def test_splits_small_unknown_and_uneven(tmp_path: Path) -> None:
    chunk = sound(400)
    split = np.zeros(400, np.int32)
    split[3:9] = 1
    found = flags(write(tmp_path / "a", with_jets(chunk, split=split)))
    assert [f.text for f in found.values()] == ["Split validation has 0.015 of all jets (6)."]
    found = flags(write(tmp_path / "b", with_jets(chunk, split=np.repeat([0, 5], 200).astype(np.int64))))
    assert [f.text for f in found.values()] == ["200 jets have splits that are not 0, 1, 2: 5."]
    found = flags(write(tmp_path / "c", with_jets(chunk, split=2 * chunk.jets["label"])))
    says = "Shares of labels differ between split train and test: 0 (QCD) 100.0% and 0.0%, 1 (top) 0.0% and 100.0%."
    assert [f.text for f in found.values()] == [says]
    assert split_flags(faults(write(tmp_path / "d", with_jets(chunk, split=0 * split))).shares, {}) == []


def test_as_many_labels_as_jets_are_compared_in_no_time() -> None:
    """A column of event numbers taken for labels: the work grows with their number, not with its square."""
    a, b = (Counter({(float(label), 0.0): 1 for label in range(start, start + 40_000)}) for start in (0, 20_000))
    start = time.perf_counter()
    assert uneven(a, b, {}) == []
    assert uneven(Counter({(1.0, 0.0): 9_000}), Counter({(1.0, 0.0): 6_000, (2.0, 1.0): 3_000}), {2: "W"}) == [
        "1 100.0% and 66.7%",
        "2 (W) 0.0% and 33.3%",
    ]
    assert time.perf_counter() - start < 5


def test_jets_cut_off_are_told_from_jets_that_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(40, 20_000)

    def count(n: np.ndarray) -> dict[int, int]:
        return dict(zip(*(x.tolist() for x in np.unique(n, return_counts=True)), strict=True))

    assert cut_at(count(counts)) == []
    assert cut_at(count(rng.integers(4, 31, 3000))) == []  # all as frequent as each other
    (flag,) = cut_at(count(np.minimum(counts, 50)))
    assert flag.jets == (counts >= 50).sum()
    assert "of 20,000 jets have exactly 50 constituents and none has more" in flag.text
    (padded,) = cut_at({30: 500})
    assert padded.jets == 500
    assert cut_at({}) == []
    chunk = sound(200)
    first = np.concatenate([np.arange(chunk.offsets[i], chunk.offsets[i] + 4) for i in range(200)])  # all have four
    four = JetChunk(np.arange(0, 801, 4), {n: v[first] for n, v in chunk.constituents.items()}, chunk.jets)
    assert list(flags(write(tmp_path / "s", four))) == ["cut off"]


def test_a_store_made_with_arrow_alone(tmp_path: Path) -> None:
    """In double precision, with dates, a column named like a format string, and no axis; written by nobody of ours."""
    path = tmp_path / "s"
    path.mkdir()
    rng = np.random.default_rng(0)
    values = pa.StructArray.from_arrays([pa.array(rng.uniform(-1, 1, 7)) for _ in range(3)], names=["pt", "eta", "phi"])
    batch = pa.RecordBatch.from_arrays(
        [
            pa.ListArray.from_arrays(pa.array([0, 3, 3, 7], pa.int32()), values),
            pa.array([1.0, np.inf, 2.0]),
            pa.array([1, 2, 3], pa.timestamp("ns")),
        ],
        names=["constituents", "{0.__class__}", "label"],
    )
    with pa.ipc.new_file(path / "x.arrow", batch.schema) as file:
        file.write_batch(batch)
    shards = [{"file": "x.arrow", "blocks": 1, "jets": 3, "bytes": (path / "x.arrow").stat().st_size}]
    source = {"format": "jetclr jet store", "version": 1, "source": {}, "shards": shards}
    (path / "metadata.json").write_text(json.dumps(source))
    found = flags(Store(path))
    assert (
        found["not finite: {0.__class__}"].text
        == "1 jet has a {0.__class__} that is NaN or infinite; the first is jet 1."
    )
    assert (found["empty"].jets, found["empty"].first) == (1, 1)
    assert "pT not positive" in found


def test_a_store_without_coordinates_or_with_jets_out_of_its_block_is_refused(tmp_path: Path) -> None:
    chunk = sound(20)
    pt_only = chunk._replace(constituents={"pt": chunk.constituents["pt"]})
    with pytest.raises(UserError, match="has no numbers 'eta' of constituents; it has"):
        list(pieces(write(tmp_path / "a", pt_only)))
    store = write(tmp_path / "b", chunk)
    offsets = np.array(store.blocks[0].offsets)
    offsets[5], offsets[6] = offsets[6], offsets[5]
    store.blocks[0] = store.blocks[0]._replace(offsets=offsets)
    with pytest.raises(UserError, match="a jet points outside its block"):
        list(pieces(store))


@given(st.data())
def test_a_flipped_bit_changes_the_hash_of_its_jet_alone(data: st.DataObject) -> None:
    chunk = sound(12, data.draw(st.integers(0, 5)))
    before = content_hash(chunk)
    name = data.draw(st.sampled_from(["pt", "eta", "phi"]))
    at = data.draw(st.integers(0, int(chunk.offsets[-1]) - 1))
    chunk.constituents[name].view(np.uint32)[at] ^= np.uint32(1) << np.uint32(data.draw(st.integers(0, 31)))
    changed = np.flatnonzero(content_hash(chunk) != before)
    assert changed.tolist() == [np.searchsorted(chunk.offsets, at, side="right") - 1]


@given(st.integers(0, 100))
def test_order_does_not_matter_to_the_hash_but_number_and_pairing_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chunk = sound(1, seed)
    n = int(chunk.offsets[1])
    (before,) = content_hash(chunk)

    def hashed(order: np.ndarray, names: tuple[str, ...] = ("pt", "eta", "phi")) -> np.uint64:
        columns = {k: v[order] if k in names else v for k, v in chunk.constituents.items()}
        return content_hash(JetChunk(np.array([0, len(order)]), columns, {}))[0]

    assert hashed(rng.permutation(n)) == before
    assert hashed(np.roll(np.arange(n), 1), ("eta",)) != before  # the same numbers on other constituents
    assert hashed(np.arange(n - 1)) != before
    assert hashed(np.append(np.arange(n), 0)) != before
    swapped = chunk._replace(
        constituents=chunk.constituents | {"eta": chunk.constituents["phi"], "phi": chunk.constituents["eta"]}
    )
    assert content_hash(swapped)[0] != before


def test_the_hash_is_of_numbers_as_float32_and_does_not_change_between_versions() -> None:
    chunk = JetChunk(np.array([0, 1, 3]), {n: np.array([1, 2, 3], np.float32) for n in ("pt", "eta", "phi")}, {})
    wide = chunk._replace(constituents={n: v.astype(np.float64) for n, v in chunk.constituents.items()})
    np.testing.assert_array_equal(content_hash(wide), content_hash(chunk))
    assert content_hash(chunk).tolist() == [slow_hash([(1, 1, 1)]), slow_hash([(3, 3, 3), (2, 2, 2)])]


def slow_hash(constituents: list[tuple[float, float, float]]) -> int:
    """The hash in whole numbers of Python, jet by jet."""
    word = 2**64

    def mix(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) % word
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % word
        x = (x ^ x >> 27) * 0x94D049BB133111EB % word
        return x ^ x >> 31

    total = 0
    for jet in constituents:
        pt, eta, phi = (int.from_bytes(np.float32(x).tobytes(), "little") for x in jet)
        total += mix(mix(eta << 32 | phi) ^ pt)
    return mix((total + len(constituents) * 0x9E3779B97F4A7C15) % word)


def test_a_million_jets_have_a_million_hashes_that_look_random() -> None:
    """Jets on a grid of two constituents, alike in all but a few bits: the worst that real jets come near."""
    grid = np.arange(1_000_000)
    pt = np.stack([1 + grid % 1000, 1 + grid // 1000], axis=1).ravel().astype(np.float32)
    pt[::2] += 2000  # so that no two pairs are one pair the other way round
    zeros = np.zeros(len(pt), np.float32)
    hashes = content_hash(JetChunk(np.arange(0, len(pt) + 1, 2), {"pt": pt, "eta": zeros, "phi": zeros}, {}))
    assert len(np.unique(hashes)) == len(grid)
    ones = np.array([np.count_nonzero(hashes & (np.uint64(1) << np.uint64(bit))) for bit in range(64)])
    assert np.abs(ones / len(grid) - 0.5).max() < 5 * 0.5 / np.sqrt(len(grid))


@given(st.lists(st.integers(0, 6), max_size=12), st.lists(st.integers(0, 6), max_size=12))
def test_copies_and_shared_are_what_a_loop_finds(a: list[int], b: list[int]) -> None:
    """0 stands for a jet without content."""
    x, y = np.array(a, np.uint64), np.array(b, np.uint64)
    again = [i for i, v in enumerate(a) if v and v in a[:i]]
    assert copies(x) == (Copies(len(again), again[0], a.index(a[again[0]])) if again else None)
    both = [i for i, v in enumerate(a) if v and v in b]
    assert shared(x, y) == (Copies(len(both), both[0], b.index(a[both[0]])) if both else None)
