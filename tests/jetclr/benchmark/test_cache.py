"""Results kept by what they depend on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jetclr.benchmark import cache as caches
from jetclr.benchmark.cache import Cache, Entry, key_of
from jetclr.errors import UserError


def entry(value: int) -> Entry:
    return Entry({"value": value, "text": "é"}, {"scores": np.arange(value, dtype=np.float64)})


def test_a_result_is_computed_once(tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path / "c"), []
    for _ in range(2):
        found = cache.once({"what": "predictor", "n": 1}, lambda: calls.append(1) or entry(3))  # type: ignore[func-returns-value]
        assert found.values == {"value": 3, "text": "é"}
        np.testing.assert_array_equal(found.arrays["scores"], [0.0, 1.0, 2.0])
    assert calls == [1]
    assert {"what": "predictor", "n": 1} in cache
    assert {"what": "predictor", "n": 2} not in cache


def test_keys_do_not_depend_on_the_order_of_settings_but_on_every_value() -> None:
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    assert len({key_of({"a": a, "b": b}) for a in (0, 1, "1", None) for b in (0, 1.5)}) == 8


def test_another_revision_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, task = Cache(tmp_path), {"what": "estimates"}
    cache.once(task, lambda: entry(1))
    monkeypatch.setattr(caches, "REVISION", caches.REVISION + 1)
    assert task not in cache


def flipped(whole: bytes, at: int) -> bytes:
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"PK\x03\x04",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: flipped(whole, len(whole) // 2),
        lambda whole: flipped(whole, whole.index(b"PK\x01\x02") + 8),  # that it is encrypted
        lambda whole: flipped(whole, whole.index(b"PK\x01\x02") + 10),  # compressed in another way
    ],
)
def test_a_damaged_entry_is_computed_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    cache, task = Cache(tmp_path), {"what": "predictor"}
    cache.once(task, lambda: entry(1000))
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(damage(file.read_bytes()))
    assert cache.once(task, lambda: entry(2)).values["value"] == 2
    assert cache.once(task, lambda: entry(3)).values["value"] == 2


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)

    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        cache.once({"what": "predictor"}, lambda: entry(1))
    assert list(tmp_path.iterdir()) == []


def test_predictors_are_counted(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for i in range(3):
        cache.once({"what": "predictor", "i": i}, lambda: entry(1))
    cache.once({"what": "paired bootstrap"}, lambda: entry(1))
    assert cache.predictors() == 3


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        Cache(tmp_path / "file" / "cache")
