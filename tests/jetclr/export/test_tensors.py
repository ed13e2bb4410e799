import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from jetclr.config import Config
from jetclr.errors import UserError
from jetclr.export.graph import Frozen, Tail
from jetclr.export.tensors import open_tensors, save_tensors
from tests.jetclr.export.encoders import CONFIGS, frozen

ENCODER = frozen(CONFIGS["defaults"], ("embedding", "layer_1"))
Arrays = dict[str, np.ndarray]
Meta = dict[str, str]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tensors") / "jetclr.safetensors"
    save_tensors(path, ENCODER, {"step": "8", "license": "CC-BY-4.0 \u00e9"})
    return path


def halved(encoder: Frozen) -> Frozen:
    return dataclasses.replace(encoder, params=jax.tree.map(lambda x: np.asarray(x, np.float16), encoder.params))


def test_config_parameters_and_metadata_come_back(file: Path) -> None:
    config, params, metadata = open_tensors(file)
    assert config == ENCODER.config
    jax.tree.map(np.testing.assert_array_equal, params, ENCODER.params)
    assert (metadata["step"], metadata["license"]) == ("8", "CC-BY-4.0 \u00e9")
    assert json.loads(metadata["layers"]) == ["embedding", "layer_1"]


def test_half_precision_is_half_the_file_and_comes_back_as_float32(tmp_path: Path, file: Path) -> None:
    half = halved(ENCODER)
    save_tensors(tmp_path / "half.safetensors", half, {})
    params = open_tensors(tmp_path / "half.safetensors")[1]
    jax.tree.map(np.testing.assert_array_equal, params, half.params)
    assert {x.dtype.name for x in jax.tree.leaves(params)} == {"float32"}
    numbers = sum(x.size for x in jax.tree.leaves(params))
    assert file.stat().st_size - (tmp_path / "half.safetensors").stat().st_size == pytest.approx(2 * numbers, abs=300)


def test_equal_contents_make_equal_files_that_others_read(tmp_path: Path, file: Path) -> None:
    metadata = {"step": "8", "license": "CC-BY-4.0 \u00e9"}
    for i in range(4):
        save_tensors(tmp_path / f"{i}", ENCODER, metadata)
        assert (tmp_path / f"{i}").read_bytes() == file.read_bytes()
    arrays = safetensors.numpy.load_file(file)
    np.testing.assert_array_equal(arrays["block_0_qkv/w"], ENCODER.params["block_0_qkv"]["w"])


def test_what_cannot_be_kept_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    large = jax.tree.map(lambda x: np.float32(1e5) * x, ENCODER.params)
    with np.errstate(over="ignore"), pytest.raises(UserError, match="infinity as float16"):
        save_tensors(tmp_path / "a", halved(dataclasses.replace(ENCODER, params=large)), {})
    tail = Tail("anomaly", "embedding", lambda x: x[:, 0], lambda x: x[:, 0], "one", 1e-4)
    with pytest.raises(UserError, match="'anomaly'"):
        save_tensors(tmp_path / "a", dataclasses.replace(ENCODER, tails=(tail,)), {})
    with pytest.raises(UserError, match="is a folder"):
        save_tensors(tmp_path, ENCODER, {})
    assert not list(tmp_path.iterdir())


def with_config(change: Callable[[dict], None]) -> Callable[[Arrays, Meta], None]:
    def changed(_: Arrays, metadata: Meta) -> None:
        config = json.loads(metadata["config"])
        change(config)
        metadata["config"] = json.dumps(config)

    return changed


FAULTS: dict[str, tuple[Callable[[Arrays, Meta], object], str]] = {
    "no format": (lambda a, m: m.pop("format"), "is not an encoder of jetclr export"),
    "of the future": (lambda a, m: m.update(format="jetclr encoder 9"), "'jetclr encoder 9'"),
    "no config": (lambda a, m: m.pop("config"), "lacks 'config'"),
    "no JSON": (lambda a, m: m.update(config="{"), "is not a config"),
    "layers": (lambda a, m: m.update(layers='["layer_7"]'), "layer_7"),
    "layers no list": (lambda a, m: m.update(layers="7"), "its layers are 7"),
    "deep layers": (lambda a, m: m.update(layers="[" * 5000), "recursion"),
    "missing": (lambda a, m: a.pop("wide/w"), "wide/w is missing"),
    "more": (lambda a, m: a.update(more=np.ones(2, np.float32)), "more has no place"),
    "shape": (
        lambda a, m: a.update({"wide/b": np.ones(3, np.float32)}),
        r"must have the shape \(16,\), and has \(3,\)",
    ),
    "integers": (lambda a, m: a.update({"wide/b": np.ones(16, np.int32)}), "is int32"),
    "NaN": (lambda a, m: a.update({"wide/b": np.full(16, np.nan, np.float32)}), "NaN"),
    "width": (with_config(lambda c: c["encoder"].update(width=10)), "must have the shape"),
    "no end of layers": (with_config(lambda c: c["encoder"].update(layers=10**9)), "1000000000 layers"),
    "no end of width": (with_config(lambda c: c["encoder"].update(width=2**40)), "describes"),
    "unknown setting": (with_config(lambda c: c["encoder"].update(norm="post")), "norm"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_of_something_else_is_refused_in_one_sentence(fault: str, file: Path, tmp_path: Path) -> None:
    arrays, path = safetensors.numpy.load_file(file), tmp_path / "other.safetensors"
    with safetensors.safe_open(file, framework="numpy") as opened:
        metadata = dict(opened.metadata())
    change, message = FAULTS[fault]
    change(arrays, metadata)
    safetensors.numpy.save_file(arrays, path, metadata)
    with pytest.raises(UserError, match=message) as caught:
        open_tensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_bytes(b"")
    for name, message in {"text": "damaged", "empty": "damaged", "none": "there is no file", ".": "no file"}.items():
        with pytest.raises(UserError, match=message):
            open_tensors(tmp_path / name)


def test_views_of_a_stranger_are_records_and_nothing_runs(file: Path, tmp_path: Path) -> None:
    arrays, mark, path = safetensors.numpy.load_file(file), tmp_path / "mark", tmp_path / "theirs.safetensors"
    with safetensors.safe_open(file, framework="numpy") as opened:
        metadata = dict(opened.metadata())
    view = {"type": "os.system", "command": f"touch {mark}", "__reduce__": f"touch {mark}"}
    with_config(lambda c: c.update(views=[view, view]))(arrays, metadata)
    safetensors.numpy.save_file(arrays, path, metadata)
    config: Config = open_tensors(path)[0]
    assert type(config.views[0]).__name__ == "Foreign"
    assert not mark.exists()


@given(data=st.data())
def test_damage_is_refused_or_changes_numbers_alone(
    data: st.DataObject, file: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, 900))  # within the header
    whole[at] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path_factory.mktemp("damaged") / "jetclr.safetensors"
    damaged.write_bytes(whole[: data.draw(st.sampled_from([len(whole), len(whole) - 1, at]))])
    with contextlib.suppress(UserError):
        params = open_tensors(damaged)[1]
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
