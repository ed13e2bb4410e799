"""A disk that takes no more: a real limit on the size of files, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from jetclr.data.shard import Shard
from tests.conftest import CONFIG
from tests.jetclr.data.readers.test_toptag import rows, write
from tests.jetclr.data.test_join import write_file

# Writes beyond the limit fail with EFBIG, as writes on a full disk fail with ENOSPC; no privileges needed.
LIMITED = (
    "import resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)\n"
    "from jetclr.cli import main\n"
    "sys.exit(main(sys.argv[2:]))"
)


def limited(size: int, *command: object) -> str:
    """Run a command that may not write files above `size` bytes; its one sentence."""
    arguments = [sys.executable, "-c", LIMITED, str(size), *map(str, command)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    told = [line for line in result.stderr.splitlines() if line.startswith("jetclr: ")]
    assert len(told) == 1
    assert "File too large" in told[0]
    return told[0]


@pytest.mark.parametrize("name", ["e.h5", "e.parquet"])
def test_embedding(run: Path, stores: dict[str, Path], tmp_path: Path, name: str) -> None:
    limited(20_000, "embed", run, stores["fit"], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_converting(tmp_path: Path) -> None:
    source = write(tmp_path / "a.h5", rows(60))
    limited(5_000, "convert", "--format", "toptag", source, tmp_path / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_joining_stores(stores: dict[str, Path], tmp_path: Path) -> None:
    limited(5_000, "join", stores["fit"], stores["test"], tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["e.h5", "e.parquet"])
def test_joining_embeddings(tmp_path: Path, name: str) -> None:
    part = write_file(tmp_path / f"part-{name}", Shard(0, 1), width=3000)
    limited(20_000, "join", part, tmp_path / name)
    assert list(tmp_path.iterdir()) == [part]


def test_pretraining_keeps_what_was_whole(stores: dict[str, Path], tmp_path: Path) -> None:
    said = limited(
        12_000, "pretrain", CONFIG, "--workdir", tmp_path / "r", "--data.train", stores["train"], "--probe.every", "0"
    )
    assert "a checkpoint could not be written to" in said
    assert not any(p.name.isdigit() for p in (tmp_path / "r" / "checkpoints").iterdir())
