import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.spatial.distance import cdist

from singan.errors import UserError
from singan.metrics import memorisation as m
from singan.metrics.patches import extract_patches, nearest_patches, own_distances, patch_grid
from singan.metrics.values import Undefined


def texture(seed, *shape, sigma=1.5):
    """Smooth noise in [-1, 1]."""
    noise = np.random.default_rng(seed).normal(0, 1, shape)
    smooth = ndimage.gaussian_filter(noise, [sigma, sigma, 0])
    return np.clip(smooth / (2.5 * smooth.std()), -1, 1).astype(np.float32)


def in_blocks(image, side, seed=0):
    """The image's blocks in another order."""
    count, channels = image.shape[0] // side, image.shape[-1]
    blocks = image.reshape(count, side, count, side, channels).swapaxes(1, 2).reshape(-1, side, side, channels)
    blocks = blocks[np.random.default_rng(seed).permutation(len(blocks))]
    return blocks.reshape(count, count, side, side, channels).swapaxes(1, 2).reshape(image.shape)


def measure(*samples, image):
    """Their rows; always of four samples, so that one program does for all."""
    stacked = np.stack([*samples, *[samples[-1]] * (4 - len(samples))])
    return m.memorisation(stacked, image)[: len(samples)]


def by_hand(image, size, stride=1):
    """Patches [n, d], in double precision, and their places."""
    rows, columns = (range(0, side - size + 1, stride) for side in image.shape[:2])
    places = [(row, column) for row in rows for column in columns]
    patches = [image[row : row + size, column : column + size].ravel() for row, column in places]
    return np.array(patches, np.float64), np.array(places)


def test_patches():
    image = texture(0, 9, 12, 2)
    patches, _ = by_hand(image, 5, 2)
    found = np.asarray(extract_patches(image, 5, 2))
    assert found.shape == (3, 4, 50)
    np.testing.assert_array_equal(found.reshape(12, 50), patches)
    assert patch_grid((9, 12), 5, 2) == (3, 4)
    assert patch_grid((4, 12), 5) == (0, 0)


def test_nearest_patches_over_several_blocks():
    """1156 patches against 4224: two blocks of each, both filled up."""
    samples, image = np.stack([texture(1, 38, 38, 1), texture(2, 38, 38, 1)]), texture(3, 70, 68, 1)
    found = nearest_patches(samples, image, 5)
    others, places = by_hand(image, 5)
    for number, sample in enumerate(samples):
        distances = cdist(by_hand(sample, 5)[0], others) / 5
        np.testing.assert_allclose(found.distance[number].ravel(), distances.min(1), rtol=1e-5)
        nearest = places[distances.argmin(1)].T
        np.testing.assert_array_equal([found.row[number].ravel(), found.column[number].ravel()], nearest)


def test_own_distances_leave_out_what_overlaps():
    image = texture(4, 16, 13, 2)
    others, places = by_hand(image, 5)
    patches, own_places = by_hand(image, 5, 2)
    distances = cdist(patches, others) / np.sqrt(50)
    overlapping = (np.abs(own_places[:, None] - places) < 5).all(-1)
    expected = np.where(overlapping, np.inf, distances).min(1)
    np.testing.assert_allclose(own_distances(image, 5, 2).ravel(), expected, rtol=1e-5)
    small = np.asarray(own_distances(image[:9, :9], 5))
    assert np.isinf(small).all()
    assert isinstance(m.own_distance(small), Undefined)
    narrow = np.asarray(own_distances(image[:, :6], 5))
    assert np.isfinite(narrow[[0, -1]]).all()
    assert m.own_distance(narrow) == pytest.approx(narrow[np.isfinite(narrow)].mean())


def test_distances_of_pixels():
    image = texture(5, 6, 5, 4)
    samples = np.stack([image, image + 0.25, image + 0.1 * np.array([3, 0, 0, 4], np.float32)])
    np.testing.assert_allclose(m.rmse_to_image(samples, image), [0, 0.25, 0.25], atol=1e-7)


def test_copies_are_copies():
    image = texture(6, 48, 48, 3)
    for row in measure(image, image, image=image):
        assert row == {"rmse": 0, "nearest_patch": 0, "nearest_patch_ratio": 0, "copied": 1}


def test_a_part_of_the_image_is_a_copy():
    image = texture(6, 48, 48, 3)
    (row,) = m.memorisation(image[None, 8:40, 5:36], image, stride=3)
    assert row["nearest_patch"] == row["nearest_patch_ratio"] == 0
    assert row["copied"] == 1
    assert "size" in row["rmse"].reason


def test_what_is_new_and_what_is_not():
    """A second draw of the same texture is as far as another place of the image; shuffled blocks are nearer."""
    image = texture(7, 48, 48, 3)
    samples = [*(in_blocks(image, side) for side in (24, 16, 12)), texture(8, 48, 48, 3)]
    rows = measure(*samples, image=image)
    assert (np.diff([row["copied"] for row in rows]) < 0).all()
    assert (np.diff([row["nearest_patch_ratio"] for row in rows]) > 0).all()
    assert 0.9 < rows[-1]["nearest_patch_ratio"] < 1.1
    assert rows[-1]["copied"] < 0.01
    assert rows[0]["copied"] > 0.5


@pytest.mark.parametrize("kind", ["noise", "blur"])
def test_noise_and_blur_hide_a_copy(kind):
    image = texture(7, 48, 48, 3)
    noise = np.random.default_rng(9).normal(0, 1, image.shape)
    levels = {"noise": (0.02, 0.1, 0.2, 0.4), "blur": (0.5, 1, 2, 4)}[kind]
    changed = [
        image + level * noise if kind == "noise" else ndimage.gaussian_filter(image, (level, level, 0))
        for level in levels
    ]
    rows = measure(*changed, image=image)
    for name in ("rmse", "nearest_patch"):
        assert (np.diff([row[name] for row in rows]) > 0).all()
    shares = [row["copied"] for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.95
    assert shares[-1] < 0.05


def test_similar_patches_in_no_order_are_not_copied():
    """Each is near enough, but what is put together from single patches of other places is new."""
    nearest = m.NearestPatches(
        np.zeros((1, 20, 20), np.float32), *np.random.default_rng(10).integers(0, 40, (2, 1, 20, 20), dtype=np.int32)
    )
    copied, judged = m.copied_patches(nearest, np.ones((20, 20), np.float32), 2)
    assert judged.all()
    assert copied.mean() < 0.01


def test_one_row_of_patches_can_be_copied():
    image = texture(6, 48, 48, 3)
    (row,) = m.memorisation(image[None, 10:17, 8:40], image)
    assert row["copied"] == 1


def test_plain_and_repeated_images_cannot_be_judged():
    tile = texture(11, 12, 12, 3)
    for image in (np.full((48, 48, 3), 0.3), np.tile(tile, (4, 4, 1))):
        (row,) = measure(image, image=image)
        assert row["rmse"] == row["nearest_patch"] == 0
        assert isinstance(row["nearest_patch_ratio"], Undefined)
        assert isinstance(row["copied"], Undefined)


def test_background_is_no_copy():
    """Only what has no like counts: an empty sample of an image with a background has nothing to judge."""
    image = np.full((48, 48, 3), -1, np.float32)
    image[12:36, 12:36] = texture(12, 24, 24, 3)
    empty, own = measure(np.full_like(image, -1), image, image=image)
    assert empty["nearest_patch"] == 0
    assert isinstance(empty["copied"], Undefined)
    assert own["copied"] == 1


def test_images_smaller_than_a_patch():
    image = texture(13, 6, 20, 3)
    (row,) = m.memorisation(image[None], image)
    assert row["rmse"] == 0
    assert "7x7" in row["copied"].reason
    with pytest.raises(UserError, match="NaN"):
        m.memorisation(np.full((1, 6, 20, 3), np.nan), image)


def test_strides():
    assert m.chosen_stride((16, 56, 56, 3), (56, 56, 3)) == 1
    assert m.chosen_stride((16, 256, 256, 3), (256, 256, 3)) == 7
    assert m.chosen_stride((1, 128, 128, 3), (128, 128, 3)) == 1
    sizes = [m.chosen_stride((16, side, side, 3), (side, side, 3)) for side in range(40, 300, 20)]
    assert sizes == sorted(sizes)


def test_several_images_at_once():
    """The device's parts run under vmap, one image with its samples beside another."""
    images = np.stack([texture(14, 16, 16, 1), texture(15, 16, 16, 1)])
    samples = images[:, None, ::-1]
    both = jax.vmap(lambda some, image: nearest_patches(some, image, 5, 3).distance)(samples, images)
    for k in range(2):
        np.testing.assert_allclose(both[k], nearest_patches(samples[k], images[k], 5, 3).distance, rtol=1e-5)


@pytest.mark.shared
def test_real_tissue(shared_data):
    """Neighbouring tissue and other patients' is new, the image itself and its blocks are not."""
    paths = sorted((shared_data / "histology/monuseg/images").iterdir())
    images = [np.asarray(Image.open(path).convert("RGB")) / np.float32(127.5) - 1 for path in paths]
    image = images[0][:64, :64]
    samples = [image, in_blocks(image, 32), in_blocks(image, 16), images[0][64:128, 64:128], images[1][:64, :64]]
    rows = m.memorisation(np.stack(samples), image)
    assert rows[0] == {"rmse": 0, "nearest_patch": 0, "nearest_patch_ratio": 0, "copied": 1}
    assert 1 > rows[1]["copied"] > rows[2]["copied"] > 0.2
    assert rows[1]["nearest_patch_ratio"] < rows[2]["nearest_patch_ratio"] < 0.7
    for row in rows[3:]:
        assert row["copied"] < 0.01
        assert row["nearest_patch_ratio"] > 0.7
    blurred = [ndimage.gaussian_filter(image, (sigma, sigma, 0)) for sigma in (0.5, 1, 2, 3)]
    assert (np.diff([row["copied"] for row in m.memorisation(np.stack([*blurred, image]), image)[:4]]) < 0).all()


@pytest.mark.shared
def test_real_mri(shared_data):
    """Half of the scan's background says nothing: the next slice of the same patient is no copy, a shifted one is."""
    slices = [np.load(shared_data / f"mri_slices/du7294_z{z}.npz")["image"].transpose(1, 2, 0) for z in ("080", "090")]
    image, other = (2 * each[::2, ::2] - 1 for each in slices)
    same, shifted, new = m.memorisation(np.stack([image, np.roll(image, (2, 4), (0, 1)), other]), image, stride=3)
    assert same["copied"] == shifted["copied"] == 1
    assert same["nearest_patch"] == shifted["nearest_patch"] == 0
    assert shifted["rmse"] > 0.1
    assert new["copied"] < 0.05
    assert new["nearest_patch_ratio"] > 1
