"""Checkpoints of a run, by Orbax: one atomic folder a step; each process writes its share. Nothing in them is code.

A checkpoint holds three items: `params`, `training` (optimizer state and step) and `record`: the AUC of the validation
probe at that step, if it was probed, and checksums of all arrays, since a bit that flips on a disk goes unnoticed by
the file formats. The position in the data is the step. Reading a run needs only the first and the last, and its
`config.json`.
"""

import errno
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import Array, UInt32
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    EveryNSteps,
    LatestN,
    PreservationContext,
    PreservationPolicy,
)

from jetclr import config as configs
from jetclr import distributed, sharding, step
from jetclr.config import Checkpoint, Config
from jetclr.data.store import write_json
from jetclr.encoder import Params
from jetclr.errors import UserError

FOLDER = "checkpoints"
ASIDE = "damaged-checkpoints"
CONFIG = "config.json"
PROBE_AUC = "probe_auc"

Which = Literal["latest", "best"] | int
"""A checkpoint of a run: the newest, the one with the highest AUC of the validation probe, or that of a step."""


class Checkpoints:
    """The checkpoints under a run folder, written in the background; close it (or use `with`) to be sure of the last.

    Every process of a run opens them and makes the same calls. Without `keep` they are only read. Every call raises
    UserError if a checkpoint could not be written (a full disk, say); those before it stay whole.
    """

    def __init__(self, run: Path, keep: Checkpoint | None = None) -> None:
        self._run = run.absolute()
        self._folder = self._run / FOLDER
        self._probed: dict[int, float] = {}  # the AUC of each checkpoint whose step was probed
        options: dict[str, Any] = {"read_only": True, "create": False}
        if keep is not None:
            policies: list[PreservationPolicy] = [LatestN(keep.keep), _Best(self._probed, keep.best)]
            if keep.keep_every:
                policies.append(EveryNSteps(keep.keep_every))
            # What a killed process was writing is a folder of another name; it goes when the next one starts.
            options = {"preservation_policy": AnyPreservationPolicy(policies), "cleanup_tmp_directories": True}
        self._manager = ocp.CheckpointManager(self._folder, options=ocp.CheckpointManagerOptions(**options))
        for number in self.steps:
            self._recall(number)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: Any) -> None:
        if isinstance(exception[1], distributed.Abandon):
            return  # closing waits for the peers
        try:
            self._manager.close()
        except Exception:  # what failed in the background; if it is why we leave, it has been told
            if exception[0] is None:
                raise

    @property
    def steps(self) -> list[int]:
        """The steps saved, oldest first."""
        return sorted(self._manager.all_steps())

    @property
    def latest(self) -> int | None:
        """The newest step saved, or None."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step with the highest AUC of the validation probe, or None if no step that is kept was probed."""
        ranked = _ranked(self._probed, self.steps)
        return ranked[-1] if ranked else None

    def _recall(self, number: int) -> None:
        try:
            self._probed[number] = float(self._read_record(number)[PROBE_AUC])
        except Exception:  # not probed; or damaged, which is told of when the checkpoint is read
            self._probed.pop(number, None)

    def _read_record(self, number: int) -> Any:
        return self._manager.restore(number, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]

    def save(self, state: step.State, probe_auc: float | None = None) -> None:
        """Start saving the state; returns once it is copied. `probe_auc` is of this state, if it was probed."""
        number = int(state.step)
        if number == self.latest:
            return
        params, training = state.params, {"opt_state": state.opt_state, "step": state.step}
        record: dict[str, Any] = {"checksums": {"params": checksums(params), "training": checksums(training)}}
        if probe_auc is not None:
            record[PROBE_AUC] = self._probed[number] = probe_auc
        self._guard(
            lambda: self._manager.save(
                number,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(params),
                    training=ocp.args.StandardSave(training),
                    record=ocp.args.JsonSave(record),
                ),
            ),
        )

    def wait(self) -> None:
        """Return when everything saved so far is on the disk."""
        self._guard(self._manager.wait_until_finished)

    def reached_preemption(self, number: int) -> bool:
        """Whether a process of this run was told to stop, and this is the step at which all agreed to."""
        return self._manager.reached_preemption(number)

    def restore(self, like: Any) -> step.State:
        """The newest whole state, placed as `like`, a State of shapes and shardings, says.

        A damaged one is told of, put aside under RUN/damaged-checkpoints, and the one before is taken.
        """
        found, damaged = self._newest_whole(
            params=like.params, training={"opt_state": like.opt_state, "step": like.step}
        )
        for number in damaged:
            self._put_aside(number)
        if damaged:
            self._manager.reload()
        return step.State(found["params"], found["training"]["opt_state"], found["training"]["step"])

    def restore_params(self, like: Any, which: Which = "latest") -> tuple[Params, int]:
        """Parameters alone, and their step; `like` is a tree of their shapes and shardings.

        Damaged checkpoints are passed over, and told of, unless one was asked for by its number.
        """
        params: Params
        if which == "latest":
            found, damaged = self._newest_whole(params=like)
            params = found["params"]
            return params, next(n for n in reversed(self.steps) if n not in damaged)
        number = self.best if which == "best" else which
        if number is None or number not in self.steps:
            there = f"it has {', '.join(map(str, self.steps))}"
            what = "none of a probed step" if which == "best" else f"none of step {which}"
            raise UserError(f"of the checkpoints of {self._run}, {what} is kept; {there}")
        params = self._read(number, params=like)["params"]
        return params, number

    def _newest_whole(self, **like: Any) -> tuple[Any, list[int]]:
        """The items of the newest checkpoint that can be read, and the steps of those that cannot."""
        failures: dict[int, UserError] = {}
        for number in reversed(self.steps):
            found = None
            try:
                found = self._read(number, **like)
            except UserError as error:
                failures[number] = error
            if distributed.agree(found is not None):
                for failure in failures.values():
                    print(f"jetclr: {failure}; going back to the one of step {number}", file=sys.stderr)
                return found, sorted(failures)
            failures.setdefault(number, UserError(f"another process cannot read the checkpoint of step {number}"))
        raise failures[max(failures)]

    def _read(self, number: int, **like: Any) -> Any:
        items = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
        try:
            found = self._manager.restore(number, args=ocp.args.Composite(record=ocp.args.JsonRestore(), **items))
            changed = [name for name in like if checksums(found[name]) != found["record"]["checksums"][name]]
        except Exception as error:  # Orbax passes on whatever the file system and TensorStore raise
            raise self._unreadable(number, _reason(error)) from error
        if changed:
            raise self._unreadable(number, f"checksums of {' and '.join(changed)} differ")
        return found

    def _unreadable(self, number: int, reason: str) -> UserError:
        return UserError(
            f"checkpoint {number} in {self._folder} cannot be read: it is damaged, or config.json was changed "
            f"({reason})"
        )

    def _put_aside(self, number: int) -> None:
        def move() -> None:
            place = self._run / ASIDE / str(number)
            place.parent.mkdir(exist_ok=True)
            while place.exists():
                place = place.with_name(f"{place.name}-again")
            (self._folder / str(number)).rename(place)

        distributed.together(move, first_only=True)

    def _guard(self, action: Any) -> None:
        try:
            action()
            self._manager.check_for_errors()
        except Exception as error:  # Orbax passes on whatever the file system and TensorStore raise
            raise UserError(
                f"a checkpoint could not be written to {self._folder}: {_reason(error)}; those before it are whole"
            ) from error


class _Best(PreservationPolicy):
    """Keeps the `count` checkpoints with the highest AUC of the probe.

    (Orbax's own record of metrics, and its policy for them, cannot open a folder in which one such record is damaged.)
    """

    def __init__(self, probed: dict[int, float], count: int) -> None:
        self._probed, self._count = probed, count

    def should_preserve(self, checkpoints: Sequence[Any], *, context: PreservationContext) -> Sequence[bool]:
        best = _ranked(self._probed, [info.step for info in checkpoints])[-self._count :] if self._count else []
        return [info.step in best for info in checkpoints]


def _ranked(probed: dict[int, float], steps: Sequence[int]) -> list[int]:
    """Those of `steps` that were probed, the best last; of equals the newest."""
    return sorted((number for number in steps if number in probed), key=lambda number: (probed[number], number))


def checksums(tree: Any) -> list[int]:
    """One number an array, in the order of the tree's leaves: its bits, each word weighted by its odd place, mod 2^32.

    Any change within one word shows, and the sum is exact, so it does not depend on how arrays are spread over devices.
    """
    return [int(x) for x in _checksums(tree)]


@jax.jit
def _checksums(tree: Any) -> list[UInt32[Array, ""]]:
    def one(x: Array) -> UInt32[Array, ""]:
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
        place = jnp.zeros(x.shape, jnp.uint32)
        for axis, size in enumerate(x.shape):
            place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)

    return [one(x) for x in jax.tree.leaves(tree)]


def _reason(error: Exception) -> str:
    """Why reading or writing failed: the system's own words where TensorStore wraps them in pages."""
    text = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
        if os.strerror(number) in text:
            return os.strerror(number)
    return next((line for line in text.splitlines() if line.strip()), type(error).__name__)


def start_run(run: Path, config: Config) -> None:
    """Make the run folder, or check that the one there is of the same config; on every process, written by the first.

    Raises UserError for a folder with something else in it, and for another config, listing what differs. Settings
    that do not touch the trajectory may change; the folder keeps the newest.
    """
    if run.exists() and not run.is_dir():
        raise UserError(f"{run} is a file, not a run folder")
    described = configs.to_dict(config)
    if (run / CONFIG).is_file():
        found = configs.to_dict(read_config(run))
        if changes := configs.differences(found, described):
            raise UserError(
                f"{run} holds a run of another config; use another --workdir, or undo: " + "; ".join(sorted(changes))
            )
        if found == described:
            return
    elif run.exists() and any(run.iterdir()):
        raise UserError(f"{run} holds other files and no {CONFIG}; give an empty or a new folder as --workdir")
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / CONFIG, described)


def read_config(run: Path) -> Config:
    """The Config of a run folder; raises UserError if it is none."""
    if not (run / CONFIG).is_file():
        raise UserError(f"{run} is not a run folder: it has no {CONFIG}")
    return configs.load(run / CONFIG)


@contextmanager
def only_process(run: Path) -> Iterator[None]:
    """Hold the run folder while training in it; raises UserError if another process of this machine does."""
    with open(run / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the system however the process ends
        except BlockingIOError:
            raise UserError(f"another process is training in {run}; wait for it, or use another --workdir") from None
        yield


class Run(NamedTuple):
    """A finished or stopped run, opened for reading."""

    path: Path
    config: Config
    params: Params
    step: int


def open_run(run: Path, which: Which = "latest") -> Run:
    """Config and parameters of a run at a checkpoint, on all devices of this process.

    Raises UserError if there is none. Executes nothing from the folder.
    """
    config = read_config(run)
    if not (run / FOLDER).is_dir():
        raise UserError(f"{run} has no checkpoint yet; pretrain it first")
    with Checkpoints(run) as checkpoints:
        if checkpoints.latest is None:
            raise UserError(f"{run} has no checkpoint yet; pretrain it first")
        like = sharding.abstract(sharding.local_mesh(), jax.eval_shape(lambda: step.init_params(config)))
        return Run(run, config, *checkpoints.restore_params(like, which))
