"""The processor that XLA:CPU computes with, as far as the bits of a result depend on it besides the program.

Sums over many values (a kernel's gradient, a mean) are cut into as many parts as there are threads, and code is made
for the vector instructions that there are. Both change the last bits of a sum, and training multiplies that. After one
step at 51 pixels a kernel differs by 1.5 % between one thread and two, after 20 by 40 %, and by as much where the last
bit of the first weights is changed instead (2 cores AMD EPYC, jax 0.10.2).
"""

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VECTORS = ("sse", "ssse", "avx", "fma", "f16c", "amx", "neon", "asimd", "sve", "sme")  # how their flags begin


def threads() -> int:
    """Returns how many threads an operation may take: PJRT_NPROC or NPROC, else the cores that this process may use."""
    for name in ("PJRT_NPROC", "NPROC"):  # as XLA reads them
        if re.fullmatch(r"\s*[+-]?\d+\s*", value := os.environ.get(name, "")):
            return max(1, int(value))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def features() -> tuple[str, str]:
    """Returns (name, flags) of the processor, as the machine tells them: what code is made for."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor(), platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    return fields.get("model name", ""), fields.get("flags", fields.get("Features", ""))


def about() -> dict[str, Any]:
    """Returns {'threads', 'processor', 'instructions'}, the last two in words: a name, and the vector instructions."""
    name, flags = features()
    vectors = sorted({flag for flag in flags.split() if flag.startswith(VECTORS)})
    return {"threads": threads(), "processor": name, "instructions": " ".join(vectors) or flags}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns in what two of `about` differ, each in a few words; what one of them does not say is no difference."""
    different = {key for key in now if key in before and before[key] != now[key]}
    changed = []
    if "threads" in different:
        changed.append(f"CPU threads {before['threads']}, now {now['threads']} (NPROC={before['threads']} keeps them)")
    if "processor" in different:
        changed.append(f"processor {before['processor']}, now {now['processor']}")
    elif "instructions" in different:
        changed.append("other vector instructions")
    return changed
