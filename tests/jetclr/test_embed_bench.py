import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jetclr import config as configs
from jetclr.bench import encoder
from jetclr.bench.encoder import bench_encoder
from jetclr.bench.sizes import config_of
from jetclr.cli import main
from jetclr.errors import UserError
from tests.inline import inline_processes


def test_embedding_is_measured_beside_the_encoder_alone(
    run: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(stores["fit"]), str(stores["test"]), "--formats", ".h5", ".arrow", "--repeats", "1"]
    assert main(["bench", "embed", str(run), *words]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["what"] for row in rows] == ["encoder alone", "to .h5", "to .arrow"]
    assert rows[0]["of_encoder"] == 1
    assert all(row["jets"] == 600 and row["jets_per_s"] > 0 and row["runs"] == 1 for row in rows)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> configs.Config:
    """A small encoder and few jets, all in this process but for PyTorch."""
    encoder._ready.cache_clear()
    for name, value in {"JETS": 24, "MOST": 16, "TORCH_BATCHES": (8,), "start_here": lambda: None}.items():
        monkeypatch.setattr(encoder, name, value)
    monkeypatch.setattr(encoder, "fresh_processes", inline_processes)
    config = config_of("small")
    small = replace(config.encoder, width=8, layers=1, heads=2, feedforward=8)
    return replace(config, encoder=small, data=replace(config.data, constituents=10, slots=10))


def rows_of(config: configs.Config, store: Path) -> list[dict[str, Any]]:
    numbers = {"batch": 16, "repeats": 1, "seconds": 0.01}
    return list(bench_encoder(config, "tiny", [store], python=sys.executable, **numbers))


def test_the_encoder_is_measured_beside_pytorch_and_beside_padding(
    tiny: configs.Config, stores: dict[str, Path]
) -> None:
    beside, buckets = rows_of(tiny, stores["test"])
    assert beside["ratio"] == pytest.approx(beside["jets_per_s"] / beside["torch_jets_per_s"], rel=1e-3)
    assert beside["difference"] < 1e-5  # the same embeddings
    assert beside["torch_batch"] in (8, 16)
    assert (beside["constituents"], buckets["constituents"]) == (10, 16)
    assert buckets["bucket_ratio"] == pytest.approx(buckets["jets_per_s"] / buckets["padded_jets_per_s"], rel=1e-3)


def test_other_embeddings_are_no_comparison(
    tiny: configs.Config, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(_: str, words: list[str], names: object) -> dict[str, Any]:
        np.save(Path(words[1]) / "torch.npy", np.zeros((24, 8), np.float32))
        return {"torch": "2", "batch": 8, "jets_per_s": 1.0}

    monkeypatch.setattr(encoder, "told", other)
    with pytest.raises(UserError, match=r"PyTorch's embeddings differ from ours by .* no comparison"):
        rows_of(tiny, stores["test"])
