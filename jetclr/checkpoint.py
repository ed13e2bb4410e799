"""Checkpoints of a run, by Orbax: one atomic folder a step; each process writes its share. Nothing in them is code.

A checkpoint holds three items: `params` (those that are used: the running mean, if there is one), `training` (optimizer
state, step, and what else is needed to go on) and `record`: the AUC of the validation probe at that step, if it was
probed, and checksums of all arrays, since a bit that flips on a disk goes unnoticed by the file formats. The position
in the data is the step. Reading a run needs only the first and the last, and its `config.json`.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

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

from jetclr import distributed, step
from jetclr.config import Checkpoint
from jetclr.encoder import Params
from jetclr.errors import UserError

FOLDER = "checkpoints"
ASIDE = "damaged-checkpoints"
PROBE_AUC = "probe_auc"

WRITING_SECONDS = 600
"""A checkpoint that takes longer to write ends the run: a process that has failed would leave the others waiting."""

# Faults of the system and not of the checkpoint, which may be whole.
PASSING = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ENOMEM)

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
        self._probed: dict[int, float | None] = {}  # the AUC of each checkpoint; None: not probed
        options: dict[str, Any] = {"read_only": True, "create": False}
        if keep is not None:
            policies: list[PreservationPolicy] = [LatestN(keep.keep), _Best(self._probed, keep.best)]
            if keep.keep_every:
                policies.append(EveryNSteps(keep.keep_every))
            options = {
                "preservation_policy": AnyPreservationPolicy(policies),
                # What a killed process was writing is a folder of another name; it goes when the next one starts.
                "cleanup_tmp_directories": True,
                "single_host_load_and_broadcast": distributed.several(),  # file systems differ in what they show
                "async_options": ocp.AsyncOptions(timeout_secs=WRITING_SECONDS),
            }
        self._manager = _Manager(self._folder, options=ocp.CheckpointManagerOptions(**options))
        self._reader = _reader(self._folder) if distributed.several() else self._manager
        self._recall()

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
        return sorted(map(int, self._manager.all_steps()))

    @property
    def latest(self) -> int | None:
        """The newest step saved, or None."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """The step with the highest AUC of the validation probe, or None if no step that is kept was probed."""
        ranked = _ranked(self._probed, self.steps)
        return ranked[-1] if ranked else None

    def _recall(self) -> None:
        """Read how the checkpoints that are there were probed; of a damaged record nothing is known, nor said yet."""
        self._probed.clear()
        for number in self.steps:
            with contextlib.suppress(Exception):
                record = self._reader.restore(number, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
                found = record.get(PROBE_AUC)
                self._probed[number] = None if found is None else float(found)
        self._probed.update((n, auc) for n, auc in distributed.from_first(list(self._probed.items())))

    def save(self, state: step.State, probe_auc: float | None = None) -> None:
        """Start saving the state; returns once it is copied. `probe_auc` is of this state, if it was probed."""
        number = int(state.step)
        if number == self.latest:
            return
        params, training = state.frozen, _beside(state)
        record: dict[str, Any] = {"checksums": {"params": checksums(params), "training": checksums(training)}}
        if probe_auc is not None:
            record[PROBE_AUC] = probe_auc
        self._probed[number] = probe_auc
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

    def check(self) -> None:
        """Raise UserError if what is being written in the background has failed; returns at once."""
        self._guard(lambda: None)

    def restore(self, like: Any) -> step.State:
        """The newest whole state, placed as `like`, a State of shapes and shardings, says.

        A damaged one is told of, put aside under RUN/damaged-checkpoints, and the one before is taken.
        """
        _, found, damaged = self._newest_whole(params=like.frozen, training=_beside(like))
        for number in damaged:
            self._put_aside(number)
        if damaged:
            self._manager.reload()
            self._recall()
        return _whole_state(like, found["params"], found["training"])

    def restore_params(self, like: Any, which: Which = "latest") -> tuple[Params, int]:
        """Parameters alone, and their step; `like` is a tree of their shapes and shardings.

        Damaged checkpoints are passed over, and told of, unless one was asked for by its number.
        """
        while True:
            there = self.steps
            try:
                return self._params(like, which)
            except UserError:  # perhaps a run that goes on has put others in their place
                self._manager.reload()
                self._recall()
                if self.steps == there:
                    raise

    def _params(self, like: Any, which: Which) -> tuple[Params, int]:
        params: Params
        if which == "latest":
            number, found, _ = self._newest_whole(params=like)
            params = found["params"]
            return params, number
        chosen = self.best if which == "best" else which
        if chosen is None or chosen not in self.steps:
            there = f"it has {', '.join(map(str, self.steps))}"
            what = "none of a probed step" if which == "best" else f"none of step {which}"
            raise UserError(f"of the checkpoints of {self._run}, {what} is kept; {there}")
        found = self._read(chosen, params=like)
        if changed := _changed(found, ["params"]):
            raise self._damaged(chosen, changed)
        params = found["params"]
        return params, chosen

    def _newest_whole(self, **like: Any) -> tuple[int, Any, list[int]]:
        """The newest checkpoint that can be read: its step, its items, and the steps of those that cannot.

        All processes agree on it, although each may read files of its own.
        """
        failures: dict[int, UserError] = {}
        for number in reversed(distributed.from_first(self.steps)):
            found, failure, grade = None, UserError(f"another process cannot read the checkpoint of step {number}"), 0
            try:
                found = self._read(number, **like)
            except _Damaged as error:
                failure, grade = error, 1
            except UserError as error:
                failure, grade = error, 2
            grade = distributed.worst(grade)
            if grade == 0 and (changed := _changed(found, list(like))):
                failure, grade = self._damaged(number, changed), 1
            if grade == 2:
                raise distributed.Shared(str(failure))
            if grade == 0:
                for told in failures.values() if distributed.is_first() else ():
                    print(f"jetclr: {told}; going back to the one of step {number}", file=sys.stderr)
                return number, found, sorted(failures)
            failures[number] = failure
        raise distributed.Shared(str(failures[max(failures)]))

    def _read(self, number: int, **like: Any) -> Any:
        """Items and record of one checkpoint; exchanges nothing with other processes.

        Raises _Damaged, or UserError for what is no fault of the checkpoint.
        """
        items = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
        try:
            return self._reader.restore(number, args=ocp.args.Composite(record=ocp.args.JsonRestore(), **items))
        except Exception as error:  # Orbax passes on whatever the file system and TensorStore raise
            text = f"{error!r} {error}"
            if any(words in text for words in ("RESOURCE_EXHAUSTED", "MemoryError", *map(os.strerror, PASSING))):
                raise UserError(
                    f"checkpoint {number} in {self._folder} cannot be read now: {_reason(error)}; nothing was changed"
                ) from error
            raise self._damaged(number, _reason(error)) from error

    def _damaged(self, number: int, reason: str) -> "_Damaged":
        return _Damaged(
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


def _beside(state: step.State) -> dict[str, Any]:
    """What a checkpoint holds beside the frozen parameters, to go on training. What a run does not have is no entry."""
    kept: dict[str, Any] = {"opt_state": state.opt_state, "step": state.step}
    if state.own:
        kept["own"] = state.own
    if state.average is not None:
        kept["trained"] = state.params
        kept["average_of_own"] = {name: state.average[name] for name in state.own}
    if jax.tree.leaves(state.memory):
        kept["memory"] = state.memory
    return kept


def _whole_state(like: step.State, frozen: Params, kept: dict[str, Any]) -> step.State:
    """The state that was saved as frozen parameters and what is beside them."""
    average = None if like.average is None else frozen | kept.get("average_of_own", {})
    params = frozen if like.average is None else kept["trained"]
    memory = kept.get("memory", like.memory)
    return step.State(params, kept["opt_state"], kept["step"], kept.get("own", {}), average, memory)


class _Damaged(UserError):
    """A checkpoint that does not hold what was saved."""


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, without questions of its own about preemption.

    It asks JAX's runtime from a thread, about steps long past; the runtime counts on being asked by the loop alone.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


def _reader(folder: Path) -> ocp.CheckpointManager:
    """A manager that reads without waiting for other processes: one of them may fail, and leave the others waiting."""
    this = jax.process_index()
    apart = ocp.options.MultiprocessingOptions(primary_host=this, active_processes={this})
    return _Manager(
        folder,
        options=ocp.CheckpointManagerOptions(read_only=True, create=False, multiprocessing_options=apart),
    )


def _changed(found: Any, items: Sequence[str]) -> str:
    """Which items of a checkpoint do not have the checksums of its record, in words; all processes ask together."""
    try:
        kept = found["record"]["checksums"]
        names = [name for name in items if checksums(found[name]) != kept[name]]
    except (KeyError, TypeError):
        return "its record has no checksums"
    return f"checksums of {' and '.join(names)} differ" if names else ""


class _Best(PreservationPolicy):
    """Keeps the `count` checkpoints with the highest AUC of the probe, and those of which it is not known.

    (Orbax's own record of metrics, and its policy for them, cannot open a folder in which one such record is damaged.)
    """

    def __init__(self, probed: dict[int, float | None], count: int) -> None:
        self._probed, self._count = probed, count

    def should_preserve(self, checkpoints: Sequence[Any], *, context: PreservationContext) -> Sequence[bool]:
        best = _ranked(self._probed, [info.step for info in checkpoints])[-self._count :] if self._count else []
        return [info.step in best or (self._count > 0 and info.step not in self._probed) for info in checkpoints]


def _ranked(probed: dict[int, float | None], steps: Sequence[int]) -> list[int]:
    """Those of `steps` that were probed, the best last; of equals the newest."""
    known = ((probed.get(number), number) for number in steps)
    return [number for _, number in sorted((auc, number) for auc, number in known if auc is not None)]


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
