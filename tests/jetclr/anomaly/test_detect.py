"""`jetclr anomaly` and `jetclr score`: heads fitted, kept and scored, and everything that a user can get wrong."""

from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from jetclr.anomaly.detect import head_called, word_of
from jetclr.anomaly.saved import open_head
from jetclr.cli import main
from jetclr.data.store import Store
from probes import metrics
from probes.anomaly.heads import HEADS
from tests.jetclr.anomaly.kinds import write_kind


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Jets of one prong to fit, others to measure, and jets of three prongs."""
    folder = tmp_path_factory.mktemp("kinds")
    return {
        "background": write_kind(folder / "background", 0, 300, 11),
        "usual": write_kind(folder / "usual", 0, 150, 12),
        "strange": write_kind(folder / "strange", 1, 150, 13),
    }


@pytest.fixture(scope="module")
def heads(run: Path, kinds: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of heads fitted on the run."""
    folder = tmp_path_factory.mktemp("heads")
    assert main(["anomaly", str(run), *around(kinds), "--head", "kNN", "contrastive", "--workdir", str(folder)]) == 0
    return folder


def around(kinds: dict[str, Path]) -> list[str]:
    return ["--background", str(kinds["background"]), "--test", str(kinds["usual"]), str(kinds["strange"])]


def test_the_table_shows_each_head_and_the_kept_head_scores_new_jets_alike(
    run: Path, kinds: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["anomaly", str(run), *around(kinds), "--head", "mahalanobis", "--workdir", str(tmp_path)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "Mahalanobis" in said
    assert "top" in said
    for name in ("usual", "strange"):
        out = tmp_path / f"{name}.h5"
        assert main(["score", str(tmp_path / "mahalanobis.npz"), str(kinds[name]), str(out)]) == 0
    scores = {}
    for name in ("usual", "strange"):
        with h5py.File(tmp_path / f"{name}.h5") as file:
            scores[name] = file["score"][:]
            np.testing.assert_array_equal(file["jet_mass"][:], Store(kinds[name]).column("jet_mass"))
            assert "Mahalanobis" in file.attrs["jetclr_head"]
    area = metrics.auc(np.concatenate([scores["usual"], scores["strange"]]), np.repeat([0, 1], 150).astype(np.int32))
    assert f"{area:.4f} [" in said


def test_heads_read_the_layer_that_suits_them(heads: Path) -> None:
    assert open_head(heads / "contrastive.npz").layer == "projection"
    assert open_head(heads / "knn.npz").layer == "embedding"


def test_parquet_is_written_too(heads: Path, kinds: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    assert main(["score", str(heads / "knn.npz"), str(kinds["usual"]), str(kinds["strange"]), str(out)]) == 0
    table = pq.read_table(out)
    assert table.num_rows == 300
    assert np.isfinite(table["score"].to_numpy()).all()


def test_a_file_of_embeddings_stands_for_a_run(
    run: Path, heads: Path, kinds: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = [str(kinds[name]) for name in ("background", "usual", "strange")]
    assert main(["embed", str(run), *stores, str(tmp_path / "all.h5")]) == 0
    folder = tmp_path / "heads"
    arguments = ["--embeddings", str(tmp_path / "all.h5"), "--head", "kNN", "--workdir", str(folder)]
    assert main(["anomaly", *arguments, *around(kinds)]) == 0
    # The same numbers as from the run itself.
    assert main(["embed", str(run), str(kinds["strange"]), str(tmp_path / "new.h5")]) == 0
    assert main(["score", str(folder / "knn.npz"), str(tmp_path / "new.h5"), str(tmp_path / "a.h5")]) == 0
    assert main(["score", str(heads / "knn.npz"), str(kinds["strange"]), str(tmp_path / "b.h5")]) == 0
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        np.testing.assert_allclose(a["score"][:], b["score"][:], rtol=1e-3, atol=1e-5)
    capsys.readouterr()
    assert main(["score", str(folder / "knn.npz"), str(kinds["strange"]), str(tmp_path / "c.h5")]) == 1
    assert "one HDF5 file of embeddings" in capsys.readouterr().err
    with h5py.File(tmp_path / "new.h5", "a") as file:
        file["score"] = file["label"][:]
    assert main(["score", str(folder / "knn.npz"), str(tmp_path / "new.h5"), str(tmp_path / "c.h5")]) == 1
    assert "new.h5 has a column 'score' already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--head": ["nonsense"]}, "there is no head 'nonsense'; known are mahalanobis"),
        ({"--layer": ["nowhere"]}, "has no layer 'nowhere'"),
        ({"--test": ["{strange}"]}, "no jets of the background's labels"),
        ({"--test": ["{usual}"]}, "no jets but of the background's labels"),
        ({"--test": ["{background}", "{strange}"]}, "jets are both"),
        ({"--test": ["nowhere"]}, "nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_is_fitted(
    change: dict[str, list[str]],
    says: str,
    run: Path,
    kinds: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"--background": ["{background}"], "--test": ["{usual}", "{strange}"], "--workdir": [str(tmp_path)]}
    words = [word for flag, values in (options | change).items() for word in (flag, *values)]
    assert main(["anomaly", str(run), *(word.format(**kinds) for word in words)]) == 1
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_or_a_file_and_a_place_are_needed(kinds: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anomaly", *around(kinds)]) == 1
    assert "a run, or --embeddings FILE" in capsys.readouterr().err
    assert main(["anomaly", "--embeddings", "x.h5", *around(kinds)]) == 1
    assert "--workdir" in capsys.readouterr().err


def test_heads_that_are_there_stay(
    run: Path, heads: Path, kinds: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (heads / "knn.npz").read_bytes()
    assert main(["anomaly", str(run), *around(kinds), "--head", "kNN", "--workdir", str(heads)]) == 1
    assert "exists" in capsys.readouterr().err
    assert (heads / "knn.npz").read_bytes() == before


def test_a_damaged_head_is_told_in_a_sentence(
    heads: Path, kinds: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (heads / "knn.npz").read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        assert main(["score", str(tmp_path / name), str(kinds["usual"]), str(tmp_path / "out.h5")]) == 1
        assert "is not a fitted anomaly head" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "none"), str(kinds["usual"]), str(tmp_path / "out.h5")]) == 1
    assert "there is no file" in capsys.readouterr().err
    assert not (tmp_path / "out.h5").exists()


def test_another_encoder_than_the_config_describes_is_refused(
    heads: Path, kinds: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(heads / "knn.npz", allow_pickle=False) as file:
        held = {name: file[name] for name in file.files}
    name = next(name for name in held if name.startswith("beside/encoder/"))
    np.savez(tmp_path / "other.npz", **held | {name: held[name][..., :-1]})  # type: ignore[arg-type]
    assert main(["score", str(tmp_path / "other.npz"), str(kinds["usual"]), str(tmp_path / "out.h5")]) == 1
    assert "another encoder than its config describes" in capsys.readouterr().err


def test_every_head_has_a_word_of_its_own() -> None:
    assert len({word_of(name) for name in HEADS}) == len(HEADS)
    for name in HEADS:
        assert head_called(word_of(name)).name == name
