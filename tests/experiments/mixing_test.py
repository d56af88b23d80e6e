"""Baselines that mix, deform and restain real pairs: what image and mask share afterwards."""

import numpy as np
import pytest
from skimage.color import hed2rgb, rgb2hed
from skimage.measure import label

from experiments.baselines.deformation import elastic
from experiments.baselines.mixing import carvemix, copy_paste, cutmix, tumor_cp
from experiments.baselines.stain_jitter import jitter_stain

LIGHT, DARK = 220, 60


def discs(*places, size=64, radius=5):
    """A light image [size, size, 3] with dark discs, and their instances."""
    rows, columns = np.indices((size, size))
    instances = np.zeros((size, size), np.int32)
    for number, (y, x) in enumerate(places, start=1):
        instances[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = number
    image = np.where(instances[..., None] > 0, DARK, LIGHT).astype(np.uint8).repeat(3, -1)
    return image, instances


def rng(number=0):
    return np.random.default_rng(number)


def in_one_piece(instances):
    return all(label(instances == n, connectivity=2).max() == 1 for n in range(1, instances.max() + 1))


# Copy-paste


def test_pasted_nuclei_lie_apart_from_what_is_there_and_the_mask_goes_with_the_image():
    image, instances = discs((12, 12), (12, 40))
    donor = discs((30, 30), radius=4)
    mixed, ids = copy_paste(image, instances, [donor], rng(), count=5, feather=0.4, gap=2)
    assert mixed.dtype == np.uint8
    assert ids.max() == 7
    assert in_one_piece(ids)
    assert ((ids > 0) == (mixed < 140).all(-1)).mean() > 0.99  # but for interpolation at the edge
    assert (ids[instances > 0] > 0).all()
    assert np.array_equal(mixed[instances > 0], image[instances > 0])
    areas = np.bincount(ids.ravel())[3:]
    assert np.allclose(areas, (donor[1] > 0).sum(), rtol=0.2)  # turned, not resized
    merged = label(ids > 0, connectivity=2).max()
    assert merged == 7  # the gap keeps them apart


def test_a_feathered_edge_is_softer_than_a_hard_one_and_leaves_the_mask_alone():
    image, instances = discs()
    image[:] = LIGHT
    donor = discs((30, 30), radius=6)
    donor[0][donor[1] == 0] = 140  # surroundings of another shade
    hard = copy_paste(image, instances, [donor], rng(3), count=1, feather=0.01)
    soft = copy_paste(image, instances, [donor], rng(3), count=1, feather=2.0)
    for mixed, ids in (hard, soft):
        assert ids.max() == 1
        assert np.abs(mixed[ids > 0].astype(int) - DARK).mean() < 25
    beside = [((mixed < 200).all(-1) & (ids == 0)).sum() for mixed, ids in (hard, soft)]
    assert beside[0] < 10 < 40 < beside[1]  # the rim comes along
    far = soft[0][(soft[1] == 0) & (soft[0] > 215).all(-1)]
    assert len(far) > 3000  # and fades out


def test_copy_paste_leaves_out_what_finds_no_place_and_nuclei_that_the_border_cuts():
    full = discs((16, 16), radius=30, size=32)
    assert copy_paste(*full, [discs((16, 16), size=32)], rng(), count=3)[1].max() == 1
    cut = discs((1, 30))
    image, instances = discs((30, 30))
    mixed, ids = copy_paste(image, instances, [cut], rng(), count=3)
    assert ids.max() == 1
    assert np.array_equal(mixed, image)
    assert copy_paste(image, instances, [cut, discs((30, 30))], rng(5), count=2)[1].max() == 3


def test_equal_seeds_give_equal_pairs():
    pair = discs((12, 12), (40, 30))
    for again in (lambda r: copy_paste(*pair, [pair], r, 2), lambda r: cutmix(pair, discs((30, 30)), r)):
        assert all(np.array_equal(a, b) for a, b in zip(again(rng(4)), again(rng(4)), strict=True))
        assert not np.array_equal(again(rng(4))[0], again(rng(6))[0])


# CutMix and CarveMix


def test_cutmix_puts_a_box_of_the_other_pair_in_its_place():
    first, second = discs((20, 20), (44, 44)), discs((20, 44), (44, 20))
    first[0][first[1] == 0] = 200  # so that each pixel tells whose it is
    shares = []
    for seed in range(200):
        mixed, ids = cutmix(first, second, rng(seed))
        of_second = (mixed == second[0]).all(-1) & ((first[0] != second[0]).any(-1))
        shares.append(of_second.mean())
        assert np.array_equal(ids > 0, (mixed == DARK).all(-1))
        assert in_one_piece(ids)
        rows, columns = np.nonzero(of_second)
        if len(rows):
            box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert np.array_equal(mixed[box], second[0][box])
            assert np.array_equal(ids[box] > 0, second[1][box] > 0)
    assert 0.4 < np.mean(shares) < 0.6  # evenly from 0 to 1
    assert np.std(shares) > 0.2


def test_nuclei_that_a_box_cuts_in_two_become_two():
    first = discs((32, 32), radius=28)
    empty = discs()
    counts = {cutmix(first, empty, rng(seed))[1].max() for seed in range(100)}
    assert 2 in counts


def test_touching_nuclei_of_both_pairs_stay_two():
    left, right = (np.zeros((16, 16), np.int32) for _ in range(2))
    left[:, :], right[:, :] = 1, 1
    image = np.zeros((16, 16, 1), np.uint8)
    assert {cutmix((image, left), (image, right), rng(seed))[1].max() for seed in range(20)} >= {2}


def test_carvemix_takes_a_region_around_the_lesion_and_no_more():
    first, second = discs((10, 10)), discs((40, 40), radius=9)
    sizes = []
    for seed in range(50):
        mixed, ids = carvemix(first, second, rng(seed))
        of_second = (ids > 0) & (second[1] > 0)
        sizes.append(of_second.sum())
        assert np.array_equal(ids > 0, (mixed == DARK).all(-1))
        assert (ids[first[1] > 0] > 0).all()  # far from the lesion nothing changes
        assert of_second[40, 40]
    whole = (second[1] > 0).sum()
    assert max(sizes) == whole  # with surroundings
    assert min(sizes) > 0.15 * whole  # half the depth at most is left out
    assert len(set(sizes)) > 5


def test_tumor_cp_puts_a_changed_lesion_into_the_brain_and_into_the_mask():
    rows, columns = np.indices((64, 64))
    brain = (rows - 32) ** 2 + (columns - 32) ** 2 < 28**2
    image = np.where(brain[..., None], np.float32(50), 0)
    donor = discs((30, 30), radius=6)
    donor[0][0, 0] = 0  # the range that the power is taken of begins there
    given = [(donor[0][..., :1], donor[1])]
    none = np.zeros((64, 64), np.int32)
    sizes, values = [], []
    for seed in range(40):
        mixed, ids = tumor_cp((image, none), given, rng(seed))
        assert (mixed.dtype, mixed.shape) == (np.float32, image.shape)
        assert ids.max() == 1
        assert brain[ids > 0].all()
        assert np.array_equal(mixed[ids == 0], image[ids == 0])
        sizes.append((ids > 0).sum() / (donor[1] > 0).sum())
        values.append(np.median(mixed[ids > 0]))
    assert 0.5 < min(sizes) < 0.85 < 1.2 < max(sizes) < 1.7  # 0.75 and 1.25, squared
    assert np.isclose(values, DARK, atol=1).sum() > 5
    assert min(values) < DARK - 3  # gamma
    again = tumor_cp((image, none), given, rng(3))
    assert np.array_equal(again[0], tumor_cp((image, none), given, rng(3))[0])
    nothing, ids = tumor_cp((0 * image, none), given, rng())
    assert not nothing.any()
    assert not ids.any()
    assert np.array_equal(tumor_cp((image, none), [], rng())[0], image)


# Deformation and stain


def test_elastic_deformation_moves_image_and_mask_alike():
    image, instances = discs((16, 16), (20, 44), (46, 30), radius=8)
    warped, ids = elastic(image, instances, rng(), amplitude=4, spacing=24)
    assert warped.dtype == image.dtype
    assert set(np.unique(ids)) == {0, 1, 2, 3}
    assert 50 < (ids != instances).sum() < 1000
    assert ((ids > 0) == (warped[..., 0] < 140)).mean() > 0.99
    same = elastic(image, instances, rng(), amplitude=0)
    assert np.array_equal(same[0], image)
    assert np.array_equal(same[1], instances)


@pytest.mark.parametrize(("gain", "offset"), [(0.3, 0.0), (0.0, 0.03)])
def test_stain_jitter_changes_densities_by_what_was_asked(gain, offset):
    image = hed2rgb(rng(1).uniform(0.035, 0.1, (32, 32, 3))).astype(np.float32)  # nothing is clipped
    before, after = rgb2hed(image), rgb2hed(jitter_stain(image, rng(2), gain, offset))
    for stain in range(2):
        slope, shift = np.polyfit(before[..., stain].ravel(), after[..., stain].ravel(), 1)
        assert abs(slope - 1) <= gain + 1e-3
        assert abs(shift) <= offset + 1e-3
        assert abs(slope - 1) + abs(shift) > 0.002
    assert np.array_equal(jitter_stain(image, rng(3)), jitter_stain(image, rng(3)))
    assert 0 <= jitter_stain(image, rng(3), 0.9, 0.2).min() <= jitter_stain(image, rng(3), 0.9, 0.2).max() <= 1
