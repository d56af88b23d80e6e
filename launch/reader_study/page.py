"""The page that readers open: one HTML file with its style, code and images, and nothing that tells the truth.

Images are raw values in base64, one byte or two each, never PNG: an image file's size says how smooth its content is,
and 8 bits are too few for window and level. The text of the page has item names, and as many bytes for each.
"""

import base64
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from launch.reader_study.design import Study
from singan.errors import UserError

PARTS = Path(__file__).parent
MAX_BYTES = 400 * 2**20  # larger pages fail to open in browsers


def build(study: Study, title: str, time_limit: float) -> str:
    """Returns the text of the page; equal studies give equal text.

    Args:
      title: the heading that readers see.
      time_limit: seconds for which an image is shown; 0 for as long as the reader likes.

    Raises:
      UserError: the images are too many or too large for one page.
    """
    wide = any(levels > 256 for levels in study.levels)
    size = sum(image.size for item in study.items for image in item.images) * (2 if wide else 1) * 4 // 3
    if size > MAX_BYTES:
        raise UserError(
            f"the page would have {size / 2**20:.0f} MiB, and browsers open {MAX_BYTES / 2**20:.0f} MiB at most: lower"
            " --num_items, or crop the images"
        )
    parts = {
        "title": html.escape(title),
        "style": _part("study.css"),
        "viewer": _part("viewer.js"),
        "script": _part("study.js"),
        "controls": _part("controls.js"),
        "study": _json(_description(study, title, time_limit, wide)),
        "images": "\n".join(
            f'<script type="text/plain" id="{name}">{_base64(image, wide)}</script>'
            for item in study.items
            for name, image in zip(_image_names(item.id, len(item.images)), item.images, strict=True)
        ),
    }
    # In one pass: what is put in is not looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _part("study.html"))


def token(study: str, item: str, answer: str) -> str:
    """Returns by what the page recognises the right answer of a practice item, so that it cannot be read beforehand.

    FNV-1a of 32 bits, as in study.js. It hides nothing from one who computes; only practice items have one.
    """
    value = 0x811C9DC5
    for byte in f"{study}:{item}:{answer}".encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return f"{value:08x}"


def _description(study: Study, title: str, time_limit: float, wide: bool) -> dict[str, Any]:
    height, width = study.size
    groups = [
        {"name": name, "planes": len(channels), "levels": max(study.levels[c] for c in channels)}
        for name, channels in study.groups.items()
    ]
    items: list[Mapping[str, Any]] = []
    for item in study.items:
        shown = {"id": item.id, "images": _image_names(item.id, len(item.images)), "groups": item.groups}
        items.append(shown | ({"token": token(study.id, item.id, item.answer)} if item.practice else {}))
    return {
        "study": study.id,
        "title": title,
        "mode": study.mode,
        "timeLimit": time_limit,
        "height": height,
        "width": width,
        "bytes": 2 if wide else 1,
        "groups": groups,
        "items": items,
    }


def _image_names(item: str, count: int) -> list[str]:
    return [f"image-{item}-{number}" for number in range(count)]


def _base64(image: np.ndarray, wide: bool) -> str:
    return base64.b64encode(image.astype("<u2" if wide else np.uint8).tobytes()).decode("ascii")


def _json(value: Any) -> str:
    """Returns JSON that no title can end: in a script element, '<' might."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")
