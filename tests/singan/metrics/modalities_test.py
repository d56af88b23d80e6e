import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import normalized_mutual_information

from singan.errors import UserError
from singan.metrics import modalities as mo
from singan.metrics.values import Undefined

NAMES = ["T1", "T2", "FLAIR"]


def brain(seed, size=64):
    """Three modalities, functions of one smooth tissue map with a little noise, on an oval; -1 around it."""
    rng = np.random.default_rng(seed)
    tissue = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), 3)
    tissue = np.clip(tissue / (3 * tissue.std()), -1, 1)
    image = np.stack([0.8 * tissue, -0.6 * tissue, tissue**2 - 0.5], axis=-1) + rng.normal(0, 0.02, (size, size, 3))
    rows, columns = np.indices((size, size)) - size / 2 + 0.5
    inside = (rows / 0.42) ** 2 + (columns / 0.36) ** 2 < size**2
    return np.where(inside[..., None], np.clip(image, -0.95, 1), -1).astype(np.float32)


SOURCE = brain(0)
BLACK = [-1.0, -1.0, -1.0]


def test_copies():
    """Gaps and distances are 0, and the null is the source's own value: copies cannot be told from consistency."""
    for row in mo.compare_modalities(np.stack([SOURCE] * 3), SOURCE, BLACK, NAMES):
        for name, value in row.items():
            if "gap" in name or "distance" in name:
                assert value == 0
        for pair in ("T1-T2", "T1-FLAIR", "T2-FLAIR"):
            assert row[f"mutual_information/{pair}"] == row[f"mutual_information_null/{pair}"]
        assert row["border_background"] == 1
        assert row["subject"] == pytest.approx((SOURCE > -1).any(-1).mean())


def test_histograms():
    values = SOURCE[SOURCE[..., 0] > -1]
    span = np.ptp(values, axis=0)
    shifted = np.where((SOURCE > -1).any(-1, keepdims=True), SOURCE + np.float32([0.1, 0.2, 0]), SOURCE)
    (row,) = mo.compare_modalities(shifted[None], SOURCE, BLACK, NAMES)
    expected = [0.1 / span[0], 0.2 / span[1], 0]
    found = [row[f"histogram_distance/{name}"] for name in NAMES]
    assert found == pytest.approx(expected, abs=1e-6)
    assert row["histogram_distance"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert mo.histogram_distance(np.array([0.0, 0.0]), np.array([0.0, 2.0])) == 0.5
    assert isinstance(mo.histogram_distance(np.zeros(0), np.ones(3)), Undefined)
    assert mo.histogram_distance(np.zeros(3), np.ones(3)) == mo.CONSTANT


def test_mutual_information_is_scikit_images():
    """Which gives Studholme's (H + H) / H(joint): another normalisation of the same entropies."""
    x = np.random.default_rng(1).normal(0, 1, (100, 100))
    for strength in (0, 1, 5):
        y = strength * x + np.random.default_rng(2).normal(0, 1, x.shape)
        joint, _, _ = np.histogram2d(x.ravel(), y.ravel(), bins=20)
        expected = 2 * (1 - 1 / normalized_mutual_information(x, y, bins=20))
        assert mo.mutual_information(joint) == pytest.approx(expected)


def test_mutual_information_at_its_ends():
    assert mo.mutual_information(np.eye(8)) == 1
    assert mo.mutual_information(np.ones((8, 8))) == pytest.approx(0, abs=1e-12)
    assert isinstance(mo.mutual_information(np.zeros((8, 8))), Undefined)
    assert isinstance(mo.mutual_information(np.pad([[5]], 3)), Undefined)
    assert mo.mutual_information(np.ones((1, 8))) == pytest.approx(0, abs=1e-12)
    pixels = 20000
    x, y = np.random.default_rng(3).integers(0, 32, (2, pixels))
    joint = np.bincount(32 * x + y, minlength=1024).reshape(32, 32)
    assert mo.mutual_information(joint) == pytest.approx(31**2 / (pixels * 2 * np.log(32)), rel=0.1)  # the bias


def test_other_samples_are_consistent_and_exchanged_modalities_are_not():
    samples = np.stack([brain(seed) for seed in range(1, 5)])
    exchanged = samples.copy()
    exchanged[..., 1] = np.roll(samples[..., 1], 1, 0)
    good, bad = (mo.compare_modalities(each, SOURCE, BLACK, NAMES) for each in (samples, exchanged))
    for right, wrong in zip(good, bad, strict=True):
        assert abs(right["mutual_information_gap/T1-T2"]) < 0.1
        assert right["mutual_information/T1-T2"] > 3 * right["mutual_information_null/T1-T2"]
        assert wrong["mutual_information/T1-T2"] < 0.4 * right["mutual_information/T1-T2"]
        assert wrong["mutual_information_gap/T1-T2"] < -0.2
        assert wrong["mutual_information/T1-FLAIR"] == right["mutual_information/T1-FLAIR"]
        assert wrong["histogram_distance"] < 0.1  # each modality alone is as it should be


def test_more_noise_is_less_information():
    noise = np.random.default_rng(4).normal(0, 1, SOURCE.shape)
    inside = (SOURCE > -1).any(-1, keepdims=True)
    noisy = np.stack([SOURCE + level * noise * inside for level in (0, 0.05, 0.1, 0.2)])
    found = [row["mutual_information"] for row in mo.compare_modalities(noisy, SOURCE, BLACK)]
    assert (np.diff(found) < -0.02).all()


def test_haze_at_the_border():
    """At 64 pixels the border is 3 wide: 732 pixels, a sixth of which lie in its first two rows."""
    hazy = SOURCE.copy()
    hazy[:2, :61, 1] += 0.01
    faint = SOURCE + np.float32(0.001)
    hazy_row, faint_row = mo.compare_modalities(np.stack([hazy, faint]), SOURCE, BLACK)
    assert hazy_row["border_background"] == pytest.approx(1 - 122 / 732)
    assert hazy_row["border_background_gap"] == pytest.approx(-122 / 732)
    assert hazy_row["subject"] == pytest.approx((SOURCE > -1).any(-1).mean() + 122 / 4096)
    assert faint_row["border_background"] == 1  # within half a grey level
    assert mo.compare_modalities(hazy[None], SOURCE, [-1, None, -1])[0]["border_background"] == 1


def test_what_is_not_there_says_why():
    one = mo.compare_modalities(SOURCE[None], SOURCE, BLACK, NAMES)[0]
    assert one["mutual_information_null"] == mo.ONE_SAMPLE
    bare = mo.compare_modalities(np.stack([SOURCE] * 2), SOURCE, [None] * 3)[0]
    assert bare["border_background"] == bare["subject"] == bare["border_background_gap"] == mo.NO_BACKGROUND
    assert bare["histogram_distance"] == 0
    single = mo.compare_modalities(SOURCE[None, ..., :1], SOURCE[..., :1], [-1])[0]
    assert "single modality" in single["mutual_information"].reason
    empty = np.full_like(SOURCE, -1)
    row = mo.compare_modalities(np.stack([empty] * 2), SOURCE, BLACK)[0]
    assert row["histogram_distance"] == row["mutual_information_gap"] == mo.NO_SUBJECT
    assert row["subject"] == 0
    row = mo.compare_modalities(np.stack([SOURCE] * 2), empty, BLACK)[0]
    assert row["histogram_distance/0"] == mo.NO_SUBJECT
    assert row["mutual_information"] == mo.CONSTANT
    flat = np.where(np.arange(3) == 1, np.float32(0.5), SOURCE)
    row = mo.compare_modalities(np.stack([SOURCE] * 2), flat, [-1, None, -1], NAMES)[0]
    assert row["histogram_distance/T2"] == row["mutual_information/T1-T2"] == mo.CONSTANT
    assert row["mutual_information_gap/T1-FLAIR"] == 0
    assert row["mutual_information"] == mo.CONSTANT


def test_bad_input():
    with pytest.raises(UserError, match="2 backgrounds were given for 3 modalities"):
        mo.compare_modalities(SOURCE[None], SOURCE, [-1, -1])
    with pytest.raises(UserError, match="no samples"):
        mo.compare_modalities(SOURCE[None][:0], SOURCE, BLACK)


@pytest.mark.shared
def test_real_mri(shared_data):
    """Two slices of one patient: consistent within each, not when modalities are exchanged between them."""
    slices = [np.load(shared_data / f"mri_slices/du7294_z{z}.npz") for z in ("080", "090", "113")]
    names = slices[0]["channels"].tolist()
    source, *samples = (2 * each["image"].transpose(1, 2, 0) - 1 for each in slices)
    rows = mo.compare_modalities(np.stack(samples), source, [-1.0] * 4, names)
    for row in rows:
        assert row["border_background"] == 1
        assert 0.1 < row["subject"] < 0.5
        assert abs(row["mutual_information_gap"]) < 0.05
        assert row["mutual_information"] > 3 * row["mutual_information_null"]
        assert 0 < row["histogram_distance"] < 0.2
