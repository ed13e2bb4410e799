"""The verb about many runs, whose options are those of the config file that it is given: sweep."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from jetclr.errors import EXIT_AGAIN, EXIT_INTERRUPTED, UserError
from jetclr.signals import sigterm_exits
from jetclr.verbs import app
from jetclr.verbs.training import named_config


@app.command
def sweep(config: Positional[Path], space: Path, workdir: Path) -> None:
    """Search settings, or make a table of rows and seeds; the same command again goes on, several share the work.

    jetclr sweep --help CONFIG lists all options, and the settings of CONFIG, which can be overridden.

    Args:
        config: A config file (.py) or a run's config.json.
        space: Your Python file, which defines `space(trial, config)` for a search or `rows(config)` for a table.
        workdir: The sweep's folder: a run folder for each trial, sweep.json, sweep.md.
    """
    raise AssertionError("main() parses this verb, whose options depend on the config")


def run_sweep_verb(arguments: list[str]) -> int:
    """Parse `sweep` against the settings of its config file, and carry it out."""
    from jetclr import config as configs
    from jetclr.sweep.options import Options
    from jetclr.sweep.sweep import run_sweep

    loaded = named_config(_without_space(arguments), "jetclr sweep CONFIG.py --space SPACE.py --workdir FOLDER")

    @dataclass(frozen=True)
    class Sweep:
        """Search settings, or make a table of rows and seeds; the same command again goes on, several share the work.

        A process that is killed loses nothing: its run is taken up by the next one.
        """

        config_file: Annotated[Positional[Path], tyro.conf.arg(metavar="CONFIG")]
        """A config file (.py) or a run's config.json."""
        space: Path
        """Your Python file, which defines `space(trial, config)` for a search or `rows(config)` for a table."""
        workdir: Path
        """The sweep's folder: a run folder for each trial or row and seed, sweep.json, sweep.md."""
        config: Annotated[configs.Config, tyro.conf.arg(name="")]
        options: Annotated[Options, tyro.conf.arg(name="")] = field(default_factory=Options)

    default: Any = Sweep(tyro.MISSING, tyro.MISSING, tyro.MISSING, loaded)
    try:
        chosen = tyro.cli(Sweep, prog="jetclr sweep", args=arguments, default=default)
    except ValueError as error:  # of settings that cannot be
        raise UserError(str(error)) from None
    with sigterm_exits():
        stopped = run_sweep(chosen.config, chosen.space, chosen.workdir, chosen.options)
    if stopped is None:
        return 0
    return EXIT_INTERRUPTED if stopped == signal.SIGINT else EXIT_AGAIN


def _without_space(arguments: list[str]) -> list[str]:
    """The arguments without the space file, which ends in .py as the config does."""
    at = arguments.index("--space") if "--space" in arguments else len(arguments)
    return arguments[:at] + arguments[at + 2 :]
