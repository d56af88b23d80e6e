"""Tables of Markdown, and the titles of metrics; launch.results.text_table has those of aligned text."""

from collections.abc import Sequence
from typing import Any

from launch.results.numbers import number

TITLES = {
    "swd": "SWD",
    "random_sifid": "SIFID, random features",
    "diversity": "diversity",
    "ms_ssim": "MS-SSIM",
    "rmse": "RMSE",
    "nearest_patch_ratio": "nearest-patch ratio",
    "copied": "copied",
}


def markdown_table(rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table; the first row is its head."""
    head, *lines = ([str(cell).replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *lines])


def signed(value: float | None) -> str:
    """Returns a difference with its sign."""
    if not value:
        return "0"
    return f"{'+' if value > 0 else '−'}{number(abs(value))}"
