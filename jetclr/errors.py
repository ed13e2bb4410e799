"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in what the user gave: its text is one plain sentence, shown without a traceback."""


EXIT_AGAIN = 75
"""Exit status EX_TEMPFAIL (sysexits.h): nothing is lost, and the same command goes on."""
