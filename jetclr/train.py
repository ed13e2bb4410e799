"""Pretraining: one linear story from stores to a run folder.

store -> Grain -> device -> augment, encode, compare, update -> log, probe, save; until the last step or a signal.
"""

import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jetclr import embed, sharding, step
from jetclr.checkpoint import Checkpoints, only_process, start_run
from jetclr.config import Config, foreign_transforms
from jetclr.data.pipeline import BatchSource, Slice, training_batches
from jetclr.data.store import Store
from jetclr.errors import UserError
from jetclr.logs import Logs
from jetclr.progress import training_progress
from jetclr.signals import stop_signals
from probes.linear import fit_logistic
from probes.metrics import auc

# Steps the host may run ahead of the device: enough to hide dispatch, few enough to stop at once.
IN_FLIGHT = 2

ValidationProbe = Callable[[step.State], dict[str, float]]


class Outcome(NamedTuple):
    """How a call of `pretrain` ended: saved at `step`, and whether Ctrl-C asked for it."""

    step: int
    interrupted: bool


class NonFinite(UserError):
    """Training met a number that is not finite; the last good checkpoint stands."""


def pretrain(config: Config, workdir: Path, *, stop_at: int | None = None) -> Outcome:
    """Pretrain (or go on pretraining) the run in `workdir`; returns how it ended.

    Stops early, saved, at step `stop_at` or on SIGTERM or SIGINT. Raises UserError for stores or folders that will not
    do, and NonFinite, naming the step, when the loss or gradient is not finite.
    """
    if stop_at is not None and stop_at < 1:
        raise UserError(f"--stop-at is {stop_at}; the first step is 1")
    if foreign := foreign_transforms(config.views):
        raise UserError(f"{', '.join(foreign)}: not part of augmentations; give the config file that defines it")
    if not config.data.train:
        raise UserError("no jets to train on: set data.train in the config, or give --data.train STORE")
    train = Store(*config.data.train)
    mesh = sharding.make_mesh(config.batch)
    source = BatchSource(
        train,
        batch=config.batch,
        constituents=config.data.constituents,
        slots=config.data.slots,
        seed=config.seed,
        steps=config.steps,
        part=Slice(0, 1 if config.data.validation else 1 - config.data.holdout),
        window_blocks=config.data.window_blocks,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    probe = _validation_probe(config, train)
    start_run(workdir, config)
    batches = training_batches(source)
    with (
        only_process(workdir),
        Checkpoints(workdir, config.checkpoint.keep) as checkpoints,
        stop_signals() as stopped,
    ):
        state = jax.device_put(step.init_state(config), sharding.everywhere(mesh))
        if checkpoints.latest is not None:
            state = checkpoints.restore(state, batches, mesh)
        start = int(state.step)
        last = config.steps if stop_at is None else min(config.steps, stop_at)
        if start >= last:
            return Outcome(start, False)
        with Logs(workdir, start) as logs:
            print(f"{train}, {jax.device_count()} device(s), from step {start:,}; compiling", file=sys.stderr)
            loop = _Loop(config, mesh, batches, checkpoints, logs, probe, stopped)
            loop.compile(state, source[start])
            reached = loop.run(state, start, last)
            return Outcome(reached, stopped.signal == signal.SIGINT)


def _validation_probe(config: Config, train: Store) -> ValidationProbe | None:
    """AUC of a logistic regression on validation jets' embeddings: fitted on one half, measured on the other.

    None if the config asks for no probe, or there are no labelled validation jets of two classes.
    """
    data, settings = config.data, config.probe
    store = Store(*data.validation) if data.validation else train
    indices = (Slice() if data.validation else Slice(1 - data.holdout, 1)).indices(store)
    if not settings.every or "label" not in store.columns or len(indices) < 2:
        return None
    indices = np.sort(np.random.default_rng(config.seed).permutation(indices)[: settings.jets])
    label = (store.column("label")[indices] > 0).astype(np.int32)
    fit, test = slice(0, None, 2), slice(1, None, 2)
    if any(len(np.unique(label[part])) < 2 for part in (fit, test)):
        return None

    def probe(state: step.State) -> dict[str, float]:
        features = embed.embed_jets(config, state.params, store, indices, ("embedding",))["embedding"]
        try:
            fitted = fit_logistic(features[fit], label[fit], l2_grid=(settings.l2,))
            return {"probe_auc": float(auc(fitted.score(features[test]), label[test]))}
        except ValueError:
            return {"probe_auc": 0.5}  # collapsed: all jets alike; a monitor must not end the run
        except RuntimeError:
            return {}  # the solver gave up

    return probe


class _Loop:
    """The steps themselves, with what happens between them."""

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        batches: Any,
        checkpoints: Checkpoints,
        logs: Logs,
        probe: ValidationProbe | None,
        stopped: Callable[[], bool],
    ) -> None:
        self.config, self.batches, self.checkpoints, self.logs = config, batches, checkpoints, logs
        self.probe, self.stopped = probe, stopped
        self.split = sharding.split(mesh)
        self.train_step: Any = step.make_train_step(config, mesh)
        self.unchecked: list[tuple[int, dict[str, jax.Array]]] = []  # metrics not yet looked at, by step
        self.clock = _Clock()

    def compile(self, state: step.State, example: dict[str, np.ndarray]) -> None:
        """Compile before the first step, so that no rate counts it."""
        self.train_step = self.train_step.lower(state, self._place(example)).compile()

    def run(self, state: step.State, start: int, last: int) -> int:
        """Train from step `start` to `last`, or to a signal; the state is saved when this returns the step reached."""
        config, done = self.config, start
        in_flight: deque[dict[str, jax.Array]] = deque()
        self.clock.restart()
        with training_progress(config.steps, start, config.batch) as show:
            while done < last and not self.stopped():
                state, metrics = self.train_step(state, self._place(next(self.batches)))
                done += 1
                self.clock.jets += config.batch
                self.unchecked.append((done, metrics))
                in_flight.append(metrics)
                if len(in_flight) > IN_FLIGHT:
                    show(done - IN_FLIGHT, float(in_flight.popleft()["loss"]))
                probing = self.probe is not None and (done % config.probe.every == 0 or done == config.steps)
                if done % config.log.every == 0 or probing or done == last:
                    self._log(state, done, probing)
                if done % config.checkpoint.every == 0:
                    self._save(state)
            if in_flight:
                show(done, float(in_flight.pop()["loss"]))
        self._save(state)
        self.checkpoints.wait()
        return done

    def _place(self, batch: dict[str, np.ndarray]) -> step.Batch:
        return {name: jax.make_array_from_process_local_data(self.split, x) for name, x in batch.items()}

    def _check(self) -> dict[str, float]:
        """Look at every step since the last look; the numbers of the newest. Raises NonFinite at the first bad one."""
        newest: dict[str, float] = {}
        for number, metrics in self.unchecked:
            newest = {name: float(value) for name, value in metrics.items()}
            if not (np.isfinite(newest["loss"]) and np.isfinite(newest["gradient_norm"])):
                good = self.checkpoints.latest
                raise NonFinite(
                    f"step {number} gave loss {newest['loss']} and gradient norm {newest['gradient_norm']}, so "
                    f"training stopped; {f'the checkpoint of step {good} is good' if good else 'nothing was saved'}. "
                    "Look at the jets, or lower optim.peak_lr"
                )
        self.unchecked.clear()
        return newest

    def _log(self, state: step.State, done: int, probing: bool) -> None:
        row = {"step": done} | self._check() | {"jets_per_s": self.clock.rate()}
        if probing and self.probe is not None:
            row |= self.probe(state)
        self.logs.write(row)
        self.clock.restart()

    def _save(self, state: step.State) -> None:
        self._check()  # what is saved is known to be good
        self.checkpoints.save(state, self.batches)


class _Clock:
    """Jets a second since the last restart."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.jets, self._since = 0, time.perf_counter()

    def rate(self) -> float:
        return self.jets / max(time.perf_counter() - self._since, 1e-9)
