"""Who started a process, which GPUs are its own, and what is refused: functions of the environment alone.

The variables are those that Slurm 22.05, Open MPI 4.1 and 5.0 and MPICH 4.0 were seen to set.
"""

import sys
from types import SimpleNamespace

import jax
import pytest
from jax._src.clusters import ClusterEnv  # the only place that says which methods there are

from jetclr import distributed, train
from jetclr.distributed import Peers, find_launcher, local_devices
from jetclr.errors import UserError

STEP = {  # a task of srun --nodes=2 --ntasks-per-node=2 --gpus-per-node=4
    "SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "n[0-1]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_GPUS_ON_NODE": "4",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}  # fmt: skip
SERVANT = STEP | {  # what mpirun starts by srun, one a node, and hands down to its processes
    "SLURM_NTASKS": "3", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
}  # fmt: skip
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
OPEN_MPI_5 = {
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}  # fmt: skip
OPEN_MPI_4 = OPEN_MPI_5 | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
MPICH = {"PMI_SIZE": "4", "PMI_RANK": "3", "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}
GKE_TPU = POD | {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}


def install(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Only these of the packages that find_launcher asks for."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name in packages else None)


@pytest.mark.parametrize(
    ("environment", "packages", "launcher"),
    [
        ({}, "", None),
        (STEP, "", "srun"),
        (STEP | {"PMI_SIZE": "4", "PMI_RANK": "3"}, "", "srun"),  # srun --mpi=pmi2
        (STEP | {"SLURM_NTASKS": "1"}, "", None),
        (BATCH, "", None),  # a shell, or the script, of a job of several tasks
        (OPEN_MPI_4, "", "mpirun"),
        (OPEN_MPI_4 | {"OMPI_COMM_WORLD_SIZE": "1"}, "", None),
        (OPEN_MPI_5, "mpi4py", "mpi4py"),
        (MPICH, "mpi4py", "mpi4py"),
        (MPICH | {"PMI_SIZE": "1"}, "", None),
        ({"PMI_SIZE": "4", "PMI_RANK": "3"}, "mpi4py", "mpi4py"),
        (BATCH | OPEN_MPI_4, "", "mpirun"),
        (SERVANT | OPEN_MPI_4, "", "mpirun"),
        (SERVANT | MPICH, "mpi4py", "mpi4py"),
        (SERVANT | OPEN_MPI_4 | {"OMPI_COMM_WORLD_SIZE": "1"}, "", None),
        (POD, "kubernetes", "Kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes", None),
        (POD | OPEN_MPI_4, "kubernetes", "mpirun"),
        ({}, "libtpu", "TPU pod"),
        (GKE_TPU, "libtpu", "TPU pod"),
        (POD, "libtpu kubernetes", "Kubernetes"),
    ],
)
def test_the_launcher_is_told_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], packages: str, launcher: str | None
) -> None:
    install(monkeypatch, *packages.split())
    assert find_launcher(environment) == launcher


@pytest.mark.parametrize(
    ("environment", "extra"), [(OPEN_MPI_5, "mpi"), (MPICH, "mpi"), (SERVANT | OPEN_MPI_5, "mpi"), (POD, "k8s")]
)
def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], extra: str
) -> None:
    install(monkeypatch)
    with pytest.raises(UserError, match=rf"pip install 'jetclr\[{extra}\]'"):
        find_launcher(environment)


def test_jax_knows_every_method_that_it_is_asked_for() -> None:
    known = {cluster.name for cluster in ClusterEnv._cluster_types}
    assert {"slurm", "ompi", "mpi4py"} <= known
    assert {method for method in distributed._JAX_METHOD.values() if method is not None} <= known


ALL: list[int] = []


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, None),
        (STEP, [2, 3]),
        (STEP | {"SLURM_LOCALID": "0"}, [0, 1]),
        (STEP | {"CUDA_VISIBLE_DEVICES": "4,5,6"}, ALL),  # --gpu-bind: of the four of the node it is shown three
        (STEP | {"CUDA_VISIBLE_DEVICES": "2,3"}, ALL),  # --gpus-per-task=2
        (STEP | {"CUDA_VISIBLE_DEVICES": "3"}, ALL),
        (STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2", "SLURM_GPUS_ON_NODE": "3"}, [1]),  # an even share; one stays idle
        ({k: v for k, v in STEP.items() if k != "SLURM_GPUS_ON_NODE"}, [2, 3]),
        ({k: v for k, v in STEP.items() if k != "CUDA_VISIBLE_DEVICES"}, None),
        (STEP | {"CUDA_VISIBLE_DEVICES": ""}, None),
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_LOCALID": "0"}, ALL),
        ({k: v for k, v in SERVANT.items() if k != "CUDA_VISIBLE_DEVICES"}, ALL),  # one task a node, nothing hidden
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "1,2,1"}, [2, 3]),
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURM_LOCALID": "3"}, [3]),
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "3,1", "SLURM_LOCALID": "0"}, ALL),
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "2"}, None),  # nothing is said of its node
        (BATCH | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, None),
        (OPEN_MPI_4 | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [2, 3]),
        (OPEN_MPI_4 | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, ALL),
        (OPEN_MPI_4, None),
        (MPICH | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [2, 3]),
        (SERVANT | OPEN_MPI_4, [2, 3]),
        (SERVANT | MPICH, [2, 3]),
        (BATCH | OPEN_MPI_4 | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [2, 3]),
    ],
)
def test_the_gpus_of_a_process(environment: dict[str, str], devices: list[int] | None) -> None:
    assert local_devices(environment) == devices


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 5, 8])
def test_no_gpu_belongs_to_two_processes_of_a_node(tasks: int) -> None:
    step = STEP | {"SLURM_STEP_TASKS_PER_NODE": f"{tasks}(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}
    shares = [local_devices(step | {"SLURM_LOCALID": str(rank)}) for rank in range(tasks)]
    if tasks == 1:
        assert shares == [ALL]
        return
    taken = [device for share in shares for device in share or []]
    assert taken == list(range(8 // tasks * tasks))
    assert {len(share or []) for share in shares} == {8 // tasks}


@pytest.mark.parametrize(
    "peers",
    [
        Peers(),
        Peers(num_processes=1),
        Peers("host:1234", 2, 1),
        Peers("[fe80::1]:1234", 2, 0),
        Peers("host:1234", 1, 0),
    ],
)
def test_peers_that_will_do(peers: Peers) -> None:
    peers.check()


@pytest.mark.parametrize(
    ("peers", "said"),
    [
        (Peers(num_processes=2), "together, or none"),
        (Peers(coordinator="host:1234"), "together, or none"),
        (Peers(process_id=0), "together, or none"),
        (Peers("host:1234", 2), "together, or none"),
        (Peers("host:1234", 2, 2), "--process-id is 2; with --num-processes 2 it must lie in 0 ... 1"),
        (Peers("host:1234", 2, -1), "--process-id is -1"),
        (Peers("host:1234", 0, 0), "--process-id is 0"),
        (Peers("host", 2, 0), "--coordinator is 'host'; it must be HOST:PORT"),
        (Peers("host:port", 2, 0), "--coordinator is 'host:port'"),
    ],
)
def test_peers_that_will_not_do(peers: Peers, said: str) -> None:
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        peers.check()


@pytest.mark.parametrize(("seen", "fits"), [(2, True), (1, False)])
def test_an_mpi_library_that_is_not_that_of_mpirun_is_refused(
    monkeypatch: pytest.MonkeyPatch, seen: int, fits: bool
) -> None:
    """Else each process would take itself to be alone, and all would train in one folder."""
    world = SimpleNamespace(Get_size=lambda: seen)
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", SimpleNamespace(COMM_WORLD=world))
    if fits:
        distributed._check_mpi(2)
    else:
        with pytest.raises(UserError, match="mpirun started 2 processes, and mpi4py sees 1"):
            distributed._check_mpi(2)


class ApiException(Exception):
    """As that of the Kubernetes client: of no kind that JAX or we know."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Kubernetes API Error: 403 - Forbidden\nIt appears that ..."), "403 - Forbidden$"),
        (ApiException("\nno route\n"), "no route$"),
        (ApiException(), "ApiException$"),
        (ValueError("coordinator_address should be defined."), "should be defined"),
    ],
)
def test_peers_that_cannot_be_joined_are_told_of_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(**how: object) -> None:
        raise error

    monkeypatch.setattr("jax.distributed.initialize", fail)
    with pytest.raises(UserError, match=f"cannot join the others: .*{said}"):
        distributed._initialize("the others")


def test_a_host_with_tpus_may_be_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nobody(**how: object) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("jax.distributed.initialize", find_nobody)
    distributed._initialize("the others", maybe_alone=True)


@pytest.mark.parametrize("raised", [jax.errors.JaxRuntimeError, ValueError])  # in a step, and as one is begun
def test_a_broken_connection_is_a_lost_peer(raised: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "several", lambda: True)
    with pytest.raises(distributed.PeerLost, match="lost contact with another process"), train._abandoning():
        raise raised("UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:8104: Connection reset by peer")


@pytest.mark.parametrize("several", [True, False])
def test_other_faults_of_ours_are_no_lost_peer(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "several", lambda: several)
    with pytest.raises(ValueError, match=r"^shapes differ$"), train._abandoning():
        raise ValueError("shapes differ")
