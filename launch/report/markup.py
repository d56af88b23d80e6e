"""HTML in which everything is escaped that is not made here, numbers as people read them, and pictures as data."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PARTS = Path(__file__).parent
LONG = 36  # characters of a cell that may take several lines
_VOID = {"img", "br"}


class Html(str):
    """Text that is HTML already."""


def escape(content: Any) -> Html:
    """Returns content as HTML: escaped unless it is Html already; None as nothing; iterables one after another."""
    if content is None:
        return Html("")
    if isinstance(content, Html):
        return content
    if isinstance(content, Iterable) and not isinstance(content, str):
        return Html("".join(map(escape, content)))
    # Control characters are not allowed in HTML, and lone surrogates cannot be written.
    clean = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\ufffd", str(content)).encode("utf-8", "replace").decode()
    return Html(html.escape(clean))


def tag(name: str, *content: Any, **attributes: Any) -> Html:
    """Returns an element.

    Attributes: a final _ falls away, another _ becomes -; None and False are left out, True has no value.
    """
    said = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{said}>" if name in _VOID else f"<{name}{said}>{escape(content)}</{name}>")


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]], label: str, words: Sequence[int] = ()) -> Html:
    """Returns a table that scrolls inside itself; the first cell of a row is its heading.

    Args:
      label: what it is, for those who do not see it.
      words: columns, besides the first, that hold words, not numbers.
    """
    kind = ["word" if column == 0 or column in words else None for column in range(len(head))]
    top = tag("tr", [tag("th", cell, scope="col", class_=kind[i]) for i, cell in enumerate(head)])
    body = [
        tag("tr", _heading(row[0]), [tag("td", c, class_=kind[i + 1] or _kind(c)) for i, c in enumerate(row[1:])])
        for row in rows
    ]
    whole = tag("table", tag("thead", top), tag("tbody", body))
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=label)


def _heading(cell: Any) -> Html:
    return tag("th", cell, scope="row", class_="long" if len(str(cell)) > LONG and not isinstance(cell, Html) else None)


def _kind(cell: Any) -> str | None:
    """A reason stands where a number should be, and may take several lines."""
    return "reason" if len(str(cell)) > LONG else None


def facts(pairs: Iterable[tuple[str, Any]]) -> Html:
    """Returns a list of names and values."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs], class_="facts")


def picture(png: bytes, alt: str) -> Html:
    """Returns an image that the page holds itself."""
    return tag("img", src=f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}", alt=alt)


def fill(template: str, parts: Mapping[str, Any]) -> str:
    """Returns one of the templates beside this module with its {{names}} filled in, in one pass, escaped."""
    text = part(template)
    return re.sub(r"\{\{(\w+)\}\}", lambda match: escape(parts[match[1]]), text)


def part(name: str) -> Html:
    """Returns a file beside this module."""
    return Html((PARTS / name).read_text(encoding="utf-8"))
