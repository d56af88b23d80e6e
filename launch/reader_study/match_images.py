"""Makes real and generated images alike in all that is not their content: channels, size, range, steps of grey.

A file's type, its value range and the gaps between its values would betray which images are real: 8-bit photographs
have 256 values, a generator's floats have any. So every image is mapped to [0, 1], and levels.py rounds both kinds to
one grid.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from launch.images.channels import channel_groups, file_word
from launch.images.image_folders import StudyImage
from launch.images.readers import COLOURS, GREY
from launch.reader_study import levels
from singan.errors import UserError
from singan.model.pyramid import resize_matrix

KINDS = ("real", "generated")
FITS = ("refuse", "crop", "resize")
SCALINGS = ("common", "image")
HIGH_PERCENTILE = 99.8  # of an image's own range: single bright pixels do not darken the rest
TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class MatchedImages:
    """Images that can stand in one study.

    Attributes:
      real, generated: uint16 [C, H, W] each, from 0 to levels - 1 of the channel.
      channels: the C names.
      levels: the C numbers of levels, 2 to 65536; equal where channels are shown together as one colour.
      note: how values were mapped, for the person who makes the study.
    """

    real: list[np.ndarray]
    generated: list[np.ndarray]
    channels: tuple[str, ...]
    levels: tuple[int, ...]
    note: str


def match_images(
    real: Sequence[StudyImage],
    generated: Sequence[StudyImage],
    channels: Sequence[str] = (),
    fit: str = "refuse",
    scaling: str = "common",
    key: int = 0,
) -> MatchedImages:
    """Returns both kinds on one grid, in one range, at one depth.

    Args:
      real, generated: at least one each.
      channels: which channels to keep, in this order; all where not given. Where files do not name their channels, they
        are taken in order.
      fit: what to do with different sizes: 'refuse'; 'crop' to the middle of the smallest height and width; 'resize'
        larger images to the smallest, as training does. Padding is no choice: it would show which kind was smaller.
      scaling: 'common' maps one range of values, the same for all images, to [0, 1]; 'image' maps each image's own.
      key: seeds the noise that fills gaps between values.

    Raises:
      UserError: they differ in channels, size or units, and no argument says what to do about it.
    """
    names = _channel_names(real, generated, channels)
    sides = [[_pick(image, names) for image in side] for side in (real, generated)]
    mapped, steps, note = _to_unit(sides, names, scaling)
    for kind, side in zip((real, generated), mapped, strict=True):
        _check_planes(kind, side)
    sizes = {plane.shape for side in mapped for image in side for plane in image}
    if len(sizes) > 1:
        mapped, steps = _fit(mapped, steps, sizes, fit)
    rng = np.random.default_rng(key)
    counts, noises = [0] * len(names), [0.0]
    result = [[np.empty((len(names), *image[0].shape), np.uint16) for image in side] for side in mapped]
    for group in channel_groups(names).values():
        planes = [[image[c] for image in side for c in group] for side in mapped]
        least = [[image[c] for image in side for c in group] for side in steps]
        *done, count, noise = levels.quantise(planes[0], planes[1], (least[0], least[1]), rng)
        for side, numbers in zip(result, done, strict=True):
            for place, plane in enumerate(numbers):
                side[place // len(group)][group[place % len(group)]] = plane
        for c in group:
            counts[c] = count
        noises.append(noise)
    if max(noises):
        note += f", gaps between values hidden by noise of {max(noises):.2%} of the range"
    return MatchedImages(result[0], result[1], names, tuple(counts), note)


def _channel_names(
    real: Sequence[StudyImage], generated: Sequence[StudyImage], wanted: Sequence[str]
) -> tuple[str, ...]:
    if wanted:
        return tuple(name for word in wanted for name in (COLOURS if word.casefold() == "rgb" else (word,)))
    named = next((image.channels for image in (*real, *generated) if image.channels), None)
    counts = {len(image.planes): image.source for image in (*real, *generated)}
    if len(counts) > 1:
        shown = ", ".join(f"{source} has {count}" for count, source in sorted(counts.items()))
        raise UserError(f"real and generated images differ in channels ({shown}): choose common ones with --channels")
    count = len(real[0].planes)
    if named and len(named) == count:
        return named
    return COLOURS if count == 3 else GREY if count == 1 else tuple(f"channel_{c}" for c in range(count))


def _pick(image: StudyImage, names: tuple[str, ...]) -> list[np.ndarray]:
    held = [file_word(name).casefold() for name in image.channels or ()]
    wanted = [file_word(name).casefold() for name in names]
    if set(wanted) <= set(held):
        return [image.planes[held.index(name)] for name in wanted]
    # What a file leaves unnamed, or calls grey as Pillow does, is taken by its place.
    if len(image.planes) == len(names) and (not held or held == list(GREY) or wanted == list(GREY)):
        return list(image.planes)
    held_names = ", ".join(image.channels or ())
    raise UserError(
        f"{image.source} has {f'the channels {held_names}' if held_names else f'{len(image.planes)} unnamed channels'},"
        f" not {', '.join(names)}: choose common ones with --channels, from files that name them"
    )


def _check_planes(images: Sequence[StudyImage], planes: Sequence[Sequence[np.ndarray]]) -> None:
    for image, held in zip(images, planes, strict=True):
        if len({plane.shape for plane in held}) > 1:
            raise UserError(f"{image.source}: its channels differ in size: save them alike")


_Planes = list[list[list[np.ndarray]]]  # of side, image, channel
_Steps = list[list[list[float]]]


def _to_unit(sides: _Planes, names: tuple[str, ...], scaling: str) -> tuple[_Planes, _Steps, str]:
    """Returns the planes as float64 in [0, 1], the least step that their types allow (of floats 0), and a note."""
    if scaling == "image":
        groups = list(channel_groups(names).values())  # red, green and blue keep their balance
        ranges = [[_own_ranges(image, groups) for image in side] for side in sides]
        note = "each image's own range of values"
    else:
        limits = _common_ranges(sides, names)
        ranges = [[side_limits] * len(side) for side, side_limits in zip(sides, limits, strict=True)]
        note = "values " + "; ".join(
            f"{kind} {', '.join(f'{low:g} to {high:g}' for low, high in dict.fromkeys(side_limits))}"
            for kind, side_limits in zip(KINDS, limits, strict=True)
        )
    mapped: _Planes = [[] for _ in sides]
    steps: _Steps = [[] for _ in sides]
    for number, side in enumerate(sides):
        for image, image_ranges in zip(side, ranges[number], strict=True):
            spans = list(zip(image, image_ranges, strict=True))
            mapped[number].append([(plane.astype(np.float64) - low) / (high - low) for plane, (low, high) in spans])
            steps[number].append([(plane.dtype.kind in "bui") / (high - low) for plane, (low, high) in spans])
    return mapped, steps, note


def _own_ranges(image: list[np.ndarray], groups: list[list[int]]) -> list[tuple[float, float]]:
    result: list[tuple[float, float]] = [(0.0, 1.0)] * len(image)
    for group in groups:
        values = np.stack([image[c].astype(np.float64) for c in group])
        low, high = float(values.min()), float(np.percentile(values, HIGH_PERCENTILE))
        if high <= low:
            high = max(float(values.max()), low + 1.0)
        for c in group:
            result[c] = (low, high)
    return result


def _common_ranges(sides: _Planes, names: tuple[str, ...]) -> list[list[tuple[float, float]]]:
    """Returns for each side and channel the values that become 0 and 1."""
    limits = [[_limits(side, c) for c in range(len(names))] for side in sides]
    result: list[list[tuple[float, float]]] = [[], []]
    for c, name in enumerate(names):
        known = [side[c] for side in limits]
        values = [(min(float(i[c].min()) for i in side), max(float(i[c].max()) for i in side)) for side in sides]
        if known[0] and known[1]:
            pair = (known[0], known[1])
        elif known[0] or known[1]:
            low, high = known[0] or known[1] or (0.0, 1.0)
            slack = TOLERANCE * (high - low)
            if min(v[0] for v in values) < low - slack or max(v[1] for v in values) > high + slack:
                shown = " and ".join(f"{kind} {v[0]:g} to {v[1]:g}" for kind, v in zip(KINDS, values, strict=True))
                raise UserError(
                    f"{name}: values of {shown} are not in the same units: save both alike, for instance samples as"
                    " npy, or map each image's own range with --scaling=image"
                )
            pair = ((low, high), (low, high))
        else:
            low, high = min(v[0] for v in values), max(v[1] for v in values)
            if any(image[c].dtype.kind in "bui" for side in sides for image in side):
                low, high = np.floor(low), np.ceil(high)  # so that whole numbers fall on levels
            pair = ((low, high if high > low else low + 1.0),) * 2
        for side, span in zip(result, pair, strict=True):
            side.append(span)
    return result


def _limits(side: list[list[np.ndarray]], channel: int) -> tuple[float, float] | None:
    """Returns the limits of a type that has some (as singan.value_map takes them), else None."""
    kinds = {image[channel].dtype for image in side}
    if kinds == {np.dtype(np.uint8)}:
        return 0.0, 255.0
    if kinds == {np.dtype(bool)}:
        return 0.0, 1.0
    if any(kind.kind != "f" for kind in kinds):
        return None
    # All float channels decide together, so that the channels of a colour image keep their balance.
    floats = [plane for image in side for plane in image if plane.dtype.kind == "f"]
    if max(plane.max() for plane in floats) <= 1:
        lowest = min(plane.min() for plane in floats)
        return (0.0, 1.0) if lowest >= 0 else (-1.0, 1.0) if lowest >= -1 else None
    return None


def _fit(sides: _Planes, steps: _Steps, sizes: set[tuple[int, ...]], fit: str) -> tuple[_Planes, _Steps]:
    height, width = (min(size[axis] for size in sizes) for axis in (0, 1))
    if fit == "refuse":
        shown = ", ".join(f"{h}x{w}" for h, w in sorted(sizes)[:4]) + " ..." * (len(sizes) > 4)
        raise UserError(
            f"the images differ in size (height x width: {shown}), which would tell real from generated: give"
            " --fit=crop for the middle of each, or --fit=resize where the samples were trained on shrunken images"
        )
    for number, side in enumerate(sides):
        for i, image in enumerate(side):
            h, w = image[0].shape
            if (h, w) == (height, width):
                continue
            if fit == "crop":
                top, left = (h - height) // 2, (w - width) // 2
                side[i] = [plane[top : top + height, left : left + width] for plane in image]
                continue
            if abs(h / height - w / width) > 0.02 * h / height:
                raise UserError(f"--fit=resize: {h}x{w} and {height}x{width} differ in shape: crop them first")
            rows, columns = (resize_matrix(old, new, new / old, "mirror") for old, new in ((h, height), (w, width)))
            side[i] = [np.clip(rows @ plane @ columns.T, 0, 1) for plane in image]
            steps[number][i] = [0.0] * len(image)  # means of several pixels take any value
    return sides, steps
