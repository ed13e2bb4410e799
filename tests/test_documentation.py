"""Every example in the README and in docs/ runs, in the order it stands there, on small inputs."""

import importlib
import json
import re
import shlex
import sys
import zlib
from functools import partial
from pathlib import Path

import pytest

from jetclr.cli import main
from jetclr.data.generate import generate
from tests.conftest import write_toy_store
from tests.jetclr.anomaly.kinds import write_kind
from tests.jetclr.benchmark.conftest import quick  # noqa: F401  (around every test)
from tests.jetclr.data.readers import test_jetclass as jetclass
from tests.jetclr.data.readers.test_toptag import rows, write
from tests.test_examples import run_script

pytestmark = pytest.mark.usefixtures("blank_figures")

ROOT = Path(__file__).parent.parent
# What makes a run small; it is added to pretraining commands.
SMALL = (
    "--batch 16 --data.constituents 12 --encoder.width 8 --encoder.heads 2 --encoder.feedforward 8 --encoder.wide 8 "
    "--encoder.layers 1 --probe.every 0"
)


# Pages that stand alone, and pages that go on from one another.
CHAINS = (
    ("docs/data.md",),
    ("docs/benchmark.md",),
    ("docs/anomaly.md",),
    ("docs/downstream.md",),
    ("README.md", "docs/training.md", "docs/scaling.md", "docs/sweep.md", "docs/recipe.md", "docs/objectives.md"),
)


RUN = re.compile(r"jetclr |python docs/examples/")
"""Lines of bash blocks that are run."""


def examples(pages: tuple[str, ...]) -> list[tuple[str, str]]:
    """("bash", command), ("script", command) and ("python", block) in the order of the pages."""
    found: list[tuple[str, str]] = []
    for page in pages:
        for language, block in re.findall(r"```(bash|python)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
            if language == "python":
                found.append((language, block))
            else:
                lines = block.splitlines()
                found += [("script" if x.startswith("python ") else language, x) for x in lines if RUN.match(x)]
    return found


def shrunk(command: str) -> list[str]:
    """The command with few jets and steps."""
    words = shlex.split(command, comments=True)[1:]
    for flag, value in (("--jets", "4"), ("--steps", "2"), ("--repeats", "1")):
        if flag in words:
            words[words.index(flag) + 1] = value
    if "--data.buckets" in words:
        at = words.index("--data.buckets")
        words[at + 1 : at + 3] = ["4", "8"]
    if words[0] == "benchmark" and "anomaly" in words:
        words += ["--heads", "Mahalanobis"]
    elif words[0] == "benchmark":  # none of the networks, which take a minute to compile
        words += shlex.split("--label-counts 20 --draws 1 --taggers none --finetune False --baselines raw-constituents")
    if words[0] == "bench":
        words += {"data": "--batch 8 --seconds 0.1", "embed": "--repeats 1"}[words[1]].split()
    if words[0] == "sweep":
        words[words.index("--labels") + 1] = "20"
        words += ["--at-most", "1"]
        if "--rungs" in words:
            at = words.index("--rungs")
            words[at + 1 : at + 3] = ["1"]
    if words[0] in ("pretrain", "sweep"):
        words += shlex.split(SMALL) + ([] if "--steps" in words else ["--steps", "2"])
        words += [] if "--mesh.data" in words else ["--mesh.data", "1"]  # which compiles soonest
        words += [] if "--data.buckets" in words else ["--data.buckets"]  # none: the config's are longer than the jets
    return words


def outputs(words: list[str]) -> list[Path]:
    """The files that the command promises."""
    if words[0] in ("generate", "convert", "join", "embed"):
        return [Path(w) for w in words if "/" in w and " " not in w and Path(w).suffix != ".py"][-1:]
    return [Path(w) for w in words if w.endswith("probe.json")]


def toy_generate(process: str, out: Path, **_: object) -> int:
    """More jets than Pythia would make in a second: anomaly heads need some. Its own commands are in docs/data.md."""
    write_kind(out, int(process == "top"), 60, seed=zlib.crc32(str(out).encode()))
    return 60


@pytest.mark.parametrize("pages", CHAINS, ids=lambda pages: pages[0])
def test_every_documented_example_runs(pages: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "python" in [language for language, _ in examples(pages)]
    assert len(examples(pages)) >= 12
    monkeypatch.chdir(tmp_path)
    for folder in ("configs", "docs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    # Units so small that there are some for every shard.
    made = toy_generate if pages == ("docs/anomaly.md",) else partial(generate, unit_jets=2)
    monkeypatch.setattr("jetclr.data.generate.generate", made)
    monkeypatch.setattr("jetclr.embed.BATCH", 32)
    for seed, name in enumerate(("train", "val", "test")):
        table = rows(80, seed=seed)
        table["values_block_0"] *= 20  # as hard as real ones
        write(tmp_path / f"{name}.h5", table)
    jetclass.write(tmp_path / "jets.root", jetclass.branches())
    # Beside the user's code, as the page says.
    monkeypatch.syspath_prepend(tmp_path / "exports/torch")
    monkeypatch.delitem(sys.modules, "jetclr_encoder", raising=False)
    done: set[tuple[str, ...]] = set()
    for language, command in examples(pages):
        if language == "python":
            importlib.invalidate_caches()  # exports/torch was not there when it was looked into first
            exec(compile(command, "example", "exec"), {})
            continue
        if language == "script":
            script, *arguments = shlex.split(command)[1:]
            run_script(monkeypatch, ROOT / script, *arguments)
            continue
        words = shrunk(command)
        if tuple(words) in done:
            continue
        done.add(tuple(words))
        assert main(words) == 0, command
        for out in outputs(words):
            assert out.exists(), command


@pytest.mark.slow  # compiles the networks that are measured, in processes of their own
@pytest.mark.parametrize("command", [command for _, command in examples(("docs/performance.md",))])
def test_every_measurement_of_the_performance_page_runs(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    few = {"train": "--steps 1", "augment": "--steps 1 --batch 32", "scaling": "--steps 1 --devices 1"}
    few |= {"embed": "--seconds 0.1 --batch 32", "generate": "--jets 4"}
    words = shlex.split(command)[1:]
    assert main([*words, "--repeats", "1", *few[words[1]].split()]) == 0
    assert all(json.loads(line)["bench"] == words[1] for line in capsys.readouterr().out.splitlines())


def test_every_flag_of_make_demo_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of `make demo` on toy stores of its names; the whole of it is run by hand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for part in ("pretrain", "fit", "test"):
        for process in ("top", "qcd"):
            write_toy_store(tmp_path / f"data/demo/{process}-{part}", 40, seed=len(part))
    lines = (ROOT / "Makefile").read_text().replace("\\\n", " ").replace("$(DEMO)", "data/demo").splitlines()
    found = [line.split("jetclr ", 1)[1] for line in lines if "$(BIN)/jetclr " in line]
    assert [line.split()[0] for line in found] == ["pretrain", "probe", "report", "generate"]
    for line in found[:3]:
        assert main(shrunk(f"jetclr {line}")) == 0, line
    assert (tmp_path / "runs/demo/report.html").exists()
