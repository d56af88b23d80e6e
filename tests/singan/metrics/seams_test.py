import numpy as np
import pytest
from scipy import ndimage

from singan.errors import UserError
from singan.metrics import seams as s
from singan.metrics.values import Undefined

SIZE = 64
ROWS, COLUMNS = np.indices((SIZE, SIZE)) - SIZE / 2 + 0.5
RADIUS = np.hypot(ROWS, COLUMNS)
DISC = RADIUS < 15
HALF = COLUMNS > 0


def smooth(seed, sigma=3.0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, (SIZE, SIZE, 2)), (sigma, sigma, 0))
    return (0.1 * noise / noise.std()).astype(np.float32)


def test_a_step_across_a_straight_contour():
    step = np.where(HALF, 0.6, 0)[None, ..., None]
    for band in (1, 2, 3):
        np.testing.assert_allclose(s.seam_energy(step, HALF, band), 0.6 / (2 * band))


def test_slopes_count_across_the_contour_only():
    """A cone has one slope, everywhere across the contour of a disc; what turns about the middle has none across it."""
    cone = 0.02 * RADIUS
    np.testing.assert_allclose(s.seam_energy(cone[None, ..., None], DISC), 0.02, rtol=0.01)
    turning = 0.3 * np.arctan2(COLUMNS, np.abs(ROWS))
    assert s.seam_energy(turning[None, ..., None], DISC)[0] < 0.1 * 0.3 / 15  # of its slope along the contour
    along = 0.02 * ROWS[None, ..., None] + np.zeros(2)
    np.testing.assert_allclose(s.seam_energy(along, HALF), 0, atol=1e-12)
    np.testing.assert_allclose(s.seam_energy(along, HALF.T), 0.02)


def test_distances_to_the_contour():
    distance = s.signed_distance(HALF)
    np.testing.assert_allclose(distance, -COLUMNS)
    around = s.surroundings(HALF, 3)
    np.testing.assert_array_equal(around, (COLUMNS < 0) & (COLUMNS > -3))
    assert not (s.surroundings(DISC) & DISC).any()


def test_statistics_inside():
    images = np.stack([smooth(0), smooth(1)])
    found = s.inside_statistics(images, DISC)
    inside = images[1][DISC].astype(np.float64)
    np.testing.assert_allclose(found.mean[1], inside.mean(0))
    np.testing.assert_allclose(found.std[1], inside.std(0))
    np.testing.assert_allclose(found.percentiles[1], np.percentile(inside, [10, 50, 90], axis=0).T)
    assert found.percentiles.shape == (2, 2, 3)


def pasted(width):
    """A brighter disc in a smooth background, its edge blurred over `width` pixels."""
    share = ndimage.gaussian_filter(DISC.astype(np.float64), width) if width else DISC
    return (smooth(2) + 0.5 * share[..., None] * np.array([1, -1])).astype(np.float32)


def test_the_smoother_the_edge_the_less_of_a_seam():
    background, composite = smooth(2), pasted(0)
    rows = s.compare_seams(
        np.stack([pasted(width) for width in (0, 1, 2, 4)] + [background]), composite, background, DISC, ["T1", "T2"]
    )
    seams, removed = [row["seam"] for row in rows], [row["seam_removed"] for row in rows]
    assert (np.diff(seams) < 0).all()
    assert (np.diff(removed) > 0).all()
    assert (removed[0], removed[-1]) == (0, 1)
    assert (seams[0], seams[-1]) == (rows[0]["seam_composite"], rows[0]["seam_background"])
    own, gone = rows[0], rows[-1]
    assert all(value == 0 for name, value in own.items() if "change" in name)
    assert gone["inside_mean_change/T1"] == pytest.approx(-0.5, abs=1e-6)
    assert gone["inside_mean_change/T2"] == pytest.approx(0.5, abs=1e-6)
    assert gone["contrast_change/T1"] == pytest.approx(-0.5, abs=1e-6)
    assert gone["inside_std_change/T1"] == pytest.approx(0, abs=1e-6)
    around = s.surroundings(DISC)
    assert own["contrast/T1"] == pytest.approx(composite[DISC][:, 0].mean() - composite[around][:, 0].mean(), abs=1e-6)
    assert own["inside_p10/T1"] < own["inside_p50/T1"] < own["inside_p90/T1"]


def test_no_seam_to_take_away():
    (row,) = s.compare_seams(smooth(3)[None], smooth(2), smooth(2), DISC)
    assert isinstance(row["seam_removed"], Undefined)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (DISC & False, "the mask is empty"),
        (DISC | True, "the mask is full"),
        (DISC[:-1], "does not belong to an image of 64x64"),
        (DISC[..., None], "does not belong to an image of 64x64"),
        (np.where(DISC, np.nan, 0), "not numbers"),
    ],
)
def test_masks_without_a_contour(mask, message):
    with pytest.raises(UserError, match=message):
        s.compare_seams(smooth(0)[None], smooth(0), smooth(0), mask)


def test_images_of_other_sizes():
    with pytest.raises(UserError, match="samples of 64x64 pixels"):
        s.compare_seams(smooth(0)[None], smooth(0), smooth(0)[1:], DISC)
    assert s.check_mask(DISC * 255, (SIZE, SIZE)).dtype == bool


@pytest.mark.shared
def test_a_real_tumour_in_a_healthy_slice(shared_data):
    """Pasted by its mask from one slice into another and then blended: the seam goes, most of the contrast stays."""
    tumour, healthy = (np.load(shared_data / f"mri_slices/du7294_z{z}.npz") for z in ("113", "090"))
    mask = tumour["seg"] > 0
    bright, background = (2 * each["image"].transpose(1, 2, 0) - 1 for each in (tumour, healthy))
    composite = np.where(mask[..., None], bright, background)
    share = [ndimage.gaussian_filter(mask.astype(np.float32), width)[..., None] for width in (1, 2, 4)]
    blended = [each * bright + (1 - each) * background for each in share]
    rows = s.compare_seams(np.stack([composite, *blended]), composite, background, mask, tumour["channels"].tolist())
    assert (np.diff([row["seam_removed"] for row in rows]) > 0.05).all()
    assert rows[0]["seam_removed"] == 0
    assert rows[0]["contrast/flair"] > 0.3
    assert rows[2]["contrast/flair"] > 0.5 * rows[0]["contrast/flair"]


def test_the_step_at_the_contour_is_that_between_neighbours_on_either_side():
    image = np.where(HALF[..., None], 0.6, 0.1) + np.array([0.0, 1.0])
    image[:32, SIZE // 2 :, 1] += 0.4
    assert s.contour_step(image, HALF) == pytest.approx((0.5 * 3 + 0.9) / 4)
    assert s.contour_step(image, HALF, ROWS > 0) == pytest.approx(0.5)
    assert np.isnan(s.contour_step(image, HALF, np.zeros_like(HALF)))
    slope = 0.02 * COLUMNS[..., None]
    assert s.contour_step(slope, HALF) == pytest.approx(0.02)
