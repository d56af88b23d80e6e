"""Tables of runs as text: for a terminal of 100 columns, or as Markdown."""

import itertools
import textwrap
from collections.abc import Sequence

from launch.compare.compared import Compared
from launch.compare.tables import Part, remarks, summary
from launch.results.quality import Measured
from launch.results.text_table import markdown_table, text_table
from launch.text import printable

WIDTH = 100  # columns
SIDE_BY_SIDE = 4  # more runs than this become rows
LEAST, MOST = 9, 30  # columns of a cell
GAP = 2


def terminal(runs: Sequence[Compared], tables: Sequence[Part]) -> str:
    """Returns the headline tables, at most WIDTH columns wide, and the remarks."""
    shown = [part for part in tables if part.headline]
    # Words stay whole, so that a command can be copied.
    whole = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": "  "}
    said = [textwrap.fill(line, WIDTH, **whole) for line in _said(runs)]
    drawn = [
        f"{printable(part.title)}\n" + "\n".join(_block(rows)) for part in shown for rows in _blocks(cells(runs, part))
    ]
    return "\n\n".join([*drawn, "\n".join(said)])


def markdown(runs: Sequence[Compared], tables: Sequence[Part]) -> str:
    """Returns the headline tables as Markdown."""
    lines = []
    for part in tables:
        if part.headline:
            lines += [f"### {printable(part.title)}", "", markdown_table(cells(runs, part)), ""]
    return "\n".join([*lines, *(f"- {line}" for line in _said(runs))])


def cells(runs: Sequence[Compared], part: Part) -> list[list[str]]:
    """Returns a table's text, head first: runs are columns, or rows where they are many.

    Names and values are of files that anybody may have made: each cell is one printable line.
    """
    names = [one.name for one in runs]
    table = [["", *names], *([row.label, *map(text_of, row.cells)] for row in part.rows)]
    rows = [list(map(printable, row)) for row in table]
    return rows if len(runs) <= SIDE_BY_SIDE else [list(column) for column in zip(*rows, strict=True)]


def text_of(cell: str | Measured) -> str:
    """Returns a cell as text."""
    return cell.text() if isinstance(cell, Measured) else cell


def _said(runs: Sequence[Compared]) -> list[str]:
    return list(map(printable, (summary(runs), *remarks(runs))))


def _blocks(rows: list[list[str]]) -> list[list[list[str]]]:
    """Returns the table in pieces of so many columns as a line has room for; each has the first column."""
    first = min(max(len(row[0]) for row in rows), MOST)
    room = max((WIDTH - first) // (LEAST + 2 + GAP), 1)
    count = len(rows[0]) - 1
    return [[[row[0], *row[1 + at : 1 + at + room]] for row in rows] for at in range(0, count, room)]


def _block(rows: list[list[str]]) -> list[str]:
    """Returns the lines of a table, its cells wrapped."""
    columns = list(zip(*rows, strict=True))
    first = min(max(map(len, columns[0])), MOST)
    each = (WIDTH - first) // max(len(columns) - 1, 1) - GAP
    widths = [first, *(min(max(map(len, column)), max(each, LEAST)) for column in columns[1:])]
    wrapped = []
    for row in rows:
        pairs = zip(row, widths, strict=True)
        parts = [textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in pairs]
        wrapped.append(list(itertools.zip_longest(*parts, fillvalue="")) or [("",) * len(row)])
    lines = text_table(list(itertools.chain(*wrapped)), gap=GAP, min_widths=widths)
    lines.insert(len(wrapped[0]), "-" * (sum(widths) + GAP * (len(widths) - 1)))
    return lines
