"""Verbs about training, whose options are those of the config file that they are given: pretrain, cost."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from jetclr.errors import EXIT_AGAIN, EXIT_INTERRUPTED, UserError
from jetclr.verbs import app


@app.command
def pretrain(config: Positional[Path], workdir: Path) -> None:
    """Pretrain an encoder without labels, on all devices; the same command again resumes.

    Any setting of CONFIG can be overridden: jetclr pretrain CONFIG --help lists them.

    Args:
        config: A config file (.py) or a run's config.json.
        workdir: The run folder: checkpoints, metrics.jsonl, TensorBoard events.
    """
    raise AssertionError("main() parses this verb, whose options depend on the config")


def named_config(arguments: list[str], usage: str) -> Any:
    """The settings of the config file that stands among the arguments; the defaults if only help is asked for."""
    from jetclr import config as configs

    named = [a for a in arguments if not a.startswith("-") and Path(a).suffix in (".py", ".json")]
    if not named and arguments and not arguments[0].startswith("-"):
        named = arguments[:1]
    if not named and not {"-h", "--help"} & set(arguments):
        raise UserError(f"{usage.split()[1]} needs a config file: {usage}")
    return configs.load(Path(named[0])) if named else configs.Config()


def run_pretrain(arguments: list[str]) -> int:
    """Parse `pretrain` against the settings of its config file, and run it."""
    from jetclr import config as configs
    from jetclr import distributed, startup
    from jetclr.train import pretrain as run

    loaded = named_config(arguments, "jetclr pretrain CONFIG.py --workdir RUN")

    @dataclass(frozen=True)
    class Pretrain:
        """Pretrain an encoder without labels; the same command again resumes."""

        config_file: Annotated[Positional[Path], tyro.conf.arg(metavar="CONFIG")]
        """A config file (.py) or a run's config.json."""
        workdir: Path
        """The run folder: checkpoints, metrics.jsonl, TensorBoard events."""
        config: Annotated[configs.Config, tyro.conf.arg(name="")]
        peers: Annotated[distributed.Peers, tyro.conf.arg(name="")] = field(default_factory=distributed.Peers)
        stop_at: int | None = None
        """Stop after this step, saved."""
        profile: bool = False
        """Write a trace of a few steps into the run folder, for TensorBoard's profile plugin."""

    default: Any = Pretrain(tyro.MISSING, tyro.MISSING, loaded)
    try:
        chosen = tyro.cli(Pretrain, prog="jetclr pretrain", args=arguments, default=default)
    except ValueError as error:  # of settings that cannot be
        raise UserError(str(error)) from None
    with distributed.joined(chosen.peers):
        if distributed.several():
            startup.forget_programs()
        outcome = run(chosen.config, chosen.workdir, stop_at=chosen.stop_at, profile=chosen.profile)
        if distributed.is_first():
            state = "finished" if outcome.step >= chosen.config.steps else "stopped, saved; the same command resumes"
            print(f"{chosen.workdir}: step {outcome.step:,} of {chosen.config.steps:,}, {state}", flush=True)
    if outcome.signal is None:
        return 0
    return EXIT_INTERRUPTED if outcome.signal == signal.SIGINT else EXIT_AGAIN


def run_cost(arguments: list[str]) -> int:
    """Parse `cost` against the settings of its config file, and print its table."""
    from jetclr import config as configs
    from jetclr.cost import step_cost
    from jetclr.scaling import Plan, print_cost

    loaded = named_config(arguments, "jetclr cost CONFIG.py")

    @dataclass(frozen=True)
    class Cost:
        """Print what a training step costs on any number of devices: FLOPs, bytes between them, memory, time."""

        config_file: Annotated[Positional[Path], tyro.conf.arg(metavar="CONFIG")]
        """A config file (.py) or a run's config.json."""
        config: Annotated[configs.Config, tyro.conf.arg(name="")]
        plan: Annotated[Plan, tyro.conf.arg(name="")] = field(default_factory=Plan)
        devices: int | None = None
        """How many devices; mesh.data x mesh.fsdp of the config if not given, or 1."""
        fsdp: int | None = None
        """Devices over which parameters are split; mesh.fsdp of the config if not given."""

    default: Any = Cost(tyro.MISSING, loaded)
    try:
        chosen = tyro.cli(Cost, prog="jetclr cost", args=arguments, default=default)
    except ValueError as error:  # of settings that cannot be
        raise UserError(str(error)) from None
    mesh = chosen.config.mesh
    fsdp = mesh.fsdp if chosen.fsdp is None else chosen.fsdp
    devices = max(mesh.data, 1) * fsdp if chosen.devices is None else chosen.devices
    if fsdp < 1 or devices % fsdp:
        raise UserError(f"--fsdp {fsdp} does not divide the {devices} devices")
    print_cost(str(chosen.config_file), chosen.config, step_cost(chosen.config, devices // fsdp, fsdp), chosen.plan)
    return 0
