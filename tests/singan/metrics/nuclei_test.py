import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from skimage.color import rgb2hed
from skimage.measure import regionprops

from singan.errors import UserError
from singan.metrics import nuclei as n
from singan.metrics.values import Undefined


def discs(*radii, size=96):
    """Instances 1.. of these radii, in pixels, on a grid of 32 pixels."""
    rows, columns = np.indices((size, size))
    instances = np.zeros((size, size), np.int32)
    for number, radius in enumerate(radii):
        row, column = 16 + 32 * (number // 3), 16 + 32 * (number % 3)
        instances[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number + 1
    return instances


def measured(instances, classes=None, noise=0.0):
    """Nuclei whose stain is their own mask, with noise on it."""
    stain = (instances > 0) + noise * np.random.default_rng(0).normal(0, 1, instances.shape)
    return n.measure_nuclei(instances, classes, stain)


SOURCE = measured(discs(5, 6, 7, 8, 9), [1, 1, 2, 2, 3], noise=0.5)


def test_the_source_itself():
    row = n.compare_nuclei(SOURCE, SOURCE)
    assert row["nuclei"] == 5
    assert row["nuclei_ratio"] == row["valid"] == row["valid_connected"] == row["valid_area"] == 1
    assert row["area_distance"] == row["class_distance"] == row["agreement_gap"] == 0
    assert row["area_mean"] == SOURCE.areas.mean()
    np.testing.assert_array_equal(SOURCE.areas, np.bincount(discs(5, 6, 7, 8, 9).ravel())[1:])


def test_ids_need_not_follow_each_other():
    instances = discs(5, 6, 7)
    sparse = np.array([0, 70, 8, 900])[instances].astype(np.uint16)
    found = n.measure_nuclei(sparse, [5, 6, 7])  # of the ids 8, 70, 900
    np.testing.assert_array_equal(found.areas, np.bincount(instances.ravel())[[2, 1, 3]])
    full = n.measure_nuclei(np.array([[3, 3], [9, 9]]))
    np.testing.assert_array_equal(full.areas, [2, 2])


def test_known_distances():
    assert n.area_distance(np.array([10, 20, 30]), np.array([17, 27, 37])) == 7
    assert n.area_distance(np.array([10, 10]), np.array([10, 30])) == 10
    assert n.class_distance(np.array([1, 1, 2, 2]), np.array([1, 2])) == 0
    assert n.class_distance(np.array([1, 1, 1, 2]), np.array([2, 3])) == 0.75
    assert n.class_distance(np.array([1]), np.array([4])) == 1
    assert isinstance(n.class_distance(np.zeros(0, int), np.array([4])), Undefined)


def test_larger_nuclei_are_farther():
    rows = [n.compare_nuclei(measured(discs(*(5 + k, 6 + k, 7 + k))), SOURCE) for k in (2, 4, 6, 8)]
    assert (np.diff([row["area_distance"] for row in rows]) > 0).all()
    assert (np.diff([row["valid_area"] for row in rows]) <= 0).all()
    assert rows[0]["valid"] == 1
    assert rows[-1]["valid_area"] == pytest.approx(0)


def test_validity():
    """Of four: a whole one, one in two pieces, one too small, one like a ring with a gap; a cut one is not solid."""
    instances = discs(7, 7, 2, 9)
    instances[16, 32:64] = instances[15, 32:64] = 0  # cuts the second in two
    row, column = np.indices(instances.shape) - np.array([48, 16])[:, None, None]
    instances[(instances == 4) & ((row**2 + column**2 < 49) | ((np.abs(row) < 3) & (column > 0)))] = 0
    found = n.measure_nuclei(instances)
    np.testing.assert_array_equal(found.pieces, [1, 2, 1, 1])
    row = n.compare_nuclei(found, SOURCE)
    assert (row["valid_connected"], row["valid_area"], row["valid_solidity"]) == (0.75, 0.75, 0.5)
    assert row["valid"] == 0.25


def test_solidity_is_scikit_images():
    blobs = ndimage.gaussian_filter(np.random.default_rng(1).normal(0, 1, (80, 80)), 3) > 0.05
    instances, count = ndimage.label(blobs)
    assert count > 5
    expected = [region.solidity for region in regionprops(instances)]
    np.testing.assert_allclose(n.measure_nuclei(instances).pieces, 1)
    np.testing.assert_allclose(n.measure_nuclei(instances).solidity, expected)
    assert min(expected) < 0.8
    for shape in ((1, 1), (1, 7), (4, 5)):
        assert n.solidity(np.ones(shape, bool)) == 1


def test_haematoxylin_is_scikit_images():
    image = np.random.default_rng(2).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    found = n.haematoxylin(image / np.float32(127.5) - 1)
    np.testing.assert_allclose(found / 6, rgb2hed(image)[..., 0], atol=1e-6)
    assert found[0, 1] == pytest.approx(0, abs=1e-6)


def test_separability_of_gaussians():
    """Two normal distributions, one standard deviation wide and d apart: Phi(d / sqrt 2)."""
    mask = np.arange(200)[:, None] % 2 == np.zeros(200)
    noise = np.random.default_rng(3).normal(0, 1, mask.shape)
    for shift in (0, 0.5, 1, 3):
        assert n.separability(noise + shift * mask, mask) == pytest.approx(stats.norm.cdf(shift / 2**0.5), abs=0.006)
    assert n.separability(mask, mask) == 1
    assert n.separability(~mask, mask) == 0
    assert n.separability(np.ones_like(noise), mask) == 0.5
    expected = stats.mannwhitneyu(noise[mask], noise[~mask]).statistic / mask.sum() / (~mask).sum()
    assert n.separability(noise, mask) == pytest.approx(expected)


def test_a_mask_that_slips_agrees_less():
    instances = discs(7, 7, 7, 7, 7)
    stain = ndimage.gaussian_filter((instances > 0) * 1.0, 1)
    source = n.measure_nuclei(instances, None, stain)
    gaps = [
        n.compare_nuclei(n.measure_nuclei(np.roll(instances, shift, 1), None, stain), source)["agreement_gap"]
        for shift in (0, 2, 5, 16)
    ]
    assert gaps[0] == 0
    assert (np.diff(gaps) < 0).all()
    assert gaps[-1] < -0.4


def test_images_without_nuclei():
    nothing = n.measure_nuclei(np.zeros((96, 96), int), [], np.zeros((96, 96)))
    row = n.compare_nuclei(nothing, SOURCE)
    assert row["nuclei"] == row["nuclei_ratio"] == 0
    undefined = {name for name, value in row.items() if value == n.NO_NUCLEI}
    assert undefined == set(n.DEFINITIONS) - {"nuclei", "nuclei_ratio"}
    row = n.compare_nuclei(SOURCE, nothing)
    assert row["nuclei"] == 5
    assert row["nuclei_ratio"] == row["area_distance"] == row["valid"] == n.NO_SOURCE_NUCLEI
    assert "source" in row["agreement_gap"].reason
    assert isinstance(row["agreement"], float)
    full = n.measure_nuclei(np.ones((8, 8), int), [1], np.ones((8, 8)))
    assert "whole image" in full.agreement.reason
    assert "no image" in n.measure_nuclei(np.ones((8, 8), int)).agreement.reason


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 4)),), "whole numbers"),
        ((np.full((4, 4), -1),), "whole numbers"),
        ((np.zeros((4, 4, 1), int),), "whole numbers"),
        ((np.eye(4, dtype=int), [1, 2]), "2 classes were given for 1 nuclei"),
        ((np.eye(4, dtype=int), [1], np.zeros((4, 5))), "of one size"),
        ((np.eye(4, dtype=int), [1], np.full((4, 4), np.nan)), "not numbers"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(UserError, match=message):
        n.measure_nuclei(*arguments)


def test_dice():
    a = np.arange(16).reshape(4, 4) < 8
    assert n.dice(a, a) == 1
    assert n.dice(a, ~a) == 0
    assert n.dice(a, np.roll(a, 1, 0)) == 0.5
    assert n.dice(a & False, a & False) == 1


def test_panoptic_quality():
    truth = discs(7, 7, 7, 7)
    assert n.panoptic_quality(truth, truth) == (1, 1, 1)
    assert n.panoptic_quality(truth * 0, truth * 0) == (1, 1, 1)
    assert n.panoptic_quality(truth * 0, truth) == (0, 0, 0)
    found = np.zeros((10, 10), int)
    found[:4, :5], found[:4, 5:], found[6:8, :2] = 1, 2, 3
    true = np.zeros((10, 10), int)
    true[:4, :4], true[:4, 4:9] = 7, 5
    # 1 on 7: 16 of 20; 2 on 5: 16 of 24; 3 alone
    quality = n.panoptic_quality(found, true)
    assert quality.segmentation == pytest.approx((16 / 20 + 16 / 24) / 2)
    assert quality.recognition == 4 / 5
    assert quality.quality == pytest.approx(quality.segmentation * quality.recognition)


@pytest.mark.shared
def test_real_tissue(shared_data):
    """The mask of a stained patch is where the haematoxylin is; another patch's mask is not."""
    paths = sorted((shared_data / "histology/monuseg/instances").iterdir())
    found = []
    for path in paths:
        image = np.asarray(Image.open(path.parents[1] / "images" / path.name).convert("RGB")) / np.float32(127.5) - 1
        found.append((np.asarray(Image.open(path)).astype(int), n.haematoxylin(image)))
    sources = [n.measure_nuclei(instances, None, stain) for instances, stain in found]
    for k, source in enumerate(sources):
        assert source.agreement > 0.8
        row = n.compare_nuclei(source, source)
        assert row["nuclei"] > 20
        assert row["valid"] == 1
        mixed = n.measure_nuclei(found[k][0], None, found[k - 1][1])
        assert abs(mixed.agreement - 0.5) < 0.15
        assert n.compare_nuclei(mixed, source)["agreement_gap"] < -0.2
