"""With this folder on PYTHONPATH, a process' clock is FAULT_CLOCK seconds off."""

import os
import time

_true, _offset = time.time, float(os.environ.get("FAULT_CLOCK", "0"))
time.time = lambda: _true() + _offset
