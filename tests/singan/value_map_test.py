import json

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from singan.errors import UserError
from singan.value_map import ValueMap, fit, join, mask_map, used_ranges, volume_map


def ramp(low, high, dtype, shape=(4, 5, 1)):
    """Values from low to high in an image without a background."""
    return np.linspace(low, high, int(np.prod(shape))).astype(dtype).reshape(shape)


@pytest.mark.parametrize(
    ("image", "low", "high"),
    [
        (ramp(3, 200, np.uint8), 0, 255),
        (ramp(0, 1, np.float32) > 0.5, 0, 1),
        (ramp(-5, 1000, np.int16), -5, 1000),
        (ramp(7, 60000, np.uint16), 7, 60000),
        (ramp(0.2, 0.9, np.float32), 0, 1),
        (ramp(-0.2, 0.9, np.float64), -1, 1),
        (ramp(-0.5, 3.0, np.float64), -0.5, 3),
        (ramp(0, 1, np.float64) * 255, 0, 255),
    ],
)
def test_auto_range_follows_the_type_and_the_values(image, low, high):
    value_map = fit(image)
    assert (value_map.low, value_map.high) == ((low,), (high,))
    assert value_map.dtype == image.dtype.name
    mapped = value_map.apply(image)
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(mapped, 2 * (image.astype(float) - low) / (high - low) - 1, atol=1e-6)


def test_min_max_is_each_channels_own_and_a_float_range_the_whole_images():
    integers = np.concatenate([ramp(0, 10, np.int16), ramp(-7, 3, np.int16)], -1)
    assert fit(integers).low == (0, -7)
    assert fit(integers).high == (10, 3)
    floats = np.concatenate([ramp(0, 1, np.float32), ramp(-1, 0.5, np.float32)], -1)
    assert (fit(floats).low, fit(floats).high) == ((-1, -1), (1, 1))


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0.003), (0.0001, 0.002), (0.5, 0.55), (-0.001, 0.002), (0, 1e-9), (-0.9, -0.75)]
)
def test_floats_that_use_little_of_a_fixed_range_get_their_own_and_lose_nothing(low, high):
    image = ramp(low, high, np.float32, (20, 20, 1))
    value_map = fit(image)
    assert value_map.rules == ("image",)
    mapped = value_map.apply(image)
    assert (mapped.min(), mapped.max()) == (-1, 1)
    np.testing.assert_allclose(value_map.invert(mapped, as_stored=True), image, rtol=0, atol=1e-6 * (high - low))
    assert ValueMap.from_json(json.loads(json.dumps(value_map.to_json()))) == value_map


def test_each_channel_of_floats_is_judged_by_itself_and_constant_ones_are_left():
    parts = [ramp(0, 0.9, np.float32), ramp(0, 0.003, np.float32), ramp(0.2, 0.2, np.float32), ramp(0, 0.1, np.float32)]
    value_map = fit(np.concatenate(parts, -1))
    assert value_map.rules == ("type", "image", "type", "type")
    np.testing.assert_allclose(value_map.high, (1, 0.003, 1, 1), rtol=1e-6)


def test_what_of_a_range_is_used_is_counted_without_the_background_and_without_outliers():
    image = np.zeros((50, 50, 3), np.int16)
    image[5:45, 5:45, 0] = np.arange(1600).reshape(40, 40) % 100 + 1
    image[20, 20, 0] = 30000  # a metal clip
    image[5:45, 5:45, 1] = np.arange(1600).reshape(40, 40)
    image[5:45, 5:45, 2] = 1  # drawn
    (clip, wide, drawn) = used_ranges(image, fit(image))
    assert 1 <= clip[0] < clip[1] <= 100
    assert wide[1] - wide[0] > 0.95 * 1599
    assert drawn == (0, 1)


@pytest.mark.parametrize("given_range", [(0, 1000), [0.0, 1000.0], "0,1000", "(0, 1000)"])
def test_a_given_range_holds_for_all_channels_and_clips(given_range):
    value_map = fit(np.concatenate([ramp(-50, 2000, np.int16)] * 2, -1), given_range)
    assert (value_map.low, value_map.high) == ((0, 0), (1000, 1000))
    np.testing.assert_array_equal(value_map.apply(np.array([[-50, 500], [1000, 2000]])), [[-1, 0], [1, 1]])


@pytest.mark.parametrize(
    "given_range",
    ["wide", (1,), (1, 1), (2, 1), (0, float("nan")), (0, float("inf")), (0, "x"), ("none", 1), None, 3.0],
)
def test_a_malformed_range_names_its_key(given_range):
    with pytest.raises(UserError, match=r"config\.data\.value_range=.* must be auto or \(low, high\)"):
        fit(ramp(0, 1, np.float32), given_range)


def test_a_range_beside_all_values_is_refused():
    with pytest.raises(UserError, match=r"\(3 to 200\) lie on one side of config\.data\.value_range=\(0, 1\)"):
        fit(ramp(3, 200, np.uint8), (0, 1))


def with_border(value, share, size=12):
    """An image of uneven values, `share` of whose border pixels hold `value`."""
    image = np.arange(size * size, dtype=np.float64).reshape(size, size) + 1000.0
    ring = [(r, c) for r in range(size) for c in range(size) if r in (0, size - 1) or c in (0, size - 1)]
    for r, c in ring[: round(share * len(ring))]:
        image[r, c] = value
    return image[..., None]


@pytest.mark.parametrize(("share", "expected"), [(1.0, -3.0), (0.91, -3.0), (0.88, None), (0.0, None)])
def test_auto_background_is_what_nine_tenths_of_the_border_hold(share, expected):
    value_map = fit(with_border(-3.0, share))
    assert value_map.background == (expected,)
    np.testing.assert_array_equal(value_map.padding, [-1.0 if expected is not None else 0.0])
    assert value_map.padding.dtype == np.float32


def test_auto_background_is_judged_per_channel_and_sees_only_the_border():
    image = np.concatenate([with_border(0.0, 1.0), with_border(0.0, 0.0), with_border(2000.0, 1.0)], -1)
    image[2:-2, 2:-2, 1] = 7.0  # most of the image, none of the border
    value_map = fit(image)
    assert value_map.background == (0.0, None, 2000.0)
    np.testing.assert_array_equal(value_map.padding, [-1, 0, 1])


def test_auto_background_takes_values_as_the_range_clips_them():
    image = with_border(0.0, 1.0)
    image[0, :, 0] = -np.arange(12)  # ringing below zero, as scanners leave it
    assert fit(image).background == (None,)
    assert fit(image, (0, 1143)).background == (0.0,)


@pytest.mark.parametrize(
    ("background", "expected", "padding"),
    [
        ("none", (None, None), (0, 0)),
        (0, (0.0, 0.0), (-1, -1)),
        ("255", (255.0, 255.0), (1, 1)),
        ((0.0, 255.0), (0.0, 255.0), (-1, 1)),
        ("0, none", (0.0, None), (-1, 0)),
        ((None, 1000.0), (None, 1000.0), (0, 1)),
    ],
)
def test_a_given_background_is_in_source_units(background, expected, padding):
    value_map = fit(ramp(0, 255, np.uint8, (6, 6, 2)), background=background)
    assert value_map.background == expected
    np.testing.assert_array_equal(value_map.padding, padding)


@pytest.mark.parametrize(
    ("background", "message"),
    [
        ("black", "must be auto, none, a number"),
        ((1.0, 2.0, 3.0), "3 values for 2 channels"),
        (float("nan"), "must be"),
    ],
)
def test_a_malformed_background_names_its_key(background, message):
    with pytest.raises(UserError, match=rf"config\.data\.background=.*{message}"):
        fit(ramp(0, 255, np.uint8, (6, 6, 2)), background=background)


@pytest.mark.parametrize("value", [0, 5, -7, 32767])
def test_an_empty_channel_beside_a_full_one_is_all_background(value):
    image = np.concatenate([ramp(0, 99, np.int16), np.full((4, 5, 1), value, np.int16)], -1)
    value_map = fit(image)
    assert value_map.background == (None, float(value))
    mapped = value_map.apply(image)
    np.testing.assert_array_equal(mapped[..., 1], -1)
    assert value_map.padding[1] == -1
    np.testing.assert_array_equal(value_map.invert(mapped, as_stored=True), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, bool])
def test_an_image_of_one_value_per_channel_is_refused(dtype):
    with pytest.raises(UserError, match="same value at every pixel"):
        fit(np.broadcast_to(np.array([0, 1], dtype), (4, 5, 2)))


def test_values_beyond_float32_are_refused():
    with pytest.raises(UserError, match="too large for float32"):
        fit(ramp(0, 1e300, np.float64))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16])
def test_every_stored_integer_survives_the_round_trip(dtype):
    info = np.iinfo(dtype)
    image = np.arange(info.min, int(info.max) + 1).astype(dtype).reshape(16, -1, 1)
    restored = fit(image).invert(fit(image).apply(image), as_stored=True)
    assert restored.dtype == dtype
    np.testing.assert_array_equal(restored, image)


@given(
    st.sampled_from([np.uint8, np.int16, np.uint16, np.bool_]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=6))
    )
)
def test_any_integer_image_survives_the_round_trip(image):
    if all(np.ptp(image[..., c].astype(int)) == 0 for c in range(image.shape[-1])):
        return
    value_map = fit(image)
    mapped = value_map.apply(image)
    assert np.abs(mapped).max() <= 1
    restored = value_map.invert(mapped, as_stored=True)
    assert restored.dtype == image.dtype
    np.testing.assert_array_equal(restored, image)


@given(
    arrays.arrays(
        np.float32, (3, 4, 2), elements=st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False), unique=True
    )
)
def test_floats_come_back_within_rounding_and_inside_the_range(image):
    value_map = fit(image)
    mapped = value_map.apply(image)
    assert np.isfinite(mapped).all()
    assert np.abs(mapped).max() <= 1
    restored = value_map.invert(mapped)
    assert restored.dtype == np.float32
    span = np.subtract(value_map.high, value_map.low)
    assert (np.abs(restored - image.astype(float)) <= 1e-6 * (span + np.abs(image))).all()
    assert (restored >= np.float32(value_map.low)).all()
    assert (restored <= np.float32(value_map.high)).all()


def test_what_a_network_overshoots_is_clipped():
    value_map = ValueMap((0.0,), (1e4,), (None,), "uint8")
    np.testing.assert_array_equal(value_map.invert(np.array([[-3.0], [3.0]])), [[0], [1e4]])
    np.testing.assert_array_equal(value_map.invert(np.array([[-3.0], [3.0]]), as_stored=True), [[0], [255]])
    widest = ValueMap((-(2.0**63),), (2.0**63,), (None,), "int64")
    assert widest.invert(np.array([[2.0]]), as_stored=True)[0, 0] > 2**62


@pytest.mark.parametrize(
    ("image", "value_range", "rule"),
    [
        (ramp(3, 200, np.uint8), "auto", "type"),
        (ramp(0.2, 0.9, np.float32), "auto", "type"),
        (ramp(-5, 1000, np.int16), "auto", "image"),
        (ramp(-5, 1000, np.int16), (0.0, 100.0), "fixed"),
    ],
)
def test_the_rule_is_noted_and_changes_nothing(image, value_range, rule):
    value_map = fit(image, value_range)
    assert value_map.rules == (rule,)
    assert value_map == ValueMap(value_map.low, value_map.high, value_map.background, value_map.dtype)


@pytest.mark.parametrize("rule", ["volume", "percentile"])
def test_rules_of_volumes_are_refused_where_there_is_no_volume(rule):
    with pytest.raises(UserError, match=f"value_range={rule} is known of prepared volumes only"):
        fit(ramp(0, 9, np.int16), rule)


def test_channels_of_a_volume_and_masks_are_joined():
    joined = join([volume_map([(0.0, 1000.0), (0.0, 0.0)], np.int16, "volume"), mask_map(1, 1.0, np.int16)])
    assert joined == ValueMap((0.0, 0.0, 0.0), (1000.0, 1.0, 1.0), (0.0, 0.0, 0.0), "int16")
    assert joined.rules == ("volume", "volume", "mask")
    stored = np.array([[-30, 0, 0], [0, 0, 1], [1000, 0, 1]], np.int16)
    mapped = joined.apply(stored)
    np.testing.assert_array_equal(mapped, [[-1, -1, -1], [-1, -1, 1], [1, -1, 1]])
    np.testing.assert_array_equal(joined.padding, [-1, -1, -1])
    np.testing.assert_array_equal(joined.invert(mapped, as_stored=True), np.clip(stored, 0, None))


def test_json_keeps_the_rules_and_reads_maps_without():
    written = mask_map(2, 255.0, np.uint8).to_json()
    assert ValueMap.from_json(json.loads(json.dumps(written))).rules == ("mask", "mask")
    del written["rules"]
    assert ValueMap.from_json(written).rules == ()


def test_json_keeps_the_map():
    value_map = ValueMap((0.1, -3.0), (1 / 3, 4.0), (None, -3.0), "float64")
    assert ValueMap.from_json(json.loads(json.dumps(value_map.to_json()))) == value_map


@pytest.mark.parametrize(
    "change",
    [
        {"low": [0]},
        {"low": None},
        {"high": [0, 0]},
        {"high": [1, "x"]},
        {"dtype": "picture"},
        {"low": [0, float("nan")]},
        {"rules": ["mask"]},
        {"rules": ["mask", "guess"]},
    ],
)
def test_a_damaged_map_is_refused(change):
    good = ValueMap((0.0, 0.0), (1.0, 1.0), (None, 0.0), "uint8").to_json()
    with pytest.raises(UserError, match="value map"):
        ValueMap.from_json({**good, **change})


def test_a_map_of_a_part_of_the_range_gives_that_part_back_and_shows_its_least_value_as_black():
    whole = ValueMap((-1.0,), (1.0,), (None,), "float32")
    unit = ValueMap((-1.0,), (1.0,), (None,), "float32", least=(0.0,))
    image = np.float32([[[-1], [-0.2]], [[0], [0.25]], [[1], [1.5]]])
    np.testing.assert_allclose(unit.invert(image).ravel(), [0, 0, 0, 0.25, 1, 1])
    np.testing.assert_allclose(unit.shown(image).ravel(), [-1, -1, -1, -0.5, 1, 1])
    np.testing.assert_allclose(unit.from_shown(unit.shown(image)).ravel(), [0, 0, 0, 0.25, 1, 1])
    np.testing.assert_array_equal(unit.apply(image), whole.apply(image))
    assert whole.shown(image) is image
    assert ValueMap.from_json(json.loads(json.dumps(unit.to_json()))) == unit != whole
    assert "least" not in whole.to_json()
    for least in ((1.0,), (-2.0,), (0.0, 0.0), (float("nan"),)):
        with pytest.raises(UserError, match="least"):
            ValueMap((-1.0,), (1.0,), (None,), "float32", least=least)
