"""The one exception that means: the user can mend this; and how a command ends."""


class UserError(Exception):
    """A mistake in what the user gave: its text is one plain sentence, shown without a traceback."""


EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
EXIT_AGAIN = 75
"""Exit status EX_TEMPFAIL (sysexits.h): nothing is lost, and the same command goes on."""
