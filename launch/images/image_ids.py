"""Ids of images made from the names of their files: short, unique, fit for a file name on any system."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from launch.images import readers

MAX_ID_LENGTH = 80  # leaves room for what commands add to an id in a file name of at most 255 bytes
# Names that Windows keeps for itself.
RESERVED = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)


def unique_ids(names: Sequence[str]) -> list[str]:
    """Returns an id for each of the relative paths: as short as is unique."""
    forms = [_id_forms(name) for name in names]
    levels = [0] * len(names)
    while True:
        ids = [form[level] for form, level in zip(forms, levels, strict=True)]
        owners: dict[str, list[int]] = {}
        for i, image_id in enumerate(ids):
            owners.setdefault(image_id.casefold(), []).append(i)  # some systems do not tell A.png from a.png
        clashes = [i for group in owners.values() if len(group) > 1 for i in group if levels[i] < len(forms[i]) - 1]
        if not clashes:
            return ids
        for i in clashes:
            levels[i] += 1


def _id_forms(name: str) -> tuple[str, ...]:
    stem, suffix = readers.split_suffix(PurePosixPath(name).name)
    full = _safe(name)
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return _safe(stem), _safe(stem + suffix.lower()), full, f"{full[: MAX_ID_LENGTH - 9]}_{digest}"


def _safe(text: str) -> str:
    """Returns `text` in letters, digits, '_' and '-', as any system takes it for a file name."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    plain = re.sub(r"[^A-Za-z0-9-]+", "_", letters)[:MAX_ID_LENGTH].strip("_-")
    return f"image_{plain}".rstrip("_") if not plain or RESERVED.fullmatch(plain) else plain
