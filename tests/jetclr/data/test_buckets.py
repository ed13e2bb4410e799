from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data import buckets
from jetclr.data.buckets import GROUPS, choose_layout, choose_lengths, cut, filled, fits, multiplicities, padding
from jetclr.data.pipeline import BatchSource
from jetclr.data.sampling import Sampling
from jetclr.data.store import Store


def source(store: Store, **settings: object) -> BatchSource:
    chosen: dict[str, object] = {
        "batch": 64,
        "constituents": 24,
        "seed": 3,
        "steps": 100,
        "window_blocks": 2,
        "buckets": (8, 12, 16, 20),
    } | settings
    return BatchSource(store, **chosen)  # type: ignore[arg-type]


def test_multiplicities_are_the_store_s(stores: dict[str, Path]) -> None:
    store = Store(stores["train"], stores["fit"])
    jets = np.random.default_rng(0).integers(len(store), size=300)
    np.testing.assert_array_equal(multiplicities(store, jets, 20), np.minimum(store.column("multiplicity")[jets], 20))
    assert len(multiplicities(store, jets[:0], 20)) == 0


def test_a_layout_by_hand() -> None:
    """Sixteen jets, groups of two; their largest are 2, 4, ..., 16 in the first batch and one less in the second."""
    counts = np.stack([np.arange(1, 17), np.arange(16)])
    # Above the mean by three standard deviations of 1/2: 3, 5, 7, ..., 17; the last bucket takes what is above.
    assert choose_layout(counts, (4, 8, 16)) == ((2, 4), (4, 8), (10, 16))
    assert choose_layout(counts, (16,)) == ((16, 16),)
    rare = np.full((30, 8), 5)
    rare[7] = 15  # further off than any number of deviations tells
    assert choose_layout(rare, (8, 12, 16)) == ((8, 16),)
    same = np.stack([np.full(8, 5)] * 3)
    assert choose_layout(same, (4, 5, 9)) == ((8, 5),)


@given(st.integers(0, 10_000), st.lists(st.integers(1, 39), unique=True, max_size=5), st.integers(1, 4))
def test_whatever_was_seen_fits(seed: int, buckets: list[int], per_group: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 41, (6, GROUPS * per_group)) if seed % 2 else rng.poisson(12, (6, GROUPS * per_group)) + 1
    counts = np.minimum(counts, 40)
    lengths = (*sorted(buckets), 40)
    layout = choose_layout(counts, lengths)
    assert sum(jets for jets, _ in layout) == counts.shape[1]
    assert all(jets % per_group == 0 for jets, _ in layout)
    assert [length for _, length in layout] == sorted({length for _, length in layout})
    assert {length for _, length in layout} <= set(lengths)
    for batch in counts:
        assert fits(np.sort(batch), layout)
    too_long = np.sort(counts[0])
    too_long[layout[0][0] - 1 :] = layout[0][1] + 1
    assert not fits(too_long, layout)


def test_all_jets_are_there_once_and_none_is_shortened(stores: dict[str, Path]) -> None:
    store = Store(stores["train"])
    cut, plain = source(store), source(store, buckets=())
    assert len(cut.layout) > 1
    for item in (0, 5, 20):
        pieces, (whole,) = cut[item], plain[item]
        assert [piece["pt"].shape for piece in pieces] == list(cut.layout)
        for name in whole:
            rows = np.concatenate([np.pad(p[name], ((0, 0), (0, 24 - p[name].shape[1]))) for p in pieces])
            assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, whole[name].tolist()))
        jets, layout = cut.arranged(item)
        assert layout == cut.layout
        np.testing.assert_array_equal(np.sort(jets), np.sort(plain.indices(item)))
        counts = multiplicities(store, jets, 24)
        assert (np.diff(counts) >= 0).all()
        np.testing.assert_array_equal(counts, np.concatenate([(p["pt"] > 0).sum(1) for p in pieces]))
        places = {jet: place for place, jet in enumerate(plain.indices(item).tolist())}
        ties = np.diff(counts) == 0
        assert (np.diff([places[jet] for jet in jets.tolist()])[ties] > 0).all()  # in the order they had


def test_room_for_splittings_is_added_to_each_piece(stores: dict[str, Path]) -> None:
    store = Store(stores["train"])
    plain, roomy = source(store), source(store, slots=30)
    assert roomy.layout == tuple((jets, length + 6) for jets, length in plain.layout)
    assert roomy.full == ((64, 30),)
    for small, large in zip(plain[4], roomy[4], strict=True):
        np.testing.assert_array_equal(large["pt"][:, :-6], small["pt"])
        assert (large["pt"][:, -6:] == 0).all()


def test_a_batch_that_does_not_fit_is_padded_in_full(stores: dict[str, Path]) -> None:
    store = Store(stores["train"])
    made, plain = source(store), source(store, buckets=())
    made.layout = ((8, 5), (56, 24))  # too short for most batches: the first group's largest jet has 6 or 7
    fitting = [made.arranged(item)[1] == made.layout for item in range(30)]
    assert any(fitting)
    assert not all(fitting)
    for item, fit in enumerate(fitting):
        pieces = made[item]
        assert len(pieces) == (2 if fit else 1)
        if not fit:
            assert pieces[0]["pt"].shape == (64, 24)
            assert sorted(pieces[0]["pt"][:, 0]) == sorted(plain[item][0]["pt"][:, 0])


def test_processes_share_each_piece(stores: dict[str, Path]) -> None:
    """Also of a batch that does not fit, and with all that decides which jets are drawn."""
    sampling = Sampling(where="multiplicity > 4", weight="1 + label", shares=(1, 2), flat="jet_mass", fraction=0.9)
    store = Store(stores["train"], stores["fit"])
    whole = source(store, sampling=sampling)
    parts = [source(store, sampling=sampling, rows=lambda jets, i=i: np.split(np.arange(jets), 4)[i]) for i in range(4)]
    assert {part.layout for part in parts} == {whole.layout}
    for made in (whole, *parts):
        made.layout = ((16, 10), (48, 24)) if made.arranged(1)[1] == made.full else made.layout
    for item in (0, 1, 30, 77):
        for piece, expected in enumerate(whole[item]):
            for name, values in expected.items():
                np.testing.assert_array_equal(np.concatenate([part[item][piece][name] for part in parts]), values)


def test_batches_after_a_restart_are_those_without(stores: dict[str, Path]) -> None:
    sampling = Sampling(where="multiplicity > 4", weight="1 + label", shares=(1, 2), balance="label")
    store = Store(stores["train"], stores["fit"])
    straight, again = source(store, sampling=sampling), source(store, sampling=sampling)
    expected = [straight[item] for item in range(40)][29:]  # across the end of an epoch
    assert again.layout == straight.layout
    for item, pieces in enumerate(expected, 29):
        for found, piece in zip(again[item], pieces, strict=True):
            for name in piece:
                np.testing.assert_array_equal(found[name], piece[name])


def test_less_is_padded(stores: dict[str, Path]) -> None:
    """Toy jets: 4 to 30 constituents, equally often."""
    made = source(Store(stores["train"]), batch=128)
    assert padding(made.layout) / padding(made.full) < 0.9
    fits_all = [made.arranged(item)[1] == made.layout for item in range(100)]
    assert np.mean(fits_all) > 0.95


@pytest.mark.parametrize("buckets", [(23,), (1,), (1, 2)])
def test_buckets_that_help_nothing_leave_one_piece(stores: dict[str, Path], buckets: tuple[int, ...]) -> None:
    made = source(Store(stores["train"]), buckets=buckets, batch=16)
    assert sum(jets for jets, _ in made.layout) == 16
    assert len(made[0]) == len(made.layout)


def test_lengths_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the jets have 5 constituents and half 30: a second length saves 22 slots a jet of the short half."""
    counts = np.array([5, 30])
    for jets, expected in ((100, (8, 30)), (90, (30,))):
        monkeypatch.setattr(buckets, "PROGRAM_SLOTS", 1_000)
        assert choose_lengths(counts, 30, jets) == expected
    monkeypatch.setattr(buckets, "PROGRAM_SLOTS", 0.5)
    assert choose_lengths(np.array([5, 29]), 29, 100) == (8, 29)
    assert choose_lengths(counts, 7, 100) == (7,)  # shorter than a step
    assert choose_lengths(counts[:0], 30, 0) == (30,)


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 4_000))
def test_no_other_lengths_cost_less(seed: int, most: int, jets: int) -> None:
    counts = np.minimum(np.random.default_rng(seed).poisson(20, 50), most)
    chosen = choose_lengths(counts, most, jets)
    assert list(chosen) == sorted(set(chosen))

    def cost(lengths: tuple[int, ...]) -> float:
        padded = sum(min(length for length in lengths if length >= count) for count in counts.tolist())
        return padded * jets / len(counts) + buckets.PROGRAM_SLOTS * len(lengths)

    shorter = range(buckets.STEP, most, buckets.STEP)
    ways = [(*few, most) for n in range(len(shorter) + 1) for few in combinations(shorter, n)]
    assert cost(chosen) == pytest.approx(min(map(cost, ways)))


@given(st.integers(0, 10_000), st.integers(0, 200), st.integers(1, 500), st.sampled_from([1, 8, 24]))
def test_pieces_hold_every_jet_once_and_whole(seed: int, jets: int, slots: int, unit: int) -> None:
    rng = np.random.default_rng(seed)
    counts, lengths = rng.integers(0, 31, jets), (8, 16, 30)
    pieces = cut(counts, lengths, slots, unit)
    rows = np.concatenate([np.zeros(0, np.int64), *(piece.rows for piece in pieces)])
    np.testing.assert_array_equal(np.sort(rows), np.arange(jets))
    assert (np.diff(counts[rows]) <= 0).all()
    for number, piece in enumerate(pieces, 1):
        assert piece.length == min(length for length in lengths if length >= counts[piece.rows].max())
        assert piece.size == len(piece.rows) or (number == len(pieces) and piece.size > len(piece.rows))
        assert piece.size % unit == 0
        assert piece.size == unit or piece.size * piece.length <= slots
    assert len({(piece.size, piece.length) for piece in pieces}) <= len(lengths)  # a program for each length


def test_slots_are_filled_up_to_the_last_constituent() -> None:
    pt = np.array([[3, 2, 1], [3, 0, 0], [0, 0, 0], [0, 2, 0], [np.nan, np.nan, 0]], np.float32)
    np.testing.assert_array_equal(filled(pt), [3, 1, 0, 2, 2])
