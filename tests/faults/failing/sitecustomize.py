"""With this folder on PYTHONPATH, opening the file FAULT_OPEN gives an I/O error, as a failing disk does."""

import errno
import os
import sys


def _fail(event: str, arguments: tuple) -> None:
    if event == "open" and str(arguments[0]) == os.environ.get("FAULT_OPEN"):
        raise OSError(errno.EIO, os.strerror(errno.EIO), arguments[0])


sys.addaudithook(_fail)
