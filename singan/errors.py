"""The one exception that means: the user can put this right. And the exit code that means: start it again."""

RESUMABLE = 75  # of a command that was stopped early and goes on when it is started again (EX_TEMPFAIL of sysexits.h)


class UserError(ValueError):
    """Something the user gave is wrong; the text is one line that says what to do.

    Commands print the text and exit with code 2; Python callers get an ordinary ValueError.
    """
