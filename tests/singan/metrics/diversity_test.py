import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.metrics import structural_similarity

from singan.errors import UserError
from singan.metrics import diversity as d
from singan.metrics.values import Undefined


def texture(seed, *shape, sigma=1.5):
    """Smooth noise in [-1, 1]."""
    noise = np.random.default_rng(seed).normal(0, 1, shape)
    smooth = ndimage.gaussian_filter(noise, [0] * (len(shape) - 3) + [sigma, sigma, 0])
    return np.clip(smooth / (2.5 * smooth.std()), -1, 1).astype(np.float32)


def test_deviation_of_known_samples():
    """Each pixel of channel c takes +-a[c] about its own mean, half of the samples each; the image +-b[c]."""
    a, b = np.array([0.1, 0.3]), np.array([0.5, 0.25])
    centre = texture(0, 12, 14, 2) / 4
    samples = np.stack([centre - a, centre + a, centre + a, centre - a])
    image = np.where(np.arange(14)[:, None] % 2, b, -b) * np.ones((12, 1, 1))
    found = d.diversity(samples, image, ["T1", "T2"])
    assert found["diversity/T1"] == pytest.approx(0.2, rel=1e-5)
    assert found["diversity/T2"] == pytest.approx(1.2, rel=1e-5)
    assert found["diversity"] == pytest.approx(0.2 / np.sqrt((0.5**2 + 0.25**2) / 2), rel=1e-5)


def test_deviation_is_what_the_paper_says():
    samples, image = texture(1, 5, 16, 13, 3), texture(2, 20, 9, 3)
    found = d.diversity(samples, image)
    assert found["diversity"] == pytest.approx(samples.std(0).mean() / image.std(), rel=1e-5)
    assert found["diversity/1"] == pytest.approx(samples[..., 1].std(0).mean() / image[..., 1].std(), rel=1e-5)


@pytest.mark.parametrize(("count", "share"), [(2, 0.5642), (16, 0.9522)])
def test_the_documented_bias_of_few_samples(count, share):
    noise = np.random.default_rng(3).normal(0, 1, (count, 100, 100, 1)).astype(np.float32)
    np.testing.assert_allclose(d.pixel_deviation(noise), share, rtol=0.01)


def test_copies_have_no_diversity():
    image = texture(4, 16, 16, 3)
    found = d.diversity(np.stack([image] * 3), image)
    assert found["diversity"] == found["diversity/0"] == 0
    assert found["ms_ssim"] == pytest.approx(1, abs=1e-6)


def test_what_has_no_diversity_says_why():
    image = texture(5, 16, 16, 2)
    assert d.diversity(image[None], image) == dict.fromkeys(
        ("diversity", "diversity/0", "diversity/1", "ms_ssim"), Undefined(d.ONE_SAMPLE)
    )
    samples = texture(6, 3, 16, 16, 2)
    constant = np.full((16, 16, 2), 0.1)
    found = d.diversity(samples, constant)
    assert isinstance(found["diversity"], Undefined)
    assert isinstance(found["ms_ssim"], float)
    constant[..., 1] = image[..., 1]
    found = d.diversity(samples, constant)
    assert isinstance(found["diversity/0"], Undefined)
    assert found["diversity/1"] > 0
    assert found["diversity"] > 0
    assert "11x11" in d.diversity(samples[:, :10], image)["ms_ssim"].reason
    with pytest.raises(UserError, match="no samples"):
        d.diversity(samples[:0], image)


@pytest.mark.parametrize("size", [(11, 11), (30, 23)])
def test_ssim_is_scikit_images(size):
    a = texture(7, *size, 2)
    b = np.clip(a + 0.5 * texture(8, *size, 2), -1, 1)
    for channel in range(2):
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2}
        expected = structural_similarity(a[..., channel].astype(float), b[..., channel].astype(float), **settings)
        np.testing.assert_allclose(d.ssim(a, b)[0][channel], expected, atol=2e-6)


def test_ms_ssim_against_double_precision():
    """Three scales at 56 pixels, computed anew with SciPy's filter from the paper's formula."""
    a = texture(9, 56, 47, 1)
    b = np.clip(0.8 * a + 0.4 * texture(10, 56, 47, 1), -1, 1)
    x, y, weights = a[..., 0].astype(float), b[..., 0].astype(float), np.array([0.0448, 0.2856, 0.3001])
    assert d.scale_count(56, 47) == 3

    def blur(image):
        return ndimage.gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]

    expected = 1.0
    for scale, weight in enumerate(weights / weights.sum()):
        covariance = blur(x * y) - blur(x) * blur(y)
        variances = blur(x * x) - blur(x) ** 2 + blur(y * y) - blur(y) ** 2
        similarity = (2 * covariance + 0.0036) / (variances + 0.0036)
        if scale == 2:
            similarity *= (2 * blur(x) * blur(y) + 0.0004) / (blur(x) ** 2 + blur(y) ** 2 + 0.0004)
        expected *= similarity.mean() ** weight
        even = [each[: each.shape[0] // 2 * 2, : each.shape[1] // 2 * 2] for each in (x, y)]
        x, y = (each.reshape(len(each) // 2, 2, -1, 2).mean((1, 3)) for each in even)
    assert 0.3 < expected < 0.95
    np.testing.assert_allclose(d.ms_ssim(a, b)[0], expected, rtol=1e-4)


def test_opposite_images_have_no_ms_ssim_below_zero():
    a = np.where(np.indices((24, 24, 1)).sum(0) % 2, 0.5, -0.5).astype(np.float32)  # every window is 0 on average
    assert d.ssim(a, -a)[0][0] < 0
    assert d.ms_ssim(a, -a)[0] == 0


def test_scales_by_size():
    found = {size: d.scale_count(size, size + 3) for size in (10, 11, 21, 22, 43, 44, 56, 88, 175, 176, 1000)}
    assert [*found.values()] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize(("count", "most"), [(2, 9), (3, 9), (5, 99), (6, 99), (40, 64), (7, 5)])
def test_pairs_are_different_and_fair(count, most):
    pairs = list(zip(*(each.tolist() for each in d.sample_pairs(count, most)), strict=True))
    assert len(set(pairs)) == len(pairs) == min(most, count * (count - 1) // 2)
    assert all(0 <= a < b < count for a, b in pairs)
    taken = np.bincount(np.ravel(pairs), minlength=count)
    assert np.ptp(taken) <= 2


def test_more_noise_is_more_diversity():
    image, noise = texture(12, 24, 24, 3), np.random.default_rng(13).normal(0, 1, (4, 24, 24, 3))
    found = [d.diversity(image + level * noise, image) for level in (0, 0.02, 0.1, 0.3)]
    assert (np.diff([row["diversity"] for row in found]) > 0).all()
    assert (np.diff([row["ms_ssim"] for row in found]) < 0).all()


@pytest.mark.shared
def test_crops_of_tissue_are_more_diverse_than_shifts_of_one(shared_data):
    paths = sorted((shared_data / "histology/monuseg/images").iterdir())
    images = np.stack([np.asarray(Image.open(path).convert("RGB"))[:64, :64] for path in paths]) / 127.5 - 1
    shifted = np.stack([np.roll(images[0], shift, 0) for shift in range(6)])
    far, near = (d.diversity(samples, images[0]) for samples in (images, shifted))
    assert near["diversity"] < far["diversity"]
    assert near["ms_ssim"] > far["ms_ssim"] + 0.1
    assert 0.5 < far["diversity"] < 2
