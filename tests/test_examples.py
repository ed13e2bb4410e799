"""What stands in docs/examples/ runs, on toy jets, and gives what the encoder itself gives.

The C++ program is compiled where there are cmake, a compiler, the headers of ONNX Runtime in a usual place (Debian 13:
libonnxruntime-dev) and its library, of the system or of the installed Python package.
"""

import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import onnxruntime
import pytest
import uproot
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from jetclr.cli import main
from jetclr.data.store import Store

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"

Script = Callable[..., str]


def run_script(monkeypatch: pytest.MonkeyPatch, path: Path, *arguments: object) -> None:
    """The script with these arguments, in this process: torch is imported once for all."""
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name="__main__")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """Runs an example by name; gives what it printed."""

    def run(name: str, *arguments: object) -> str:
        # Their threads wait for each other where other tests run beside.
        if "torch" in name:
            pytest.importorskip("torch").set_num_threads(1)
        if "xgboost" in name:
            pytest.importorskip("xgboost").set_config(nthread=1)
        capsys.readouterr()
        run_script(monkeypatch, EXAMPLES / name, *arguments)
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, run: Path, stores: dict[str, Path]) -> Path:
    """Embeddings of labelled jets in two formats."""
    folder = tmp_path_factory.mktemp("embedded")
    for name in ("train.h5", "train.parquet", "test.h5", "test.parquet"):
        assert main(["embed", str(run), str(stores[name.split(".")[0]]), str(folder / name)]) == 0
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, run: Path, stores: dict[str, Path]) -> Path:
    """Folders batch, cms and atlas, each with one score beside the embedding."""
    folder = tmp_path_factory.mktemp("exported")
    for flavor in ("batch", "cms", "atlas"):
        words = ["export", str(run), str(folder / flavor), "--to", "onnx", "--flavor", flavor]
        assert main([*words, "--data", str(stores["test"]), "--probe", str(stores["fit"])]) == 0
    return folder


def number(name: str, printed: str) -> float:
    found = re.search(rf"{name} (\d\.\d+)", printed)
    assert found is not None, printed
    return float(found[1])


@pytest.mark.parametrize("name", ["pytorch_mlp.py", "xgboost_tagger.py"])
def test_their_auc_is_the_usual_one(name: str) -> None:
    pytest.importorskip("torch" if "torch" in name else "xgboost")
    rng = np.random.default_rng(0)
    scores, signal = rng.integers(0, 6, 200).astype(np.float32), rng.integers(0, 2, 200).astype(bool)
    found = runpy.run_path(str(EXAMPLES / name))
    if "torch" in name:
        found_auc = found["auc"](*map(found["torch"].tensor, (scores, signal.astype(np.float32))))
    else:
        found_auc = found["auc"](scores, signal)
    assert found_auc == pytest.approx(roc_auc_score(signal, scores), abs=1e-12)


def test_logistic_regression_in_pytorch_is_that_of_scikit_learn(embedded: Path, script: Script) -> None:
    printed = script("pytorch_mlp.py", embedded / "train.h5", embedded / "test.h5", "--linear")
    l2 = re.search(r"l2 (\S+) of", printed)
    assert l2 is not None, printed
    with h5py.File(embedded / "train.h5") as fit, h5py.File(embedded / "test.h5") as test:
        x, y, x_test, y_test = (np.asarray(f[k]) for f in (fit, test) for k in ("embedding", "label"))
    mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    spread[spread == 0] = 1
    expected = LogisticRegression(C=1 / float(l2[1]), tol=1e-10, max_iter=5000).fit((x - mean) / spread, y)
    auc = roc_auc_score(y_test, expected.decision_function((x_test - mean) / spread))
    assert number("test AUC", printed) == pytest.approx(auc, abs=1e-4)


@pytest.mark.parametrize("name", ["pytorch_mlp.py", "xgboost_tagger.py"])
def test_taggers_learn_and_read_either_format(name: str, embedded: Path, script: Script) -> None:
    printed = [script(name, embedded / f"train{end}", embedded / f"test{end}") for end in (".h5", ".parquet")]
    assert printed[0] == printed[1]
    assert number("test AUC", printed[0]) > 0.85  # one prong or three


def scores_of(exported: Path, store: Path, jets: int) -> dict[str, np.ndarray]:
    """What ONNX Runtime in Python gives for the first jets of a store, by output."""
    session = onnxruntime.InferenceSession(exported / "batch" / "jetclr.onnx")
    batch = Store(store).gather(np.arange(jets), 16)
    feed = {name: batch[name] for name in ("pt", "eta", "phi")} | {"mask": (batch["pt"] > 0).astype(np.float32)}
    return dict(zip((one.name for one in session.get_outputs()), session.run(None, feed), strict=True))


def write_root(path: Path, store: Path, jets: int) -> None:
    """Constituents in no order, in both of the forms that the analysis reads, and a jet without any at the end."""
    batch = Store(store).gather(np.arange(jets), 40)
    there = batch["pt"] > 0
    pt, eta, phi = (
        ak.Array([row[mask][::-1] for row, mask in zip(batch[name], there, strict=True)] + [np.zeros(0, np.float32)])
        for name in ("pt", "eta", "phi")
    )
    branches = {"part_px": pt * np.cos(phi), "part_py": pt * np.sin(phi), "part_pz": pt * np.sinh(eta)}
    branches |= {"pt": pt, "eta": eta, "phi": phi}
    with uproot.recreate(path) as file:
        file.mktree("tree", dict.fromkeys(branches, "var * float32")).extend(branches)


def test_the_analysis_writes_a_friend_tree(
    exported: Path, stores: dict[str, Path], script: Script, tmp_path: Path
) -> None:
    write_root(tmp_path / "jets.root", stores["test"], 30)
    expected = scores_of(exported, stores["test"], 30)
    for friend, *more in (("a.root",), ("b.root", "--polar", "pt", "eta", "phi", "--batch", "7")):
        printed = script("analysis.py", exported / "batch", tmp_path / "jets.root", tmp_path / friend, *more)
        assert "31 jets" in printed
        with uproot.open(tmp_path / friend) as file:
            for name, values in expected.items():
                found = file["jetclr"][name].array(library="np")
                assert np.isfinite(found[30]).all()  # of the jet without constituents
                np.testing.assert_allclose(found[:30], values, rtol=1e-4, atol=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == {"jets.root", "a.root", "b.root"}


def test_the_analysis_refuses_what_it_cannot_feed(exported: Path, script: Script, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="flavor cms; needed is onnx, batch"):
        script("analysis.py", exported / "cms", tmp_path / "jets.root", tmp_path / "out.root")
    with pytest.raises(SystemExit, match="the model takes eta, mask, phi, pt: name the branches"):
        script("analysis.py", exported / "batch", "jets.root", tmp_path / "out.root", "--extra", "charge=part_charge")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ program, compiled as its CMakeLists.txt says."""
    if not shutil.which("cmake") or not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("cmake or a C++ compiler is missing")
    wheel = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    folder = tmp_path_factory.mktemp("build")
    words = ["cmake", "-S", str(EXAMPLES / "onnx_scores"), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Debug"]
    words += [f"-DONNXRUNTIME_LIBRARY={wheel[0]}"] if wheel else []
    configured = subprocess.run(words, capture_output=True, text=True)
    if "Could not find ONNXRUNTIME" in configured.stderr:
        pytest.skip("the headers or the library of ONNX Runtime are missing (Debian 13: libonnxruntime-dev)")
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run(["cmake", "--build", str(folder)], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "onnx_scores"


def write_csv(path: Path, store: Path, jets: int) -> None:
    batch = Store(store).gather(np.arange(jets), 40)
    lines = ["jet,pt,eta,phi"]
    for i in range(jets):
        rows = np.column_stack([batch[name][i] for name in ("pt", "eta", "phi")])
        lines += [f"jet{i}, " + ", ".join(map(repr, map(float, row))) for row in rows[::-1] if row[0] > 0]
    path.write_text("\n".join(lines) + "\n")


def test_the_program_in_cpp_gives_the_same_in_every_flavor(
    program: Path, exported: Path, stores: dict[str, Path], tmp_path: Path
) -> None:
    write_csv(tmp_path / "jets.csv", stores["test"], 12)
    expected = scores_of(exported, stores["test"], 12)
    for flavor in ("batch", "cms", "atlas"):
        words = [program, exported / flavor / "jetclr.onnx", tmp_path / "jets.csv"]
        ran = subprocess.run(words, capture_output=True, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")
        header, *lines = ran.stdout.splitlines()
        assert header.startswith("jet,embedding_0,embedding_1,")
        assert [line.split(",")[0] for line in lines] == [f"jet{i}" for i in range(12)]
        found = np.array([line.split(",")[1:] for line in lines], np.float64)
        values = np.concatenate([x.reshape(12, -1) for x in expected.values()], axis=1)
        assert np.max(np.abs(found - values) / (1 + np.abs(values))) < 1e-5


@pytest.mark.parametrize(
    ("flavor", "text", "says"),
    [
        ("batch", None, "cannot open"),
        ("batch", "0,1,2,3\n", "line 1: it must name the columns: jet,pt,eta,phi"),
        ("batch", "jet,pt,eta,phi\n0,1,2\n", "line 2: there are 3 columns instead of 4"),
        ("batch", "jet,pt,eta,phi\n0,1,2,many\n", "line 2: 'many' is not a number"),
        ("cms", "jet,pt,eta,phi,charge\n0,1,2,3,1\n", "the model takes 3 columns beside 'jet'"),
        ("none", "jet,pt,eta,phi\n", "none/jetclr.onnx"),
    ],
)
def test_the_program_in_cpp_says_what_is_wrong(
    program: Path, exported: Path, tmp_path: Path, flavor: str, text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / "jets.csv").write_text(text)
    words = [program, exported / flavor / "jetclr.onnx", tmp_path / "jets.csv"]
    ran = subprocess.run(words, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert says in ran.stderr
    assert ran.stderr.count("\n") == 1
