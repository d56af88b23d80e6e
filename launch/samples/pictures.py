"""Images as PNG files: pixels in [-1, 1] become 8-bit panels, grids lay them out with names beside them."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from launch.images.channels import channel_groups, file_word

GAP = 4  # pixels between panels
SMALLEST = 96  # panels of a grid are enlarged by whole factors to at least this height


def of_channels(image: np.ndarray, channels: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Returns (suffix of a file name, uint8 picture) for each channel group of an image [H, W, C] in [-1, 1]."""
    groups = channel_groups(channels)
    return [
        ("" if len(groups) == 1 else f"_{file_word(group)}", to_uint8(image[..., numbers]))
        for group, numbers in groups.items()
    ]


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Returns [-1, 1] as 0..255, uint8 of the same shape; -1 is black whatever the channel holds."""
    return np.clip(np.rint((np.asarray(image, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def encode_png(pixels: np.ndarray) -> bytes:
    """Returns a PNG of uint8 [H, W], [H, W, 1] or [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def grid(rows: Sequence[tuple[str, Sequence[np.ndarray]]], columns: Sequence[str]) -> np.ndarray:
    """Returns uint8 [H, W, 3]: a titled picture of rows of panels.

    Args:
      rows: (name, panels); a panel is uint8 [h, w, 1 or 3], all of one size.
      columns: the names above the panels.
    """
    height, width = rows[0][1][0].shape[:2]
    factor = max(1, -(-SMALLEST // height))
    height, width = height * factor, width * factor
    font = ImageFont.load_default(size=12)
    label = max(int(font.getlength(name)) for name, _ in rows) + 2 * GAP
    head = 12 + 2 * GAP
    canvas = Image.new(
        "RGB", (label + len(columns) * (width + GAP), head + len(rows) * (height + GAP)), (255, 255, 255)
    )
    draw = ImageDraw.Draw(canvas)
    for number, title in enumerate(columns):
        draw.text((label + number * (width + GAP), GAP), title, (0, 0, 0), font)
    for line, (name, panels) in enumerate(rows):
        top = head + line * (height + GAP)
        draw.text((GAP, top + height // 2 - 6), name, (0, 0, 0), font)
        for number, panel in enumerate(panels):
            large = np.repeat(np.repeat(panel, factor, 0), factor, 1)
            large = np.broadcast_to(large, (*large.shape[:2], 3))
            canvas.paste(Image.fromarray(np.ascontiguousarray(large)), (label + number * (width + GAP), top))
    return np.asarray(canvas)


def image_rows(name: str, images: Sequence[np.ndarray], channels: Sequence[str]) -> list[tuple[str, list[np.ndarray]]]:
    """Returns grid rows of one image and its variants [h, w, C] in [-1, 1]: one row for each channel group."""
    groups = channel_groups(channels)
    return [
        (name if len(groups) == 1 else f"{name} {group}", [to_uint8(image[..., numbers]) for image in images])
        for group, numbers in groups.items()
    ]
