import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jetclr.data.pipeline import BatchSource, Slice, sequential_batches, training_batches
from jetclr.data.sampling import Sampling
from jetclr.data.store import Store, StoreWriter
from jetclr.errors import UserError
from tests.toys import toy_chunk


def source(store: Store, **settings: object) -> BatchSource:
    chosen: dict[str, object] = {
        "batch": 50,
        "constituents": 12,
        "seed": 3,
        "steps": 100,
        "window_blocks": 2,
    } | settings
    return BatchSource(store, **chosen)  # type: ignore[arg-type]


def part_of(index: int, count: int) -> Callable[[int], np.ndarray]:
    """The rows of one of `count` processes."""
    return lambda jets: np.split(np.arange(jets), count)[index]


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
    (whole,) = source(store)[5]
    for count in (2, 5):
        parts = [source(store, rows=part_of(i, count))[5][0] for i in range(count)]
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
        for name in expected[0]:
            np.testing.assert_array_equal(found[0][name], expected[0][name])


def test_slots_give_room_beyond_the_constituents(stores: dict[str, Path]) -> None:
    store = Store(stores["train"])
    (plain,), (roomy,) = source(store)[3], source(store, slots=20)[3]
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


@pytest.mark.parametrize(
    ("window_blocks", "part", "first", "digests"),
    [
        (2, Slice(), [542, 517, 519, 299, 528, 206, 284, 535], ("b8e2a2464be6bde4", "9bccd7be58110ba2")),
        (64, Slice(0, 0.8), [275, 126, 420, 451, 172, 173, 462, 251], ("484be13fcecd102d", "f1c125339e7fca02")),
    ],
)
def test_batches_without_options_stay_what_they_were(
    stores: dict[str, Path], window_blocks: int, part: Slice, first: list[int], digests: tuple[str, str]
) -> None:
    """Frozen before there were any: a run that was begun then goes on with the same jets."""
    made = source(Store(stores["train"]), window_blocks=window_blocks, part=part)
    assert made.indices(0)[:8].tolist() == first
    for item, digest in zip((0, 31), digests, strict=True):
        assert hashlib.sha256(made.indices(item).tobytes()).hexdigest()[:16] == digest
    assert made.layout == made.full == ((50, 12),)


def epochs(made: BatchSource, number: int) -> np.ndarray:
    """How often each jet is drawn in each of the first epochs; the jets must be a multiple of the batch of 50."""
    per_epoch, rest = divmod(made.jets, 50)
    assert rest == 0
    drawn = [np.concatenate([made.indices(e * per_epoch + i) for i in range(per_epoch)]) for e in range(number)]
    return np.stack([np.bincount(jets, minlength=len(made.store)) for jets in drawn])


def test_a_selection_is_drawn_once_an_epoch(stores: dict[str, Path]) -> None:
    store = Store(stores["train"])
    made = source(store, sampling=Sampling(where="label == 1"), window_blocks=3)
    assert made.jets == 300
    np.testing.assert_array_equal(epochs(made, 3), np.tile(store.column("label"), (3, 1)))


def test_jets_are_drawn_by_their_weights(stores: dict[str, Path]) -> None:
    """Two stores, three quarters of the draws from the smaller one, in windows that shuffle and cut by blocks."""
    store = Store(stores["train"], stores["fit"])
    made = source(store, sampling=Sampling(shares=(1, 3), weight="1 + label"), window_blocks=4)
    assert made.jets == 900
    times = epochs(made, 60)
    expected = 1.0 + store.column("label")
    expected[:600] *= 225 / expected[:600].sum()
    expected[600:] *= 675 / expected[600:].sum()
    assert (times >= np.floor(expected - 1e-6)).all()
    assert (times <= np.ceil(expected + 1e-6)).all()
    np.testing.assert_allclose(times.mean(0), expected, atol=0.35)  # five sigma of 60 draws
    assert (times[0] != times[1]).any()


def test_blocks_without_draws_are_no_fault(stores: dict[str, Path]) -> None:
    """All of the second store, in windows of a block: most windows are empty."""
    store = Store(stores["train"], stores["fit"])
    made = source(store, sampling=Sampling(shares=(0, 1)), window_blocks=1)
    assert made.jets == 300
    np.testing.assert_array_equal(epochs(made, 2), np.tile(np.arange(900) >= 600, (2, 1)))


def test_validation_jets_stay_out_with_weights_too(stores: dict[str, Path]) -> None:
    store = Store(stores["train"])
    made = source(store, part=Slice(0, 0.8), sampling=Sampling(balance="label", flat="jet_mass"))
    trained = np.unique(np.concatenate([made.indices(i) for i in range(60)]))
    assert not set(trained.tolist()) & set(Slice(0.8, 1).indices(store).tolist())
    assert made.jets == 480


def charged(path: Path, jets: int = 200) -> Path:
    """A store whose constituents have a charge (int8) and a d0."""
    chunk = toy_chunk(np.random.default_rng(4), jets)
    number = np.arange(len(chunk.constituents["pt"]))
    extras = {"charge": (number % 3 - 1).astype(np.int8), "d0": (number / 1e3).astype(np.float32)}
    with StoreWriter(path, {}, block_jets=100) as writer:
        writer.append(chunk._replace(constituents=chunk.constituents | extras))
    return path


def test_extras_come_with_their_constituents(tmp_path: Path) -> None:
    store = Store(charged(tmp_path / "store"))
    made = source(store, extras=("d0", "charge"), constituents=24, slots=30, buckets=(8, 12, 16), batch=48)
    jets, _ = made.arranged(2)
    pieces, expected = made[2], store.gather(jets, 24, ("d0", "charge"))
    assert len(pieces) > 1
    assert all(list(piece) == ["pt", "eta", "phi", "d0", "charge"] for piece in pieces)
    for name, values in expected.items():
        found = [np.pad(piece[name], ((0, 0), (0, 30 - piece[name].shape[1]))) for piece in pieces]
        np.testing.assert_array_equal(np.concatenate(found)[:, :24], values)
    assert len(np.unique(expected["d0"])) > 100
    (batch, number), *_ = sequential_batches(store, np.arange(5), 8, 24, ("charge",))
    assert number == 5
    np.testing.assert_array_equal(batch["charge"][:5], store.gather(np.arange(5), 24, ("charge",))["charge"])


def test_a_store_without_an_extra_is_named(tmp_path: Path, stores: dict[str, Path]) -> None:
    mixed = Store(charged(tmp_path / "store"), stores["train"])
    with pytest.raises(UserError, match=r"train has no constituent column 'd0' \(data.extras\); it has pt, eta, phi"):
        source(mixed, extras=("d0",))


def test_an_extra_of_no_numbers_is_refused(tmp_path: Path) -> None:
    chunk = toy_chunk(np.random.default_rng(0), 60)
    dates = np.zeros(len(chunk.constituents["pt"]), "datetime64[s]")
    with StoreWriter(tmp_path / "dates", {}) as writer:
        writer.append_sound(chunk._replace(constituents=chunk.constituents | {"when": dates}))
    with pytest.raises(UserError, match=r"'when' \(data.extras\) of .*dates holds no numbers"):
        source(Store(tmp_path / "dates"), extras=("when",))


def test_too_few_selected_jets_are_said(stores: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="leaves 300 jets to train on, fewer than one batch of 301"):
        source(Store(stores["train"]), batch=301, sampling=Sampling(where="label == 0"))


@pytest.mark.parametrize("buckets", [(), (6,)])
def test_labels_come_with_the_jets_of_each_piece(stores: dict[str, Path], buckets: tuple[int, ...]) -> None:
    store = Store(stores["train"], stores["fit"])
    made = source(store, batch=48, buckets=buckets, label=True)
    jets, layout = made.arranged(7)
    pieces = made[7]
    assert [piece["label"].shape for piece in pieces] == [(n,) for n, _ in layout]
    assert {piece["label"].dtype for piece in pieces} == {np.dtype(np.float32)}
    found = np.concatenate([piece["label"] for piece in pieces])
    np.testing.assert_array_equal(found, store.column("label")[jets])
    assert set(found) == {0, 1}
    half = source(store, batch=48, buckets=buckets, label=True, rows=part_of(1, 2))[7]
    for mine, whole in zip(half, pieces, strict=True):
        np.testing.assert_array_equal(mine["label"], np.split(whole["label"], 2)[1])


def test_stores_without_labels_are_refused_by_name(stores: dict[str, Path], tmp_path: Path) -> None:
    chunk = toy_chunk(np.random.default_rng(0), 100)
    with StoreWriter(tmp_path / "bare", {}) as writer:
        writer.append(chunk._replace(jets={name: x for name, x in chunk.jets.items() if name != "label"}))
    source(Store(tmp_path / "bare"))
    with pytest.raises(UserError, match=r"bare has no column 'label', by which the objective compares jets"):
        source(Store(stores["train"], tmp_path / "bare"), label=True)
