"""Whitened features, and the files of fitted heads that are damaged, foreign or dishonest."""

import contextlib
import io
import json
import pickle
import re
import zipfile

import numpy as np
import pytest

from probes import tables
from probes.anomaly.distance import Mahalanobis
from probes.anomaly.files import FORMAT, load, save
from probes.anomaly.heads import HEADS
from probes.anomaly.whitening import SHRINK, Whitened
from tests.probes.anomaly.features import background, refused


def test_components_have_unit_variance_and_fall_in_their_share():
    x = background(3000)
    white = Whitened.of(x, shrink=0.0)
    assert white.axes.shape == (6, 5)  # one feature is constant
    np.testing.assert_allclose(np.cov(white(x).T, ddof=0), np.eye(5), atol=1e-6)
    np.testing.assert_allclose(white(x).mean(axis=0), 0, atol=1e-9)
    # The share of a component in the variance of standardised features.
    standard = (x[:, :-1] - x[:, :-1].mean(axis=0)) / x[:, :-1].std(axis=0)
    shares = np.linalg.lstsq(white(x), standard, rcond=None)[0]
    assert (np.diff((shares**2).sum(axis=1)) < 0).all()
    np.testing.assert_allclose(white(x)[:, :2], Whitened.of(x, 2, shrink=0.0)(x), atol=1e-9)


def test_the_shrink_is_added_to_each_variance():
    x = background(500)
    np.testing.assert_allclose(np.var(Whitened.of(x, shrink=0.0)(x), axis=0), 1, rtol=1e-9)
    for shrink in (SHRINK, 0.5):
        variance = np.var(Whitened.of(x, shrink=shrink)(x), axis=0)
        standard = (x[:, :-1] - x[:, :-1].mean(axis=0)) / x[:, :-1].std(axis=0)
        values = np.linalg.eigvalsh(np.cov(standard.T, ddof=0))[::-1]
        np.testing.assert_allclose(variance, values / (values + shrink), rtol=1e-6)


def test_single_precision_and_large_offsets():
    x = background(2000, dtype=np.float32)
    np.testing.assert_allclose(Whitened.of(x)(x), Whitened.of(x.astype(np.float64))(x), atol=2e-3)


def test_tables_larger_than_a_block(monkeypatch):
    x = background(500)
    white = Whitened.of(x)
    whole = white(x)
    monkeypatch.setattr(tables, "BLOCK_ENTRIES", 700)
    np.testing.assert_allclose(white(x), whole, rtol=1e-12, atol=1e-12)


def test_what_whitening_refuses():
    with pytest.raises(ValueError, match="20 are needed at least"):
        Whitened.of(background(19))
    with pytest.raises(ValueError, match="cannot be negative"):
        Whitened.of(background(50), -1)
    with pytest.raises(ValueError, match="cannot be negative"):
        Whitened.of(background(50), 0, -0.1)
    with pytest.raises(ValueError, match="cannot be negative or infinite"):
        Whitened.of(background(50), 0, np.nan)
    with refused("table"):
        Whitened.of(np.zeros(5))


@pytest.fixture
def kept(tmp_path):
    """A file of a detector, with a value and an array of the caller."""
    path = tmp_path / "head.npz"
    save(path, Mahalanobis().fit(background(100)), meta={"a": 1}, arrays={"more": np.arange(3)})
    return path


def rewritten(path, **changed):
    """The file with other arrays, or other entries of its JSON (given as a dict); None leaves one out."""
    with np.load(path) as file:
        held = dict(file)
    for name, x in changed.items():
        key = {"head": "head.json"}.get(name, f"fitted/{name}")
        if x is None:
            del held[key]
        elif isinstance(x, dict):
            described = json.loads(held[key].tobytes()) | x
            held[key] = np.frombuffer(json.dumps(described).encode(), np.uint8)
        else:
            held[key] = x
    with path.open("wb") as file:
        np.savez(file, **held)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"head": None}, "head.json' is missing"),
        ({"head": {"format": "another 1"}}, "the format 'another 1'"),
        ({"head": {"head": "none such"}}, "its head is 'none such'; known are Mahalanobis"),
        ({"head": {"settings": {"colour": 3}}}, "colour"),
        ({"head": {"settings": 7}}, "items"),
        ({"head": np.frombuffer(b"{no json", np.uint8)}, "Expecting property name"),
        ({"head": np.frombuffer(b"\xff\xff", np.uint8)}, "decode"),
        ({"head": np.frombuffer(b"[1]", np.uint8)}, "list indices"),
        ({"head": {"meta": 7}}, "JSON values have no names"),
        ({"mean": None}, "mean is missing"),
        ({"mean": np.array(["1.0"] * 6)}, "fitted/mean does not hold numbers"),
        ({"mean": np.full(6, 1j)}, "fitted/mean does not hold numbers"),
        ({"axes": np.zeros((3, 2))}, "axes must have the shape"),
        ({"axes": np.full((6, 5), np.nan)}, "axes holds NaN"),
        ({"mean": np.array([{}] * 6)}, "Object arrays cannot be loaded"),
    ],
)
def test_files_that_were_tampered_with(kept, changed, message):
    rewritten(kept, **changed)
    with pytest.raises(ValueError, match=r"head\.npz is not a fitted anomaly head: .*" + message):
        load(kept, HEADS)


def test_damaged_and_foreign_files(kept):
    whole = kept.read_bytes()
    foreign = io.BytesIO()
    np.save(foreign, np.zeros(3))
    with zipfile.ZipFile(empty := io.BytesIO(), "w"):
        pass
    cut = [whole[:length] for length in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    for content in [*cut, foreign.getvalue(), empty.getvalue(), b"PK", b"text", pickle.dumps({"a": 1})]:
        kept.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{re.escape(str(kept))} is not a fitted anomaly head: ."):
            load(kept, HEADS)


def test_flipped_bytes_are_noticed(kept):
    """All but those that nothing reads, such as of a date, which change no score."""
    whole, x = kept.read_bytes(), background(10)
    scores, noticed = load(kept, HEADS)[0].score(x), 0
    places = range(40, len(whole), 97)
    for at in places:
        kept.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with contextlib.suppress(ValueError):
            np.testing.assert_array_equal(load(kept, HEADS)[0].score(x), scores)
            continue
        noticed += 1
    assert noticed > len(places) / 2


def test_a_missing_file_is_called_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npz", HEADS)


def test_only_numbers_are_saved(tmp_path):
    detector = Mahalanobis().fit(background(100))
    with pytest.raises(ValueError, match="words of Mahalanobis is not an array of numbers"):
        save(tmp_path / "head.npz", detector, arrays={"words": np.array(["a"])})
    assert FORMAT.startswith("jetclr")
