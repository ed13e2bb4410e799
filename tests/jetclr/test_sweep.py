"""Sweeps whose training is a stand-in: a run folder with a log, of an AUC that is a function of the config."""

import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jetclr import config as configs
from jetclr.cli import main
from jetclr.config import Config
from jetclr.errors import UserError
from jetclr.evaluate import probe_run
from jetclr.logs import METRICS, read_metrics
from jetclr.run import start_run
from jetclr.sweep.judge import Judge
from jetclr.sweep.options import Options
from jetclr.sweep.sweep import run_sweep
from jetclr.train import NonFinite, Outcome
from tests.conftest import CONFIG

ROWS = """
from dataclasses import replace
from augmentations import Chain, Rotate
def rows(config):
    return {
        "none": replace(config, views=(Chain(), Chain())),
        "rotations, both": replace(config, views=(Rotate(), Rotate())),
        "wider": replace(config, encoder=replace(config.encoder, width=32)),
    }
"""
SPACE = """
from dataclasses import replace
def space(trial, config):
    rate = trial.suggest_float("peak_lr", 1e-4, 1e-2, log=True)
    width = trial.suggest_categorical("width", [8, 16])
    return replace(
        config, optim=replace(config.optim, peak_lr=rate), encoder=replace(config.encoder, width=width)
    )
"""


def worth(config: Config) -> float:
    """The AUC of a stand-in run: best at a learning rate of 0.001."""
    wide = 0.05 * (config.encoder.width > 16)
    return 0.9 - 0.1 * abs(math.log10(config.optim.peak_lr) + 3) + wide + 0.001 * config.seed


class Trainer:
    """Stands in for `pretrain`, and counts its calls; `before` may raise or return a signal for a run."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int | None]] = []
        self.before: Callable[[Config, Path], signal.Signals | None] = lambda config, run: None

    def __call__(self, config: Config, workdir: Path, *, stop_at: int | None = None) -> Outcome:
        self.calls.append((workdir.name, stop_at))
        start_run(workdir, config)
        if (told := self.before(config, workdir)) is not None:
            return Outcome(1, told)
        rows = read_metrics(workdir)
        last = config.steps if stop_at is None else min(stop_at, config.steps)
        for step in range(int(rows[-1]["step"]) + 1 if rows else 1, last + 1):
            share = step / config.steps
            row = {"step": step, "loss": 4 - share, "effective_rank": 5.0, "step_ms": 500.0}
            rows.append(row | {"probe_auc": 0.5 + (worth(config) - 0.5) * share})
        (workdir / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Outcome(max(int(rows[-1]["step"]), last), None)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr("jetclr.sweep.sweep.pretrain", trainer)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # those of other tests
    return trainer


@pytest.fixture
def config(stores: dict[str, Path]) -> Config:
    config = configs.load(CONFIG)
    return replace(config, data=replace(config.data, train=(str(stores["train"]),)))


def written(folder: Path, text: str) -> Path:
    path = folder / "space.py"
    path.write_text(text)
    return path


def swept(folder: Path) -> Any:
    return json.loads((folder / "sweep.json").read_text())


def test_a_table_has_every_row_times_every_seed(trainer: Trainer, config: Config, tmp_path: Path) -> None:
    space, folder = written(tmp_path, ROWS), tmp_path / "table"
    assert run_sweep(config, space, folder, Options(seeds=(0, 1, 2))) is None
    assert len(trainer.calls) == 9
    rows = swept(folder)["rows"]
    assert [row["row"] for row in rows] == ["none", "rotations, both", "wider"]
    for row, wide in zip(rows, (0, 0, 0.05), strict=True):
        auc = np.array([0.9, 0.901, 0.902]) + wide
        assert row["values"]["auc"]["mean"] == pytest.approx(auc.mean())
        assert row["values"]["auc"]["std"] == pytest.approx(auc.std(ddof=1))
        assert row["values"]["seconds"]["mean"] == pytest.approx(0.5 * config.steps)
    assert "| rotations, both | 3 | 0.9010 ± 0.0010 | 3.000 ± 0.000 |" in (folder / "sweep.md").read_text()
    assert configs.load(folder / "rotations-both-seed2" / "config.json").seed == 2


def test_a_table_does_only_what_is_left(trainer: Trainer, config: Config, tmp_path: Path) -> None:
    space, folder = written(tmp_path, ROWS), tmp_path / "table"
    run_sweep(config, space, folder, Options(at_most=2))
    assert swept(folder)["left"] == 1
    run_sweep(config, space, folder, Options())
    assert [name for name, _ in trainer.calls] == ["none-seed0", "rotations-both-seed0", "wider-seed0"]
    run_sweep(config, space, folder, Options(seeds=(7,), only=("wider",)))
    assert trainer.calls.pop() == ("wider-seed7", None)
    assert len(trainer.calls) == 3
    assert swept(folder)["rows"][2]["values"]["auc"]["runs"] == 2
    assert swept(folder)["left"] == 0
    for file in (folder / "none-seed0").iterdir():
        file.unlink()
    run_sweep(config, space, folder, Options())
    assert trainer.calls[3:] == [("none-seed0", None)]


def test_a_changed_row_is_refused(trainer: Trainer, config: Config, tmp_path: Path) -> None:
    space, folder = written(tmp_path, ROWS), tmp_path / "table"
    run_sweep(config, space, folder, Options())
    written(tmp_path, ROWS.replace("width=32", "width=64"))
    with pytest.raises(UserError, match=r"row 'wider' has changed .*encoder.width: 32 -> 64"):
        run_sweep(config, space, folder, Options(only=("none",)))
    written(tmp_path, ROWS.replace('"wider"', '"widest"'))  # a row may go, and another come
    run_sweep(config, space, folder, Options())
    assert trainer.calls[3:] == [("widest-seed0", None)]


def test_a_search_is_the_same_however_often_it_stops(trainer: Trainer, config: Config, tmp_path: Path) -> None:
    space = written(tmp_path, SPACE)
    run_sweep(config, space, tmp_path / "whole", Options(trials=13))
    for _ in range(5):
        run_sweep(config, space, tmp_path / "parts", Options(trials=13, at_most=3))
    whole, parts = swept(tmp_path / "whole"), swept(tmp_path / "parts")
    assert whole["trials"] == parts["trials"]
    assert len(whole["trials"]) == 13
    assert len({trial["params"]["peak_lr"] for trial in whole["trials"]}) == 13
    aucs = [trial["values"]["auc"] for trial in whole["trials"]]
    assert aucs == sorted(aucs, reverse=True)
    best = configs.load(tmp_path / "whole" / "best.json")
    assert worth(best) == max(aucs)
    assert best.optim.peak_lr == whole["trials"][0]["params"]["peak_lr"]
    for line in (tmp_path / "whole" / "study.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_trial_that_was_cut_off_is_taken_up_with_its_settings(
    trainer: Trainer, config: Config, tmp_path: Path
) -> None:
    space, folder = written(tmp_path, SPACE), tmp_path / "search"

    def cut(one: Config, run: Path) -> None:
        if run.name == "trial-0001":
            raise KeyboardInterrupt

    trainer.before = cut
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, space, folder, Options(trials=3))
    begun = configs.load(folder / "trial-0001" / "config.json")
    with (folder / "study.jsonl").open("a") as journal:
        journal.write('{"op_code":4,"wor')  # torn by the crash
    trainer.before = lambda one, run: None
    run_sweep(config, space, folder, Options(trials=3))
    assert [name for name, _ in trainer.calls] == ["trial-0000", "trial-0001", "trial-0001", "trial-0002"]
    assert configs.load(folder / "trial-0001" / "config.json") == begun
    assert all(trial["values"] for trial in swept(folder)["trials"])


KILLED = """
import sys, time
from pathlib import Path
import jetclr.sweep.sweep as sweep
from jetclr import config as configs
from jetclr.run import start_run
from jetclr.sweep.options import Options
def train(config, workdir, stop_at=None):
    start_run(workdir, config)
    time.sleep(600)
sweep.pretrain = train
sweep.run_sweep(configs.load(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), Options(trials=2))
"""


def test_a_killed_process_leaves_its_trial_to_the_next_one(trainer: Trainer, config: Config, tmp_path: Path) -> None:
    space, folder = written(tmp_path, SPACE), tmp_path / "search"
    (tmp_path / "config.json").write_text(configs.to_json(config))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "config.json"), str(space), str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 240
        while not (folder / "trial-0000" / "config.json").is_file():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        run_sweep(config, space, folder, Options(trials=2))
        assert [name for name, _ in trainer.calls] == ["trial-0001"]  # the other is held
        assert swept(folder)["left"] == 1
    finally:
        process.kill()
        process.communicate()
    run_sweep(config, space, folder, Options(trials=2))
    assert [name for name, _ in trainer.calls] == ["trial-0001", "trial-0000"]
    assert swept(folder)["left"] == 0


@pytest.mark.parametrize("text", [ROWS, SPACE], ids=["table", "search"])
def test_two_workers_share_a_sweep(trainer: Trainer, config: Config, tmp_path: Path, text: str) -> None:
    space, folder = written(tmp_path, text), tmp_path / "sweep"
    together = threading.Barrier(2, timeout=60)

    def meet(one: Config, run: Path) -> None:
        if len(trainer.calls) <= 2:  # each has one before either goes on
            together.wait()

    trainer.before = meet
    options = Options(trials=6) if text == SPACE else Options(seeds=(0, 1))
    workers = [threading.Thread(target=run_sweep, args=(config, space, folder, options)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    names = [name for name, _ in trainer.calls]
    assert len(names) == len(set(names)) == 6
    run_sweep(config, space, folder, options)
    assert len(trainer.calls) == 6
    assert swept(folder)["left"] == 0


def test_what_cannot_be_trained_is_a_failed_trial(
    trainer: Trainer, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SPACE.replace("[8, 16]", "[7, 8, 16]")  # 7 is no multiple of the heads
    space, folder = written(tmp_path, text), tmp_path / "search"

    def fail(one: Config, run: Path) -> None:
        if run.name == "trial-0001":
            raise NonFinite("step 3 gave loss nan")

    trainer.before = fail
    run_sweep(config, space, folder, Options(trials=12))
    trials = {trial["trial"]: trial for trial in swept(folder)["trials"]}
    assert trials[1]["values"] == {"failed": "step 3 gave loss nan"}
    odd = [number for number, trial in trials.items() if trial["params"]["width"] == 7]
    assert odd
    assert all("space.py, line" in trials[number]["values"]["failed"] for number in odd)
    assert {name for name, _ in trainer.calls} == {f"trial-{n:04d}" for n in trials if n not in odd}
    said = capsys.readouterr().err
    assert "step 3 gave loss nan" in said
    assert f"trial {odd[0]} is left out" in said
    assert swept(folder)["best"] not in {"trial-0001", *(f"trial-{n:04d}" for n in odd)}


def test_a_failed_run_of_a_table_is_told_and_left_out_of_the_mean(
    trainer: Trainer, config: Config, tmp_path: Path
) -> None:
    def fail(one: Config, run: Path) -> None:
        if run.name == "none-seed1":
            raise NonFinite("nan")

    trainer.before = fail
    run_sweep(config, written(tmp_path, ROWS), tmp_path / "table", Options(seeds=(0, 1)))
    row = swept(tmp_path / "table")["rows"][0]
    assert row["values"]["auc"] == {"mean": pytest.approx(0.9), "std": None, "runs": 1, "is_bound": False}
    assert "| none | 1, 1 failed | 0.9000 |" in (tmp_path / "table" / "sweep.md").read_text()


def test_differences_are_taken_seed_by_seed(trainer: Trainer, config: Config, tmp_path: Path) -> None:
    """Of seeds that both rows have; the reference itself has none."""
    space, folder = written(tmp_path, ROWS), tmp_path / "table"
    run_sweep(config, space, folder, Options(seeds=(0, 3)))
    run_sweep(config, space, folder, Options(seeds=(7,), only=("wider",)))
    assert "auc_difference" not in swept(folder)["rows"][0]["values"]
    run_sweep(config, space, folder, Options(reference="wider", seeds=(9,), only=("none",)))
    assert swept(folder)["reference"] == "wider"
    none, _, wider = swept(folder)["rows"]
    assert [run["seed"] for run in none["runs"]] == [0, 3, 9]
    assert [run.get("auc_difference") for run in none["runs"]] == [pytest.approx(-0.05), pytest.approx(-0.05), None]
    assert none["values"]["auc_difference"]["runs"] == 2
    assert none["values"]["auc_difference"]["std"] == pytest.approx(0, abs=1e-12)
    assert none["values"]["auc"]["std"] > 0.004
    assert wider["values"]["auc_difference"] is None
    page = (folder / "sweep.md").read_text()
    assert "| row | seeds | validation AUC | difference | loss |" in page
    assert "| none | 3 | 0.9040 ± 0.0046 | -0.0500 ± 0.0000 |" in page
    assert "| wider | 3 | 0.9533 ± 0.0035 | – |" in page
    assert "from 'wider', seed by seed" in page


def test_trials_below_the_median_stop_at_a_rung(trainer: Trainer, config: Config, tmp_path: Path) -> None:
    run_sweep(config, written(tmp_path, SPACE), tmp_path / "search", Options(trials=10, rungs=(4,)))
    trials = sorted(swept(tmp_path / "search")["trials"], key=lambda trial: trial["trial"])
    final = [worth(configs.load(tmp_path / "search" / trial["run"] / "config.json")) for trial in trials]
    for number, trial in enumerate(trials):
        stops = number >= 3 and final[number] < np.median(final[: number + 1])  # monotonic, so the same at the rung
        assert trial["values"].get("stopped") == (4 if stops else None)
        assert trial["values"]["step"] == (4 if stops else config.steps)
    assert any("stopped" in trial["values"] for trial in trials)
    assert configs.load(tmp_path / "search" / "best.json").optim.peak_lr == pytest.approx(
        trials[int(np.argmax(final))]["params"]["peak_lr"]
    )


def test_a_signal_saves_and_ends_as_in_pretraining(trainer: Trainer, config: Config, tmp_path: Path) -> None:
    command = ["sweep", "--space", str(written(tmp_path, ROWS)), str(CONFIG), "--workdir", str(tmp_path / "table")]
    command += ["--data.train", *config.data.train, "--steps", "6"]
    for number, status in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        trainer.before = lambda one, run, number=number: number
        assert main(command) == status
        assert swept(tmp_path / "table")["left"] == 3
    trainer.before = lambda one, run: None
    assert main(command) == 0
    assert [name for name, _ in trainer.calls] == [*["none-seed0"] * 3, "rotations-both-seed0", "wider-seed0"]
    assert configs.load(tmp_path / "table" / "none-seed0" / "config.json").steps == 6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must define .* it defines neither"),
        (ROWS + SPACE, "it defines both"),
        ("rows = 3", "it defines neither"),
        ("def space(trial, config):\n    return config.widht", r"space.py, line 2: AttributeError: .*widht"),
        ("import nothing_of_this_name", r"space.py, line 1: ModuleNotFoundError"),
        ("def rows(config):\n  return {", "SyntaxError.*line 2"),
        ("def space(trial, config):\n    return {}", "must return a Config; it returns an empty dict"),
        ("def rows(config):\n    return {}", "must return a dict of name: Config; it returns an empty dict"),
        ("def rows(config):\n    return {'a': 1}", "row 'a' of .* is int"),
        ("def rows(config):\n    return {'a b': config, 'a, b': config}", "would have the same folders"),
        ("def rows(config):\n    return {'+': config}", "cannot name a row"),
        (
            "def space(trial, config):\n    trial.suggest_categorical('x', [(1, 2), (3, 4)])\n    return config",
            "line 2: .*Choices for a categorical distribution",
        ),
    ],
)
def test_a_bad_space_file_is_told_in_a_sentence(
    trainer: Trainer, config: Config, tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        run_sweep(config, written(tmp_path, text), tmp_path / "sweep", Options())
    assert trainer.calls == []
    assert not (tmp_path / "sweep" / "sweep.json").exists()


def test_another_sweep_in_the_folder_is_refused(
    trainer: Trainer, config: Config, stores: dict[str, Path], tmp_path: Path
) -> None:
    space, folder = written(tmp_path, SPACE), tmp_path / "search"
    run_sweep(config, space, folder, Options(trials=1))

    def refused(says: str, one: Config = config, **options: Any) -> None:
        with pytest.raises(UserError, match=says):
            run_sweep(one, space, folder, Options(**{"trials": 2} | options))

    refused("undo: config.seed: 0 -> 3", replace(config, seed=3))
    refused("rungs: .* -> .4.", rungs=(4,))
    refused(r"probe.jets: 4000 -> 40", replace(config, probe=replace(config.probe, jets=40)))
    refused("fit: ", fit=(stores["fit"],), judge=(stores["test"],))
    written(tmp_path, SPACE + "\n")
    refused("space .sha256.")
    written(tmp_path, SPACE)
    run_sweep(replace(config, log=configs.Log(every=1)), space, folder, Options(trials=2))
    assert len(trainer.calls) == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    folder = tmp_path / "full"
    refused("holds other files and no sweep")


def test_options_that_do_not_fit_are_refused(
    trainer: Trainer, config: Config, stores: dict[str, Path], tmp_path: Path
) -> None:
    fit, test, train = stores["fit"], stores["test"], stores["train"]

    def refused(text: str, says: str, one: Config = config, **options: Any) -> None:
        with pytest.raises((UserError, ValueError), match=says):
            run_sweep(one, written(tmp_path, text), tmp_path / "sweep", Options(**options))

    refused(SPACE, "a search, which has no --seeds", seeds=(1,))
    refused(ROWS, "a table, which has no --trials", trials=3)
    refused(SPACE, "--rungs 8 is not before the last step", rungs=(4, 8))
    refused(SPACE, "--rungs 3 is no step of the validation probe", rungs=(3,))
    refused(SPACE, "they are steps, and must rise", rungs=(4, 2))
    refused(SPACE, "go together", fit=(fit,))
    refused(SPACE, "there is no --fit", labels=3)
    refused(SPACE, "is in --judge and in --fit", fit=(fit, test), judge=(test,))
    refused(SPACE, "is in --judge and in data.train", fit=(fit,), judge=(train,))
    refused(ROWS, "--labels of --fit: 3 labelled jets leave", fit=(fit,), judge=(test,), labels=3)
    refused(ROWS, "--only 'widr' is not a row; there is 'wider'", only=("widr",))
    refused(ROWS, "--reference 'widr' is not a row; there is 'wider'", reference="widr")
    refused(SPACE, "a search, which has no --reference", reference="wider")
    refused(ROWS, "no jets to train on", replace(config, data=replace(config.data, train=())))
    refused(ROWS, "nothing judges the runs", replace(config, probe=replace(config.probe, every=0)))
    assert not (tmp_path / "sweep" / "sweep.json").exists()


def test_the_judge_agrees_with_jetclr_probe(
    run: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, test = stores["fit"], stores["test"]
    values = Judge((str(fit),), (str(test),)).measure(run, untrained=True)
    sets = [("trained", "embedding"), ("untrained", "embedding"), ("raw", "constituents")]
    monkeypatch.setattr("jetclr.evaluate._representations", lambda run: sets)
    found = {(r.representation, r.probe): r.estimates for r in probe_run(run, [fit], [test]).results}
    assert values["auc"] == found["trained embedding", "logistic"]["auc"].value
    assert values["r50"] == found["trained embedding", "logistic"]["r50"].value
    assert values["lda_auc"] == found["trained embedding", "LDA"]["auc"].value
    assert values["untrained_auc"] == found["untrained embedding", "logistic"]["auc"].value
    assert values["step"] == 8
    few = Judge((str(fit),), (str(test),), labels=20).measure(run)
    assert few["auc"] != values["auc"]
    assert "untrained_auc" not in few
