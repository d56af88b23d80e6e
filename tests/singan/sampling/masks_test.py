import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import morphology

from singan.errors import UserError
from singan.sampling.masks import EDIT, HARMONIZE, MaskRule, binary_mask, blend, dilate, soft_mask


def square(size=250, side=20):
    mask = np.zeros((size, size), bool)
    mask[100 : 100 + side, 120 : 120 + side] = True
    return mask


def test_the_soft_mask_is_the_reference_s():
    for rule in (HARMONIZE, EDIT):
        grown = ndimage.binary_dilation(square(), morphology.disk(int(rule.dilation)))
        blurred = ndimage.gaussian_filter(grown.astype(float), rule.blur, mode="nearest", truncate=4)
        expected = (blurred - blurred.min()) / (blurred.max() - blurred.min())
        np.testing.assert_allclose(soft_mask(square(), rule), expected, atol=2e-6)


def test_lengths_are_pixels_of_an_image_of_250():
    small, large = soft_mask(square(250)), soft_mask(square(250).repeat(2, 0).repeat(2, 1))
    np.testing.assert_allclose(large[::2, ::2], small, atol=0.08)


def test_far_from_the_mask_is_exactly_nothing_and_inside_all():
    soft = soft_mask(square())
    assert soft[110, 130] == 1
    assert (soft[:60] == 0).all()
    within = soft_mask(square(), MaskRule(7.0, 5.0, within=True))
    assert (within[~dilate(square(), 7.0)] == 0).all()
    assert within[110, 130] == 1
    assert 0 < within[110, 142] < within[110, 139] <= 1


def test_dilation_is_by_a_disk():
    np.testing.assert_array_equal(dilate(square(), 7.0), ndimage.binary_dilation(square(), morphology.disk(7)))
    np.testing.assert_array_equal(dilate(square(), 0.0), square())


@pytest.mark.parametrize("high", [1, 255, True, 4.0])
def test_masks_of_any_type_are_read_as_they_were_meant(high):
    values = square() * np.array(high)
    np.testing.assert_array_equal(binary_mask(values), square())
    rng = np.random.default_rng(0)
    as_jpeg = np.clip(values * 255.0 / high + rng.normal(0, 15, values.shape), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(binary_mask(np.stack([as_jpeg] * 3, -1)), square())


def test_masks_that_say_nothing_are_refused():
    with pytest.raises(UserError, match="the mask is empty, 0 at every pixel: mark"):
        binary_mask(np.zeros((5, 5)))
    with pytest.raises(UserError, match=r"a\.png is full, 255 at every pixel"):
        binary_mask(np.full((5, 5, 3), 255, np.uint8), "a.png")
    with pytest.raises(UserError, match="not finite"):
        binary_mask(np.array([[0, np.nan]]))
    with pytest.raises(UserError, match="covers it all: mark less"):
        soft_mask(np.pad(np.ones((250, 250), bool), 3))
    with pytest.raises(UserError, match="so small"):
        soft_mask(square(side=1), MaskRule(0.0, 9.0, within=True))


def instances(count, side=6, dtype=np.uint8):
    """Squares numbered 1 to `count`, some of which touch."""
    mask = np.zeros((200, 200), dtype)
    for number in range(count):
        row, column = divmod(number, 24)
        mask[8 * row : 8 * row + side, 8 * column : 8 * column + 8 - number % 3] = number + 1
    return mask


@pytest.mark.parametrize(
    "labels",
    [
        np.kron([[0, 1, 2, 4]], np.ones((8, 4), np.uint8)),
        np.kron([[0, 2, 4]], np.ones((8, 4))).astype(np.float32),
        np.kron([[0, 1.99216, 4.0]], np.ones((8, 4))),  # stored as 8 bits with a scale factor
        np.kron([[0, 1, 2, 255]], np.ones((8, 8), np.uint8)),  # 255: not to be judged, as in Pascal VOC
        np.kron([[-1, 0, 1, 3]], np.ones((8, 4), np.int8)),
        np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]], np.uint8),  # single pixels
        instances(10),
        instances(200),
        instances(500, dtype=np.uint16),
        instances(500, 2, np.int64),
        instances(500, dtype=np.float32),
        instances(40) > 0,
    ],
)
def test_every_label_and_instance_is_inside(labels):
    np.testing.assert_array_equal(binary_mask(labels), labels > 0)
    np.testing.assert_array_equal(binary_mask(labels[..., None]), labels > 0)


@pytest.mark.parametrize("soften", ["jpeg", "blur", "shrink", "noise", "sixteen bits", "fractions"])
def test_grey_masks_are_inside_above_their_middle(soften):
    rng = np.random.default_rng(0)
    drawn = dilate(square(), 15.3)
    grey = drawn * np.uint8(255)
    if soften == "jpeg":
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, "JPEG", quality=75)
        grey = np.asarray(Image.open(buffer))
    elif soften == "shrink":
        grey = np.asarray(Image.fromarray(grey).resize((125, 125), Image.Resampling.BOX))
        drawn = drawn[::2, ::2] & drawn[1::2, 1::2]
    elif soften == "noise":
        grey = np.clip(grey + rng.normal(0, 15, grey.shape), 0, 255).astype(np.uint8)
    else:
        blurred = ndimage.gaussian_filter(drawn.astype(float), 3.0)
        top, dtype = {"blur": (255, np.uint8), "sixteen bits": (65535, np.uint16), "fractions": (1, np.float32)}[soften]
        grey = (blurred * top).astype(dtype)
    assert len(np.unique(grey)) > 4
    middle = (float(grey.min()) + float(grey.max())) / 2
    np.testing.assert_array_equal(binary_mask(grey), grey > middle)
    assert np.mean(binary_mask(grey) != drawn) < 0.01


def test_label_maps_without_an_outside_are_refused():
    with pytest.raises(UserError, match="the mask is full, its labels go from 2 to 4: give 0 to what is outside"):
        binary_mask(np.array([[2, 4, 4]], np.uint8))
    with pytest.raises(UserError, match="the mask is empty, nothing in it is above 0"):
        binary_mask(np.array([[-1, 0]], np.int8))


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8])
def test_blending_keeps_the_bits_outside(dtype):
    rng = np.random.default_rng(0)
    background, result = (rng.uniform(0, 200, (9, 9, 3)).astype(dtype) for _ in range(2))
    weights = np.zeros((9, 9))
    weights[4, 4], weights[4, 5] = 1, 0.25
    mixed = blend(background, result, weights)
    assert mixed.dtype == dtype
    np.testing.assert_array_equal(mixed[weights == 0], background[weights == 0])
    np.testing.assert_array_equal(mixed[4, 4], result[4, 4])
    expected = 0.75 * background[4, 5].astype(float) + 0.25 * result[4, 5]
    np.testing.assert_allclose(mixed[4, 5], expected, atol=0.5 if dtype != np.float32 else 1e-4)
