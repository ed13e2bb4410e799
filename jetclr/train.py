"""Pretraining: one linear story from stores to a run folder.

store -> Grain -> device -> augment, encode, compare, update -> log, probe, save; until the last step or a signal.
With several processes each tells the same story; what only one may write, the first writes.
"""

import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jetclr import config as configs
from jetclr import distributed, embed, encoder, sharding, step
from jetclr.checkpoint import PROBE_AUC, Checkpoints
from jetclr.config import Config, foreign_transforms
from jetclr.data.buckets import GROUPS, Layout, padding
from jetclr.data.chunk import COORDINATES
from jetclr.data.lock import only_process
from jetclr.data.pipeline import Batch, BatchSource, Slice, check_extras, training_batches
from jetclr.data.sampling import Sampling, selected
from jetclr.data.store import Store
from jetclr.errors import UserError
from jetclr.logs import Logs
from jetclr.meter import Meter, Trace
from jetclr.progress import no_progress, training_progress
from jetclr.run import read_config, start_run
from jetclr.signals import Stopped, stop_signals
from probes.linear import fit_logistic
from probes.metrics import auc

# Steps the host may run ahead of the device: enough to hide dispatch, few enough to stop at once.
IN_FLIGHT = 2

ValidationProbe = Callable[[encoder.Params], float | None]

# What JAX's runtime and the libraries below it say when a connection to another process breaks.
LOST = r"UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|Gloo|[Cc]onnection|[Hh]eartbeat|[Cc]oordination|NCCL|[Pp]eer"


class Outcome(NamedTuple):
    """How a call of `pretrain` ended: saved at `step`, and the signal that asked for it, if one did."""

    step: int
    signal: signal.Signals | None


class NonFinite(UserError):
    """Training met a number that is not finite; the last good checkpoint stands."""


def pretrain(config: Config, workdir: Path, *, stop_at: int | None = None, profile: bool = False) -> Outcome:
    """Pretrain (or go on pretraining) the run in `workdir`; returns how it ended.

    Every process of a run calls it alike. Stops early, saved, at step `stop_at` or on SIGTERM or SIGINT. With `profile`
    a trace of a few steps is written for TensorBoard. Raises UserError for stores or folders that will not do,
    NonFinite, naming the step, when the loss or gradient is not finite, and Abandon when a peer or this process's data
    is lost.
    """
    _same_settings(config, stop_at)
    mesh = _check(config, stop_at)
    with ExitStack() as stack:
        source, probe = _open(config, mesh, workdir, stack)
        with _abandoning():
            checkpoints = stack.enter_context(Checkpoints(workdir, config.checkpoint))
            stopped = stack.enter_context(stop_signals(distributed.told_to_stop if distributed.several() else None))
            state = _first_state(config, mesh, checkpoints)
            start = int(state.step)
            last = config.steps if stop_at is None else min(config.steps, stop_at)
            if start >= last:
                return Outcome(start, None)
            logs: list[Logs] = []
            distributed.together(lambda: logs.append(stack.enter_context(Logs(workdir, start))), first_only=True)
            if distributed.is_first():
                print(f"{_told(source)}, {mesh.size} device(s), from step {start:,}; compiling", file=sys.stderr)
            loop = _Loop(config, mesh, source, checkpoints, logs[0] if logs else None, probe, stopped)
            if profile:
                loop.trace = Trace(workdir, start)
            loop.compile(state, source.layout)
            reached = loop.run(state, start, last)
        return Outcome(reached, None if stopped.signal is None else signal.Signals(stopped.signal))


def _check(config: Config, stop_at: int | None) -> Mesh:
    """The mesh of the run; raises UserError for what can be seen to be wrong before anything is opened."""
    if stop_at is not None and stop_at < 1:
        raise UserError(f"--stop-at is {stop_at}; the first step is 1")
    check_trainable(config)
    return sharding.make_mesh(config.mesh, config.batch, config.chunks, GROUPS if config.data.buckets else 1)


def check_trainable(config: Config) -> None:
    """Raise UserError for a config that names no jets, or has views that are only known by name."""
    if foreign := foreign_transforms((config.views, config.anomalies)):
        raise UserError(f"{', '.join(foreign)}: not part of augmentations; give the config file that defines it")
    if not config.data.train:
        raise UserError("no jets to train on: set data.train in the config, or give --data.train STORE")


def _open(config: Config, mesh: Mesh, workdir: Path, stack: ExitStack) -> tuple[BatchSource, ValidationProbe | None]:
    """The data, and the run folder, made or found and locked; an error on any process is raised on all."""
    opened: list[tuple[BatchSource, ValidationProbe | None]] = []

    def open_data() -> None:
        data = config.data
        train = Store(*data.train)
        source = BatchSource(
            train,
            batch=config.batch,
            constituents=data.constituents,
            slots=data.slots,
            seed=config.seed,
            steps=config.steps,
            extras=data.extras,
            part=Slice(0, 1 if data.validation else 1 - data.holdout),
            sampling=Sampling(data.where, data.fraction, data.shares, data.weight, data.balance, data.flat),
            window_blocks=data.window_blocks,
            buckets=data.buckets,
            rows=lambda jets: sharding.local_rows(mesh, jets),
            label=config.objective.labels,
        )
        opened.append((source, _validation_probe(config, train)))

    def open_folder() -> None:
        start_run(workdir, config)
        busy = f"another process is training in {workdir}; wait for it, or use another --workdir"
        stack.enter_context(only_process(workdir, busy))

    def see_folder() -> None:
        try:
            read_config(workdir)
        except UserError as error:
            raise UserError(f"{error}; --workdir must lie on a file system that all processes share") from None

    distributed.together(open_data)
    distributed.together(open_folder, first_only=True)
    if distributed.several():
        distributed.together(see_folder)
    return opened[0]


def _told(source: BatchSource) -> str:
    """What is trained on, in words."""
    told = f"{source.store}, {source.jets:,} draws an epoch"
    if source.layout == source.full:
        return told
    pieces = " + ".join(f"{jets} x {slots}" for jets, slots in source.layout)
    return f"{told}, batches of {pieces} slots ({100 * padding(source.layout) / padding(source.full):.0f} % of all)"


def _same_settings(config: Config, stop_at: int | None) -> None:
    """Raise UserError, on all processes, if one was started otherwise; only where it finds the jets is its own."""

    def own() -> Any:
        settings = configs.to_dict(config)
        settings["data"] |= {"train": None, "validation": None}
        return {"stop_at": stop_at, "config": settings}

    def compare() -> None:
        if changes := configs.differences(first, own(), "process 0 -> this one: "):
            raise UserError(f"all processes of a run take the same settings; {'; '.join(changes)}")

    first = distributed.from_first(own())
    distributed.together(compare)


def _first_state(config: Config, mesh: Mesh, checkpoints: Checkpoints) -> step.State:
    """The newest saved state, or that of an untrained network, on the mesh."""
    shapes = jax.eval_shape(lambda: step.init_state(config))
    if checkpoints.latest is not None:
        return checkpoints.restore(sharding.abstract(mesh, shapes))
    make: Callable[[], step.State] = jax.jit(
        lambda: step.init_state(config), out_shardings=sharding.of_state(mesh, shapes)
    )
    return make()


@contextmanager
def _abandoning() -> Iterator[None]:
    """While inside, an error that the other processes do not share becomes Abandon."""
    try:
        yield
    except (NonFinite, distributed.Shared):
        raise  # every process has the same
    except (UserError, OSError) as error:
        if not distributed.several():
            raise
        raise _abandon(str(error), error.__cause__) from error
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        # A step that is begun after a connection broke raises ValueError; other ones are faults of ours.
        if isinstance(error, ValueError) and not (distributed.several() and re.search(LOST, str(error))):
            raise
        reason = str(error).splitlines()[0][:200]
        if "RESOURCE_EXHAUSTED" in reason:
            reason = (
                f"a device has too little memory: more --chunks, a smaller --batch or --mesh.fsdp save some ({reason})"
            )
            raise (distributed.Abandon(reason) if distributed.several() else UserError(reason)) from error
        if not distributed.several():
            raise
        raise _abandon(f"a device, or the program for it, failed: {reason}", error) from error


def _abandon(told: str, cause: BaseException | None) -> distributed.Abandon:
    """The error of this process alone; PeerLost if it comes of a connection that broke."""
    if not isinstance(cause, Exception) or not re.search(LOST, str(cause)):
        return distributed.Abandon(told)
    return distributed.PeerLost(
        "lost contact with another process of this run, which may have failed or been killed; all end here. The same "
        f"command resumes from the last checkpoint ({str(cause).splitlines()[0][:200]})"
    )


def _validation_probe(config: Config, train: Store) -> ValidationProbe | None:
    """AUC of a logistic regression on validation jets' embeddings: fitted on one half, measured on the other.

    Held-out jets of the train stores are those that `data.where` selects, each once: weights, and `data.fraction`, are
    for training, so that runs with other ones are measured on the same jets. Jets of validation stores are taken as
    they are. None if the config asks for no probe, or there are no labelled validation jets of two classes. Raises
    UserError if a validation store lacks one of `data.extras`.
    """
    data, settings = config.data, config.probe
    store = Store(*data.validation) if data.validation else train
    check_extras(store, data.extras)
    indices = (Slice() if data.validation else Slice(1 - data.holdout, 1)).indices(store)
    if data.where and not data.validation:
        indices = indices[selected(store, data.where)[indices]]
    if not settings.every or "label" not in store.columns or len(indices) < 2:
        return None
    indices = np.sort(np.random.default_rng(config.seed).permutation(indices)[: settings.jets])
    label = store.column("label")[indices]
    label = (label > label.min()).astype(np.int32)
    fit, test = slice(0, None, 2), slice(1, None, 2)
    if any(len(np.unique(label[part])) < 2 for part in (fit, test)):
        return None

    def probe(params: encoder.Params) -> float | None:
        features = embed.embed_jets(config, params, store, indices, ("embedding",))["embedding"]
        try:
            fitted = fit_logistic(features[fit], label[fit], l2_grid=(settings.l2,))
            return float(auc(fitted.score(features[test]), label[test]))
        except ValueError:
            return 0.5  # collapsed: all jets alike; a monitor must not end the run
        except RuntimeError:
            return None  # the solver gave up

    return probe


class _Loop:
    """The steps themselves, with what happens between them."""

    trace: Trace | None = None

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        source: BatchSource,
        checkpoints: Checkpoints,
        logs: Logs | None,
        probe: ValidationProbe | None,
        stopped: Stopped,
    ) -> None:
        self.config, self.mesh, self.source = config, mesh, source
        self.checkpoints, self.logs, self.probe, self.stopped = checkpoints, logs, probe, stopped
        self.train_step: Any = step.make_train_step(config, mesh)
        self.compiled: dict[Layout, Any] = {}
        self.unchecked: list[tuple[int, dict[str, jax.Array]]] = []  # metrics not yet looked at, by step
        self.newest: dict[str, float] = {}  # the metrics of the last logged step, the probe's among them
        self.meter = Meter(config, mesh.size)

    def compile(self, state: step.State, layout: Layout) -> None:
        """Compile the step for batches of a layout, so that no rate counts it."""
        at = sharding.split(self.mesh)
        names = (*COORDINATES, *self.config.data.extras)
        pieces = tuple(dict.fromkeys(names, jax.ShapeDtypeStruct(piece, np.float32, sharding=at)) for piece in layout)
        if self.config.objective.labels:
            labels = (jax.ShapeDtypeStruct(piece[:1], np.float32, sharding=at) for piece in layout)
            pieces = tuple(piece | {step.LABEL: label} for piece, label in zip(pieces, labels, strict=True))
        self.compiled[layout] = self.train_step.lower(state, pieces).compile()

    def run(self, state: step.State, start: int, last: int) -> int:
        """Train from step `start` to `last`, or to a signal; the state is saved when this returns the step reached."""
        config, done = self.config, start
        in_flight: deque[dict[str, jax.Array]] = deque()
        batches = training_batches(self.source, start)
        progress = training_progress(config.steps, start, config.batch) if self.logs else no_progress()
        self.meter.restart()
        with progress as show:
            while done < last and not self.stopped():
                with self.meter.data():
                    batch = next(batches)
                layout = self._layout(batch)
                if layout not in self.compiled:  # a rare batch that does not fit into its pieces
                    with self.meter.aside():
                        self.compile(state, layout)
                with self.meter.device():  # a CPU may do the step at once
                    state, metrics = self.compiled[layout](state, self._place(batch, layout))
                done += 1
                self.meter.step(layout)
                self.unchecked.append((done, metrics))
                in_flight.append(metrics)
                if self.trace is not None:
                    self.trace.at(done, metrics["loss"])
                if len(in_flight) > IN_FLIGHT:
                    with self.meter.device():
                        loss = float(in_flight.popleft()["loss"])
                    show(done - IN_FLIGHT, loss)
                probing = self.probe is not None and (done % config.probe.every == 0 or done == config.steps)
                if done % config.log.every == 0 or probing or done == last:
                    self._log(state, done, probing)
                if done % config.checkpoint.every == 0:
                    self._save(state, done)
            if in_flight:
                show(done, float(in_flight.pop()["loss"]))
        if self.trace is not None:
            self.trace.close()
        self._save(state, done)
        self.checkpoints.wait()
        return done

    def _layout(self, batch: tuple[Batch, ...]) -> Layout:
        """That of the whole batch, of which this process has its rows."""
        slots = [piece["pt"].shape[1] for piece in batch]
        planned = self.source.layout
        return planned if slots == [length for _, length in planned] else self.source.full

    def _place(self, batch: tuple[Batch, ...], layout: Layout) -> tuple[step.Batch, ...]:
        pieces = zip(batch, layout, strict=True)
        return tuple(sharding.place(self.mesh, jets, piece) for piece, (jets, _) in pieces)

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
        return {name: value for name, value in newest.items() if np.isfinite(value)}  # monitors not taken at this step

    def _log(self, state: step.State, done: int, probing: bool) -> None:
        with self.meter.device():
            row = {"step": done} | self._check()
        row |= self.meter.rates()
        if probing and self.probe is not None:
            params = sharding.on_host(self.mesh, state.frozen)
            # One process measures and all hear of it: all must keep the same checkpoints.
            found = self.probe(jax.tree.map(jnp.asarray, params)) if distributed.is_first() else None
            found = distributed.from_first(found)
            row |= {} if found is None else {PROBE_AUC: found}
        self.checkpoints.check()
        if self.logs is not None:
            self.logs.write(row)
        self.newest = row
        self.meter.restart()

    def _save(self, state: step.State, done: int) -> None:
        self._check()  # what is saved is known to be good
        self.checkpoints.save(state, self.newest.get(PROBE_AUC) if self.newest.get("step") == done else None)
