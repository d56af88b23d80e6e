"""With this folder on PYTHONPATH, a process' clock is FAULT_CLOCK seconds off, and its host is called FAULT_HOST."""

import os
import socket
import time

_true, _offset = time.time, float(os.environ.get("FAULT_CLOCK", "0"))
time.time = lambda: _true() + _offset
if os.environ.get("FAULT_HOST"):
    socket.gethostname = lambda: os.environ["FAULT_HOST"]
