"""Which channels of an image are shown together, and the words that files are named with."""

import re
from collections.abc import Sequence

from singan.source_image import COLOURS


def channel_groups(channels: Sequence[str]) -> dict[str, list[int]]:
    """Returns the pictures that show an image, as {name: channel numbers}: red, green, blue together, others alone."""
    names = list(channels)
    groups: dict[str, list[int]] = {}
    index = 0
    while index < len(names):
        if tuple(names[index : index + 3]) == COLOURS:
            groups["rgb"] = [index, index + 1, index + 2]
            index += 3
        else:
            groups[names[index]] = [index]
            index += 1
    return groups


def file_word(name: str) -> str:
    """Returns a channel's name as it may stand in a file name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
