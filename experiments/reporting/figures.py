"""Pages of pictures for the studies: what is to be seen of an image, laid out in rows and columns with words beside."""

import colorsys
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from launch.images import geometry, mask_channels
from launch.images.channels import channel_groups
from launch.samples import pictures
from singan.model.pyramid import resize_to
from singan.storage.workdir import ImageRecord

CELL = 128  # pixels that a panel is at least high
GAP = 6
SIZES = {"title": 17, "text": 13}  # of letters, pixels
LINE, BAR = SIZES["text"] + 4, 160  # pixels: from one line of text to the next; of the heat scale's bar
INK, PAPER = (0, 0, 0), (255, 255, 255)
BRIGHTEST = 99.8  # percentile of what is not black that is shown as white: a few vessels would darken all else
WORDS = {"rgb": "RGB", "t1": "T1", "t1ce": "T1ce", "t1c": "T1c", "t2": "T2", "flair": "FLAIR"}
WORDS |= {"class": "classes", "instance": "nuclei mask (instances)", "binary": "nuclei mask"}
# Of PanNuke's classes in their order, as its authors draw them.
CLASS_COLOURS = ((255, 0, 0), (34, 221, 77), (35, 92, 236), (254, 255, 0), (255, 159, 68))
# A perceptually ordered scale from black over red and yellow to white; [0, 1] -> colours between these.
HEAT = np.array([[0, 0, 0], [90, 10, 90], [200, 40, 40], [250, 160, 20], [255, 255, 220]], np.float64)

Row = tuple[str, Sequence[np.ndarray | None]]


@dataclasses.dataclass(frozen=True)
class View:
    """One way to look at images of a record.

    Attributes:
      name: a word for file names.
      title: for people.
      channels: the numbers of those that are looked at.
      panel: an image [h, w, C] in [-1, 1] -> uint8 [h, w, 3], upright.
      key: what colours mean: (colour, word).
    """

    name: str
    title: str
    channels: tuple[int, ...]
    panel: Callable[[np.ndarray], np.ndarray]
    key: tuple[tuple[tuple[int, ...], str], ...] = ()


def word(channel: str) -> str:
    """Returns a channel's name for people."""
    return WORDS.get(channel, channel.replace("_", " "))


def views(record: ImageRecord, shown: np.ndarray) -> list[View]:
    """Returns the views of a record's images: colours together, other channels alone, classes and nuclei in colours.

    Channels that are black around their subject (MRI) are shown from black to the brightest of what `shown` holds, so
    that all panels of a view can be compared; others from -1 to 1.

    Args:
      shown: the image [h, w, C] in [-1, 1] that sets the window, the training image.
    """
    masks = record.details.get("masks", {})
    drawn = {channel: name for name, mask in masks.items() for channel in mask["channels"]}
    by_name: dict[str, View] = {}
    for name, numbers in channel_groups(record.channels).items():
        mask = drawn.get(numbers[0], "")
        if mask and masks[mask]["kind"] == "one_hot":
            if mask not in by_name:
                by_name[mask] = _labels(record, mask)
            continue
        white = [_white(shown[..., c]) if _is_black(record, c) and not mask else 1.0 for c in numbers]
        by_name[name] = View(name, word(name), tuple(numbers), _window(record, numbers, white))
    if {"instance", "binary"} & set(masks):
        by_name["nuclei"] = _nuclei(record)
    return list(by_name.values())


def page(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    notes: Sequence[str] = (),
    key: Sequence[tuple[tuple[int, ...], str]] = (),
    heat: str = "",
) -> np.ndarray:
    """Returns uint8 [H, W, 3]: a white page with a title, names above and beside the panels, and notes below them.

    Args:
      columns: a name above each column; '' for none.
      rows: (name, panels): panels are uint8 [h, w, 3], None where the place is to stay empty. All are enlarged to one
        height, by a whole factor where they are of one size.
      key: colours and what they mean.
      heat: what the heat scale means; its bar is drawn where this is given.
    """
    fonts = {name: ImageFont.load_default(size=size) for name, size in SIZES.items()}
    first = next(panel for _, panels in rows for panel in panels if panel is not None)
    tallest = max(panel.shape[0] for _, panels in rows for panel in panels if panel is not None)
    height = tallest * max(1, -(-CELL // tallest))
    width = round(height * first.shape[1] / first.shape[0])
    names = [_wrapped(name, fonts["text"], 120) for name, _ in rows]
    margin = GAP + max((_length(line, fonts["text"]) for lines in names for line in lines), default=0)
    heads = [_wrapped(name, fonts["text"], width) for name in columns]
    top = 2 * GAP + SIZES["title"] + (LINE * max(map(len, heads)) + GAP if any(columns) else 0)
    across = max(margin + len(columns) * (width + GAP), _length(title, fonts["title"]))
    foot = _foot(notes, key, heat, across, fonts["text"])
    bottom = top + len(rows) * (height + GAP)
    canvas = Image.new("RGB", (max(across, foot.width) + 2 * GAP, bottom + foot.height + GAP), PAPER)
    canvas.paste(foot, (GAP, bottom))
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), title, INK, fonts["title"])
    for number, lines in enumerate(heads):
        for place, text in enumerate(lines):
            y = top - GAP - LINE * (len(lines) - place)
            draw.text((margin + GAP + number * (width + GAP), y), text, INK, fonts["text"])
    for place, ((_, panels), lines) in enumerate(zip(rows, names, strict=True)):
        y = top + place * (height + GAP)
        for number, text in enumerate(lines):
            draw.text((GAP, y + height // 2 + LINE * (number - len(lines) / 2)), text, INK, fonts["text"])
        for number, panel in enumerate(panels):
            if panel is not None:
                x = margin + GAP + number * (width + GAP)
                canvas.paste(_enlarged(panel, (height, width)), (x, y))
    return np.asarray(canvas)


def _foot(
    notes: Sequence[str], key: Sequence[tuple[tuple[int, ...], str]], heat: str, width: int, font: Any
) -> Image.Image:
    """Returns what stands below the panels: the bar of the heat scale, the colours of the key, and the notes."""
    lines = [text for note in notes for text in _wrapped(note, font, max(width, 400))]
    entries = [SIZES["text"] + 4 * GAP + _length(text, font) for _, text in key]
    widths = [_length(heat, font) + GAP + BAR if heat else 0, sum(entries), *(_length(text, font) for text in lines)]
    height = LINE * len(lines) + (LINE + GAP) * (bool(key) + bool(heat))
    canvas = Image.new("RGB", (max(widths), height), PAPER)
    draw, y = ImageDraw.Draw(canvas), 0
    if heat:
        bar = heat_colours(np.tile(np.linspace(0, 1, BAR), (SIZES["text"], 1)), 1.0)
        draw.text((0, y), heat, INK, font)
        canvas.paste(Image.fromarray(bar), (GAP + _length(heat, font), y + 2))
        y += LINE + GAP
    for place, (colour, text) in enumerate(key):
        x = sum(entries[:place])
        draw.rectangle((x, y + 2, x + SIZES["text"], y + 2 + SIZES["text"]), colour, INK)
        draw.text((x + SIZES["text"] + GAP, y), text, INK, font)
    y += (LINE + GAP) * bool(key)
    for place, text in enumerate(lines):
        draw.text((0, y + place * LINE), text, INK, font)
    return canvas


def training_and_samples(
    title: str, record: ImageRecord, image: np.ndarray, samples: np.ndarray, note: str
) -> np.ndarray:
    """Returns the paper's figures 1a and 1b, uint8 [H, W, 3]: the training image above, samples below, view by view.

    Args:
      image: the training image [h, w, C] in [-1, 1].
      samples: [k, h, w, C] in [-1, 1].
    """
    seen = views(record, image)
    rows = [("training image", [view.panel(image) for view in seen])]
    rows += [(f"sample {i}", [view.panel(sample) for view in seen]) for i, sample in enumerate(samples)]
    key = [entry for view in seen for entry in view.key]
    return page(title, [view.title for view in seen], rows, [note], key)


def start_scale_effect(
    title: str, view: View, record: ImageRecord, image: np.ndarray, by_scale: dict[int, np.ndarray], note: str
) -> np.ndarray:
    """Returns uint8 [H, W, 3]: a row for each start scale with its samples, and how much they differ at each pixel.

    Args:
      image: the training image [h, w, C] in [-1, 1].
      by_scale: start scale -> samples [k, h, w, C] in [-1, 1].
    """
    deviations = {scale: deviation(samples, view.channels) for scale, samples in by_scale.items()}
    count = len(next(iter(by_scale.values())))
    rows: list[Row] = [("training image", [view.panel(image), *[None] * count])]
    for scale, samples in by_scale.items():
        most, mean = float(deviations[scale].max()), float(deviations[scale].mean())
        heat = heat_colours(geometry.upright(deviations[scale][..., None], record.details)[..., 0], most)
        name = f"start scale {scale} deviation mean {mean:.3f}, largest {most:.3f}"
        rows.append((name, [*map(view.panel, samples), heat]))
    columns = [*(f"sample {i}" for i in range(count)), "deviation"]
    return page(title, columns, rows, [note], view.key, "deviation: 0 to the largest of its row")


def deviation(samples: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """Returns [h, w]: the standard deviation of each pixel over samples [k, h, w, C], averaged over some channels."""
    return np.std(samples[..., list(channels)], axis=0, dtype=np.float64).mean(-1)


def heat_colours(values: np.ndarray, most: float) -> np.ndarray:
    """Returns uint8 [h, w, 3]: values [h, w] from 0 (black) to `most` (nearly white)."""
    place = np.clip(values / max(most, 1e-9), 0, 1) * (len(HEAT) - 1)
    steps = np.arange(len(HEAT))
    return np.stack([np.interp(place, steps, HEAT[:, c]) for c in range(3)], -1).round().astype(np.uint8)


def instance_colours(instances: np.ndarray) -> np.ndarray:
    """Returns uint8 [h, w, 3]: instances in bright colours, neighbours in number far apart; the background black."""
    count = int(instances.max())
    table = [(0.0, 0.0, 0.0), *(colorsys.hsv_to_rgb(i * 0.618 % 1, 0.75, 1.0) for i in range(count))]
    return np.rint(np.array(table) * 255).astype(np.uint8)[instances]


def _is_black(record: ImageRecord, channel: int) -> bool:
    return record.value_map.background[channel] == record.value_map.low[channel]


def _white(plane: np.ndarray) -> float:
    """What is shown as white, in [-1, 1]."""
    seen = plane[plane > -1]
    return max(float(np.percentile(seen, BRIGHTEST)) if seen.size else 1.0, -0.99)


def _window(record: ImageRecord, numbers: Sequence[int], white: Sequence[float]) -> Callable[[np.ndarray], np.ndarray]:
    def panel(image: np.ndarray) -> np.ndarray:
        unit = (record.value_map.shown(image)[..., list(numbers)] + 1) / (np.array(white, np.float32) + 1) * 2 - 1
        return _colours(pictures.to_uint8(geometry.upright(unit, record.details)))

    return panel


def _labels(record: ImageRecord, mask: str) -> View:
    """A view of one-hot channels as their labels in colours."""
    recorded = record.details["masks"][mask]
    channels = tuple(recorded["channels"])
    names = recorded.get("class_names") or recorded.get("names") or [record.channels[c] for c in channels]
    extra = instance_colours(np.arange(1, max(len(channels) + 1, 2)))
    colours = [CLASS_COLOURS[i] if i < len(CLASS_COLOURS) else tuple(extra[i]) for i in range(len(channels))]
    table = np.array([(0, 0, 0), *colours], np.uint8)

    def panel(image: np.ndarray) -> np.ndarray:
        return table[geometry.upright(mask_channels.decode_one_hot(image[..., channels])[..., None], record.details)][
            ..., 0, :
        ]

    key = tuple((tuple(map(int, colour)), str(name)) for colour, name in zip(colours, names, strict=True))
    return View(mask, word(mask), channels, panel, key)


def _nuclei(record: ImageRecord) -> View:
    """A view of the nuclei that an image brings, each in a colour of its own, as they are written for training."""
    masks = record.details["masks"]
    channels = tuple(mask_channels.kinds_of_channels(masks))

    def panel(image: np.ndarray) -> np.ndarray:
        # On the source's grid, whose pixels the least areas are measured in.
        instances, _ = mask_channels.decode_nuclei(resize_to(image, record.shape[:2]), masks)
        return geometry.upright(instance_colours(instances), record.details)

    return View("nuclei", "nuclei, decoded", channels, panel)


def _colours(panel: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(panel, (*panel.shape[:2], 3)))


def _enlarged(panel: np.ndarray, size: tuple[int, int]) -> Image.Image:
    whole = size[0] % panel.shape[0] == 0 and size[1] % panel.shape[1] == 0
    how = Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC
    return Image.fromarray(panel).resize((size[1], size[0]), how)


def _length(text: str, font: Any) -> int:
    return int(font.getlength(text)) + 1


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """Returns a text as lines that are no longer than `width` pixels where words are short enough."""
    lines: list[str] = []
    for piece in text.split():
        if lines and _length(f"{lines[-1]} {piece}", font) <= width:
            lines[-1] += f" {piece}"
        else:
            lines.append(piece)
    return lines
