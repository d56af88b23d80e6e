import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.images import mask_channels
from launch.images.mask_channels import (
    decode_binary,
    decode_instances,
    decode_nuclei,
    decode_one_hot,
    split_mask,
)
from singan.model.encodings import encode_binary, encode_instances, encode_one_hot
from singan.value_map import mask_map

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def mapped(encoded, high):
    """What an encoded mask is in [-1, 1]."""
    return mask_map(encoded.shape[-1], float(high), encoded.dtype).apply(encoded)


def discs(*circles, size=64):
    """Returns int32 [size, size]: disc i + 1 of (row, column, radius); later ones lie on top."""
    rows, columns = np.mgrid[:size, :size]
    result = np.zeros((size, size), np.int32)
    for number, (row, column, radius) in enumerate(circles, start=1):
        result[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    return result


def same_partition(a, b):
    """Whether two instance maps hold the same instances, whatever their numbers."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(pairs[0]) == len(np.unique(a)) == len(np.unique(b)) and ((a > 0) == (b > 0)).all()


def panoptic_quality(truth, found):
    table = np.zeros((truth.max() + 1, found.max() + 1))
    np.add.at(table, (truth.ravel(), found.ravel()), 1)
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    iou = (table / union)[1:, 1:]
    matched = iou > 0.5
    return iou[matched].sum() / (matched.sum() + (len(iou) + iou.shape[1] - 2 * matched.sum()) / 2)


def masks(least=1, common=3, **channels):
    return {name: {"channels": list(c), "min_area": least, "default_class": common} for name, c in channels.items()}


APART = discs((12, 12, 8), (12, 40, 3), (40, 20, 12), (50, 50, 6))
TOUCHING = discs((20, 20, 9), (20, 37, 9), (33, 28, 7), (50, 50, 1))


def test_binary_is_minus_one_and_one_and_decoded_by_sign():
    channel = mapped(encode_binary(APART), 1)
    assert set(np.unique(channel)) == {-1, 1}
    np.testing.assert_array_equal(decode_binary(channel[..., 0]), APART > 0)
    blurred = channel[..., 0] * 0.1
    np.testing.assert_array_equal(decode_binary(blurred), APART > 0)


def test_one_hot_is_decoded_by_the_largest_channel_above_the_middle():
    labels = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)
    encoded = encode_one_hot(labels, 4)
    assert encoded.shape == (2, 4, 4)
    np.testing.assert_array_equal(decode_one_hot(mapped(encoded, 1)), labels)
    soft = np.array([[[0.2, 0.7, -1], [-0.1, -0.2, -0.3]]])
    np.testing.assert_array_equal(decode_one_hot(soft), [[2, 0]])


def test_instances_go_from_edge_to_heart():
    encoded = encode_instances(APART)[..., 0]
    assert encoded.dtype == np.uint8
    assert (encoded[APART == 0] == 0).all()
    for number, (row, column) in enumerate([(12, 12), (12, 40), (40, 20), (50, 50)], start=1):
        inside = encoded[number == APART]
        assert (inside.min(), inside.max()) == (128, 255)
        assert encoded[row, column] == 255


@pytest.mark.parametrize("instances", [APART, np.zeros((8, 8), int), np.ones((8, 8), int)])
def test_instances_that_do_not_touch_come_back_exactly(instances):
    channel = mapped(encode_instances(instances), 255)[..., 0]
    assert same_partition(decode_instances(channel, 1), instances)


def test_instances_that_touch_come_back_but_for_single_pixels_between_them():
    found = decode_instances(mapped(encode_instances(TOUCHING), 255)[..., 0], 1)
    assert found.max() == 4
    np.testing.assert_array_equal(found > 0, TOUCHING > 0)
    assert panoptic_quality(TOUCHING, found) > 0.995


def test_ids_with_gaps_and_a_nucleus_cut_by_the_border():
    instances = discs((0, 10, 8), (30, 63, 8))
    instances[instances == 2] = 700
    encoded = encode_instances(instances)
    assert encoded[0, 10] == 255  # the border is no edge
    assert same_partition(decode_instances(mapped(encoded, 255)[..., 0], 1), instances)


def test_a_noisy_instance_channel_is_decoded_the_same_within_a_little():
    channel = mapped(encode_instances(TOUCHING), 255)[..., 0]
    noisy = channel + np.random.default_rng(0).normal(0, 0.05, channel.shape)
    found = decode_instances(noisy, 6)
    assert found.max() == 3  # the smallest is dropped
    assert panoptic_quality(np.where(TOUCHING < 4, TOUCHING, 0), found) > 0.95


def test_masks_are_split_at_waists_and_nowhere_else():
    assert same_partition(split_mask(APART > 0, 1), APART)
    two = discs((30, 20, 9), (30, 36, 9))
    found = split_mask(two > 0, 1)
    assert found.max() == 2
    assert panoptic_quality(two, found) > 0.95
    ellipse = np.hypot(*(np.mgrid[:64, :64] - 32) / np.array([10, 25])[:, None, None]) < 1
    assert split_mask(ellipse, 1).max() == 1


def test_small_instances_are_dropped_and_numbers_have_no_gaps():
    found = decode_instances(mapped(encode_instances(APART), 255)[..., 0], 60)
    assert set(np.unique(found)) == {0, 1, 2, 3}
    assert (found[APART == 2] == 0).all()
    assert split_mask(APART > 0, 60).max() == 3
    assert mask_channels.min_area(APART) == 16
    assert mask_channels.min_area(TOUCHING) == np.count_nonzero(TOUCHING == 4)
    assert mask_channels.min_area(np.zeros((4, 4), int)) == 16


def test_nuclei_take_their_class_from_most_of_their_pixels():
    classes = np.array([0, 2, 1, 5, 4])[APART]
    one_hot = mapped(encode_one_hot(classes, 5), 1)
    one_hot[12, 12] = -1  # a pixel without class, and one of another
    one_hot[12, 13] = [1, -1, -1, -1, -1]
    instance = mapped(encode_instances(APART), 255)
    image = np.concatenate([instance, one_hot], -1)
    found, kinds = decode_nuclei(image, masks(instance=[0], **{"class": range(1, 6)}))
    assert same_partition(found, APART)
    expected = {found[n == APART][0]: kind for n, kind in enumerate([2, 1, 5, 4], start=1)}
    assert dict(enumerate(kinds.tolist(), start=1)) == expected


def test_without_classes_nuclei_take_the_source_s_most_common_one():
    image = mapped(encode_binary(APART), 1)
    found, kinds = decode_nuclei(image, masks(binary=[0]))
    assert same_partition(found, APART)
    assert kinds.tolist() == [3, 3, 3, 3]
    empty, none = decode_nuclei(np.full((8, 8, 1), -1.0), masks(instance=[0]))
    assert (empty.max(), none.shape) == (0, (0,))


def test_classes_alone_part_nuclei_of_different_classes():
    touching = discs((20, 20, 8), (20, 36, 8))
    image = mapped(encode_one_hot(touching, 5), 1)
    found, kinds = decode_nuclei(image, masks(**{"class": range(5)}))
    assert same_partition(found, touching)
    assert kinds.tolist() == [1, 2]


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_whatever_the_discs_the_foreground_comes_back(seed, count):
    random = np.random.default_rng(seed)
    places = [(*random.integers(0, 64, 2).tolist(), int(random.integers(2, 12))) for _ in range(count)]
    instances = discs(*places)
    found = decode_instances(mapped(encode_instances(instances), 255)[..., 0], 1)
    np.testing.assert_array_equal(found > 0, instances > 0)
    assert set(np.unique(found)) == {*range(found.max() + 1)} - ({0} if (found > 0).all() else set())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real images of ../shared/data are not here")
@pytest.mark.shared
def test_real_nuclei_survive_the_round_trip():
    file = os.path.join(SHARED, "pannuke_like", "Fold 1", "masks", "fold1", "masks.npy")
    for patch in np.load(file)[..., 0]:
        truth = np.unique(patch, return_inverse=True)[1].reshape(patch.shape)
        found = decode_instances(mapped(encode_instances(truth), 255)[..., 0], 1)
        assert found.max() == truth.max()
        assert panoptic_quality(truth, found) > 0.999
        assert panoptic_quality(truth, split_mask(truth > 0, 1)) > 0.95
