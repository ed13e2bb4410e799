"""The command line: one command is parsed and run, and whatever goes wrong is told in a sentence."""

import logging
import sys

from jetclr import UserError, __version__, startup
from jetclr.errors import EXIT_ERROR, EXIT_INTERRUPTED
from jetclr.signals import sigterm_exits

from jetclr.verbs import app, stores, training, sweeping, judging, anomalies, exporting, measuring  # noqa: F401  # isort: skip  (the help's order)

NO_CACHE = "--no-cache"
COMPILE = ("pretrain", "sweep", "embed", "probe", "report", "benchmark", "anomaly", "score", "export")
DESCRIPTION = (
    f"jetclr --version prints the version; jetclr {NO_CACHE} VERB ... neither keeps nor uses compiled programs."
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error told in one sentence, 130 after Ctrl-C.

    SIGTERM ends it with status 143, cleaned up; pretraining, also of a sweep, saves and ends with 75, to be started
    again, and so it ends when another process of the run is lost. Without `arguments` this is a program, of those of
    the command line, and sets up its process (`jetclr.startup`).
    """
    if arguments is None:
        arguments = sys.argv[1:]
        _set_up(arguments)
    if arguments[:1] == [NO_CACHE]:
        arguments = arguments[1:]
    if arguments == ["--version"]:
        print(f"jetclr {__version__}")
        return 0
    # Orbax comments on its own options and logs tracebacks of errors that we tell in a sentence.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        if arguments[:1] == ["pretrain"]:
            return training.run_pretrain(arguments[1:])
        if arguments[:1] == ["sweep"]:
            return sweeping.run_sweep_verb(arguments[1:])
        if arguments[:1] == ["cost"]:
            return training.run_cost(arguments[1:])
        with sigterm_exits():
            app.cli(prog="jetclr", args=arguments, description=DESCRIPTION)
    except UserError as error:
        print(f"jetclr: {error}", file=sys.stderr)
        return EXIT_ERROR
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        print(f"jetclr: {error.strerror or error}{place}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("jetclr: interrupted; nothing half-written was kept", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _set_up(arguments: list[str]) -> None:
    if arguments and arguments[0] in COMPILE:
        startup.keep_programs()
    if arguments[:1] == ["pretrain"] or arguments[:2] == [NO_CACHE, "pretrain"]:
        startup.keep_memory()  # others gain nothing, and would grow by arrays of all sizes


if __name__ == "__main__":
    sys.exit(main())
