"""A table: every row, a config, times every seed."""

import difflib
import re
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from jetclr import config as configs
from jetclr.config import Config
from jetclr.errors import UserError
from jetclr.run import CONFIG, read_config
from jetclr.sweep.cells import cell, shown, spread
from jetclr.sweep.folder import Folder
from jetclr.sweep.judge import Judge, Values
from jetclr.sweep.plan import Job, Results
from probes.report import Number, Row


class Table:
    """The rows of a sweep and the seeds asked for; raises UserError for names that will not do, or changed rows."""

    rungs: tuple[int, ...] = ()
    forgiving = False

    def __init__(
        self,
        folder: Folder,
        rows: dict[str, Config],
        judge: Judge,
        seeds: tuple[int, ...],
        only: tuple[str, ...] = (),
        reference: str = "",
    ) -> None:
        self.folder, self.rows, self.judge, self.seeds = folder, rows, judge, seeds
        self.only, self.reference = only or tuple(rows), reference
        self.controls = bool(judge.fit)
        named = [("only", name) for name in only] + [("reference", reference)] * bool(reference)
        for option, name in named:
            if name not in rows:
                near = difflib.get_close_matches(name, rows, n=1) or rows
                raise UserError(f"--{option} {name!r} is not a row; there is {', '.join(map(repr, near))}")
        self._refuse_changes()

    def take(self, held: ExitStack) -> Job | None:
        for row in self.only:
            for seed in self.seeds:
                name = run_name(row, seed)
                # Looked at again when it is held: another process may have finished it in between.
                if not self._done(name) and self.folder.hold(name, held) and not self._done(name):
                    return Job(name, f"row {row!r}, seed {seed}", replace(self.rows[row], seed=seed))
        return None

    def goes_on(self, job: Job, rung: int, value: float) -> bool:
        raise AssertionError("tables have no rungs")

    def finish(self, job: Job, values: Values) -> None:
        self.folder.keep(job.name, values)

    def results(self) -> Results:
        names = shown(self.judge, controls=self.controls, reference=self.reference)
        rows: list[Row] = []
        told = []
        for row in self.rows:
            runs = {seed: self._values(row, seed) for seed in self._seeds_of(row)}
            done = {seed: self._compared(row, seed, values) for seed, values in runs.items() if values is not None}
            good = [values for values in done.values() if "failed" not in values]
            found = {name: spread(name, good) for name in names}
            failed = f", {len(done) - len(good)} failed" if len(good) < len(done) else ""
            rows.append((row, Number(f"{len(good)}{failed}"), *(cell(name, found[name]) for name in names)))
            told.append(
                {"row": row, "values": found}
                | {"runs": [{"run": run_name(row, seed), "seed": seed} | values for seed, values in done.items()]}
            )
        left = sum(not self._done(run_name(row, seed)) for row in self.only for seed in self.seeds)
        caption = f"{self.judge.told} Mean ± standard deviation over seeds."
        about: dict[str, Any] = {"rows": told}
        if self.reference:
            caption += f" The difference is that of the AUC from {self.reference!r}, seed by seed."
            about["reference"] = self.reference
        return Results(("row", "seeds", *names.values()), rows, caption, about, left)

    def _done(self, name: str) -> bool:
        # Who deletes a run's folder wants it anew.
        return (self.folder.path / name / CONFIG).is_file() and self.folder.values(name) is not None

    def _values(self, row: str, seed: int) -> Values | None:
        name = run_name(row, seed)
        return self.folder.values(name) if self._done(name) else None

    def _compared(self, row: str, seed: int, values: Values) -> Values:
        """The values with the difference of AUC from the reference row's run of the seed, where both are known."""
        # Runs of a seed share the draw of labels, and the first weights if the networks are alike: what differs between
        # seeds alone is taken off.
        reference = self._values(self.reference, seed) if self.reference not in ("", row) else None
        if reference is None or "failed" in values or "failed" in reference:
            return values
        return values | {"auc_difference": values["auc"] - reference["auc"]}

    def _seeds_of(self, row: str) -> list[int]:
        """Those of this call and of earlier ones."""
        found = [path.name.removeprefix(f"{slug(row)}-seed") for path in self.folder.path.glob(f"{slug(row)}-seed*")]
        return sorted({int(seed) for seed in found if seed.isdecimal()} | {*self.seeds})

    def _refuse_changes(self) -> None:
        taken: dict[str, str] = {}
        for row, config in self.rows.items():
            if not re.search(r"\w", row) or len(row) > 100:
                raise UserError(f"{row!r} cannot name a row: it must have letters or digits, and at most 100 of them")
            if (other := taken.setdefault(slug(row), row)) != row:
                raise UserError(f"rows {other!r} and {row!r} would have the same folders; call one of them otherwise")
            for seed in self._seeds_of(row):
                run = self.folder.path / run_name(row, seed)
                if not (run / CONFIG).is_file():
                    continue
                found, now = (configs.to_dict(one) for one in (read_config(run), replace(config, seed=seed)))
                if changes := configs.differences(found, now):
                    raise UserError(
                        f"row {row!r} has changed since {run} was begun; use another --workdir, delete that folder, "
                        f"or undo: {'; '.join(sorted(changes))}"
                    )


def slug(row: str) -> str:
    """The row's name as that of a folder."""
    return re.sub(r"[^\w.]+", "-", row).strip("-.")


def run_name(row: str, seed: int) -> str:
    """The folder of a row's run with a seed."""
    return f"{slug(row)}-seed{seed}"
