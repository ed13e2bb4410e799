import json
from pathlib import Path

import pytest

from jetclr.cli import main


def test_embedding_is_measured_beside_the_encoder_alone(
    run: Path, stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(stores["fit"]), str(stores["test"]), "--formats", ".h5", ".arrow", "--repeats", "1"]
    assert main(["bench", "embed", str(run), *words]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["what"] for row in rows] == ["encoder alone", "to .h5", "to .arrow"]
    assert rows[0]["of_encoder"] == 1
    assert all(row["jets"] == 600 and row["jets_per_s"] > 0 and row["runs"] == 1 for row in rows)
