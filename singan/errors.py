"""The one exception that means: the user can put this right."""


class UserError(ValueError):
    """Something the user gave is wrong; the text is one line that says what to do.

    Commands print the text and exit with code 2; Python callers get an ordinary ValueError.
    """
