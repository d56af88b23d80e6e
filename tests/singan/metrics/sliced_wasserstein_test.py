import imageio.v3 as imageio
import jax
import numpy as np
import pytest
import scipy.stats

from singan.errors import UserError
from singan.metrics.sliced_wasserstein import (
    DEFINITIONS,
    PATCH,
    PROJECTIONS,
    detail_distance,
    laplacian,
    level_sizes,
    patch_distribution,
    sliced_wasserstein,
    sorted_projections,
    unit_vectors,
    wasserstein,
)
from singan.metrics.values import Undefined
from tests.singan.metrics.textures import damaged, texture

compiled = jax.jit(sliced_wasserstein)


def test_levels_are_halved_down_to_a_size_that_holds_patches():
    assert level_sizes(56, 56) == [(14, 14), (28, 28), (56, 56)]
    assert level_sizes(57, 90) == [(15, 23), (29, 45), (57, 90)]
    assert level_sizes(27, 200) == [(14, 100), (27, 200)]
    assert level_sizes(7, 26) == [(7, 26)]
    assert len(level_sizes(4000, 4000)) == 5
    with pytest.raises(UserError, match="6x26 pixels holds no patch of 7x7"):
        level_sizes(6, 26)


def test_the_pyramid_separates_octaves():
    bands = laplacian(texture(0, 45, 38, 2), 3)
    assert [band.shape[:2] for band in bands] == [(12, 10), (23, 19), (45, 38)]
    ramp = np.linspace(-1, 1, 64, dtype=np.float32)[:, None, None] * np.ones((1, 64, 1), np.float32)
    coarse, *detail = laplacian(ramp, 3)
    assert max(float(np.abs(band[6:-6]).max()) for band in detail) < 1e-6  # a slope has no detail but at its ends
    assert np.ptp(coarse) > 1.8
    checks = (-1.0) ** np.add.outer(np.arange(64), np.arange(64)).astype(np.float32)[..., None]
    coarse, _, fine = laplacian(checks, 3)
    assert float(np.abs(coarse[3:-3, 3:-3]).max()) < 1e-6
    np.testing.assert_allclose(fine[6:-6, 6:-6], checks[6:-6, 6:-6], atol=1e-6)


def test_wasserstein_is_scipys_for_any_two_numbers_of_values():
    rng = np.random.default_rng(0)
    for n, m in ((50, 50), (50, 49), (12, 36), (7, 30), (1, 4)):
        a, b = np.sort(rng.normal(size=(2, n)), axis=1), np.sort(rng.normal(0.3, 2, size=(2, m)), axis=1)
        expected = np.mean([scipy.stats.wasserstein_distance(*rows) for rows in zip(a, b, strict=True)])
        assert wasserstein(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(expected, rel=1e-5)


def test_projections_are_those_of_all_patches_in_order():
    image = texture(1, 12, 15, 3)
    vectors = unit_vectors(3)
    patches = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH), axis=(0, 1))
    expected = np.sort(np.einsum("hwcij,ijcv->vhw", patches, vectors).reshape(PROJECTIONS, -1), axis=1)
    np.testing.assert_allclose(sorted_projections(image, vectors), expected, atol=1e-5)
    np.testing.assert_allclose(np.square(vectors).sum(axis=(0, 1, 2)), 1, rtol=1e-6)


def test_vectors_are_the_same_everywhere_and_always():
    assert unit_vectors(3)[:2, 0, 0, 0].tolist() == pytest.approx([0.11449912, -0.09595208], abs=1e-7)
    assert unit_vectors(1)[3, 3, 0, :2].tolist() == pytest.approx([0.15228927, -0.07931747], abs=1e-7)


def test_a_constant_shift_is_all_in_the_coarsest_level():
    image = texture(0, 40, 40, 2) / 2
    values = compiled(image, np.stack([image, image + 0.25]))
    assert np.all(np.asarray(values[0]) == 0)
    sums = np.abs(unit_vectors(2).sum(axis=(0, 1, 2))).mean()  # a patch moved by 0.25 moves along v by 0.25 sum(v)
    assert values[1, 0] == pytest.approx(0.25 * sums, rel=1e-4)
    assert np.max(values[1, 1:]) < 1e-5


def test_copies_are_at_distance_0_at_any_number_of_channels():
    for channels in (1, 4, 16):
        image = texture(2, 20, 22, channels)
        row, other = patch_distribution(np.stack([image, image[::-1]]), image)
        assert row == {"swd": 0, "swd/1": 0}
        assert other["swd"] > 0


def test_damage_is_seen_monotonically():
    image = texture(3, 80, 64, 3)
    for kind, images in damaged(image).items():
        values = np.asarray(compiled(image, images)).mean(axis=1)
        assert values[0] > 1e-4, kind
        assert np.all(np.diff(values) > 0), kind


def test_another_draw_of_the_texture_is_nearer_than_another_texture():
    image = texture(4, 64, 64, 1)
    same, larger = (
        patch_distribution(texture(5, 64, 64, 1)[None], image),
        patch_distribution(texture(5, 96, 80, 1)[None], image),
    )
    other = patch_distribution(np.sign(texture(5, 64, 64, 1))[None], image)
    assert other[0]["swd"] > 3 * same[0]["swd"]
    assert other[0]["swd"] > 3 * larger[0]["swd"]
    assert list(same[0]) == list(larger[0]) == ["swd", "swd/1", "swd/2", "swd/4"]
    assert set(list(same[0])[:3]) == set(DEFINITIONS)
    assert same[0]["swd"] == pytest.approx(np.mean([same[0][f"swd/{octave}"] for octave in (1, 2, 4)]))


def test_large_images_give_the_patches_of_a_grid():
    image = texture(6, 150, 200, 1)
    assert sorted_projections(image, unit_vectors(1)).shape[1] == 48 * 65  # every third


def test_what_has_no_patches_has_a_reason_and_broken_pixels_an_error():
    image = texture(7, 16, 16, 1)
    (row,) = patch_distribution(image[None, :5, :5], image)
    assert isinstance(row["swd"], Undefined)
    assert "5x5 pixels holds no patch" in row["swd"].reason
    assert patch_distribution(np.zeros((1, 16, 16, 1)), np.zeros((16, 16, 1)))[0]["swd"] == 0
    broken = np.stack([image, image])
    broken[1, 3, 3] = np.nan
    with pytest.raises(UserError, match="NaN"):
        patch_distribution(broken, image)
    assert np.isnan(compiled(image, broken)).all(axis=1).tolist() == [False, True]


@pytest.mark.shared
def test_damage_to_real_tissue_is_seen_monotonically(shared_data):
    path = shared_data / "histology" / "pannuke_images_only" / "10059.png"
    image = imageio.imread(path)[:80, :64, :3].astype(np.float32) / 127.5 - 1
    for kind, images in damaged(image).items():
        values = np.asarray(compiled(image, images)).mean(axis=1)
        assert np.all(np.diff([0, *values]) > 0), kind


def test_detail_within_masks_is_compared_and_nothing_else():
    rng = np.random.default_rng(0)
    image = rng.uniform(-0.5, 0.5, (40, 33, 2)).astype(np.float32)
    mask, everywhere = np.zeros((40, 33), bool), np.ones((40, 33), bool)
    mask[12:28, 10:24] = True
    assert detail_distance(image, mask, image, mask) == 0
    brighter = image + np.float32(0.3)
    assert detail_distance(image, mask, brighter, mask) == pytest.approx(0, abs=1e-5)
    elsewhere = np.where(mask[..., None] | (np.indices((40, 33))[0] > 8)[..., None], image, 0)
    assert detail_distance(image, mask, elsewhere, mask) < 0.1 * detail_distance(image, mask, 0 * image, mask)
    softer = [detail_distance(image, mask, image * factor, mask) for factor in (0.9, 0.5, 0)]
    assert 0 < softer[0] < softer[1] < softer[2]
    bands = laplacian(image, 3)
    slices = [sorted_projections(band, unit_vectors(2)) for band in bands[:0:-1]]
    expected = np.mean([np.abs(np.asarray(each)).mean() for each in slices])
    inner = everywhere.copy()
    assert detail_distance(image, inner, 0 * image, inner) == pytest.approx(expected, rel=1e-3)
    assert np.isnan(detail_distance(image, np.zeros((40, 33), bool), image, mask))
