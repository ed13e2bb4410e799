"""A search: Optuna suggests the settings of each trial from what the trials before it were worth.

The study is a journal of JSON lines, written only in the folder's turn. A trial that was begun stays in it until it is
told how it ended, so that one whose process was killed is taken up by whoever comes next, with the settings it had.
"""

import statistics
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from jetclr.config import Config
from jetclr.errors import UserError
from jetclr.sweep.cells import cell, shown, spread
from jetclr.sweep.folder import Folder
from jetclr.sweep.judge import Judge, Values
from jetclr.sweep.plan import Job, Results
from jetclr.sweep.program import Program
from probes.report import Row

JOURNAL = "study.jsonl"
STUDY = "sweep"
DRAWS = 10

FEWEST = 4
"""Trials measured at a rung before one is stopped there."""


def try_space(program: Program, config: Config) -> Config:
    """The config of settings drawn at random and kept nowhere; raises UserError if none of a few draws gives one."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=RandomSampler(seed=config.seed))
    with warnings.catch_warnings():
        # Choices that JSON does not give back as they were.
        warnings.filterwarnings("error", message="Choices for a categorical distribution", category=UserWarning)
        for _ in range(DRAWS):  # some may be of settings that cannot be
            try:
                return program.settings(study.ask(), config)
            except UserError as error:
                failure = error
    raise failure


class Search:
    """`trials` trials of a space, by a tree-structured Parzen estimator (TPE), whose seed is that of the config."""

    controls = False
    forgiving = True

    def __init__(
        self, folder: Folder, program: Program, config: Config, judge: Judge, trials: int, rungs: tuple[int, ...] = ()
    ) -> None:
        self.folder, self.program, self.config, self.judge = folder, program, config, judge
        self.trials, self.rungs = trials, rungs
        self._begun: dict[str, Trial] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with folder.turn():
            self._study = _open(folder.path / JOURNAL)

    def take(self, held: ExitStack) -> Job | None:
        with self.folder.turn():
            for begun in self._in_states(TrialState.RUNNING):
                if self.folder.hold(run_name(begun.number), held):
                    job = self._job(Trial(self._study, begun._trial_id))
                    if job is not None:
                        return job
            while (number := len(self._in_states())) < self.trials:
                # A seed a trial: with one for all, a search that goes on would begin with the draws it began with.
                seed = np.random.SeedSequence((self.config.seed, number)).generate_state(1)[0]
                self._study.sampler = TPESampler(seed=int(seed), constant_liar=True)
                trial = self._study.ask()
                self.folder.hold(run_name(trial.number), held)
                if (job := self._job(trial)) is not None:
                    return job
        return None

    def _job(self, trial: Trial) -> Job | None:
        """The trial's run; None if it needs none, which the study is then told. In the folder's turn."""
        name = run_name(trial.number)
        self._begun[name] = trial
        if (known := self.folder.values(name)) is not None:  # killed before it could tell
            self._tell(name, known)
            return None
        try:
            config = self.program.settings(trial, self.config)
        except UserError as error:
            print(f"trial {trial.number} is left out: {error}", file=sys.stderr, flush=True)
            self._keep(name, {"failed": str(error)})
            return None
        return Job(name, f"trial {trial.number}, {_told(trial.params)}", config)

    def goes_on(self, job: Job, rung: int, value: float) -> bool:
        """Successive halving, as trials come (arXiv:1810.05934): only the better half goes on, beyond the first few."""
        with self.folder.turn():
            trial = self._begun[job.name]
            if rung not in self._in_states()[trial.number].intermediate_values:  # else killed after it had reported
                trial.report(value, rung)
            there = [t.intermediate_values[rung] for t in self._in_states() if rung in t.intermediate_values]
        return len(there) < FEWEST or value >= statistics.median(there)

    def finish(self, job: Job, values: Values) -> None:
        with self.folder.turn():
            self._keep(job.name, values)

    def _keep(self, name: str, values: Values) -> None:
        self.folder.keep(name, values)
        self._tell(name, values)

    def _tell(self, name: str, values: Values) -> None:
        number = self._begun.pop(name).number
        if "failed" in values:
            self._study.tell(number, state=TrialState.FAIL)
        elif "stopped" in values:
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, values["auc"])

    def results(self) -> Results:
        names = shown(self.judge, controls=False)
        trials = [(trial, self.folder.values(run_name(trial.number))) for trial in self._in_states()]
        trials.sort(key=lambda one: _order(one[1]))
        rows: list[Row] = []
        told: list[dict[str, Any]] = []
        for trial, values in trials:
            cells = [cell(name, spread(name, [values or {}])) for name in names]
            rows.append((trial.number, *cells, _ended(values), _told(trial.params)))
            told.append(
                {"trial": trial.number, "run": run_name(trial.number), "ended": _ended(values)}
                | {"params": trial.params, "values": values}
            )
        best = next((run_name(trial.number) for trial, values in trials[:1] if _order(values)[0] == 0), None)
        left = self.trials - sum(values is not None for _, values in trials)
        columns = ("trial", *names.values(), "ended", "settings")
        return Results(columns, rows, self.judge.told, {"trials": told, "best": best}, max(left, 0), best)

    def _in_states(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)


def run_name(number: int) -> str:
    """The folder of a trial's run."""
    return f"trial-{number:04d}"


def _open(journal: Path) -> optuna.Study:
    """The study that is there, or a new one. A line torn by a crash goes, or nothing after it could be read."""
    if journal.is_file():
        with journal.open("r+b") as file:
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(study_name=STUDY, storage=storage, direction="maximize", load_if_exists=True)


def _order(values: Values | None) -> tuple[int, float]:
    """Finished trials first, the best of them before the others, then those stopped at a rung, then the rest."""
    if values is None or "failed" in values:
        return 2 + (values is None), 0.0
    return ("stopped" in values), -values["auc"]


def _ended(values: Values | None) -> str:
    if values is None:
        return "not yet"
    if "failed" in values:
        return "failed"
    return f"stopped at {values['stopped']:,}" if "stopped" in values else f"step {values['step']:,}"


def _told(params: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in params.items())  # fmt: skip
