"""What strangers hand out is numbers and text: opening, embedding and exporting it runs none of their code.

Every payload here would make a file, the canary, if it were run.
"""

import base64
import io
import json
import pickle
import runpy
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jetclr
from jetclr.anomaly.saved import open_head
from jetclr.cli import main
from jetclr.errors import UserError
from jetclr.export.folder import CARD_JSON
from jetclr.export.tensors import open_tensors
from jetclr.run import open_run, parameters_sha256
from tests.toys import toy_batch

JETS = toy_batch(3, 4, 16)
KINDS = ("safetensors", "onnx", "stablehlo")

# TensorStore may still be at a damaged checkpoint when the loop that Orbax waited in has gone.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.canary,)


class Hostile:
    """Payloads of each kind, around one canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary
        self.pickled = pickle.dumps(Payload(canary))
        self.code = f"open({str(canary)!r}, 'w').close()"
        self.shell = f"touch {canary}"
        file = io.BytesIO()
        np.savez(file, w=np.array([Payload(canary)], dtype=object), allow_pickle=True)
        self.npz = file.getvalue()

    def was_run(self) -> bool:
        return self.canary.exists()


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    """Payloads; at the end none of them has run."""
    made = Hostile(tmp_path / "canary")
    yield made
    assert not made.was_run()


@pytest.fixture
def theirs(run: Path, tmp_path: Path) -> Path:
    """A copy of the run with one checkpoint, to be changed."""
    copy = shutil.copytree(run, tmp_path / "theirs")
    shutil.rmtree(copy / "checkpoints" / "4")
    return copy


@pytest.fixture(scope="module")
def embedded(run: Path) -> np.ndarray:
    """What the honest run gives."""
    return jetclr.load(run)(**JETS)


def answer(path: Path) -> str | np.ndarray:
    """The embedding that `jetclr.load` gives for a few jets, or the one sentence of its refusal."""
    try:
        return jetclr.load(path)(**JETS)
    except UserError as error:
        return str(error)


def opened(path: Path) -> str:
    """A digest of the parameters that `open_run` gives, or the one sentence of its refusal."""
    try:
        return parameters_sha256(open_run(path).params)
    except UserError as error:
        return str(error)


def test_the_payloads_work(tmp_path: Path) -> None:
    """Or their silence would say nothing."""
    made = Hostile(tmp_path / "canary")
    (tmp_path / "code.py").write_text(made.code)
    for run in (
        lambda: pickle.loads(made.pickled),
        lambda: runpy.run_path(str(tmp_path / "code.py")),
        lambda: np.load(io.BytesIO(made.npz), allow_pickle=True)["w"],
    ):
        run()
        assert made.was_run()
        made.canary.unlink()


def test_files_beside_a_run_are_not_touched(
    theirs: Path, embedded: np.ndarray, hostile: Hostile, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (
        "sitecustomize",
        "usercustomize",
        "conftest",
        "config",
        "setup",
        "jetclr_encoder",
        "augmentations",
        "__init__",
    )
    for folder in (
        theirs,
        theirs / "checkpoints",
        theirs / "checkpoints" / "8",
        theirs / "checkpoints" / "8" / "params",
    ):
        for name in names:
            (folder / f"{name}.py").write_text(hostile.code)
        (folder / "theirs.pth").write_text(f"import os; {hostile.code}\n")
        for name in ("checkpoint.pkl", "config.pkl", "params.npy", "state.pt", "tree.pickle"):
            (folder / name).write_bytes(hostile.pickled)
        (folder / "params.npz").write_bytes(hostile.npz)
    monkeypatch.chdir(theirs)
    np.testing.assert_array_equal(answer(Path()), embedded)
    assert main(["embed", ".", str(stores["test"]), "embeddings.h5"]) == 0
    assert main(["export", ".", "exported", "--to", "safetensors"]) == 0
    np.testing.assert_allclose(answer(Path("exported")), embedded, atol=1e-5)


def set_at(value: dict[str, Any], dotted: str, new: Any) -> None:
    *path, last = dotted.split(".")
    for name in path:
        value = value[name]
    value[last] = new


def test_a_config_names_no_code(theirs: Path, hostile: Hostile) -> None:
    """What it says is a known setting, a record, or refused in one sentence."""
    file, honest = theirs / "config.json", (theirs / "config.json").read_text()
    digest = opened(theirs)
    for transform in (
        {"type": "os.system", "command": hostile.shell},
        {"type": "builtins.exec", "source": hostile.code},
        {"type": "augmentations.jets.make_jets"},
        {"type": "batched"},
        {"type": "!!python/object/apply:os.system", "args": [hostile.shell]},
        {"type": "Chain", "steps": [{"type": "os.system", "command": hostile.shell}]},
    ):
        file.write_text(json.dumps(json.loads(honest) | {"views": [transform] * 2, "anomalies": [transform]}))
        assert opened(theirs) == digest
    call = f"__import__('os').system({hostile.shell!r})"
    for name, value in {
        "views": [{"py/object": "os.system"}, {"py/reduce": [{"py/function": "os.system"}, [hostile.shell]]}],
        "objective": {"type": "os.system", "command": hostile.shell},
        "features.columns": [call],
        "encoder.__class__": "os.system",
        "encoder.__reduce__": ["os.system", [hostile.shell]],
        "optim": {"py/object": "tests.Payload"},
        "steps": call,
        "precision": f"${{{hostile.shell}}}",
    }.items():
        changed = json.loads(honest)
        set_at(changed, name, value)
        file.write_text(json.dumps(changed))
        assert "is not a config" in opened(theirs), name
    for text in (f"!!python/object/apply:os.system ['{hostile.shell}']", hostile.code):
        file.write_text(text)
        assert "is not a config" in opened(theirs)


def test_words_in_a_config_stay_words(theirs: Path, embedded: np.ndarray, hostile: Hostile, tmp_path: Path) -> None:
    """Names of stores and conditions are not looked at by opening, nor by exporting, which looks for the stores."""
    changed = json.loads((theirs / "config.json").read_text())
    words = f"$({hostile.shell}); {hostile.shell}; __import__('os').system({hostile.shell!r})"
    changed["data"] |= {"train": [words, "\0", "../" * 40 + "etc"], "validation": [words], "where": words}
    (theirs / "config.json").write_text(json.dumps(changed))
    np.testing.assert_array_equal(answer(theirs), embedded)
    assert main(["export", str(theirs), str(tmp_path / "exported"), "--to", "safetensors"]) == 0


def test_a_config_that_is_a_link_to_a_program_is_read_as_text(theirs: Path, hostile: Hostile) -> None:
    (theirs / "elsewhere.py").write_text(f"{hostile.code}\nfrom jetclr.config import Config\nconfig = Config()")
    (theirs / "config.json").unlink()
    (theirs / "config.json").symlink_to("elsewhere.py")
    assert "is not a config" in opened(theirs)


def test_pickles_in_place_of_the_files_of_a_checkpoint(theirs: Path, hostile: Hostile) -> None:
    """Whichever file it is: it is refused, or nothing needs it."""
    folder, digest = theirs / "checkpoints" / "8", opened(theirs)
    files = [file for file in folder.rglob("*") if file.is_file() and "training" not in file.parts]
    needed = set()
    for file in files:
        honest = file.read_bytes()
        file.write_bytes(hostile.pickled)
        said = opened(theirs)
        if said != digest:
            assert "checkpoint" in said
            needed.add(file.relative_to(folder).parts[0])
        file.write_bytes(honest)
    assert needed >= {"params", "record"}


def test_names_of_classes_in_a_checkpoint_are_not_imported(
    theirs: Path, hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orbax writes names of its classes and kinds of arrays into JSON; they are names only."""
    (theirs / "evil.py").write_text(hostile.code)
    monkeypatch.syspath_prepend(theirs)  # it could be imported
    folder, digest = theirs / "checkpoints" / "8", opened(theirs)
    handlers = "orbax.checkpoint._src.handlers."
    for name, word in (
        ("_CHECKPOINT_METADATA", f"{handlers}standard_checkpoint_handler.StandardCheckpointHandler"),
        ("_CHECKPOINT_METADATA", f"{handlers}json_checkpoint_handler.JsonCheckpointHandler"),
        ("params/_METADATA", "jax.Array"),
        ("params/_sharding", "NamedSharding"),
    ):
        honest = (folder / name).read_text()
        assert word in honest
        for other in ("evil.Handler", f"__import__('os').system('{hostile.shell}')"):
            (folder / name).write_text(honest.replace(word, other))
            said = opened(theirs)
            assert said == digest or "checkpoint" in said
        (folder / name).write_text(honest)


def test_links_out_of_the_run_are_only_read(theirs: Path, hostile: Hostile, tmp_path: Path) -> None:
    params, outside, digest = theirs / "checkpoints" / "8" / "params", tmp_path / "outside", opened(theirs)
    shutil.move(params, outside)
    (outside / "__init__.py").write_text(hostile.code)
    params.symlink_to(outside)
    before = sorted(file.name for file in outside.iterdir())
    assert opened(theirs) == digest
    assert sorted(file.name for file in outside.iterdir()) == before
    params.unlink()
    params.symlink_to("/dev/null")
    assert "cannot be read" in opened(theirs)


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Honest exports, by format."""
    folder = tmp_path_factory.mktemp("exported")
    for kind in KINDS:
        assert main(["export", str(run), str(folder / kind), "--to", kind]) == 0
    return {kind: folder / kind for kind in KINDS}


def test_the_module_in_an_export_is_not_imported(
    exported: dict[str, Path], embedded: np.ndarray, hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is for those who use PyTorch, and read it first."""
    theirs = shutil.copytree(exported["safetensors"], tmp_path / "theirs")
    card = json.loads((theirs / CARD_JSON).read_text())
    files = card["files"] | {"module": "jetclr_encoder.py"}
    (theirs / CARD_JSON).write_text(json.dumps(card | {"to": "torch", "files": files}))
    (theirs / "jetclr_encoder.py").write_text(hostile.code)
    (theirs / "torch.py").write_text(hostile.code)
    monkeypatch.chdir(theirs)
    np.testing.assert_allclose(answer(theirs), embedded, atol=1e-5)


def test_a_card_points_only_into_its_folder(exported: dict[str, Path], hostile: Hostile, tmp_path: Path) -> None:
    theirs = shutil.copytree(exported["onnx"], tmp_path / "theirs")
    honest = json.loads((theirs / CARD_JSON).read_text())
    model = shutil.copy(theirs / honest["files"]["model"], tmp_path / "elsewhere.onnx")
    (theirs / "sub").mkdir()
    shutil.copy(model, theirs / "sub" / "elsewhere.onnx")
    for name in ("../elsewhere.onnx", "..\\elsewhere.onnx", str(model), "sub/elsewhere.onnx", "..", "", "\0", None):
        (theirs / CARD_JSON).write_text(json.dumps(honest | {"files": {"model": name}}))
        said = answer(theirs)
        assert isinstance(said, str), name
        assert "outside the folder" in said
    code = hostile.code
    for changed in ({"to": "pickle"}, {"to": code}, {"files": {"model": "card.py"}}, {"config": {"steps": code}}):
        (theirs / CARD_JSON).write_text(json.dumps(honest | changed))
        assert isinstance(answer(theirs), str), changed
    (theirs / CARD_JSON).write_bytes(hostile.pickled)
    assert "is damaged" in str(answer(theirs))


@pytest.mark.parametrize("kind", KINDS)
def test_pickles_in_place_of_models(exported: dict[str, Path], hostile: Hostile, tmp_path: Path, kind: str) -> None:
    theirs = shutil.copytree(exported[kind], tmp_path / "theirs")
    model = theirs / json.loads((theirs / CARD_JSON).read_text())["files"]["model"]
    for content in (hostile.pickled, hostile.npz, hostile.code.encode(), b""):
        model.write_bytes(content)
        said = answer(theirs)
        assert isinstance(said, str)
        assert model.name in said


def header(described: Any, numbers: bytes = b"") -> bytes:
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def test_wrong_headers_of_tensors(hostile: Hostile, tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    meta = {"format": "jetclr encoder 1", "config": hostile.code, "layers": hostile.code}
    for content in (
        struct.pack("<Q", 2**63) + b"{}",
        header(hostile.pickled),
        header({"w": good}),
        header({"w": good | {"data_offsets": [0, 2**40]}}, b"\0" * 8),
        header({"w": good | {"shape": [2**31, 2**31]}}, b"\0" * 8),
        header({"w": good | {"dtype": "O"}}, b"\0" * 8),
        header({"w": good, "__metadata__": {"format": hostile.pickled.hex()}}, b"\0" * 8),
        header({"w": good, "__metadata__": meta}, b"\0" * 8),
        header({"__metadata__": meta | {"config": "{}", "layers": "[]"}}),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=path.name):
            open_tensors(path)


def test_heads_with_pickled_arrays_are_refused(run: Path, hostile: Hostile, tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    described = {"format": "jetclr anomaly head 1", "head": "kNN", "settings": {}, "meta": {"layer": "embedding"}}
    meta = np.frombuffer(json.dumps(described).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, **{"head.json": meta, "fitted/x": np.array([Payload(hostile.canary)], object)})
    contents = [path.read_bytes(), hostile.npz, hostile.pickled, np.lib.format.magic(1, 0) + hostile.pickled]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"head\.npz is not a fitted anomaly head"):
            open_head(path)
        out = tmp_path / "exported"
        assert main(["export", str(run), str(out), "--to", "onnx", "--head", str(path)]) == 1
        assert not out.exists()


def test_numbers_of_an_onnx_file_lie_in_it(
    exported: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that takes them from another one would read whatever lies there, even in the working directory."""
    onnx = pytest.importorskip("onnx")
    theirs = shutil.copytree(exported["onnx"], tmp_path / "theirs")
    monkeypatch.chdir(theirs)
    model = theirs / json.loads((theirs / CARD_JSON).read_text())["files"]["model"]
    honest = model.read_bytes()
    numbers = tmp_path / "numbers.bin"
    for location in (str(numbers), "../numbers.bin", "numbers.bin"):
        changed = onnx.load_from_string(honest)
        largest = max(changed.graph.initializer, key=lambda one: len(one.raw_data))
        for place in (numbers, theirs / "numbers.bin"):
            place.write_bytes(largest.raw_data)
        onnx.external_data_helper.set_external_data(largest, location, 0, len(largest.raw_data))
        largest.ClearField("raw_data")
        model.write_bytes(changed.SerializeToString())
        assert "cannot be opened" in str(answer(theirs)), location


def test_an_onnx_file_calls_only_what_the_runtime_brings(exported: dict[str, Path], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    theirs = shutil.copytree(exported["onnx"], tmp_path / "theirs")
    model = theirs / json.loads((theirs / CARD_JSON).read_text())["files"]["model"]
    changed = onnx.load(model)
    changed.graph.node[-1].op_type, changed.graph.node[-1].domain = "PyOp", "ai.onnx.contrib"
    changed.opset_import.append(onnx.helper.make_opsetid("ai.onnx.contrib", 1))
    model.write_bytes(changed.SerializeToString())
    assert "cannot be opened" in str(answer(theirs))


def test_stablehlo_that_calls_python_is_refused(exported: dict[str, Path], hostile: Hostile, tmp_path: Path) -> None:
    import jax
    from jax import export

    theirs = shutil.copytree(exported["stablehlo"], tmp_path / "theirs")
    model = theirs / json.loads((theirs / CARD_JSON).read_text())["files"]["model"]
    honest = export.deserialize(bytearray(model.read_bytes()))
    out = jax.ShapeDtypeStruct((4, 8), np.float32)
    payload = base64.b64encode(hostile.pickled).decode()

    def call(*arrays: Any) -> Any:
        return jax.ffi.ffi_call("xla_ffi_python_cpu_callback", out)(*arrays, payload=payload)

    allowed = [export.DisabledSafetyCheck.custom_call("xla_ffi_python_cpu_callback")]
    specs = [jax.ShapeDtypeStruct((4, 16), np.float32) for _ in honest.in_avals]
    model.write_bytes(export.export(jax.jit(call), disabled_checks=allowed)(*specs).serialize())
    assert "calls xla_ffi_python_cpu_callback" in str(answer(theirs))
