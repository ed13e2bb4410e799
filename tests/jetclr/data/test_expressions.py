"""Formulas of columns: what numpy gives, and nothing but formulas."""

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data.expressions import Expression
from jetclr.errors import UserError

RNG = np.random.default_rng(0)
COLUMNS = {
    "jet_pt": RNG.uniform(400, 800, 200).astype(np.float32),
    "jet_eta": RNG.normal(0, 1.5, 200).astype(np.float32),
    "jet_mass": RNG.exponential(80, 200).astype(np.float32),
    "label": RNG.integers(0, 3, 200).astype(np.int32),
    "split": RNG.integers(0, 3, 200).astype(np.int8),
    "row": np.arange(200) * 3,
}
PT, ETA, MASS, LABEL = (COLUMNS[name] for name in ("jet_pt", "jet_eta", "jet_mass", "label"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jet_pt > 500 & abs(jet_eta) < 2", (PT > 500) & (np.abs(ETA) < 2)),
        ("jet_pt > 500 and abs(jet_eta) < 2", (PT > 500) & (np.abs(ETA) < 2)),
        ("jet_pt > 700 || jet_mass > 100 && label == 1", (PT > 700) | ((MASS > 100) & (LABEL == 1))),
        ("~(label == 0) & jet_pt <= 600", (LABEL != 0) & (PT <= 600)),
        ("not label = 0", LABEL != 0),
        ("jet_pt between 500 and 600", (PT >= 500) & (PT <= 600)),
        ("label in (0, 2)", LABEL != 1),
        ("row % 2 == 0", np.arange(200) * 3 % 2 == 0),
        ("case when label == 2 then jet_pt > 500 else jet_pt > 700 end", np.where(LABEL == 2, PT > 500, PT > 700)),
        ("jet_mass ^ 2 / jet_pt ** 2", (MASS.astype(float) / PT) ** 2),
        ("ln((jet_mass / jet_pt) ^ 2)", 2 * np.log(MASS / PT)),
        ("hypot(jet_eta, 1) - tanh(jet_eta)", np.hypot(ETA, 1) - np.tanh(ETA)),
        ("-jet_eta * 1e2", -ETA * 100),
        ("label / 2", LABEL / 2),
        ("(jet_mass / 100)^-2 * -1", -((MASS / 100.0) ** -2)),
        ("split * 300 + 100 * split", 400 * COLUMNS["split"].astype(np.int64)),  # not in 8 bits
        ("-(jet_eta ^ 2) + (-jet_eta) ^ 2 * 3", 2 * ETA**2),
    ],
)
def test_formulas_give_what_numpy_gives(text: str, expected: np.ndarray) -> None:
    found = Expression(text, list(COLUMNS))(COLUMNS)
    if expected.dtype == bool:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@given(st.floats(400, 800, width=32), st.integers(-3, 3), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
def test_thresholds(pt: float, k: int, sign: str) -> None:
    expected = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal}.get(
        sign, np.not_equal
    )
    found = Expression(f"jet_pt {sign} {pt!r} | label {sign} {k}", list(COLUMNS))(COLUMNS)
    np.testing.assert_array_equal(found, expected(PT, np.float32(pt)) | expected(LABEL, k))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqrt(jet_mass - 50) > 3", lambda x: x > 3),
        ("sqrt(jet_mass - 50) <= 3", lambda x: x <= 3),
        ("sqrt(jet_mass - 50) == sqrt(jet_mass - 50)", lambda x: x == x),
        ("sqrt(jet_mass - 50) != 3", lambda x: x != 3),
        ("not sqrt(jet_mass - 50) > 3", lambda x: ~(x > 3)),
        ("0 between -1 and sqrt(jet_mass - 50)", lambda x: x >= 0),
        ("case when sqrt(jet_mass - 50) > 3 then 1 else 0 end == 1", lambda x: x > 3),
    ],
)
def test_nan_compares_as_in_numpy(text: str, expected: Callable[[np.ndarray], np.ndarray]) -> None:
    """To DuckDB it is larger than any number, and equal to itself."""
    x = np.sqrt(MASS - np.float32(50))
    assert 20 < np.isnan(x).sum() < 180
    np.testing.assert_array_equal(Expression(text, list(COLUMNS)).selects(COLUMNS), expected(x))


def test_halves_and_numbers_of_64_bits() -> None:
    columns = {"half": np.array([1, 2], np.float16), "event": np.array([2**53 + 1, 2**53], np.int64)}
    np.testing.assert_array_equal(Expression("2 * half", list(columns))(columns), [2, 4])
    found = Expression("event == 9007199254740993", list(columns)).selects(columns)
    np.testing.assert_array_equal(found, [True, False])


def test_each_jet_for_itself() -> None:
    """The value of a jet does not depend on which others are asked for with it."""
    formula = Expression("jet_mass / jet_pt + 1 // (row - 1)", list(COLUMNS))
    whole = formula(COLUMNS)
    parts = [formula({name: x[i : i + 7] for name, x in COLUMNS.items()}) for i in range(0, 200, 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    none = formula({name: x[:0] for name, x in COLUMNS.items()})
    assert none.shape == (0,)
    assert none.dtype == whole.dtype


def test_the_columns_that_are_needed() -> None:
    assert Expression("label > 0 & jet_pt > 1", list(COLUMNS)).columns == ["jet_pt", "label"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not one formula"),
        ("jet_pt >", "cannot be read"),
        ("1 < jet_pt < 5", "Chained comparisons"),
        ("jet_p > 5", "uses jet_p; there is jet_pt"),
        ("7 > 5", "uses no column"),
        ("jet_pt, jet_eta", "is not one formula"),
        ("jet_pt) from jets where (jet_pt > 1", "is not one formula"),
        ("1) from jets where (jet_pt > 1) or (jet_pt > 2", "is not one formula"),
        ("sum(jet_pt) > 1", "calls 'sum'"),
        ("jet_pt > avg(jet_pt) over ()", "holds window"),
        ("random() > jet_pt", "calls 'random'"),
        ("jet_pt > (select 1)", "holds subquery"),
        ("jet_pt in (select x from read_csv_auto(label))", "holds subquery"),
        ("read_text(jet_pt)", "calls 'read_text'"),
        ("read_text('/etc/passwd')", "holds quotes"),
        ("__import__('os').system('true')", "holds quotes"),
        ("jet_pt.__class__ > 1", "jet_pt.__class__"),
        ("jet_pt > 1; drop table jets", "semicolons"),
        ("jet_pt > 1 -- and more", "comments"),
        ("*", "holds star"),
        ("jet_pt::text", "holds type"),
        ("(" * 3000, "cannot be read"),
        ("+".join(["jet_pt"] * 900), "too deeply nested"),
        ("(" * 10 + "jet_pt" + " > 0)" * 10, "compares comparisons"),
        ("-jet_eta ^ 2 < 1", "may mean -(x ^ y) or (-x) ^ y"),
        ("2 * -jet_eta ** 2 < 1", "put parentheses there"),
        ("-2 ^ 2 < label", "put parentheses there"),
        ("log(jet_pt) > 1", "calls 'log'"),  # of base 10 here, and natural in NumPy
    ],
)
def test_what_is_no_formula_is_refused(text: str, says: str) -> None:
    with pytest.raises(UserError) as raised:
        Expression(text, list(COLUMNS))
    assert says in str(raised.value)


def test_names_that_differ_in_capitals_are_one_to_duckdb() -> None:
    columns = {"pt": np.array([1.0]), "PT": np.array([5.0])}
    assert Expression("PT > 2", list(columns)).selects(columns).all()
    with pytest.raises(UserError, match="differ in nothing but capital letters"):
        Expression("PT > 2 & pt < 2", list(columns))


def test_values_that_are_none() -> None:
    with pytest.raises(UserError, match="has no value for some jets"):
        Expression("case when label > 0 then 1 end", list(COLUMNS))(COLUMNS)
    with pytest.raises(UserError, match="is a number and not a condition"):
        Expression("jet_pt", list(COLUMNS)).selects(COLUMNS)


@given(st.text("jet_pt()<>&|~+-*/^ 0123456789.,eE!=andor", max_size=40))
def test_any_text_gives_a_value_or_a_sentence(text: str) -> None:
    with contextlib.suppress(UserError):
        assert Expression(text, list(COLUMNS))(COLUMNS).shape == (200,)
