"""Shifted jets do not depend on how they are batched; rows are the metrics of the scores they are made from."""

import numpy as np
import pytest

from augmentations import Chain, PileUp, PtShift, Rotate, Threshold
from jetclr.benchmark.robustness import NOMINAL, SHIFTS, robustness_rows, shifted
from probes.metrics import auc, evaluate_scores, paired_bootstrap
from tests.toys import toy_batch

BATCH = toy_batch(0, 24, slots=150)


def real(batch: dict[str, np.ndarray]) -> np.ndarray:
    return batch["pt"] > 0


@pytest.mark.parametrize("name", SHIFTS)
def test_a_jet_is_shifted_alike_in_every_batch(name: str) -> None:
    whole = shifted(BATCH, SHIFTS[name], 0, seed=3)
    assert whole.keys() == BATCH.keys()
    for first, stop in ((0, 8), (16, 24)):
        part = shifted({column: x[first:stop] for column, x in BATCH.items()}, SHIFTS[name], first, seed=3)
        for column, x in part.items():
            assert x.dtype == np.float32
            np.testing.assert_array_equal(x, whole[column][first:stop])
    assert any((whole[column] != BATCH[column]).any() for column in BATCH)
    for x in whole.values():
        assert np.isfinite(x).all()
        assert (x[~real(whole)] == 0).all()


def test_another_seed_and_another_number_are_other_jets() -> None:
    shift = SHIFTS["detector smearing"]
    plain = shifted(BATCH, shift, 0, seed=0)
    assert (shifted(BATCH, shift, 0, seed=1)["pt"] != plain["pt"]).any()
    assert (shifted(BATCH, shift, 1, seed=0)["pt"] != plain["pt"]).any()
    same = {column: np.repeat(x[:1], 24, axis=0) for column, x in BATCH.items()}
    assert len(np.unique(shifted(same, shift, 0)["pt"][:, 0])) == 24


def test_the_standard_shifts_do_what_they_say() -> None:
    lost = shifted(BATCH, SHIFTS["lost soft constituents"], 0)
    soft = real(BATCH) & (BATCH["pt"] < 2)
    assert soft.any()
    np.testing.assert_array_equal(lost["pt"], np.where(soft, 0, BATCH["pt"]))
    scaled = shifted(BATCH, SHIFTS["energy scale +5 %"], 0)
    np.testing.assert_allclose(scaled["pt"], 1.05 * BATCH["pt"], rtol=1e-6)
    smeared = shifted(BATCH, SHIFTS["detector smearing"], 0)
    hard = BATCH["pt"] > 30
    assert 0.05 < (smeared["pt"][hard] / BATCH["pt"][hard]).std() < 0.11  # 9 % at 50 GeV, 5 % at the most
    assert 0.008 < (smeared["eta"] - BATCH["eta"])[real(BATCH)].std() < 0.012
    # 80 particles of 0.6 GeV in a jet with room for them.
    piled = shifted(BATCH, SHIFTS["pile-up"], 0)
    assert 40 < (piled["pt"].sum(1) - BATCH["pt"].sum(1)).mean() < 60
    assert 74 < (real(piled).sum(1) - real(BATCH).sum(1)).mean() < 87


def test_extras_come_along_and_empty_rows_stay_empty() -> None:
    batch = BATCH | {"charge": np.where(real(BATCH), 1.0, 0.0).astype(np.float32)}
    batch = {column: np.concatenate([x[:8], np.zeros((3, 150), np.float32)]) for column, x in batch.items()}
    for name in ("lost soft constituents", "pile-up"):
        out = shifted(batch, SHIFTS[name], 0)
        assert out.keys() == batch.keys()
        assert not any(x[8:].any() for x in out.values()), name
        assert set(np.unique(out["charge"])) == {0.0, 1.0}


def test_any_transform_is_a_shift() -> None:
    np.testing.assert_allclose(shifted(BATCH, Chain(PtShift(2.0), Threshold(0.0)), 0)["pt"], 2 * BATCH["pt"])
    turned = shifted(BATCH, Rotate(), 5)
    np.testing.assert_array_equal(turned["pt"], BATCH["pt"])
    assert hash(PileUp()) == hash(PileUp())  # or every batch would be compiled anew


def scores(seed: int, jets: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(jets) % 2)
    return rng.normal(size=jets) + strength * labels, labels


def test_rows_are_the_metrics_of_the_scores_in_order() -> None:
    nominal, labels = scores(0, 1000, 2.0)
    noisy = nominal + np.random.default_rng(1).normal(size=1000)
    other, truth = scores(2, 600, 1.5)
    rows = robustness_rows(
        "toptag", "run", "logistic", labels, nominal, {"smeared": noisy, "none": nominal}, {"tune 21": (other, truth)},
        resamples=200, seed=4,
    )  # fmt: skip
    assert [row.shift for row in rows] == [NOMINAL, "smeared", "none", "tune 21"]
    assert {(row.representation, row.kind, row.probe) for row in rows} == {("toptag", "run", "logistic")}
    for row, (s, y) in zip(rows, [(nominal, labels), (noisy, labels), (nominal, labels), (other, truth)], strict=True):
        assert row.auc.value == pytest.approx(auc(s, y))
        assert row.r50 == evaluate_scores(s, y, threshold=0.5, resamples=200, seed=4)["r50"]
        assert row.auc.low < row.auc.value < row.auc.high
    assert rows[0].auc_change is None
    assert rows[3].auc_change is None
    change = rows[1].auc_change
    assert change is not None
    assert change == paired_bootstrap(noisy, nominal, labels, resamples=200, seed=4).auc
    assert change.value == pytest.approx(rows[1].auc.value - rows[0].auc.value)
    assert change.high is not None
    assert change.high < 0
    same = rows[2].auc_change
    assert same is not None
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_paired_change_is_known_better_than_either_auc() -> None:
    nominal, labels = scores(3, 2000, 2.0)
    slightly = nominal + 0.1 * np.random.default_rng(1).normal(size=2000)
    row = robustness_rows("x", "run", "LDA", labels, nominal, {"slight": slightly}, resamples=200)[1]
    assert row.auc_change is not None
    assert row.auc.high is not None
    assert row.auc_change.high is not None
    assert row.auc_change.high - row.auc_change.low < 0.3 * (row.auc.high - row.auc.low)


def test_scores_that_cannot_be_compared_are_refused() -> None:
    nominal, labels = scores(0, 100, 1.0)
    signal = (nominal[labels == 1], labels[labels == 1])
    with pytest.raises(ValueError, match="all 50 jets are signal"):
        robustness_rows("x", "run", "LDA", labels, nominal, {}, {"tune 5": signal}, resamples=10)
    with pytest.raises(ValueError, match="1 of 100 scores are NaN or infinite"):
        robustness_rows("x", "run", "LDA", labels, np.where(np.arange(100) == 5, np.nan, nominal), {}, resamples=10)
