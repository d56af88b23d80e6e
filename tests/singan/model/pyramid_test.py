import numpy as np
import pytest

from singan.config import PyramidConfig
from singan.errors import UserError
from singan.model.pyramid import make_pyramid, resize_matrix


@pytest.mark.parametrize(
    ("height", "width", "scales"),
    [
        (240, 240, [25, 33, 42, 54, 69, 88, 113, 146, 187, 240]),
        (256, 256, [26, 33, 42, 54, 70, 90, 117, 150, 194, 250]),  # 26 is float noise in the reference's ceil
    ],
)
def test_sizes_are_the_references(height, width, scales):
    assert make_pyramid(height, width, PyramidConfig()).sizes == tuple((size, size) for size in scales)


@pytest.mark.parametrize(
    ("height", "width", "scales", "finest"),
    [
        (250, 250, 11, (250, 250)),
        (188, 250, 10, (188, 250)),
        (166, 248, 9, (166, 248)),
        (512, 512, 10, (250, 250)),
        (1024, 768, 9, (250, 188)),
        (155, 240, 9, (155, 240)),
    ],
)
def test_the_number_of_scales_and_the_finest_are_the_references(height, width, scales, finest):
    pyramid = make_pyramid(height, width, PyramidConfig())
    assert len(pyramid) == scales
    assert pyramid.sizes[-1] == pyramid.shrunk == finest
    assert min(pyramid.sizes[0]) in (25, 26)


def test_the_ratio_makes_the_scales_meet_both_sizes():
    assert make_pyramid(240, 240, PyramidConfig()).ratio == pytest.approx(0.77778, abs=5e-6)


@pytest.mark.parametrize(("height", "width"), [(20, 20), (25, 25), (50, 1000), (1, 300)])
def test_too_few_pixels_are_refused_with_the_image_and_the_key(height, width):
    with pytest.raises(UserError, match=rf"{height}x{width} pixels.*config\.pyramid\.min_size"):
        make_pyramid(height, width, PyramidConfig())


def test_scales_that_do_not_grow_are_refused():
    with pytest.raises(UserError, match="do not grow"):
        make_pyramid(28, 28, PyramidConfig(ratio=0.99))


def test_the_references_rows_when_shrinking():
    matrix = resize_matrix(32, 16, 0.5, "reference")
    first, last = np.zeros(32), np.zeros(32)
    first[:5] = [0.4644, 0.4644, 0.1213, -0.0377, -0.0126]
    np.add.at(
        last,
        [27, 28, 29, 30, 31, 31, 30, 29],
        [-0.0117, -0.0352, 0.1133, 0.4336, 0.4336, 0.1133, -0.0352, -0.0117],
    )
    np.testing.assert_allclose(matrix[0], first, atol=5.1e-5)
    np.testing.assert_allclose(matrix[-1], last, atol=1.1e-4)  # two rounded values meet in a pixel


def test_the_references_first_row_when_enlarging():
    matrix = resize_matrix(33, 43, 1 / 0.7778, "reference")
    expected = np.zeros(33)
    expected[:2] = [1.0473, -0.0473]
    np.testing.assert_allclose(matrix[0], expected, atol=5.1e-5)


@pytest.mark.parametrize("border", ["mirror", "reference"])
@pytest.mark.parametrize(("length", "out", "scale"), [(32, 16, 0.5), (33, 43, 1 / 0.7778), (250, 26, 0.1), (7, 7, 1.0)])
def test_rows_sum_to_one(length, out, scale, border):
    np.testing.assert_allclose(resize_matrix(length, out, scale, border).sum(1), 1, atol=1e-12)


@pytest.mark.parametrize(("length", "out"), [(32, 16), (33, 99), (12, 18), (100, 40), (5, 5)])
def test_mirrored_borders_treat_both_ends_alike(length, out):
    """Where out is exactly length * scale, reversing the signal reverses the result."""
    matrix = resize_matrix(length, out, out / length, "mirror")
    np.testing.assert_allclose(matrix[::-1, ::-1], matrix, atol=1e-12)


def test_the_references_borders_do_not():
    matrix = resize_matrix(32, 16, 0.5, "reference")
    assert np.abs(matrix[::-1, ::-1] - matrix).max() > 0.02


def test_a_ramp_stays_a_ramp_inside():
    """Cubic interpolation reproduces straight lines: output pixel p (from 0) lies at (p + 1/2) / scale - 1/2."""
    scale = 43 / 33
    resized = resize_matrix(33, 43, scale, "mirror") @ np.arange(33.0)
    inside = slice(3, -3)
    np.testing.assert_allclose(resized[inside], ((np.arange(43) + 0.5) / scale - 0.5)[inside], atol=1e-12)


def test_resizing_by_one_changes_nothing():
    np.testing.assert_array_equal(resize_matrix(9, 9, 1.0, "mirror"), np.eye(9))


def test_a_flipped_image_gives_a_flipped_level():
    pyramid = make_pyramid(64, 64, PyramidConfig(min_size=27, ratio=0.5))
    assert pyramid.sizes == ((27, 27), (36, 36), (48, 48), (64, 64))
    image = np.random.default_rng(0).uniform(-1, 1, (64, 64, 2)).astype(np.float32)
    for scale in range(4):
        level = pyramid.level(image, scale)
        np.testing.assert_allclose(pyramid.level(image[::-1, :], scale), level[::-1, :], atol=1e-6)
        np.testing.assert_allclose(pyramid.level(image[:, ::-1], scale), level[:, ::-1], atol=1e-6)


def test_a_constant_image_stays_constant():
    for border in ("mirror", "reference"):
        pyramid = make_pyramid(300, 200, PyramidConfig(), border)
        for scale in (0, 4, len(pyramid) - 1):
            level = pyramid.level(np.full((300, 200, 1), -0.3), scale)
            assert level.shape == (*pyramid.sizes[scale], 1)
            np.testing.assert_allclose(level, -0.3, atol=1e-6)


def test_the_finest_level_of_an_image_that_fits_is_the_image():
    pyramid = make_pyramid(60, 50, PyramidConfig())
    image = np.random.default_rng(0).uniform(-1, 1, (60, 50, 3)).astype(np.float32)
    np.testing.assert_array_equal(pyramid.level(image, len(pyramid) - 1), image)


def test_levels_are_clipped_float32():
    image = np.kron(np.indices((12, 12)).sum(0) % 2, np.ones((9, 9)))[:, :, None] * 2 - 1  # cubic kernels overshoot
    pyramid = make_pyramid(*image.shape[:2], PyramidConfig())
    level = pyramid.level(image.astype(np.float32), len(pyramid) - 2)
    assert level.dtype == np.float32
    assert level.min() == -1
    assert level.max() == 1
    ratio, size = pyramid.ratio, pyramid.sizes[-2]
    rows, columns = (resize_matrix(108, n, ratio, "mirror") for n in size)
    assert np.abs(np.einsum("ph,hwc,qw->pqc", rows, image, columns)).max() > 1.01


def test_upsampling_keeps_the_top_left_of_the_enlarged_image():
    pyramid = make_pyramid(188, 250, PyramidConfig(), "reference")
    for scale in range(1, len(pyramid)):
        for matrix, old, new in zip(
            pyramid.upsampling(scale), pyramid.sizes[scale - 1], pyramid.sizes[scale], strict=True
        ):
            whole = resize_matrix(old, int(np.ceil(old / pyramid.ratio)), 1 / pyramid.ratio, "reference")
            assert matrix.dtype == np.float32
            assert matrix.shape == (new, old)
            np.testing.assert_array_equal(matrix, whole[:new].astype(np.float32))


def concurrent_pyramid(height, width, border="mirror", **keys):
    return make_pyramid(height, width, PyramidConfig(**{"num_scales": 6, **keys}), border)


def test_a_given_number_of_scales_is_spaced_as_consingans():
    pyramid = concurrent_pyramid(188, 250)
    assert pyramid.sizes == ((25, 34), (32, 42), (42, 56), (63, 84), (126, 167), (188, 250))
    np.testing.assert_allclose(pyramid.factor(0), 25 / 188)
    np.testing.assert_allclose(np.prod([pyramid.growth(scale) for scale in range(1, 6)]), 188 / 25)
    np.testing.assert_allclose(pyramid.growth(5), 1 / pyramid.ratio)
    assert concurrent_pyramid(1024, 768).shrunk == concurrent_pyramid(250, 188).sizes[-1] == (250, 188)


# 26 is float noise in the ceil, as in the reference.
@pytest.mark.parametrize(("count", "sizes"), [(2, (25, 240)), (3, (25, 78, 240)), (4, (26, 44, 113, 240))])
def test_few_scales_lie_between_both_ends(count, sizes):
    assert concurrent_pyramid(240, 240, num_scales=count).sizes == tuple((size, size) for size in sizes)


def test_too_many_scales_and_too_few_pixels_are_refused_with_the_key():
    with pytest.raises(UserError, match=r"27x27 pixels do not grow .* lower config\.pyramid\.num_scales$"):
        concurrent_pyramid(27, 27)
    with pytest.raises(UserError, match=r"25x25 pixels.*config\.pyramid\.min_size"):
        concurrent_pyramid(25, 25)


@pytest.mark.parametrize("border", ["mirror", "reference"])
@pytest.mark.parametrize("keys", [{}, {"num_scales": 0}])
def test_each_level_enlarged_is_the_next_one(border, keys):
    """Of an image of low frequencies, whose levels differ in size alone; a wrong factor would shift them."""
    pyramid = concurrent_pyramid(188, 250, border, **keys)
    rows, columns = np.cos(np.linspace(0, 7, 188)), np.sin(np.linspace(0, 9, 250))
    image = 0.5 * np.stack([np.outer(rows, columns), np.outer(rows, np.ones(250))], -1)
    for scale in range(1, len(pyramid)):
        up, across = pyramid.upsampling(scale)
        enlarged = np.einsum("ph,hwc,qw->pqc", up, pyramid.level(image, scale - 1), across, optimize=True)
        inside = slice(4, -4)  # where borders, which the reference treats otherwise, have no say
        np.testing.assert_allclose(enlarged[inside, inside], pyramid.level(image, scale)[inside, inside], atol=0.02)


def test_other_sizes_keep_the_growth_between_scales():
    pyramid = concurrent_pyramid(188, 250)
    wide = pyramid.scaled(1.0, 2.0)
    assert wide.sizes == tuple((height, 2 * width) for height, width in pyramid.sizes)
    for scale in range(1, 6):
        assert wide.growth(scale) == pyramid.growth(scale)
        for old, new in zip(pyramid.upsampling(scale)[:1], wide.upsampling(scale)[:1], strict=True):
            np.testing.assert_array_equal(old, new)
