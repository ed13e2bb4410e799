"""`jetclr export` from the command line: what it makes, what it refuses, and that a wrong model never appears."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jetclr.cli import main
from jetclr.data.store import Store
from jetclr.errors import UserError
from jetclr.export import export, verify
from jetclr.export.flavors import FLAVORS, Flavor
from jetclr.export.graph import Frozen
from jetclr.export.stablehlo import to_stablehlo
from jetclr.run import open_run
from tests.jetclr.export.encoders import CONFIGS, frozen


@pytest.fixture(scope="module")
def stablehlo(run: Path, stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "made" / "hlo"
    layers = ["--layers", "embedding", "projection"]
    assert main(["export", str(run), str(out), "--to", "stablehlo", "--data", str(stores["test"]), *layers]) == 0
    return out


def test_a_folder_says_what_it_is_and_how_well_it_agrees(stablehlo: Path) -> None:
    assert sorted(p.name for p in stablehlo.iterdir()) == ["jetclr.stablehlo", "model_card.json", "model_card.md"]
    assert [p.name for p in stablehlo.parent.iterdir()] == ["hlo"]
    card = json.loads((stablehlo / "model_card.json").read_text())
    assert (card["to"], card["flavor"], card["step"], card["constituents"]) == ("stablehlo", "batch", 8, 16)
    told = card["verification"]
    assert told["jets"] == {"random": 64, "real": 256}
    assert told["real_jets_of"] == ["test"]
    for apart in told["differences"]["jax.export"].values():
        assert set(apart) == {"embedding", "projection"}
        assert max(apart.values()) < verify.LIMIT


RELOAD = """
import sys
class Ours:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jetclr", "augmentations", "probes", "haiku"):
            raise ImportError(name)
sys.meta_path.insert(0, Ours())
import numpy as np
from jax import export
jets = np.load(sys.argv[2])
model = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
outputs = model.call(*(jets[name] for name in ("pt", "eta", "phi", "mask")))
np.savez(sys.argv[3], embedding=outputs[0], projection=outputs[1])
"""


def test_stablehlo_runs_in_a_fresh_process_without_this_package(
    stablehlo: Path, run: Path, stores: dict[str, Path], tmp_path: Path
) -> None:
    opened = open_run(run)
    frozen = Frozen(opened.config, opened.params, ("embedding", "projection"))
    jets = verify.real_jets(frozen, Store(stores["fit"]), 20)
    np.savez(tmp_path / "jets.npz", **jets)  # type: ignore[arg-type]
    words = [str(stablehlo / "jetclr.stablehlo"), str(tmp_path / "jets.npz"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", RELOAD, *words], check=True, cwd=tmp_path)
    found, want = np.load(tmp_path / "out.npz"), verify.expected(frozen, jets)
    for name in want:
        assert verify.difference(found[name], want[name]) < verify.LIMIT


@pytest.mark.parametrize("name", ["pairwise", "irc-safe"])
def test_stablehlo_has_every_option_of_the_encoder(name: str) -> None:
    encoder, flavor = frozen(CONFIGS[name], ("embedding",)), FLAVORS["batch"]
    jets = verify.random_jets(encoder)
    model = jax.export.deserialize(bytearray(to_stablehlo(encoder, flavor)))
    (feed,) = flavor.feeds(encoder, jets)
    (found,) = model.call(*feed.values())
    assert verify.difference(np.asarray(found), verify.expected(encoder, jets)["embedding"]) < verify.LIMIT


def test_torch_writes_the_tensors_and_a_module_that_was_run(
    run: Path, stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--to", "torch", "--dtype", "f16", "--name", "Jets", "--data", str(stores["test"])]
    assert main(["export", str(run), str(tmp_path / "out"), *words]) == 0
    said = capsys.readouterr().out
    assert "Jets.safetensors" in said
    assert "PyTorch" in said
    assert "half-precision weights move the layers by at most" in said
    assert (tmp_path / "out/jetclr_encoder.py").read_bytes() == export.MODULE.read_bytes()
    told = json.loads((tmp_path / "out/model_card.json").read_text())["verification"]
    assert set(told["differences"]) == {"PyTorch", "JAX"}
    assert 0 < told["rounding"]["real"] < 0.01


def test_cms_brings_preprocess_json_and_no_real_jets_are_said_to_be_none(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_real_store", lambda *_: None)
    assert main(["export", str(run), str(tmp_path / "cms"), "--to", "onnx", "--flavor", "cms"]) == 0
    assert "no real jets were compared" in capsys.readouterr().out
    names = ["jetclr.onnx", "model_card.json", "model_card.md", "preprocess.json"]
    assert sorted(p.name for p in (tmp_path / "cms").iterdir()) == names


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to", "torch", "--flavor", "cms"], "--flavor cms is for --to onnx; torch takes batches with a mask"),
        (["--to", "onnx", "--flavor", "atlas", "--name", "jet_clr"], "Athena takes a name of letters and digits alone"),
        (["--to", "onnx", "--name", "../x"], "--name is '../x'; it must be of letters, digits"),
        (["--to", "safetensors", "--probe", "nowhere"], "heads and probes become part of a graph"),
        (["--to", "stablehlo", "--layers", "layer_7"], "has no layer 'layer_7'; it has layer_0, layer_1, embedding"),
        (["--to", "stablehlo", "--layers", "embedding", "embedding"], "different names, got embedding, embedding"),
        (["--to", "stablehlo", "--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_requests_get_one_sentence_and_leave_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(["export", str(run), str(tmp_path / "out"), *words]) == 1
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_scores_alone(run: Path, stores: dict[str, Path], tmp_path: Path) -> None:
    words = ["--to", "stablehlo", "--layers", "none", "--probe", str(stores["fit"])]
    assert main(["export", str(run), str(tmp_path / "out"), *words]) == 0
    card = json.loads((tmp_path / "out/model_card.json").read_text())
    assert [(one["name"], one["shape"]) for one in card["outputs"]] == [("signal_logit", ["B"])]
    assert main(["export", str(run), str(tmp_path / "none"), "--to", "stablehlo", "--layers", "none"]) == 1


def test_what_is_there_is_not_touched(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    assert main(["export", str(run), str(tmp_path / "out"), "--to", "stablehlo"]) == 1
    assert "already exists" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (
            "weight",
            r"gives other numbers than JAX for random jets: 'embedding' differs by .* more than 1e-05; nothing was",
        ),
        ("nan", r"differs by nan"),
    ],
)
def test_a_model_that_disagrees_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, says: str
) -> None:
    def wrong(frozen: Frozen, flavor: Flavor) -> bytes:
        params: Any = jax.tree.map(np.array, dict(frozen.params))
        params["final_norm"]["offset"][0] += 1e-3 if fault == "weight" else np.nan
        return to_stablehlo(replace(frozen, params=params), flavor)

    monkeypatch.setattr(export, "to_stablehlo", wrong)
    with pytest.raises(UserError, match=says):
        export.export_run(run, tmp_path / "out", export.Order("stablehlo"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export.export_run(run, tmp_path / "out", export.Order("stablehlo"))
    assert list(tmp_path.iterdir()) == []


def test_the_difference_is_absolute_for_small_numbers_and_relative_for_large_ones() -> None:
    assert verify.difference(np.float32([1e-6, 100]), np.float32([0, 100])) == pytest.approx(1e-6)
    assert verify.difference(np.float32([101.0]), np.float32([100.0])) == pytest.approx(1 / 101)
    assert np.isnan(verify.difference(np.float32([np.nan]), np.float32([0])))
    assert verify.difference(np.zeros(2, np.float32), np.zeros(3, np.float32)) == np.inf


def test_random_jets_span_empty_to_full_and_have_rubbish_in_their_padding(run: Path) -> None:
    opened = open_run(run)
    jets = verify.random_jets(Frozen(opened.config, opened.params))
    count = jets["mask"].sum(axis=1)
    assert list(count[:4]) == [0, 1, 16, 16]
    assert (jets["pt"][jets["mask"] == 0] > 0).all()
    tracks = FLAVORS["atlas"].feeds(Frozen(opened.config, opened.params), jets)
    assert [len(feed["track_features"]) for feed in tracks] == count.astype(int).tolist()
