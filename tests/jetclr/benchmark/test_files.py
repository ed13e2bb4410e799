"""A benchmark as JSON: exact, strict, and never NaN."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.benchmark.files import from_json, plain, read_json, write_json
from jetclr.benchmark.results import Benchmark, Curve
from jetclr.errors import UserError
from probes.metrics import Estimate
from tests.jetclr.benchmark.example import empty, example, many_classes

EXAMPLE = example()
SMALL = dataclasses.replace(EXAMPLE, scores=EXAMPLE.scores[:1], similarity=[], sculpting=[])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("made", [example, many_classes, empty])
def test_what_is_read_is_what_was_written(tmp_path, made):
    path = tmp_path / "new" / "benchmark.json"
    write_json(made(), path)
    assert read_json(path) == made()
    assert [p.name for p in path.parent.iterdir()] == ["benchmark.json"]


@given(
    numbers=st.lists(NUMBERS, min_size=4),
    high=st.none() | NUMBERS,
    names=st.dictionaries(st.text(), NUMBERS | st.text() | st.booleans(), max_size=4),
    flag=st.booleans(),
)
def test_round_trip_is_exact(numbers, high, names, flag):
    # Built here and not by a strategy: checking types at run time draws random numbers, forbidden to strategies.
    estimate = Estimate(numbers[0], numbers[1], high, flag)
    score = dataclasses.replace(
        EXAMPLE.scores[0], validation_auc=numbers[2], chosen=flag, test=dict.fromkeys(names, estimate), settings=names,
        roc=Curve(tuple(numbers), tuple(numbers[1:])) if flag else None, max_sic=high,
    )  # fmt: skip
    changed = dataclasses.replace(EXAMPLE.robustness[0], auc=estimate, auc_change=None if flag else estimate)
    benchmark = Benchmark(EXAMPLE.facts, scores=[score], robustness=[changed])
    found = from_json(Benchmark, json.dumps(plain(benchmark, ""), allow_nan=False), "here")
    assert found == benchmark
    assert repr(found) == repr(benchmark)  # of the same types, and -0.0 is not 0.0


def test_numbers_of_numpy_are_written_as_numbers():
    found = plain({"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": (np.float64(0.25),)}, "x")
    assert found == {"a": 0.5, "b": 3, "c": True, "d": [0.25]}
    assert [type(v) for v in found.values()] == [float, int, bool, list]
    with pytest.raises(UserError, match=r"x\['a'\] is a set, which JSON cannot hold"):
        plain({"a": {1}}, "x")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_refused_before_anything_is_written(tmp_path, value):
    score = dataclasses.replace(example().scores[0], validation_auc=value)
    with pytest.raises(UserError, match=r"Benchmark\.scores\[0\]\.validation_auc is (nan|inf)"):
        write_json(dataclasses.replace(example(), scores=[score]), tmp_path / "b.json")
    assert not list(tmp_path.iterdir())


def changed(path, value):
    """The example's JSON with the value at a path replaced, or removed."""
    whole = plain(SMALL, "")
    *parents, last = path
    at = whole
    for key in parents:
        at = at[key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a benchmark written by jetclr"),
        ("[1]", "it is .1.; it must hold the fields of Benchmark"),
        ("[" * 100_000, "not a benchmark"),
        (changed(["facts", "seed"], None), "facts lacks seed"),
        (changed(["facts", "sead"], 1), "facts has no field 'sead'; it has suite, version"),
        (changed(["facts", "seed"], 1.5), "facts.seed is 1.5; it must be of type int"),
        (changed(["facts", "seed"], True), "facts.seed is True; it must be of type int"),
        (changed(["facts", "jets", "test"], "x"), r"facts.jets\['test'\] is 'x'; it must be of type int"),
        (changed(["scores", 0, "kind"], "fine"), r"scores\[0\].kind is 'fine'; known are 'run', 'untrained'"),
        (changed(["scores", 0, "roc"], [1]), r"scores\[0\].roc is \[1\]; it must hold the fields of Curve"),
        (changed(["scores", 0, "chosen"], 1), r"scores\[0\].chosen is 1; it must be of type bool"),
        (changed(["scores", 0, "settings"], {"a": [1]}), r"settings\['a'\] is \[1\]; it must be of type bool or"),
        (changed(["scores", 0, "seconds"], "1"), r"scores\[0\].seconds is '1'; it must be a number"),
        (changed(["efficiency", 0, "auc"], 0.5), r"efficiency\[0\].auc is 0.5; it must be of type list"),
        (changed(["facts", "seconds"], math.nan), "it holds NaN"),
        (changed(["facts", "seconds"], 70707).replace("70707", "1e999"), "seconds is no finite number"),
        (changed(["facts", "seconds"], 10**400), "seconds is no finite number"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as found:
        read_json(path)
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 500


def test_files_that_cannot_be_read_are_said_plainly(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_json(tmp_path / "missing.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not text"):
        read_json(tmp_path / "b.json")
    with pytest.raises(UserError, match="is a folder"):
        write_json(empty(), tmp_path)
