"""What a run of a sweep is worth: linear probes on its frozen embedding, or the validation probe of its training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64

from jetclr import step
from jetclr.checkpoint import PROBE_AUC
from jetclr.config import Config
from jetclr.data.pipeline import check_extras
from jetclr.data.store import Store
from jetclr.embed import embed_jets
from jetclr.encoder import Params
from jetclr.errors import UserError
from jetclr.evaluate import signal_of
from jetclr.logs import read_metrics
from jetclr.run import open_run
from probes.fewshot import label_draws
from probes.linear import fit_lda, fit_logistic
from probes.metrics import auc, background_rejection

LAYER = "embedding"

Values = dict[str, Any]
"""What was measured of a run, as JSON values. `auc` is what sweeps compare; "failed" holds why there is none."""


class Unusable(Exception):
    """A run that no probe can be fitted on."""


@dataclass(frozen=True)
class Judge:
    """By which jets runs are judged: probes are fitted on `labels` (None: all) jets of `fit`, measured on `judge`.

    Without them, the last validation probe of a run's training stands for its AUC.
    """

    fit: tuple[str, ...] = ()
    judge: tuple[str, ...] = ()
    labels: int | None = None

    @property
    def told(self) -> str:
        """What the AUC of a sweep's table is."""
        if not self.fit:
            return "AUC of the validation probe of training, at its last step."
        labels = "all" if self.labels is None else f"{self.labels:,}"
        return (
            f"Linear probes on the frozen embedding, fitted on {labels} jets of {', '.join(self.fit)} and measured on "
            f"{', '.join(self.judge)}: AUC and R50 = 1/eps_B at eps_S = 0.5 of logistic regression, AUC of LDA."
        )

    def check(self, config: Config) -> None:
        """Raise UserError for jets that runs like `config` cannot be judged by, before any is trained."""
        train = Store(*config.data.train)
        if not self.fit:
            held_out = Store(*config.data.validation) if config.data.validation else train
            if not config.probe.every or "label" not in held_out.columns:
                raise UserError(
                    "nothing judges the runs: give --fit and --judge, or let the validation probe of training have "
                    "labelled jets (probe.every, data.validation)"
                )
            return
        places = {Path(path).resolve() for path in self.judge}
        for what, others in (("--fit", self.fit), ("data.train", config.data.train)):
            if twice := places & {Path(path).resolve() for path in others}:
                raise UserError(f"{', '.join(map(str, twice))} is in --judge and in {what}; judge by other jets")
        self.jets(config)

    def jets(self, config: Config) -> tuple[list[Store], list[Int64[np.ndarray, " _"]], list[Int32[np.ndarray, " _"]]]:
        """Stores to fit and to measure on, the jets taken of each, and which of these are signal."""
        stores = [Store(*self.fit), Store(*self.judge)]
        for store in stores:
            check_extras(store, config.data.extras)
        signal = signal_of(stores)
        taken = [np.arange(len(store)) for store in stores]
        if self.labels is not None:
            try:
                # Draws of a seed are nested, and those of different seeds are independent.
                taken[0] = label_draws(signal[0], self.labels, 1, config.seed)[0].astype(np.int64)
            except ValueError as error:
                raise UserError(f"--labels of --fit: {error}") from None
        return stores, taken, [one[rows] for one, rows in zip(signal, taken, strict=True)]

    def measure(self, run: Path, *, untrained: bool = False) -> Values:
        """All values of the run as it stands; with `untrained`, and jets to judge by, of its untrained encoder too.

        Raises Unusable if no probe can be fitted, UserError if the run was never probed and has to be.
        """
        values = training_values(run)
        if self.fit:
            return values | self._probed(run, untrained)
        if values.get("auc") is None:
            raise UserError(f"{run} has no validation probe: its validation jets need labels of two classes")
        return values

    def _probed(self, path: Path, untrained: bool) -> Values:
        run = open_run(path)
        stores, taken, signal = self.jets(run.config)

        def features(params: Params) -> list[Float32[np.ndarray, "_ D"]]:
            found = [
                embed_jets(run.config, params, store, rows, (LAYER,))[LAYER]
                for store, rows in zip(stores, taken, strict=True)
            ]
            if not all(np.isfinite(x).all() for x in found):
                raise Unusable("its embedding is not finite for every jet")
            return found

        try:
            fitted, measured = features(run.params)
            logistic = fit_logistic(fitted, signal[0], seed=run.config.seed).score(measured)
            lda = fit_lda(fitted, signal[0], seed=run.config.seed).score(measured)
            r50 = background_rejection(logistic, signal[1], 0.5)
            values = {"auc": auc(logistic, signal[1]), "r50": r50.value, "r50_is_bound": r50.is_lower_bound}
            values |= {"lda_auc": auc(lda, signal[1])}
            if untrained:
                fitted, measured = features(step.init_params(run.config))
                control = fit_logistic(fitted, signal[0], seed=run.config.seed).score(measured)
                values["untrained_auc"] = auc(control, signal[1])
        except (ValueError, RuntimeError) as error:
            raise Unusable(f"no probe can be fitted on its embedding: {error}") from None
        return values


def training_values(run: Path) -> Values:
    """Step, last loss and effective rank, seconds of training steps, and AUC of the last validation probe, of its log.

    Those that were never logged are None. Seconds are without compiling, probing and what a killed process lost.
    """
    rows = read_metrics(run)
    values: Values = {"step": int(rows[-1]["step"]) if rows else 0}
    for name, logged in (("auc", PROBE_AUC), ("loss", "loss"), ("effective_rank", "effective_rank")):
        values[name] = next((row[logged] for row in reversed(rows) if logged in row), None)
    steps = np.diff([0.0, *(row["step"] for row in rows)])
    values["seconds"] = float(sum(n * row.get("step_ms", 0.0) for n, row in zip(steps, rows, strict=True)) / 1000)
    return values
