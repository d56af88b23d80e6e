"""A row of metrics.jsonl: where in the run it was said, and what."""

from collections.abc import Mapping
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, float | int | str | list | None]
ROW_KEYS = ("global_step", "scale", "scale_step")


def place(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a row says where and when it belongs."""
    return {key: row[key] for key in (*ROW_KEYS, "time") if key in row}
