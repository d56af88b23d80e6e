"""What a device spends its time on: reading the traces that jax.profiler writes."""

import collections
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

# Operations that run others, whose time is that of the operations inside them.
_AROUND = ("while", "conditional", "call", "command_buffer")


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation of a compiled program, as often as it ran while a trace was taken."""

    name: str
    seconds: float
    count: int


def operations(directory: Path) -> list[Operation]:
    """Returns the operations of the newest trace in a directory, longest first; none where no device was traced.

    Args:
      directory: what jax.profiler.start_trace was given.

    Seconds are summed over devices and threads; what ran inside a loop is counted by itself and the loop is not.
    """
    traces = sorted(directory.glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not traces:
        return []
    totals: Mapping[str, list[float]] = collections.defaultdict(lambda: [0.0, 0])
    with warnings.catch_warnings():
        # jaxlib 0.12 makes a type without a module, of which Python 3.13 warns: an error there would abort the process.
        warnings.simplefilter("ignore", DeprecationWarning)
        for name, nanoseconds in _events(jax.profiler.ProfileData.from_file(str(traces[-1]))):
            if not name.startswith(_AROUND):
                totals[name][0] += nanoseconds / 1e9
                totals[name][1] += 1
    rows = [Operation(name, seconds, int(count)) for name, (seconds, count) in totals.items()]
    return sorted(rows, key=lambda row: -row.seconds)


def table(rows: list[Operation], most: int = 10) -> str:
    """Returns the longest operations as lines of text, with their share of all operations' time."""
    whole = sum(row.seconds for row in rows) or 1.0
    lines = [f"{'ms':>10}  {'share':>5}  {'times':>6}  operation"]
    lines += [
        f"{1e3 * row.seconds:10.2f}  {row.seconds / whole:5.1%}  {row.count:6d}  {row.name}" for row in rows[:most]
    ]
    return "\n".join(lines)


def _events(data: Any) -> Iterator[tuple[str, float]]:
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                if line.name == "XLA Ops":  # a TPU's line of them
                    yield event.name.split(" = ")[0].lstrip("%"), event.duration_ns
                    continue
                name = next((value for key, value in event.stats if key == "hlo_op"), None)
                if name is not None and not event.name.startswith("end: "):
                    yield str(name), event.duration_ns
