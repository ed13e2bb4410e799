import subprocess
import sys
from pathlib import Path

import pytest

from jetclr import __version__
from jetclr.cli import main
from tests.conftest import CONFIG


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jetclr {__version__}\n"
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for verb in ("generate", "convert", "join", "inspect", "pretrain", "embed", "probe", "report"):
        assert verb in said


def test_help_for_pretrain_names_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for flag in ("--workdir", "--steps", "--data.train", "--optim.peak-lr", "--log.every", "--checkpoint.every"):
        assert flag in said


def test_an_unknown_setting_gets_the_nearest_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(CONFIG), "--workdir", "r", "--optim.peak-rl", "1"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "--optim.peak-rl" in said
    assert "--optim.peak-lr" in said


def test_an_impossible_setting_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(CONFIG), "--workdir", str(tmp_path / "r"), "--optim.peak-lr", "0"])
    assert ended.value.code == 2
    assert "Optim.peak_lr is 0.0; it must be positive" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["pretrain", "--workdir", "r"], "pretrain needs a config file"),
        (["pretrain", "none.py", "--workdir", "r"], "there is no config file none.py"),
        (["convert", "--format", "toptag", "a.h5"], "convert needs at least one file to read and, last, the store"),
        (["embed", "run", "out.h5"], "embed needs a run, at least one store and, last, the file"),
        (["generate", "--process", "qcd", "--jets", "9", "--shard", "1/1", "s"], "shard is '1/1'; it must be I/N"),
        (["generate", "--process", "qcd", "--jets", "9", "--shard", "None", "s"], "shard is 'None'; it must be I/N"),
        (["join", "a"], "join needs at least one part and, last, the store or file"),
        (["join", "nothing", "out"], "there is nothing at nothing"),
        (["inspect", "nothing"], "there is no store at nothing"),
        (["probe", "nothing", "--train", "a", "--test", "b"], "nothing is not a run folder"),
        (["report", "nothing", "--data", "a"], "there is no store at a"),
    ],
)
def test_mistakes_get_one_sentence_and_status_one(
    command: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 1
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_inspect_prints_counts_and_draws(
    stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(stores["fit"]), "--out", str(tmp_path / "h.png")]) == 0
    said = capsys.readouterr().out
    assert "300 jets" in said
    for column in ("jet_pt", "jet_eta", "jet_phi", "jet_mass", "multiplicity"):
        assert column in said
    assert (tmp_path / "h.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["inspect", str(stores["fit"]), "--out", str(tmp_path / "h.xyz")]) == 1
    assert "its name must end in .png" in capsys.readouterr().err


def test_ctrl_c_outside_training_is_quiet(stores: dict[str, Path], tmp_path: Path) -> None:
    """A KeyboardInterrupt anywhere ends in one line and status 130."""
    code = (
        "import jetclr.data.convert as c, jetclr.cli as cli\n"
        "def stop(*a, **b): raise KeyboardInterrupt\n"
        "c.convert = stop\n"
        "raise SystemExit(cli.main(['convert', '--format', 'toptag', 'a', 'b']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 130
    assert result.stderr == "jetclr: interrupted; nothing half-written was kept\n"
