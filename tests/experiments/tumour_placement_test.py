"""Tumours in healthy slices: where they may lie, and what becomes of their values and labels."""

import numpy as np
import pytest
from scipy import ndimage

from experiments.tumour_insertion import matching, placement
from experiments.tumour_insertion.placement import AROUND, NoRoom, Turn
from launch.images.brain import brain_mask

ONE = Turn(0.0, False, 1.0)


def ellipse(shape, centre, radii):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return np.square((grid - centre) / radii).sum(-1) < 1


def blob(seed, shape=(40, 36), share=0.08):
    """Labels 1, 2, 4 of an irregular tumour, as smooth noise makes it."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    noise[~ellipse(shape, (18, 17), (12, 11))] = -1
    levels = np.quantile(noise, [1 - share, 1 - share / 2, 1 - share / 4])
    return np.array([0, 2, 1, 4], np.uint8)[np.digitize(noise, levels)]


@pytest.fixture(scope="module")
def allowed():
    """A brain of 64 x 56 with a notch and an island beside it, eroded by 2."""
    shape = (64, 56)
    brain = ellipse(shape, (30, 27), (26, 20)) & ~ellipse(shape, (5, 27), (12, 4))
    brain[60:63, 50:54] = True
    return brain_mask(~brain, 2.0)


# --- placement


def test_the_tumour_is_the_largest_one_with_what_is_near_and_what_it_encloses():
    labels = np.zeros((40, 40), np.uint8)
    labels[2:9, 2:9] = 2
    labels[4:6, 4:6] = 0  # enclosed
    labels[12, 3:6] = 4  # 4 pixels away
    labels[30:35, 30:35] = 1  # another one, smaller
    expected = labels > 0
    expected[4:6, 4:6] = True
    expected[30:35, 30:35] = False
    np.testing.assert_array_equal(placement.tumour_mask(labels), expected)
    with pytest.raises(NoRoom, match="empty"):
        placement.tumour_mask(np.zeros((5, 5), np.uint8))
    rim = np.ones((40, 40), bool)
    rim[:, :4] = False  # there the brain ends
    expected[:, :4] = False
    np.testing.assert_array_equal(placement.tumour_mask(labels, rim), expected)
    with pytest.raises(NoRoom, match="lies at the brain's rim alone"):
        placement.tumour_mask(labels, np.zeros((40, 40), bool))


def test_turning_moves_values_and_labels_together():
    rng = np.random.default_rng(0)
    labels = np.zeros((30, 28), np.uint8)
    labels[8:17, 10:20] = rng.choice([1, 2, 4], (9, 10))
    labels[8, 10:12] = 0
    image, mask = rng.uniform(0, 9, (30, 28, 2)), labels > 0
    box = np.s_[8:17, 10:20]

    def turn(**how):
        return placement.turned(image, labels, mask, Turn(**{**vars(ONE), **how}))

    for given, expected in (
        ({}, lambda array: array),
        ({"flip": True}, lambda array: array[::-1]),
        ({"rotation": 180}, lambda array: array[::-1, ::-1]),
        ({"rotation": 90}, np.rot90),
    ):
        values, new_labels, new_mask, _ = turn(**given)
        np.testing.assert_array_equal(new_labels, expected(labels[box]))
        np.testing.assert_array_equal(new_mask, expected(mask[box]))
        np.testing.assert_allclose(values, expected(image[box]), atol=1e-9)
    there = np.zeros((30, 28), bool)
    there[:, :23] = True
    wider = placement.turned(image, labels, mask, Turn(90, False, 1), brain=there, around=4)
    np.testing.assert_allclose(wider[0], np.rot90(image[4:21, 6:24]), atol=1e-9)
    np.testing.assert_array_equal(wider[2], np.pad(np.rot90(mask[box]), 4))
    np.testing.assert_array_equal(wider[3], np.rot90(there[4:21, 6:24]))
    values, new_labels, new_mask, _ = turn(rotation=33, scale=1.3)
    assert set(np.unique(new_labels)) == {0, 1, 2, 4}
    assert new_mask.sum() == pytest.approx(mask.sum() * 1.3**2, rel=0.08)
    assert values.min() >= image.min()
    assert values.max() <= image.max()


def test_tumours_keep_their_size_in_millimetres():
    labels = np.zeros((30, 30), np.uint8)
    labels[10:18, 10:16] = 1
    _, _, mask, _ = placement.turned(labels[..., None], labels, labels > 0, ONE, (1.0, 2.0), (0.5, 1.0))
    assert mask.shape == (16, 12)
    _, _, mask, _ = placement.turned(labels[..., None], labels, labels > 0, Turn(90, False, 1), (1.0, 2.0), (1.0, 1.0))
    assert mask.shape == (12, 8)


def test_positions_are_those_where_all_of_the_mask_is_allowed(allowed):
    mask = ellipse((9, 8), (4, 3), (4.5, 3)) | ellipse((9, 8), (7, 6), (2, 2))
    rows, columns = (large - small + 1 for large, small in zip(allowed.shape, mask.shape, strict=True))
    expected = [[allowed[r : r + 9, c : c + 8][mask].all() for c in range(columns)] for r in range(rows)]
    np.testing.assert_array_equal(placement.positions(mask, allowed), expected)
    assert 0 < np.sum(expected) < rows * columns
    assert not placement.positions(np.ones((70, 3), bool), allowed).size
    fluid = ellipse(allowed.shape, (30, 27), (9, 6))
    share = np.array([[fluid[r : r + 9, c : c + 8][mask].mean() for c in range(columns)] for r in range(rows)])
    free = placement.positions(mask, allowed, fluid)
    np.testing.assert_array_equal(free, np.array(expected) & (share * mask.sum() < 0.03 * mask.sum() + 0.5))
    assert 0 < free.sum() < np.sum(expected)


def test_no_tumour_ever_leaves_the_brain_nor_loses_its_labels(allowed):
    rng = np.random.default_rng(0)
    turns, corners, grown = set(), set(), []
    for seed in range(80):
        labels = blob(seed)
        image = rng.uniform(0, 1, (*labels.shape, 2))
        turn = Turn(float(rng.uniform(0, 360)), bool(rng.integers(2)), float(rng.uniform(0.7, 1.8)))
        placed = placement.place(image, labels, allowed, turn, np.random.default_rng(seed), least_pixels=10)
        again = placement.place(image, labels, allowed, turn, np.random.default_rng(seed), least_pixels=10)
        assert (placed.turn, placed.corner) == (again.turn, again.corner)
        assert allowed[placed.window].shape == placed.mask.shape  # within the image
        assert allowed[placed.window][placed.mask].all()
        assert placed.mask.sum() >= 10
        assert not placed.labels[~placed.mask].any()
        assert placed.image.shape[:2] == placed.brain.shape == placed.labels.shape
        rows = np.flatnonzero(placed.mask.any(1))
        assert rows[0] == min(AROUND, rows[0] + placed.corner[0])  # as much comes along as the image has room for
        np.testing.assert_array_equal(placed.mask, ndimage.binary_fill_holes(placed.mask))
        kept = np.where(placement.tumour_mask(labels), labels, 0)
        before, after = (np.bincount(each.ravel(), minlength=5)[[1, 2, 4]] for each in (kept, placed.labels))
        assert (after[before > 10] > 0).all()
        grown.append(after / (before * placed.turn.scale**2))
        assert placed.turn.scale <= turn.scale
        turns.add(placed.turn.scale == turn.scale)
        corners.add(placed.corner)
    assert turns == {True, False}  # some had to be made smaller
    assert len(corners) > 60
    np.testing.assert_allclose(np.mean(grown, axis=0), 1, atol=0.05)


def test_what_fits_nowhere_is_made_smaller_and_then_given_up(allowed):
    labels = np.zeros((80, 80), np.uint8)
    labels[10:60, 10:60] = 2
    image, rng = np.ones((80, 80, 1)), np.random.default_rng(0)
    placed = placement.place(image, labels, allowed, ONE, rng)
    assert 0.4 < placed.turn.scale < 0.75
    steps = np.log(placed.turn.scale) / np.log(placement.SHRINK)
    assert steps == pytest.approx(round(steps))
    small = ndimage.binary_erosion(allowed, iterations=13)
    assert small.any()
    with pytest.raises(NoRoom, match=r"pixels at scale 0.4\d fit nowhere into a brain of"):
        placement.place(image, labels, small, ONE, rng)
    with pytest.raises(NoRoom, match="only 900 pixels of it are left"):
        placement.place(image, labels, allowed, Turn(0, False, 0.6), rng, least_pixels=1000)
    with pytest.raises(NoRoom, match="no brain"):
        placement.place(image, labels, np.zeros((9, 9), bool), ONE, rng)


# --- intensities


def test_medians_are_matched_by_their_ratio_and_standardised_scans_by_their_spread():
    rng = np.random.default_rng(0)
    donor = rng.gamma(5, 50, (20, 30, 2))
    tissue, everywhere = rng.random((20, 30)) < 0.7, np.ones((10, 60), bool)
    donor[..., 1] = (donor[..., 1] - 240) / 110
    background = np.where(tissue[..., None], donor, 1e6).reshape(10, 60, 2) * [3.0, 2.0] + [0.0, 5.0]
    there = tissue.reshape(10, 60)
    found = matching.match(donor, tissue, background, there)
    np.testing.assert_allclose(found.gain, [3, 2])
    np.testing.assert_allclose(found.offset, [0, 5], atol=1e-9)
    np.testing.assert_allclose(found.apply(donor)[tissue], background[there])
    spread = matching.match(donor[..., :1], tissue, background[..., :1] + 70, there, "median_mad")
    np.testing.assert_allclose([spread.gain, spread.offset], [[3], [70]])
    with pytest.raises(ValueError, match="is not above 0"):
        matching.match(donor - 1e4, tissue, background, there, "median")
    with pytest.raises(ValueError, match="the donor shows only 0 pixels"):
        matching.match(donor, ~everywhere.reshape(20, 30), background, there)
