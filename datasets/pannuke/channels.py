"""How the channels of a fold's masks are stored, found in its first patches: not every copy keeps PanNuke's order."""

import dataclasses
import itertools

import numpy as np
from scipy import ndimage

from datasets.errors import DataError
from datasets.pannuke.instances import CLASSES
from datasets.pannuke.npy import NpyRows

_PATCHES = 64  # that are looked at
_BACKGROUND = len(CLASSES)  # the channel that it is in
_AGREEMENT = 0.98  # of a patch's pixels that are either background or of a nucleus
_EIGHT = np.ones((3, 3), bool)  # pixels that meet at a corner are connected


@dataclasses.dataclass(frozen=True)
class MaskChannels:
    """How a fold's masks are stored.

    Attributes:
      background_first: The background is the first channel and not the last.
      binary: No channel numbers its nuclei: each is 0 or one value everywhere.
    """

    background_first: bool
    binary: bool

    def in_order(self, masks: np.ndarray) -> np.ndarray:
        """Returns one patch's masks [h, w, 6] as PanNuke has them: nuclei numbered, the background last.

        Nuclei that have no numbers are the connected pieces of their channel; nuclei that touch become one.
        """
        if self.background_first:
            masks = np.roll(masks, -1, axis=-1)
        if self.binary:
            pieces = [np.asarray(ndimage.label(masks[..., c] != 0, _EIGHT)[0]) for c in range(len(CLASSES))]  # type: ignore[index]
            masks = np.stack([*pieces, masks[..., _BACKGROUND]], axis=-1)
        return masks

    def notes(self) -> list[str]:
        """Returns what the user should know of it, a line each."""
        lines = []
        if self.background_first:
            lines.append("the first channel of masks.npy is the background, which PanNuke has last: read in that order")
        if self.binary:
            lines.append(
                "masks.npy does not number its nuclei: connected pieces are taken as nuclei, and those that touch count"
                " as one"
            )
        return lines


def look(masks: NpyRows, place: str) -> MaskChannels:
    """Returns how the masks of a fold are stored.

    Raises:
      DataError: The background is neither the last channel nor the first, so that the classes cannot be told.
    """
    votes = np.zeros(len(CLASSES) + 1, int)
    values: list[set[float]] = [set() for _ in votes]
    pieces = np.zeros(len(votes), int)  # the most that a patch has in a channel
    for patch in itertools.islice(masks, _PATCHES):
        shown = patch > 0
        fits = [channel for channel in range(len(votes)) if _is_background(channel, shown, patch)]
        if fits:  # a class of one nucleus fits as well, the others and the background being what it leaves over
            votes[max(fits, key=lambda channel: shown[..., channel].sum())] += 1
        for channel in range(len(votes)):
            values[channel].update(np.unique(patch[..., channel][shown[..., channel]]).tolist())
            pieces[channel] = max(pieces[channel], ndimage.label(shown[..., channel], _EIGHT)[1])  # type: ignore[index]
    background = _BACKGROUND if votes[_BACKGROUND] == votes.max() else int(votes.argmax())
    if background not in (0, _BACKGROUND):
        raise DataError(
            f"{place} has the background in channel {background + 1} of {len(votes)}: bring the channels into PanNuke's"
            f" order, {', '.join(CLASSES)}, background"
        )
    classes = [channel for channel in range(len(votes)) if channel != background]
    ids = set().union(*(values[channel] for channel in classes))
    return MaskChannels(background == 0, len(ids) == 1 and pieces[classes].max() > 1)


def _is_background(channel: int, shown: np.ndarray, patch: np.ndarray) -> bool:
    """Returns whether a channel is not 0, and always the same, just where all others are 0."""
    here = shown[..., channel]
    others = np.delete(shown, channel, axis=-1).any(-1)
    return (
        bool(here.any() and others.any())
        and len(np.unique(patch[..., channel][here])) == 1
        and np.mean(here != others) >= _AGREEMENT
    )
