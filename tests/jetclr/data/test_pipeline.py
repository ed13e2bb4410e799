from pathlib import Path

import numpy as np
import pytest

from jetclr.data.pipeline import BatchSource, Slice, sequential_batches, training_batches
from jetclr.data.store import Store
from jetclr.errors import UserError


def source(store: Store, **settings: object) -> BatchSource:
    chosen: dict[str, object] = {
        "batch": 50,
        "constituents": 12,
        "seed": 3,
        "steps": 100,
        "window_blocks": 2,
    } | settings
    return BatchSource(store, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("window_blocks", [1, 2, 4, 64])
def test_an_epoch_holds_every_jet_once_and_the_next_is_in_another_order(
    stores: dict[str, Path], window_blocks: int
) -> None:
    made = source(Store(stores["train"]), window_blocks=window_blocks)
    first, second = (np.concatenate([made.indices(12 * epoch + i) for i in range(12)]) for epoch in (0, 1))
    np.testing.assert_array_equal(np.sort(first), np.arange(600))
    np.testing.assert_array_equal(np.sort(second), np.arange(600))
    assert (first != second).mean() > 0.9
    assert np.abs(np.corrcoef(first[:100], np.arange(100))[0, 1]) < 0.5


def test_a_window_keeps_to_its_blocks(stores: dict[str, Path]) -> None:
    """Two blocks of 100 jets: any 200 jets of a window lie in two blocks, so a large store is read in stretches."""
    made = source(Store(stores["train"]), window_blocks=2)
    for window in range(3):
        jets = np.concatenate([made.indices(4 * window + i) for i in range(4)])
        assert len(np.unique(jets // 100)) == 2


def test_batches_are_a_function_of_seed_and_item(stores: dict[str, Path]) -> None:
    a, b, other = (source(Store(stores["train"]), seed=seed) for seed in (3, 3, 4))
    late = a.indices(31)
    np.testing.assert_array_equal(b.indices(31), late)
    assert (other.indices(31) != late).any()


def test_processes_share_each_batch_without_overlap(stores: dict[str, Path]) -> None:
    store = Store(stores["train"])
    whole = source(store)[5]
    for count in (2, 5):
        parts = [source(store, rows=rows)[5] for rows in np.split(np.arange(50), count)]
        for name in whole:
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), whole[name])


def test_validation_jets_are_never_trained_on(stores: dict[str, Path]) -> None:
    store = Store(stores["train"])
    made = source(store, part=Slice(0, 0.8))
    trained = set(np.concatenate([made.indices(i) for i in range(40)]).tolist())
    held_out = set(Slice(0.8, 1).indices(store).tolist())
    assert not trained & held_out
    assert len(trained) == 480  # each epoch leaves out the rest of a batch, never the same
    assert len(held_out) == 120
    assert {jet // 100 for jet in held_out} == set(range(6))


def test_grain_saves_and_restores_its_place(stores: dict[str, Path]) -> None:
    store = Store(stores["train"])
    straight = [next(it) for it in [training_batches(source(store))] for _ in range(7)]
    iterator = training_batches(source(store))
    for _ in range(3):
        next(iterator)
    state = iterator.get_state()
    again = training_batches(source(store))
    again.set_state(state)
    for expected in straight[3:]:
        found = next(again)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_slots_give_room_beyond_the_constituents(stores: dict[str, Path]) -> None:
    store = Store(stores["train"])
    plain, roomy = source(store)[3], source(store, slots=20)[3]
    for name in plain:
        assert roomy[name].shape == (50, 20)
        np.testing.assert_array_equal(roomy[name][:, :12], plain[name])
        assert (roomy[name][:, 12:] == 0).all()


def test_too_few_jets_for_a_batch_is_said(stores: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="leaves 600 jets to train on, fewer than one batch of 601"):
        source(Store(stores["train"]), batch=601)


def test_sequential_batches_cover_all_and_pad_the_last(stores: dict[str, Path]) -> None:
    store = Store(stores["fit"])
    indices = np.arange(10, 133)
    batches = list(sequential_batches(store, indices, 50, 12))
    assert [jets for _, jets in batches] == [50, 50, 23]
    assert all(b["pt"].shape == (50, 12) for b, _ in batches)
    assert (batches[-1][0]["pt"][23:] == 0).all()
    found = np.concatenate([b["pt"][:n] for b, n in batches])
    np.testing.assert_array_equal(found, store.gather(indices, 12)["pt"])
