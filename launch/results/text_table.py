"""Rows of cells as text: in aligned columns for a terminal, or as Markdown."""

import itertools
from collections.abc import Sequence
from typing import Any


def text_table(
    rows: Sequence[Sequence[str]], align: str = "<", *, gap: int = 2, min_widths: Sequence[int] = ()
) -> list[str]:
    """Returns one line for each row, without trailing spaces; every column is as wide as its longest cell.

    Args:
      rows: of equal length.
      align: '<' (left) or '>' (right) for each column from the first on; columns beyond it are aligned right.
      gap: spaces between columns.
      min_widths: of the columns from the first on, in characters.
    """
    least = itertools.chain(min_widths, itertools.repeat(0))
    widths = [max(width, *map(len, column)) for width, column in zip(least, zip(*rows, strict=True), strict=False)]
    signs = align.ljust(len(widths), ">")
    cells = ([f"{cell:{sign}{width}}" for cell, sign, width in zip(row, signs, widths, strict=False)] for row in rows)
    return [(" " * gap).join(line).rstrip() for line in cells]


def markdown_table(rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table; the first row is its head."""
    head, *lines = ([str(cell).replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *lines])
