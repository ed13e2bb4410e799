"""A sweep carried out: its runs one after another, each trained, judged and told, and the files about all of them."""

import json
import signal
import sys
from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from jetclr import config as configs
from jetclr.config import Config
from jetclr.data.store import write_json, write_whole
from jetclr.errors import UserError
from jetclr.run import CONFIG
from jetclr.sweep.folder import Folder
from jetclr.sweep.judge import Judge, Unusable, Values
from jetclr.sweep.options import TRIALS, Options
from jetclr.sweep.plan import Job, Plan, Results
from jetclr.sweep.program import Program, load_program
from jetclr.sweep.table import Table
from jetclr.train import NonFinite, check_trainable, pretrain
from probes.report import markdown_table, markdown_text, terminal_table

JSON, MARKDOWN, BEST = "sweep.json", "sweep.md", "best.json"

# Settings that decide neither what is learnt nor what is measured.
_FREE = ("log", "checkpoint", "mesh", "chunks")


def run_sweep(config: Config, space: Path, workdir: Path, options: Options) -> signal.Signals | None:
    """Train and judge what is left of a sweep, and write sweep.json, sweep.md and, of a search, best.json.

    Any number of processes may be called alike with one folder; each run is done by one of them. Returns the signal
    that asked to stop, if one did: the run is saved, and the same call goes on. Raises UserError for a space file,
    stores or a folder that will not do, or for a run that cannot be trained or written.
    """
    program = load_program(space)
    _refuse_others(program, config, options)
    judge = Judge(tuple(map(str, options.fit)), tuple(map(str, options.judge)), options.labels)
    plan = _plan(program, config, workdir, options, judge)
    taken, stopped = 0, None
    while stopped is None and (options.at_most is None or taken < options.at_most):
        with ExitStack() as held:
            job = plan.take(held)
            if job is None:
                break
            stopped = _carry_out(plan, judge, job)
        taken += 1
        jax.clear_caches()  # programs of a run that is over
        _write(plan, program)
    _print(_write(plan, program), workdir)
    return stopped


def _refuse_others(program: Program, config: Config, options: Options) -> None:
    """Raise UserError for options that belong to the other kind of sweep."""
    names = {"space": ("seeds", "only", "reference"), "rows": ("trials", "rungs")}[program.kind]
    if given := [name for name in names if getattr(options, name)]:
        kind = "a search" if program.kind == "space" else "a table"
        raise UserError(f"{program.path} defines `{program.kind}`, {kind}, which has no --{given[0]}")
    if options.rungs and options.rungs[-1] >= config.steps:
        raise UserError(f"--rungs {options.rungs[-1]} is not before the last step, {config.steps}")
    if not options.fit and (between := [rung for rung in options.rungs if rung % max(config.probe.every, 1)]):
        raise UserError(
            f"--rungs {between[0]} is no step of the validation probe (probe.every is {config.probe.every}), "
            "by which trials are judged without --fit and --judge"
        )


def _plan(program: Program, config: Config, workdir: Path, options: Options, judge: Judge) -> Plan:
    settings: dict[str, Any] = {
        "kind": program.kind,
        "fit": judge.fit,
        "judge": judge.judge,
        "labels": judge.labels,
        "probe": None if judge.fit else configs.to_dict(config.probe),
    }
    if program.kind == "rows":
        rows = program.rows(config)
        for one in {repr((row.data, row.probe.every, row.seed)): row for row in rows.values()}.values():
            _refuse_untrainable(one, judge)
        seeds = options.seeds or (config.seed,)
        return Table(Folder(workdir, settings), rows, judge, seeds, options.only, options.reference)
    if find_spec("optuna") is None:
        raise UserError("a search needs Optuna: pip install 'jetclr[sweep]'")
    from jetclr.sweep.search import Search, try_space

    _refuse_untrainable(try_space(program, config), judge)
    # Trials build on one another, so that nothing they depend on may change between them.
    settings |= {"space (sha256)": program.sha256, "rungs": options.rungs}
    settings["config"] = {name: x for name, x in configs.to_dict(config).items() if name not in _FREE}
    folder = Folder(workdir, settings)
    return Search(folder, program, config, judge, options.trials or TRIALS, options.rungs)


def _refuse_untrainable(config: Config, judge: Judge) -> None:
    """Raise UserError for what can be seen to be wrong with runs like `config` before one is begun."""
    check_trainable(config)
    judge.check(config)


def _carry_out(plan: Plan, judge: Judge, job: Job) -> signal.Signals | None:
    """Train and judge one run, and keep what it was worth; the signal that asked to stop before that, if one did."""
    print(f"{job.told}: {plan.folder.path / job.name}", file=sys.stderr, flush=True)
    run = plan.folder.path / job.name
    try:
        values = _trained(plan, judge, job, run)
    except (NonFinite, Unusable) as error:
        values = {"failed": str(error)}
    except UserError as error:
        # Before there is a folder only the settings can be wrong, and a device that fails has too little memory.
        of_settings = not (run / CONFIG).exists() or isinstance(error.__cause__, jax.errors.JaxRuntimeError)
        if not (plan.forgiving and of_settings):
            raise UserError(f"{job.told}: {error}") from error
        values = {"failed": str(error)}
    if isinstance(values, signal.Signals):
        return values
    plan.finish(job, values)
    told = values.get("failed") or f"AUC {values['auc']:.4f}, {values['seconds']:,.0f} s"
    early = f", stopped at step {values['stopped']:,}" if "stopped" in values else ""
    print(f"{job.told}: {told}{early}; {plan.results().left} to go", file=sys.stderr, flush=True)
    return None


def _trained(plan: Plan, judge: Judge, job: Job, run: Path) -> Values | signal.Signals:
    """What the run is worth once it is trained, or stopped at a rung; or the signal that asked to stop."""
    for rung in plan.rungs:
        outcome = pretrain(job.config, run, stop_at=rung)
        if outcome.signal is not None:
            return outcome.signal
        if outcome.step != rung:  # it had come further before, or has fewer steps
            continue
        values = judge.measure(run)
        if not plan.goes_on(job, rung, values["auc"]):
            return values | {"stopped": rung}
    outcome = pretrain(job.config, run)
    if outcome.signal is not None:
        return outcome.signal
    return judge.measure(run, untrained=plan.controls)


def _write(plan: Plan, program: Program) -> Results:
    """Write the files about all runs; in turn, so that they hold what the newest process knows."""
    with plan.folder.turn():
        results = plan.results()
        path = plan.folder.path
        about = {"kind": program.kind, "judged_by": asdict(plan.judge), "left": results.left}
        write_json(path / JSON, about | results.as_json)
        table = markdown_table(results.rows, results.columns)
        write_whole(path / MARKDOWN, f"{table}\n{markdown_text(results.caption)}\n")
        if results.best is not None:
            write_json(path / BEST, json.loads((path / results.best / CONFIG).read_bytes()))
    return results


def _print(results: Results, workdir: Path) -> None:
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(terminal_table(results.rows, results.columns))
    left = f", {results.left} not done yet; the same command goes on" if results.left else ""
    print(f"{workdir / MARKDOWN}{left}", flush=True)
