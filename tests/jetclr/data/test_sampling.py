"""Weights by hand and by brute force; draws against the definition, block ends and rounding included."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data.chunk import JetChunk
from jetclr.data.hashing import uniform
from jetclr.data.sampling import (
    EACH_JET_ONCE,
    Draws,
    EachOnce,
    Sampling,
    jet_weights,
    selected,
)
from jetclr.data.store import Store, StoreWriter
from jetclr.errors import UserError
from tests.toys import toy_chunk


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two stores of 350 and 150 jets in blocks of 100, as one; their masses differ."""
    folder = tmp_path_factory.mktemp("pair")
    for seed, (name, jets) in enumerate({"a": 350, "b": 150}.items()):
        with StoreWriter(folder / name, {}, block_jets=100) as writer:
            writer.append(toy_chunk(np.random.default_rng(seed), jets))
    return Store(folder / "a", folder / "b")


def weights_of(store: Store, sampling: Sampling, start: float = 0, stop: float = 1) -> np.ndarray:
    """Mean one over those drawn."""
    jets = np.diff(store.starts)
    first = np.round(jets * start).astype(np.int64)
    found = jet_weights(store, sampling, first, np.round(jets * stop).astype(np.int64) - first).astype(float)
    return found / found[found > 0].mean()


def test_a_selection_is_a_condition_on_columns(pair: Store) -> None:
    found = selected(pair, "label == 1 & multiplicity > 20")
    np.testing.assert_array_equal(found, (pair.column("label") == 1) & (pair.column("multiplicity") > 20))
    assert selected(pair, "").all()
    with pytest.raises(UserError, match=r"no jet of .* fulfils 'label > 5'"):
        selected(pair, "label > 5")
    with pytest.raises(UserError, match="labl"):
        selected(pair, "labl > 5")


def test_weights_multiply(pair: Store) -> None:
    sampling = Sampling(where="jet_mass > 20", fraction=0.7, weight="jet_pt * multiplicity", balance="label")
    found = weights_of(pair, sampling, 0, 0.9)
    label, pt, number = (pair.column(name) for name in ("label", "jet_pt", "multiplicity"))
    row = np.concatenate([np.arange(n) for n in (100, 100, 100, 50, 100, 50)])
    size = np.repeat([100, 100, 100, 50, 100, 50], [100, 100, 100, 50, 100, 50])
    keep = (pair.column("jet_mass") > 20) & (uniform(np.arange(500)) < 0.7) & (row < 0.9 * size)
    expected = np.where(keep, pt * number, 0).astype(float)
    for value in (0, 1):
        expected[label == value] /= expected[label == value].sum()
    np.testing.assert_allclose(found, expected / expected[expected > 0].mean(), rtol=1e-5)


def test_stores_get_their_shares(pair: Store) -> None:
    found = weights_of(pair, Sampling(shares=(1, 3), balance="label", where="multiplicity < 25"))
    assert found[350:].sum() == pytest.approx(3 * found[:350].sum(), rel=1e-6)
    for span in (slice(0, 350), slice(350, 500)):  # and in each the classes are alike
        label = pair.column("label")[span]
        assert found[span][label == 1].sum() == pytest.approx(found[span][label == 0].sum(), rel=1e-6)
    only = weights_of(pair, Sampling(shares=(0, 2)))
    np.testing.assert_allclose(only, [0] * 350 + [1] * 150)


@pytest.mark.parametrize("power", [14, -16, 90, -90])
def test_steep_weights_keep_their_ratios(pair: Store, power: int) -> None:
    """Such as lie outside the range of float32, or so near its end that they lose digits there."""
    exact = pair.column("jet_pt").astype(float) ** power
    found = weights_of(pair, Sampling(weight=f"pow(jet_pt, {power})"))
    np.testing.assert_allclose(found, exact / exact.mean(), rtol=1e-6)


def test_only_the_ratio_of_shares_counts(pair: Store) -> None:
    expected = weights_of(pair, Sampling(shares=(1, 3)))
    np.testing.assert_allclose(weights_of(pair, Sampling(shares=(5e307, 1.5e308))), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("sampling", "says"),
    [
        (Sampling(shares=(1, 2, 3)), "data.shares has 3 entries for 2 train stores"),
        (Sampling(shares=(1, 2), weight="jet_eta - jet_eta"), "has no jet left to draw"),
        (Sampling(weight="jet_eta"), "data.weight 'jet_eta' is -.* for jet"),
        (Sampling(weight="1 / (label - label)"), "data.weight .* is (nan|inf) for jet 0|no value for some jets"),
        (Sampling(fraction=1e-9), "has no jet left to draw"),
        (Sampling(where="jet_pt > 1e6"), "fulfils 'jet_pt > 1e6'"),
        (Sampling(balance="labl"), "no column 'labl'; it has .*'label'"),
        (Sampling(flat="labl"), "no column 'labl'"),
    ],
    ids=str,
)
def test_faults_are_told(pair: Store, sampling: Sampling, says: str) -> None:
    with pytest.raises(UserError, match=says):
        weights_of(pair, sampling)


def test_a_store_with_a_share_but_no_jets_is_named(tmp_path: Path) -> None:
    for name, shift in (("a", 0), ("b", 5)):
        chunk = toy_chunk(np.random.default_rng(0), 20)
        with StoreWriter(tmp_path / name, {}) as writer:
            writer.append(JetChunk(chunk.offsets, chunk.constituents, {"label": chunk.jets["label"] + shift}))
    store = Store(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match=r"data\.shares gives .*/b 3 of the draws, but none of its jets is left"):
        weights_of(store, Sampling(shares=(1, 3), where="label < 2"))


def edges(*sizes: int) -> np.ndarray:
    return np.cumsum([0, *sizes])


def drawn(draws: Draws | EachOnce, blocks: int, jets: int, offset: float) -> np.ndarray:
    """How often each jet is drawn; checks that blocks tell the number of their draws."""
    found = [draws.in_block(block, offset) for block in range(blocks)]
    np.testing.assert_array_equal([len(x) for x in found], draws.per_block(offset))
    assert all((np.diff(x) >= 0).all() for x in found)
    return np.bincount(np.concatenate(found), minlength=jets)


@given(
    st.lists(st.sampled_from([0.0, 1e-6, 0.1, 1 / 3, 0.5, 1.0, 2.5, 19.9]), min_size=3, max_size=60),
    st.integers(0, 2**24 - 1),
    st.integers(1, 7),
)
def test_each_jet_is_drawn_its_weight_rounded_up_or_down(weights: list[float], offset: int, size: int) -> None:
    w = np.array(weights, np.float32)
    if not w.any():
        return
    starts = edges(*(len(x) for x in np.array_split(w, -(-len(w) // size))))
    draws = Draws(starts, w)
    times = drawn(draws, len(starts) - 1, len(w), offset / 2**24)
    assert times.sum() == draws.jets == np.count_nonzero(w)
    exact = w.astype(float) / w[w > 0].astype(float).mean()
    assert (times[w == 0] == 0).all()
    assert (times >= np.floor(exact - 1e-6)).all()
    assert (times <= np.ceil(exact + 1e-6)).all()


def test_expected_draws_are_the_weights() -> None:
    rng = np.random.default_rng(5)
    w = rng.exponential(1, 300).astype(np.float32)
    draws = Draws(edges(100, 1, 199), w)
    offsets = (np.arange(4096) + 0.5) / 4096  # all of [0, 1): the mean over them is exact to one part in 4096
    mean = np.mean([drawn(draws, 3, 300, float(u)) for u in offsets], axis=0)
    np.testing.assert_allclose(mean, w / w.mean(), atol=1 / 4096)
    assert len({Draws.offset(rng) for _ in range(50)}) == 50


@pytest.mark.parametrize("value", [1.0, 0.1, 1 / 3, 1e-30])
@pytest.mark.parametrize("offset", [0.0, 0.5, 1 - 2**-24])
def test_equal_weights_draw_each_jet_once_at_block_ends_too(value: float, offset: float) -> None:
    w = np.tile(np.array([value, 0, value, value], np.float32), 5000)
    draws = Draws(edges(*[7] * 2857, 1), w)
    times = drawn(draws, 2858, 20_000, offset)
    assert times.sum() == 15_000
    if value == 1:
        np.testing.assert_array_equal(times, w)
    else:  # rounding may move a draw to a neighbour, at most at an offset that lies on an edge
        assert offset in (0.0, 1 - 2**-24) or (times == (w > 0)).all()
        assert times.max() <= 2


def test_without_weights_each_jet_of_the_part_is_drawn_once() -> None:
    each = EachOnce(edges(10, 5), np.array([2, 1]), np.array([6, 3]))
    np.testing.assert_array_equal(drawn(each, 2, 15, 0.3), [0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0])
    assert each.jets == 9
    assert Sampling() == EACH_JET_ONCE


@pytest.mark.parametrize("seed", range(8))
def test_rounding_at_ends_loses_and_doubles_nothing(seed: int) -> None:
    """Blocks alike, whose sums of weights are whole numbers but for rounding: with offset 0 every end is an edge."""
    block = (np.random.default_rng(seed).exponential(1, 999) ** 4).astype(np.float32)
    w = np.tile(block, 20)
    draws = Draws(edges(*[999] * 20), w)
    for offset in (0.0, 1 - 2**-24):
        times = drawn(draws, 20, len(w), offset)
        assert times.sum() == len(w)
        assert (np.abs(times - w / w.mean(dtype=float)) < 1 + 1e-6).all()


@pytest.mark.parametrize("jets", [4, 25, 31, 55, 60, 63])
def test_an_epoch_ends_at_the_last_jet_whatever_rounding(jets: int) -> None:
    """Sums which, brought to the number of jets, come out just below it."""
    w = np.random.default_rng(jets).exponential(1, jets).astype(np.float32)
    total = np.cumsum(w, dtype=np.float64)[-1]
    assert total * (jets / total) < jets
    assert drawn(Draws(edges(jets), w), 1, jets, 0.0).sum() == jets
