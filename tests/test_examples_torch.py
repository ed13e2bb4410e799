"""docs/examples/finetune_pytorch.py, on toy jets, from files as a downstream user has them."""

import re
import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest

from jetclr.export import pytorch
from jetclr.export.tensors import open_tensors, save_tensors
from tests.jetclr.export.encoders import CONFIGS, frozen
from tests.toys import toy_batch

EXAMPLE = Path(__file__).parent.parent / "docs/examples/finetune_pytorch.py"


def test_fine_tuning_learns_to_tell_prongs_and_writes_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tensors(tmp_path / "jetclr.safetensors", frozen(CONFIGS["defaults"], ("embedding",)), {})
    (tmp_path / "jetclr_encoder.py").write_bytes(Path(pytorch.__file__).read_bytes())
    label = np.arange(200) % 2
    np.savez(tmp_path / "train.npz", label=label, **toy_batch(1, 200, 12))
    with h5py.File(tmp_path / "test.h5", "w") as file:
        file.update(label=label, **toy_batch(2, 200, 12))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = [
        "--jets",
        "160",
        "--epochs",
        "6",
        "--batch",
        "32",
        "--lr",
        "1e-2",
        "--l2",
        "1",
        "--out",
        "tuned.safetensors",
    ]
    runpy.run_path(str(EXAMPLE))["main"](["jetclr.safetensors", "train.npz", "test.h5", *options])
    found = [float(x) for x in re.findall(r"AUC (\d\.\d+)", capsys.readouterr().out)]
    assert len(found) == 7
    assert found[-1] > 0.9
    assert open_tensors(tmp_path / "tuned.safetensors")[0] == CONFIGS["defaults"]
