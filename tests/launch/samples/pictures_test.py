"""Pictures: which channels are shown together, what is black, where panels stand, what a file may be called."""

import io

import numpy as np
import pytest
from PIL import Image

from launch.images.channels import channel_groups, file_word
from launch.samples import pictures


@pytest.mark.parametrize(
    ("channels", "groups"),
    [
        (("red", "green", "blue"), {"rgb": [0, 1, 2]}),
        (("t1", "red", "green", "blue", "t2"), {"t1": [0], "rgb": [1, 2, 3], "t2": [4]}),
        (("red", "green"), {"red": [0], "green": [1]}),
        (("green", "red", "blue"), {"green": [0], "red": [1], "blue": [2]}),
        (("intensity",), {"intensity": [0]}),
    ],
)
def test_red_green_and_blue_are_shown_together_and_others_alone(channels, groups):
    assert channel_groups(channels) == groups


def test_minus_one_is_black_and_one_is_white():
    values = np.array([-1, -0.999, 0, 1, -7, 7], np.float32)
    pixels = pictures.to_uint8(values)
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == [0, 0, 128, 255, 0, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_pixel(channels):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, channels), np.uint8)
    with Image.open(io.BytesIO(pictures.encode_png(pixels))) as image:
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_grid_panels_stand_in_rows_enlarged_and_apart():
    colours = [[(250, 0, 0), (0, 250, 0), (0, 0, 250)], [(250, 250, 0), (0, 250, 250), (250, 0, 250)]]
    rows = [(f"image {r}", [np.full((30, 40, 3), colour, np.uint8) for colour in row]) for r, row in enumerate(colours)]
    canvas = pictures.grid(rows, ["a", "b", "c"])
    assert canvas.dtype == np.uint8
    boxes = []
    for row in colours:
        for colour in row:
            y, x = np.nonzero((canvas == colour).all(-1))
            assert (y.min(), x.min(), len(y)) == (y[0], x[0], 120 * 160)  # 4 times as large, a filled rectangle
            boxes.append((int(y.min()), int(x.min())))
    (y0, x0), (y1, x1) = boxes[0], boxes[4]
    assert boxes == [(y, x0 + step * (160 + pictures.GAP)) for y in (y0, y1) for step in range(3)]
    assert y1 == y0 + 120 + pictures.GAP
    assert x1 == x0 + 160 + pictures.GAP
    assert (canvas[:y0, x0:] != 255).any()  # titles above
    assert (canvas[y0:y1, :x0] != 255).any()  # names beside
    assert canvas.shape == (y1 + 120 + pictures.GAP, x0 + 3 * (160 + pictures.GAP), 3)


def test_grey_panels_fit_into_a_grid():
    canvas = pictures.grid([("grey", [np.full((96, 96, 1), 77, np.uint8)])], ["a"])
    assert (canvas == 77).all(-1).sum() == 96 * 96


def test_an_image_has_a_row_for_each_channel_group():
    image = np.linspace(-1, 1, 2 * 2 * 4, dtype=np.float32).reshape(2, 2, 4)
    rows = pictures.image_rows("scan", [image, -image], ("red", "green", "blue", "flair"))
    assert [name for name, _ in rows] == ["scan rgb", "scan flair"]
    assert [panel.shape for _, panels in rows for panel in panels] == [(2, 2, 3)] * 2 + [(2, 2, 1)] * 2
    assert np.array_equal(rows[1][1][1], pictures.to_uint8(-image[..., 3:]))
    assert [name for name, _ in pictures.image_rows("scan", [image[..., :1]], ("flair",))] == ["scan"]


@pytest.mark.parametrize(
    ("name", "word"), [("T1-ce", "T1-ce"), ("../up", "___up"), ("a b/c\\d", "a_b_c_d"), ("é\n", "__"), ("a:b*", "a_b_")]
)
def test_channel_names_are_safe_in_file_names(name, word):
    assert file_word(name) == word
