"""The run folder: made, found again, held while training in it, and opened for reading. Opening executes nothing."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jetclr import config as configs
from jetclr import sharding, step
from jetclr.checkpoint import FOLDER, Checkpoints, Which
from jetclr.config import Config
from jetclr.data.store import write_json
from jetclr.encoder import Params, layer_names
from jetclr.errors import UserError

CONFIG = "config.json"


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


def refuse_unknown_layers(run: Run, layers: Sequence[str]) -> None:
    """Raise UserError, naming those there are, if the run lacks one of `layers`."""
    known = layer_names(run.config.encoder, run.config.head)
    for layer in layers:
        if layer not in known:
            raise UserError(f"{run.path} has no layer {layer!r}; it has {', '.join(known)}")


def parameters_sha256(params: Params) -> str:
    """What tells one set of parameters from any other."""
    digest = hashlib.sha256()
    for array in jax.tree.leaves(params):
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()
