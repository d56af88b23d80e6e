"""Numbers as readers see them: rounded, with intervals, durations and counts."""

import math
from typing import Any

MISSING = "–"


def number(value: Any, digits: int = 3) -> str:
    """Returns a number with three significant digits, whole numbers in full; what is none as a dash."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return MISSING
    if isinstance(value, int) or abs(value) >= 10**digits:
        return f"{value:,.0f}"
    if value and not abs(value) >= 1e-4:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-")
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0) if value else 0
    return f"{value:.{places}f}"


def interval(mean: Any, low: Any, high: Any) -> str:
    """Returns 'mean [low–high]'."""
    return f"{number(mean)} [{number(low, 2)}–{number(high, 2)}]"


def duration(seconds: float) -> str:
    """Returns a time as people say it."""
    if not math.isfinite(seconds):
        return MISSING
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def counted(count: int, what: str) -> str:
    """Returns '1 image', '2 images'."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def shown(value: Any) -> str:
    """Returns a configuration's value as text."""
    if isinstance(value, tuple | list):
        return ", ".join(map(shown, value)) or "()"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else '""'
