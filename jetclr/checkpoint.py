"""Checkpoints of a run, by Orbax: state and data position in one atomic folder a step. Nothing in them is code.

A checkpoint holds three items: `params`, `training` (optimizer state and step) and `data` (Grain's position). Reading
a run needs only the first, and its `config.json`.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grain.checkpoint
import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from jetclr import config as configs
from jetclr import sharding, step
from jetclr.config import Config
from jetclr.data.store import write_json
from jetclr.encoder import Params
from jetclr.errors import UserError

FOLDER = "checkpoints"
CONFIG = "config.json"


class Checkpoints:
    """The checkpoints under a run folder, written in the background; close it (or use `with`) to be sure of the last.

    Every call raises UserError if a checkpoint could not be written (a full disk, say); those before it stay whole.
    """

    def __init__(self, run: Path, keep: int, *, read_only: bool = False) -> None:
        self._folder = run.absolute() / FOLDER
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=not read_only, read_only=read_only),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            self._manager.close()
        except Exception:  # what failed in the background; if it is why we leave, it has been told
            if exception[0] is None:
                raise

    @property
    def latest(self) -> int | None:
        """The newest step saved, or None."""
        return self._manager.latest_step()

    def save(self, state: step.State, batches: Any) -> None:
        """Start saving the state and the position of Grain's iterator; returns once they are copied."""
        number = int(state.step)
        if number == self.latest:
            return
        self._guard(
            lambda: self._manager.save(
                number,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    training=ocp.args.StandardSave({"opt_state": state.opt_state, "step": state.step}),
                    data=grain.checkpoint.CheckpointSave(batches),
                ),
            ),
        )

    def wait(self) -> None:
        """Return when everything saved so far is on the disk."""
        self._guard(self._manager.wait_until_finished)

    def restore(self, like: step.State, batches: Any, mesh: Mesh) -> step.State:
        """The newest state, placed on the mesh; `batches` is set to the position saved with it."""
        abstract = _on(mesh, like)
        found = self._read(
            params=ocp.args.StandardRestore(abstract.params),
            training=ocp.args.StandardRestore({"opt_state": abstract.opt_state, "step": abstract.step}),
            data=grain.checkpoint.CheckpointRestore(batches),
        )
        return step.State(found["params"], found["training"]["opt_state"], found["training"]["step"])

    def restore_params(self, like: Any, mesh: Mesh) -> Params:
        """The newest parameters alone; `like` is a tree of their shapes."""
        params: Params = self._read(params=ocp.args.StandardRestore(_on(mesh, like)))["params"]
        return params

    def _read(self, **items: Any) -> Any:
        try:
            return self._manager.restore(self.latest, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax passes on whatever the file system and TensorStore raise
            raise UserError(
                f"checkpoint {self.latest} in {self._folder} cannot be read: it is damaged, or config.json was changed "
                f"({_reason(error)})"
            ) from error

    def _guard(self, action: Any) -> None:
        try:
            action()
            self._manager.check_for_errors()
        except Exception as error:  # Orbax passes on whatever the file system and TensorStore raise
            raise UserError(
                f"a checkpoint could not be written to {self._folder}: {_reason(error)}; those before it are whole"
            ) from error


def _reason(error: Exception) -> str:
    """Why reading or writing failed: the system's own words where TensorStore wraps them in pages."""
    text = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
        if os.strerror(number) in text:
            return os.strerror(number)
    return next((line for line in text.splitlines() if line.strip()), type(error).__name__)


def _on(mesh: Mesh, tree: Any) -> Any:
    place = sharding.everywhere(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def start_run(run: Path, config: Config) -> None:
    """Make the run folder, or check that the one there is of the same config.

    Raises UserError for a folder with something else in it, and for another config, listing what differs. Settings of
    logging, checkpoints and the probe may change; the folder keeps the newest.
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


def open_run(run: Path) -> Run:
    """Config and newest parameters of a run; raises UserError if there are none. Executes nothing from the folder."""
    config = read_config(run)
    if not (run / FOLDER).is_dir():
        raise UserError(f"{run} has no checkpoint yet; pretrain it first")
    mesh = sharding.make_mesh(jax.device_count())
    with Checkpoints(run, keep=1, read_only=True) as checkpoints:
        if checkpoints.latest is None:
            raise UserError(f"{run} has no checkpoint yet; pretrain it first")
        like = jax.eval_shape(lambda: step.init_params(config))
        return Run(run, config, checkpoints.restore_params(like, mesh), checkpoints.latest)
