import imageio.v3 as imageio
import jax
import numpy as np
import pytest

from singan.errors import UserError
from singan.metrics.fixed_random import fixed_normal, unit_rows
from singan.metrics.random_features import (
    DEFINITIONS,
    DIMENSIONS,
    MIN_SIDE,
    filters,
    random_features,
    random_sifid,
    texture_distance,
)
from singan.metrics.values import Undefined
from tests.singan.metrics.textures import damaged, texture

compiled = jax.jit(random_sifid)


def test_numbers_are_drawn_from_philox_words_alone():
    drawn = fixed_normal(7, (3, 2))
    assert (drawn * 0x10000).tolist() == [[-17043, -30134], [-119255, 95227], [40783, -131979]]
    many = fixed_normal(1, (20000,))
    assert many.mean() == pytest.approx(0, abs=0.02)
    assert many.std() == pytest.approx(1, abs=0.02)
    assert np.mean(np.abs(many) < 1) == pytest.approx(0.683, abs=0.01)


def test_rows_are_orthonormal_in_groups():
    rows = unit_rows(fixed_normal(0, (14, 6)))
    for group in (rows[:6], rows[6:12], rows[12:]):
        np.testing.assert_allclose(group @ group.T, np.eye(len(group)), atol=1e-12)


@pytest.mark.parametrize(("channels", "first"), [(1, -0.01456309), (3, 0.18518186), (16, 0.06107551)])
def test_filters_are_fixed_normalised_and_mostly_blind_to_tone(channels, first):
    kernels = filters(channels)
    assert [kernel.shape for kernel in kernels] == [(3, 3, channels, 32), (3, 3, 32, 32), (3, 3, 32, 64)]
    gain = 2 / 1.04
    lengths = [np.square(kernel).sum(axis=(0, 1, 2)) / gain for kernel in kernels]
    np.testing.assert_allclose(lengths[0], [1 / 16] * 4 + [1] * 28, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate(lengths[1:]), 1, rtol=1e-5)
    assert np.abs(kernels[0][..., 4:].sum(axis=(0, 1))).max() < 1e-5
    deep = kernels[2].reshape(-1, 64).astype(float)
    np.testing.assert_allclose(deep.T @ deep, gain * np.eye(64), atol=1e-5)
    assert [kernel.ravel()[0] for kernel in kernels] == pytest.approx([first, 0.07210322, 0.01009067], abs=1e-7)


def test_features_look_at_ten_pixels_and_lie_two_apart():
    image = texture(0, 30, 32, 2)
    features = np.asarray(random_features(image[None]))
    assert features.shape == (1, 11, 12, DIMENSIONS)
    touched = image.copy()
    touched[14, 15] = 0
    changed = np.argwhere(np.any(np.asarray(random_features(touched[None]))[0] != features[0], axis=-1))
    assert changed.min(axis=0).tolist() == [3, 3]  # vector i looks at pixels 2 i to 2 i + 9
    assert changed.max(axis=0).tolist() == [7, 7]
    np.testing.assert_allclose(random_features(2 * image[None]), 2 * features, rtol=1e-4, atol=1e-4)


def test_copies_are_at_distance_0_at_any_number_of_channels():
    for channels in (1, 4, 16):
        image = texture(2, 24, 30, channels)
        row, other = texture_distance(np.stack([image, 0.5 * image]), image)
        assert list(row) == list(DEFINITIONS)
        assert 0 <= row["random_sifid"] < 1e-5
        assert other["random_sifid"] > 1e-2


def test_damage_is_seen_monotonically():
    image = texture(3, 80, 64, 3)
    for kind, images in damaged(image).items():
        values = np.asarray(compiled(image, images))
        assert values[0] > 1e-5, kind
        assert np.all(np.diff(values) > 0), kind


def test_another_draw_of_the_texture_is_nearer_than_another_texture():
    image = texture(4, 64, 64, 1)
    same = texture_distance(texture(5, 64, 64, 1)[None], image)[0]["random_sifid"]
    larger = texture_distance(texture(5, 96, 80, 1)[None], image)[0]["random_sifid"]
    other = texture_distance(np.sign(texture(5, 64, 64, 1))[None], image)[0]["random_sifid"]
    assert other > 5 * max(same, larger)


def test_what_cannot_be_looked_at_has_a_reason_and_broken_pixels_an_error():
    image = texture(7, 20, 20, 1)
    for side in (MIN_SIDE, MIN_SIDE - 1):
        (row,) = texture_distance(image[None, :side, :], image)
        assert isinstance(row["random_sifid"], Undefined) == (side < MIN_SIDE)
    assert "15x20 pixels is too small for random features: use at least 16x16" in row["random_sifid"].reason
    deep = np.zeros((20, 20, 17))
    assert "1 to 16 channels, not 17" in texture_distance(deep[None], deep)[0]["random_sifid"].reason
    constant = np.full((20, 20, 1), 0.3)
    assert texture_distance(constant[None], constant)[0]["random_sifid"] == pytest.approx(0, abs=1e-6)
    broken = np.stack([image, image])
    broken[1, 3, 3] = np.inf
    with pytest.raises(UserError, match="NaN"):
        texture_distance(broken, image)
    assert np.isnan(compiled(image, broken)).tolist() == [False, True]


@pytest.mark.shared
def test_damage_to_real_tissue_is_seen_monotonically(shared_data):
    path = shared_data / "histology" / "pannuke_images_only" / "10059.png"
    image = imageio.imread(path)[:80, :64, :3].astype(np.float32) / 127.5 - 1
    for kind, images in damaged(image).items():
        assert np.all(np.diff([1e-6, *np.asarray(compiled(image, images))]) > 0), kind
