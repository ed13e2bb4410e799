"""Several processes as one run: JAX's own runtime finds the peers, watches them, and agrees on when to stop.

A process is alone unless a launcher (srun, mpirun, an indexed Kubernetes Job, a TPU pod) or the flags say otherwise.
"""

import importlib.util
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jetclr.errors import EXIT_AGAIN, UserError

HEARTBEAT_SECONDS = 60
"""A peer that has been silent for so long is taken to be dead, and every process ends."""
MESSAGE_BYTES = 2000

# How JAX's runtime finds the peers under each launcher; None: by trying what it knows, since these have no name there.
_JAX_METHOD = {"srun": "slurm", "mpirun": "ompi", "mpi4py": "mpi4py", "Kubernetes": None, "TPU pod": None}


@dataclass(frozen=True)
class Peers:
    """The processes of a run by hand; None: found from the launcher, or none at all."""

    coordinator: str | None = None
    """HOST:PORT of process 0, which the others connect to."""
    num_processes: int | None = None
    """How many processes there are; 1: this one alone, whatever the launcher."""
    process_id: int | None = None
    """Which of them this one is, from 0."""

    def check(self) -> None:
        """Raise UserError unless all three are given, or none, or one process alone."""
        given = [x is not None for x in (self.coordinator, self.num_processes, self.process_id)]
        if self.num_processes == 1 or not any(given):
            return
        if not all(given):
            raise UserError("give --coordinator HOST:PORT, --num-processes N and --process-id I together, or none")
        count, index = self.num_processes or 0, self.process_id or 0
        if not 0 <= index < count:
            raise UserError(f"--process-id is {index}; with --num-processes {count} it must lie in 0 ... {count - 1}")
        if not re.fullmatch(r".+:\d{1,5}", self.coordinator or ""):
            raise UserError(f"--coordinator is {self.coordinator!r}; it must be HOST:PORT")


class Abandon(UserError):
    """An error of one process alone: its peers do not follow, so it must leave without waiting for them."""

    status = 1


class PeerLost(Abandon):
    """Another process has left; nothing is wrong with this one, and the same command goes on."""

    status = EXIT_AGAIN


class Shared(UserError):
    """An error that every process of the run has been told of."""


@contextmanager
def joined(peers: Peers) -> Iterator[None]:
    """While inside, this process is one of `peers`; before it, nothing may be asked of JAX.

    Leaving, all wait for each other for a while, unless this process fails alone (Abandon, or what nobody foresaw):
    then it ends at once, since to leave in order is to wait for the others. With peers, errors are told here: who waits
    in vain is aborted by JAX's runtime, and would say nothing any more. Raises UserError if the peers cannot be found
    or reached.
    """
    _connect(peers)
    try:
        yield
    except Abandon as error:
        print(f"jetclr: {error}", file=sys.stderr, flush=True)
        os._exit(error.status)
    except UserError as error:  # the same on all
        if not several():
            raise
        print(f"jetclr: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except Exception as error:
        if not several():
            raise
        if isinstance(error, OSError):
            print(f"jetclr: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)
    finally:
        if several():
            jax.distributed.shutdown()


def _connect(peers: Peers) -> None:
    peers.check()
    if peers.num_processes == 1:
        return
    if peers.coordinator is not None:
        # By hand all devices that are visible are this process's: what it may see is the user's to say.
        _initialize(
            f"the other processes at {peers.coordinator}",
            coordinator_address=peers.coordinator,
            num_processes=peers.num_processes,
            process_id=peers.process_id,
            cluster_detection_method="deactivate",
        )
    elif launcher := find_launcher(os.environ):
        if launcher == "mpi4py":
            _check_mpi(_mpi_size(os.environ))
        local = local_devices(os.environ)
        _initialize(
            f"the other processes of this {launcher} job",
            maybe_alone=launcher == "TPU pod",
            cluster_detection_method=_JAX_METHOD[launcher],
            **({} if local is None else {"local_device_ids": local}),
        )


def find_launcher(environment: Mapping[str, str]) -> str | None:
    """What started this process together with others: a key of `_JAX_METHOD`, or None if it is alone."""
    # mpirun may start its own servants by srun, whose variables then reach its processes too, and say another size.
    if {"OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS"} & set(environment):
        return _mpi_launcher(environment)
    # A shell inside an allocation has the job's variables, but no step.
    if {"SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST"} <= set(environment):
        if int(environment.get("SLURM_NTASKS") or 1) > 1:
            return "srun"
    elif "PMI_SIZE" in environment:
        return _mpi_launcher(environment)
    has_tpu = importlib.util.find_spec("libtpu") is not None
    if has_tpu and {"TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"} & set(environment):
        return "TPU pod"  # in Kubernetes too: the node says who the others are
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        if importlib.util.find_spec("kubernetes") is None:
            raise UserError(
                "this is a pod of an indexed Job, and its peers are found with the package kubernetes, which is not "
                "installed: pip install 'jetclr[k8s]', or give --num-processes 1 if the pod works alone"
            )
        return "Kubernetes"
    return "TPU pod" if has_tpu else None


def _mpi_launcher(environment: Mapping[str, str]) -> str | None:
    if _mpi_size(environment) == 1:
        return None
    if "OMPI_MCA_orte_hnp_uri" in environment:
        return "mpirun"
    if importlib.util.find_spec("mpi4py") is None:  # Open MPI 5, MPICH and Intel MPI tell it to MPI programs only
        raise UserError(
            "this mpirun tells its processes of each other through mpi4py, which is not installed: "
            "pip install 'jetclr[mpi]', or give --coordinator, --num-processes and --process-id"
        )
    return "mpi4py"


def _mpi_size(environment: Mapping[str, str]) -> int:
    return int(environment.get("OMPI_COMM_WORLD_SIZE") or environment.get("PMI_SIZE") or 1)


def _check_mpi(size: int) -> None:
    """Raise UserError if mpi4py does not see the processes that mpirun started: each would run alone."""
    try:
        seen = importlib.import_module("mpi4py.MPI").COMM_WORLD.Get_size()
    except (ImportError, RuntimeError) as error:
        raise UserError(f"mpi4py cannot be used: {error}") from None
    if seen != size:
        raise UserError(
            f"mpirun started {size} processes, and mpi4py sees {seen}: it uses another MPI library than mpirun; "
            "build it for that of mpirun: pip install --no-binary mpi4py mpi4py"
        )


def local_devices(environment: Mapping[str, str]) -> list[int] | None:
    """Which of the visible GPUs are this process's, by number; none named: all; None: JAX takes that of the local rank.

    A process that has a node, or its own GPUs, to itself uses all it sees; processes that see the same GPUs share them
    out evenly.
    """
    rank, local = _place_on_node(environment)
    if local == 1:
        return []
    visible = [x for x in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if x]
    if not visible or local == 0:
        return None
    # --gpus-per-task and --gpu-bind: Slurm shows every task its own GPUs of those that the step has on the node.
    bound = "SLURM_GPUS_ON_NODE" in environment and len(visible) < int(environment["SLURM_GPUS_ON_NODE"])
    if bound or len(visible) < local:
        return []
    share = len(visible) // local
    return list(range(rank * share, (rank + 1) * share))


def _place_on_node(environment: Mapping[str, str]) -> tuple[int, int]:
    """Which process of this node it is, and of how many; (0, 0) if nothing says so."""
    for rank, count in (
        ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ):
        if rank in environment and count in environment:
            return int(environment[rank]), int(environment[count])
    # Tasks a node, such as 4(x2),3: two nodes with four and one with three.
    tasks = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE") or "")
    counts = [int(count) for count, nodes in tasks for _ in range(int(nodes or 1))]
    node = int(environment.get("SLURM_NODEID") or 0)
    if "SLURM_LOCALID" not in environment or node >= len(counts):
        return 0, 0
    return int(environment["SLURM_LOCALID"]), counts[node]


def _initialize(whom: str, *, maybe_alone: bool = False, **how: Any) -> None:
    # On the CPU XLA exchanges nothing between processes unless it is told how; elsewhere, or alone, it has no effect.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if not maybe_alone:
        print(f"waiting for {whom}", file=sys.stderr, flush=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # clusters that JAX looks for and does not find
            jax.distributed.initialize(
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=HEARTBEAT_SECONDS, **how
            )
    except Exception as error:  # JAX passes on whatever the clients of MPI and of Kubernetes raise
        if maybe_alone and isinstance(error, ValueError) and "should be defined" in str(error):
            return
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"cannot join {whom}: {reason}") from None


def is_first() -> bool:
    """Whether this process writes what only one may write."""
    return jax.process_index() == 0


def several() -> bool:
    """Whether there are other processes."""
    return jax.process_count() > 1


def together(action: Callable[[], None], *, first_only: bool = False) -> None:
    """Do something on every process (or on the first alone), and go on only when it went well on all.

    A UserError or OSError anywhere is raised everywhere, as Shared, so that no process waits for one that has left.
    """
    failure = ""
    if is_first() or not first_only:
        try:
            action()
        except (UserError, OSError) as error:
            if not several():
                raise
            failure = str(error) or type(error).__name__
    if not several():
        return
    told = np.zeros(MESSAGE_BYTES, np.uint8)
    text = json.dumps(failure[: MESSAGE_BYTES // 8]).encode()
    told[: len(text)] = np.frombuffer(text, np.uint8)
    said = [json.loads(bytes(row).rstrip(b"\0")) for row in multihost_utils.process_allgather(told)]
    if failure:
        raise Shared(failure)
    for process, message in enumerate(said):
        if message:
            raise Shared(f"process {process}: {message}")


def told_to_stop(asked: int) -> bool:
    """Whether a process of this run got SIGTERM, and all stop when they ask for the `asked`-th time."""
    return bool(multihost_utils.reached_preemption_sync_point(asked))


def worst(grade: int) -> int:
    """The largest grade that any process gives."""
    return int(np.max(multihost_utils.process_allgather(np.int32(grade)))) if several() else grade


def from_first(value: Any) -> Any:
    """The value, of JSON, that the first process has."""
    if not several():
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(size, np.uint8)
    padded[: len(text)] = text[:size]
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))))
