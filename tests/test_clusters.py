"""The files of docs/clusters: run with stand-ins for srun, sbatch, scontrol and gcloud, or read as Kubernetes would."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jetclr.cli import main
from jetclr.data.columns import read_batches
from jetclr.logs import read_metrics
from jetclr.run import open_run
from tests.conftest import CONFIG
from tests.processes import PATIENCE, free_port

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs/clusters"
SCRIPTS = sorted(FOLDER.glob("*.sh"))

# What every stand-in does first: one line of JSON a call.
RECORD = f"""#!/usr/bin/env bash
{shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "${{0##*/}}" "$@" >> "$CALLS"
"""


class Shell:
    """A folder with stand-ins for commands, and what was asked of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.calls_file = folder / "calls"
        self.calls_file.touch()

    def add(self, name: str, body: str = "", record: bool = True) -> None:
        """A stand-in that records its call and does `body`."""
        path = self.bin / name
        path.write_text((RECORD if record else "#!/usr/bin/env bash\n") + body)
        path.chmod(0o755)

    def start(self, script: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """The script, with the stand-ins first in its PATH, and nothing of a job that the tests may run in."""
        outside = {name: value for name, value in os.environ.items() if not re.match("SLURM_|OMPI_|PMI_", name)}
        return subprocess.Popen(
            ["bash", str(script), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=outside | {"PATH": f"{self.bin}:{outside['PATH']}", "CALLS": str(self.calls_file)} | environment,
        )

    def run(self, script: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of the script."""
        process = self.start(script, *arguments, **environment)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def calls(self, name: str) -> list[list[str]]:
        """The arguments of each call of a stand-in."""
        calls = [json.loads(line) for line in self.calls_file.read_text().splitlines()]
        return [arguments for command, *arguments in calls if command == name]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    folder = tmp_path / "a folder"
    folder.mkdir()
    return Shell(folder)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
    assert script.read_text().startswith("#!/usr/bin/env bash\n# ")


# Slurm


def directives(script: Path) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script.read_text(), re.MULTILINE)
    return dict(found)


def test_slurm_job_asks_for_what_its_comments_say() -> None:
    options = directives(FOLDER / "slurm.sh")
    assert options["ntasks-per-node"] == "1"
    assert options["signal"] == "TERM@120"  # no B: the steps get it, the script does not
    assert "requeue" in options
    assert options["open-mode"] == "append"
    lines = (FOLDER / "slurm.sh").read_text().splitlines()
    commands = [number for number, line in enumerate(lines) if line and not line.startswith("#")]
    assert max(n for n, line in enumerate(lines) if line.startswith("#SBATCH")) < commands[0]  # else sbatch ignores it


SLURM_JOB = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3"}


@pytest.mark.parametrize(
    ("status", "restarts", "requeued"),
    [
        (0, None, False),
        (75, None, True),
        (75, "99", True),
        (75, "100", False),
        (1, None, False),
        (2, None, False),
        (130, None, False),
        (134, None, False),
        (137, "3", False),
    ],
)
def test_slurm_job_is_queued_again_after_75_alone(
    shell: Shell, status: int, restarts: str | None, requeued: bool
) -> None:
    shell.add("srun", f"exit {status}")
    shell.add("scontrol")
    count = {} if restarts is None else {"SLURM_RESTART_COUNT": restarts}
    ended, _, err = shell.run(
        FOLDER / "slurm.sh", "my config.py", "runs/a b", "--data.train", "a store", **SLURM_JOB, **count
    )
    assert ended == status
    assert shell.calls("scontrol") == ([["requeue", "7"]] if requeued else [])
    assert ("submit it again" in err) == (status == 75 and not requeued)
    (call,) = shell.calls("srun")
    start = call.index("jetclr")
    assert call[start:] == [
        "jetclr", "pretrain", "my config.py", "--workdir", "runs/a b", "--data.train", "a store",
    ]  # fmt: skip
    assert call[:start] == ["--kill-on-bad-exit=0", "--cpus-per-task=3"]


def test_slurm_job_that_cannot_be_queued_again_says_so(shell: Shell) -> None:
    shell.add("srun", "exit 75")
    shell.add("scontrol", "exit 1")
    status, _, err = shell.run(FOLDER / "slurm.sh", "c.py", "run", **SLURM_JOB)
    assert status == 75
    assert "cannot be queued again" in err


def test_slurm_job_without_its_arguments_starts_nothing(shell: Shell) -> None:
    shell.add("srun")
    status, _, err = shell.run(FOLDER / "slurm.sh", "c.py", **SLURM_JOB)
    assert status == 2
    assert "usage: sbatch" in err
    assert shell.calls("srun") == []


# Two tasks on one node, as srun starts them; ends with the worst status, as srun does.
SRUN = """
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS=2 SLURM_NODEID=0 SLURM_STEP_NODELIST=127.0.0.1 SLURM_STEP_TASKS_PER_NODE=2 SLURM_GPUS_ON_NODE=4
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
    tasks+=($!)
done
printf '%s\\n' "${tasks[@]}" > tasks
worst=0
for task in "${tasks[@]}"; do
    wait "$task"
    status=$?
    ((status > worst)) && worst=$status
done
exit $worst
"""


def test_two_tasks_of_a_slurm_job_train_together_and_are_queued_again(shell: Shell, stores: dict[str, Path]) -> None:
    """Real processes: they find each other, keep all their CPU devices, stop together on SIGTERM, saved."""
    shell.add("srun", SRUN)
    shell.add("scontrol")
    shell.add("jetclr", f'exec {shlex.quote(sys.executable)} -m jetclr.cli "$@"', record=False)
    settings = ("--data.train", str(stores["train"]), "--probe.every", "0", "--steps", "100000", "--log.every", "1")
    process = shell.start(
        FOLDER / "slurm.sh", str(CONFIG), "run", *settings, **SLURM_JOB, PYTHONPATH=str(ROOT),
        JAX_COORDINATOR_PORT=str(free_port()), JAX_NUM_CPU_DEVICES="2", CUDA_VISIBLE_DEVICES="0,1,2,3",
    )  # fmt: skip
    run, tasks = shell.folder / "run", shell.folder / "tasks"
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and len(read_metrics(run)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    if process.poll() is None:
        for task in tasks.read_text().split():
            os.kill(int(task), signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, err
    assert shell.calls("scontrol") == [["requeue", "7"]]
    assert err.count("waiting for the other processes of this srun job") == 2
    assert "4 device(s)" in err
    reached = open_run(run).step
    assert reached >= 3
    assert f"step {reached:,} of 100,000, stopped, saved" in out


class Array:
    """What slurm-array.sh handed to sbatch, run here one job after the other."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        shell.add("sbatch", 'cat > "job-$(wc -l < "$CALLS")"; echo "$(wc -l < "$CALLS");cluster"')
        shell.add("srun", 'while [[ $1 == --* ]]; do shift; done; exec "$@"')
        shell.add("jetclr")

    def submit(self, *arguments: str) -> tuple[int, str, str]:
        self.shell.calls_file.write_text("")
        return self.shell.run(FOLDER / "slurm-array.sh", *arguments)

    def run_job(self, number: int, **environment: str) -> list[list[str]]:
        """What a job asked of jetclr."""
        before = len(self.shell.calls("jetclr"))
        status, _, err = self.shell.run(self.shell.folder / f"job-{number}", **environment)
        assert status == 0, err
        return self.shell.calls("jetclr")[before:]


def test_slurm_array_embeds_every_part_once_and_joins_them(
    shell: Shell, run: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands that the jobs would run are run, but in this process."""
    array = Array(shell)
    monkeypatch.chdir(shell.folder)
    monkeypatch.setattr("jetclr.embed.BATCH", 32)
    store = str(stores["test"])
    (shell.folder / "out").mkdir()
    status, out, err = array.submit(
        "3", "out/e f.h5", "jetclr", "embed", str(run), store, "PART", "--layers", "layer_1", "embedding"
    )
    assert status == 0, err
    assert out == "3 parts: job 1; then out/e f.h5: job 2\n"
    parts, join = shell.calls("sbatch")
    assert "--array=0-2" in parts
    assert "--dependency=afterok:1" in join
    assert "--kill-on-invalid-dep=yes" in join

    for part in range(3):
        (command,) = array.run_job(1, SLURM_ARRAY_TASK_ID=str(part))
        assert main(command) == 0, command
        assert array.run_job(1, SLURM_ARRAY_TASK_ID=str(part)) == []  # it is there
    (command,) = array.run_job(2)
    assert main(command) == 0
    assert main(["embed", run.as_posix(), store, "out/at-once.h5", "--layers", "layer_1", "embedding"]) == 0
    columns = ("layer_1", "embedding", "label")
    joined, at_once = (
        next(iter(read_batches(shell.folder / "out" / name, columns, 300))) for name in ("e f.h5", "at-once.h5")
    )
    for name in columns:
        np.testing.assert_array_equal(joined[name], at_once[name])

    status, _, err = array.submit("3", "out/e f.h5", "jetclr", "embed", str(run), store, "PART")
    assert status == 2
    assert "exists already" in err
    assert shell.calls("sbatch") == []


def test_slurm_array_generates_stores(shell: Shell) -> None:
    array = Array(shell)
    words = ("jetclr", "generate", "--process", "qcd", "--jets", "1000", "--seed", "2")
    assert array.submit("4", "data/qcd", *words, "PART")[0] == 0
    folder = shell.folder / "data/qcd.parts"
    expected = [*words[1:2], "--shard", "3/4", *words[2:], str(folder / "3")]
    assert array.run_job(1, SLURM_ARRAY_TASK_ID="3") == [expected]
    assert array.run_job(2) == [["join", *(str(folder / str(part)) for part in range(4)), "data/qcd"]]

    status, _, err = array.submit("4", "data/qcd", *words, "data/other")
    assert status == 2
    assert "must name its output PART" in err
    assert shell.calls("sbatch") == []


# TPU


def slices(shell: Shell, requests: str, nodes: str, statuses: str) -> list[str]:
    """Run tpu-pod.sh against a Google that answers so, one after the other; what was asked of it, in a word each."""
    for name, answers in (("requests", requests), ("nodes", nodes), ("statuses", statuses)):
        (shell.folder / name).write_text("".join(f"{answer}\n" for answer in answers.split()))
    shell.add("sleep", record=False)
    shell.add(
        "gcloud",
        """
        pop() { head -n 1 "$1" | sed s/none//; sed -i 1d "$1"; }
        case $* in
        *'queued-resources describe'*) pop requests ;;
        *'tpu-vm describe'*) pop nodes ;;
        *'jetclr pretrain'*) exit "$(pop statuses)" ;;
        esac
        """,
    )
    status, _, _ = shell.run(FOLDER / "tpu-pod.sh", "configs/a b.py", "runs/a", "--seed", "3")
    said = [" ".join(call) for call in shell.calls("gcloud")]
    assert all("--zone=" in call and call.startswith("compute tpus ") for call in said)
    words = {"queued-resources create": "create", "queued-resources delete": "delete", "jetclr pretrain": "train",
             "pip install": "setup"}  # fmt: skip
    asked = [word for call in said for text, word in words.items() if text in call]
    for call in shell.calls("gcloud"):
        if "jetclr pretrain" in " ".join(call):
            assert "--worker=all" in call
            (command,) = (word.removeprefix("--command=") for word in call if word.startswith("--command="))
            assert shlex.split(command)[-6:] == ["pretrain", "configs/a b.py", "--workdir", "runs/a", "--seed", "3"]
    return [*asked, str(status)]


@pytest.mark.parametrize(
    ("requests", "nodes", "statuses", "asked"),
    [
        # Asked for, waited for, trained, given back.
        ("none WAITING_FOR_RESOURCES ACTIVE ACTIVE", "none none CREATING READY", "0", "create setup train delete 0"),
        # Stopped, saved, and still there.
        ("ACTIVE ACTIVE", "READY READY", "75 0", "setup train setup train delete 0"),
        # Preempted: the connection breaks off, and later the slice is gone.
        (
            "ACTIVE ACTIVE SUSPENDING none ACTIVE",
            "READY PREEMPTED none none READY",
            "255 0",
            "setup train delete create setup train delete 0",
        ),
        # An error: it is kept to be looked at.
        ("ACTIVE ACTIVE", "READY READY", "1", "setup train 1"),
        ("FAILED", "none", "", "1"),
    ],
    ids=["new", "stopped", "preempted", "error", "refused"],
)
def test_tpu_slices_are_asked_for_again_until_the_run_has_finished(
    shell: Shell, requests: str, nodes: str, statuses: str, asked: str
) -> None:
    assert slices(shell, requests, nodes, statuses) == asked.split()


# Kubernetes


def documents() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all((FOLDER / "jobset.yaml").read_text())}


def job() -> dict[str, Any]:
    (replicated,) = documents()["JobSet"]["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1  # JAX counts the pods of one Job
    found: dict[str, Any] = replicated["template"]["spec"]
    return found


def pod() -> dict[str, Any]:
    found: dict[str, Any] = job()["template"]["spec"]
    return found


def test_pods_find_each_other_as_jax_looks_for_them() -> None:
    """JAX reads the pod and its Job, takes pod 0 to be at JOB-0.JOBSET, and `parallelism` processes to be there."""
    jobset = documents()["JobSet"]
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert jobset["spec"]["network"]["enableDNSHostnames"] is True
    assert jobset["spec"]["network"].get("subdomain", jobset["metadata"]["name"]) == jobset["metadata"]["name"]
    assert job()["completionMode"] == "Indexed"
    assert job()["parallelism"] == job()["completions"] > 1
    assert not pod().get("hostNetwork")

    account = documents()["ServiceAccount"]["metadata"]["name"]
    binding, role = documents()["RoleBinding"], documents()["Role"]
    assert pod()["serviceAccountName"] == account
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account}]
    assert binding["roleRef"]["kind"] == "Role"
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    allowed = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {("", "pods", "list"), ("batch", "jobs", "get"), ("", "services", "list")} <= allowed


def test_pods_share_a_volume_and_get_sigterm_themselves() -> None:
    (container,) = pod()["containers"]
    assert container["command"][:2] == ["jetclr", "pretrain"]
    assert "args" not in container
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounted) == {volume["name"] for volume in pod()["volumes"]}
    for flag in ("--workdir", "--data.train"):
        path = container["command"][container["command"].index(flag) + 1]
        assert path.startswith(mounted["shared"] + "/")
    assert pod()["terminationGracePeriodSeconds"] >= 60


def pod_action(status: int, conditions: Mapping[str, str]) -> str:
    """What Kubernetes does about a pod that failed so: the action of the first rule that matches."""
    (container,) = pod()["containers"]
    for rule in job()["podFailurePolicy"]["rules"]:
        assert len(rule) == 2
        if wanted := rule.get("onPodConditions"):
            if any(conditions.get(one["type"]) == one["status"] for one in wanted):
                return str(rule["action"])
        else:
            codes = rule["onExitCodes"]
            assert codes["operator"] == "In"
            assert codes["containerName"] == container["name"]
            assert 0 not in codes["values"]
            if status in codes["values"]:
                return str(rule["action"])
    return "Count"


@pytest.mark.parametrize(
    ("status", "conditions", "action"),
    [
        (75, {}, "Ignore"),
        (75, {"DisruptionTarget": "True"}, "Ignore"),
        (1, {"DisruptionTarget": "True"}, "Ignore"),
        (137, {"DisruptionTarget": "True"}, "Ignore"),
        (1, {}, "FailJob"),
        (2, {}, "FailJob"),
        (134, {}, "Count"),
        (137, {}, "Count"),
    ],
)
def test_pods_start_again_unless_they_told_of_an_error(status: int, conditions: dict[str, str], action: str) -> None:
    assert pod()["restartPolicy"] == "Never"  # or Kubernetes refuses podFailurePolicy
    assert pod_action(status, conditions) == action
    assert job()["backoffLimit"] == 0  # one counted failure fails the Job: the JobSet decides
    policy = documents()["JobSet"]["spec"]["failurePolicy"]
    (rule,) = policy["rules"]  # anything else restarts
    assert rule["action"] == "FailJobSet"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert policy["maxRestarts"] > 0


# All of them


@pytest.fixture(scope="module")
def options() -> Callable[[str], set[str]]:
    """The options that a verb has."""
    known: dict[str, set[str]] = {}

    def look(verb: str) -> set[str]:
        if verb not in known:
            words = ["pretrain", str(CONFIG), "--help"] if verb == "pretrain" else [verb, "--help"]
            result = subprocess.run(
                [sys.executable, "-m", "jetclr.cli", *words], capture_output=True, text=True, check=True, cwd=ROOT
            )
            known[verb] = set(re.findall(r"--[a-z][\w.-]*", result.stdout))
        return known[verb]

    return look


def commands() -> list[list[str]]:
    """Every `jetclr` command line in docs/clusters.md and beside it, from the verb on."""
    found: list[list[str]] = []
    for path in [ROOT / "docs/clusters.md", *sorted(FOLDER.iterdir())]:
        text = path.read_text().replace("\\\n", " ")
        found += [line.split() for line in re.findall(r"\bjetclr +((?:pretrain|generate|embed|join) [^`\n\"]*)", text)]
    found.append(pod()["containers"][0]["command"][1:])
    return found


def test_every_command_has_options_that_there_are(options: Callable[[str], set[str]]) -> None:
    seen = set()
    for verb, *words in commands():
        flags = {re.split(r"[=\])]", word)[0] for word in words if re.match(r"--[a-z]", word)}
        assert flags <= options(verb), (verb, words)
        seen |= {(verb, flag) for flag in flags}
    assert {("pretrain", "--workdir"), ("pretrain", "--data.train"), ("pretrain", "--coordinator")} <= seen
    assert {verb for verb, *_ in commands()} == {"pretrain", "generate", "embed", "join"}


def test_every_file_is_named_on_the_page() -> None:
    page = (ROOT / "docs/clusters.md").read_text()
    for path in FOLDER.iterdir():
        assert f"(clusters/{path.name})" in page
    for link in re.findall(r"\]\(([^)#:]+)\)", page):
        assert (ROOT / "docs" / link).exists(), link
