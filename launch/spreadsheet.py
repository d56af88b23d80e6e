"""Tables as CSV, whose text of others a spreadsheet takes as text, and a terminal too."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from launch.text import without_controls

FORMULA = tuple("=+-@＝＋－＠")  # what a cell begins with that spreadsheets calculate; the wide ones in some languages


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns the lines of a table, its head first; None and '' are empty cells.

    Text that would be a formula gets an apostrophe in front, as one types it into a spreadsheet; numbers stay numbers,
    negative ones too. Control characters are written as escapes.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = without_controls(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
