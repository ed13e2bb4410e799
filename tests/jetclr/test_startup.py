"""What the command line does to its process: looked at in processes of their own, since it cannot be undone."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import pytest

from jetclr import startup
from jetclr.cli import main
from jetclr.verbs import training

# A program of some size, whose bits would show another order of sums.
PROGRAM = """
import hashlib, json, warnings
from jetclr import startup
folder = startup.keep_programs()
import jax, jax.numpy as jnp
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
x = jnp.linspace(0, 1, 10_000).reshape(100, 100)
y = jax.jit(lambda x: jnp.tanh(x @ x.T).sum() + jax.nn.softmax(x).std(0))(x)
print(json.dumps({"folder": folder and str(folder), "hits": len(hits), "bits": hashlib.sha256(bytes(y)).hexdigest()}))
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Variables of a process whose caches lie in tmp_path, and to which nobody named another place."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return mine | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}


def start(environment: dict[str, str], code: str = PROGRAM) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def told(process: "subprocess.Popen[str]") -> tuple[Any, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out), err


def kept(home: dict[str, str]) -> list[Path]:
    return sorted(Path(home["XDG_CACHE_HOME"]).glob("jetclr/programs/*/*"))


def test_a_kept_program_is_used_again_with_the_same_bits_and_a_torn_one_is_made_anew(home: dict[str, str]) -> None:
    at_once = [start(home) for _ in range(2)]
    first, second = (told(process)[0] for process in at_once)
    files = kept(home)
    assert files
    again, err = told(start(home))
    assert again["hits"] == len(files)
    assert not err
    good = [file.read_bytes() for file in files]
    for file, content in zip(files, good, strict=True):
        file.write_bytes(content[: len(content) // 2])
    torn, err = told(start(home))
    assert torn["hits"] == 0
    assert not err
    assert kept(home) == files
    assert all(file.stat().st_size > len(content) // 2 for file, content in zip(files, good, strict=True))
    mended, _ = told(start(home))
    assert mended["hits"] == len(files)
    assert {run["bits"] for run in (first, second, again, torn, mended)} == {first["bits"]}
    for folder in (Path(first["folder"]), *list(Path(first["folder"]).parents)[:2]):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_jax_tells_programs_for_other_processors_apart() -> None:
    """If it did not, a kept program could kill a process; the name of the folder is the second wall."""
    code = (
        "import jax; from jax._src.lib import xla_client\n"
        "print(xla_client.get_topology_for_devices(jax.devices()).fingerprint())"
    )
    flags = [os.environ["XLA_FLAGS"], os.environ["XLA_FLAGS"] + " --xla_cpu_max_isa=SSE4_2"]
    found = [start(os.environ | {"XLA_FLAGS": flag}, code) for flag in flags]
    assert len({told(process)[0] for process in found}) == 2


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for this very process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "to be put back")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setattr("warnings.showwarning", lambda *_: None)
    monkeypatch.setattr(startup, "_kept_in", None)
    return tmp_path


def test_a_folder_that_others_may_write_to_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "jetclr").mkdir()
    (here / "jetclr").chmod(0o777)
    assert startup.keep_programs() is None
    assert f"{here / 'jetclr'} is not yours alone" in capsys.readouterr().err
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_a_folder_of_somebody_else_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    me = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: me + 1)
    assert startup.keep_programs() is None
    assert "is not yours alone" in capsys.readouterr().err


def test_without_a_place_nothing_is_kept_and_nothing_said(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "jetclr").write_text("a file in the way")
    assert startup.keep_programs() is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert startup.keep_programs() is None
    assert not capsys.readouterr().err


def test_a_folder_named_to_jax_is_left_alone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert startup.keep_programs() is None
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"
    assert not list(here.iterdir())


def test_the_programs_that_were_not_used_for_longest_go(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = startup.keep_programs()
    assert folder is not None
    for age in range(5):
        file = folder / f"jit_{age}-cache"
        file.write_bytes(bytes(100))
        os.utime(file, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(startup, "PROGRAMS_BYTES", 250)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    startup.keep_programs()
    assert sorted(file.name for file in folder.iterdir()) == ["jit_0-cache", "jit_1-cache"]


def test_programs_can_be_forgotten_before_anything_is_compiled(here: Path) -> None:
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    try:
        startup.forget_programs()  # nothing is kept yet
        assert jax.config.jax_compilation_cache_dir == before  # type: ignore[attr-defined]
        startup.keep_programs()
        startup.forget_programs()
        assert jax.config.jax_compilation_cache_dir is None  # type: ignore[attr-defined]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_machine_has_one_name() -> None:
    assert startup.machine() == startup.machine()
    assert len(startup.machine()) == 16


MEMORY = """
import json, resource
from jetclr import startup
can = startup.keep_memory()
import jax, jax.numpy as jnp
f = jax.jit(lambda x: x + 1)
x = jnp.ones((4096, 4096))  # 64 MB
for _ in range(6): f(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF)
for _ in range(6): f(x).block_until_ready()
after = resource.getrusage(resource.RUSAGE_SELF)
told = {"can": can, "faults": after.ru_minflt - before.ru_minflt, "grown": after.ru_maxrss - before.ru_maxrss}
print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_a_process_that_keeps_its_memory_takes_no_new_pages_for_the_same_work(home: dict[str, str]) -> None:
    found, _ = told(start(home, MEMORY))
    assert found["can"]
    assert found["faults"] <= 16_384  # the pages of one buffer, of six
    assert found["grown"] <= 65_536


def test_main_in_a_process_of_others_sets_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("called")

    monkeypatch.setattr(training, "run_pretrain", lambda words: len(words))
    monkeypatch.setattr(startup, "keep_programs", refuse)
    monkeypatch.setattr(startup, "keep_memory", refuse)
    assert main(["--version"]) == 0
    assert main(["--no-cache", "pretrain", "word"]) == 1
    called: list[str] = []
    monkeypatch.setattr(startup, "keep_programs", lambda: called.append("programs"))
    monkeypatch.setattr(startup, "keep_memory", lambda: called.append("memory"))
    for words, wanted in (
        (["pretrain"], ["programs", "memory"]),
        (["--no-cache", "pretrain"], ["memory"]),
        (["probe", "none"], ["programs"]),
        (["--version"], []),
    ):
        called.clear()
        monkeypatch.setattr(sys, "argv", ["jetclr", *words])
        with suppress(SystemExit):  # tyro's, of words that are missing
            main()
        assert called == wanted
