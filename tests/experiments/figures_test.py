"""Figures 1a and 1b and the effect of the start scale: what is on the page, in which colour."""

import numpy as np
import pytest

from experiments.reporting import figure_command, figures
from singan.model import encodings
from singan.storage.workdir import ImageRecord
from singan.value_map import ValueMap, fit, join, mask_map

DISKS = np.zeros((32, 32), np.int32)
for number, (row, column) in enumerate([(8, 8), (8, 23), (23, 14)], start=1):
    rows, columns = np.mgrid[:32, :32]
    DISKS[(rows - row) ** 2 + (columns - column) ** 2 < 36] = number


def mri_record(**details):
    value_map = ValueMap((0.0,) * 2, (1000.0,) * 2, (0.0,) * 2, "int16")
    return ImageRecord("slice", "made", (20, 16, 2), ("t1", "flair"), value_map, "", details)


def nuclei():
    """A record with colours, nuclei, and two classes, and its image."""
    colour = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    classes = np.array([0, 1, 2, 1])[DISKS]
    parts = [colour, encodings.encode_instances(DISKS), encodings.encode_one_hot(classes, 2)]
    value_map = join([fit(colour, (0, 255)), mask_map(1, 255.0, np.uint8), mask_map(2, 1.0, np.uint8)])
    about = {"min_area": 16, "default_class": 1, "class_names": ["neoplastic", "inflammatory"]}
    masks = {
        "instance": {"kind": "instance", "channels": [3], **about},
        "class": {"kind": "one_hot", "channels": [4, 5], **about},
    }
    names = ("red", "green", "blue", "instance", "class_neoplastic", "class_inflammatory")
    record = ImageRecord("patch", "made", (32, 32, 6), names, value_map, "", {"masks": masks})
    return record, value_map.apply(np.concatenate(parts, -1))


def test_mri_is_shown_from_black_to_the_training_image_s_brightest_and_upright():
    record = mri_record(upright={"transpose": True, "flip": [True, False]})
    image = np.full((20, 16, 2), -1, np.float32)
    image[4:16, 4:12] = [-0.5, 0.0]
    image[4, 5] = [-0.75, -1.0]
    t1, flair = figures.views(record, image)
    assert [t1.title, flair.title] == ["T1", "FLAIR"]
    panel = t1.panel(image)
    assert panel.shape == (16, 20, 3)
    assert sorted(np.unique(panel)) == [0, 128, 255]
    assert (panel[16 - 1 - 5, 4] == 128).all()
    brighter = np.where(image > -1, image + 0.5, image)
    assert (t1.panel(brighter) == 255).sum() == (panel > 0).sum()
    assert (flair.panel(np.full_like(image, -1)) == 0).all()


def test_colours_masks_classes_and_nuclei_have_views_of_their_own():
    record, image = nuclei()
    found = {view.name: view for view in figures.views(record, image)}
    assert list(found) == ["rgb", "instance", "class", "nuclei"]
    np.testing.assert_array_equal(found["rgb"].panel(image), record.value_map.invert(image, as_stored=True)[..., :3])
    np.testing.assert_array_equal(found["instance"].panel(image)[..., 0], encodings.encode_instances(DISKS)[..., 0])
    table = np.array([(0, 0, 0), *figures.CLASS_COLOURS[:2]])
    np.testing.assert_array_equal(found["class"].panel(image), table[np.array([0, 1, 2, 1])[DISKS]])
    assert [word for _, word in found["class"].key] == ["neoplastic", "inflammatory"]
    decoded = found["nuclei"].panel(image)
    assert (decoded[DISKS == 0] == 0).all()
    assert len({tuple(decoded[number == DISKS][0]) for number in (1, 2, 3)}) == 3


def test_a_page_holds_every_panel_enlarged_on_white():
    red, blue = (np.full((10, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    picture = figures.page("title", ["a", "b"], [("first", [red, blue]), ("second", [None, red])], ["note"])
    assert (picture[[0, -1]] == 255).all()
    assert (picture[:, [0, -1]] == 255).all()
    size = (10 * 13) * (8 * 13)  # the least whole factor to at least 128 pixels
    assert (picture == (255, 0, 0)).all(-1).sum() == 2 * size
    assert (picture == (0, 0, 255)).all(-1).sum() == size
    other = figures.page("title", ["a"], [("x", [red])], key=[((1, 200, 3), "word")], heat="deviation")
    assert (other == (1, 200, 3)).all(-1).sum() > 100
    assert (other == figures.HEAT[-1].astype(np.uint8)).all(-1).any()


def test_heat_is_black_at_nothing_and_brightest_at_the_most():
    colours = figures.heat_colours(np.array([[0.0, 0.5, 1.0, 2.0]]), 1.0)[0]
    assert colours[0].sum() == 0
    np.testing.assert_array_equal(colours[2], colours[3])
    assert (np.diff(colours.astype(int).sum(-1))[:2] > 0).all()
    assert (figures.heat_colours(np.zeros((2, 2)), 0.0) == 0).all()


def test_deviation_is_that_over_the_samples():
    samples = np.zeros((4, 5, 6, 3), np.float32)
    samples[:2, 1, 2, 0] = 1.0  # deviates by 1/2
    found = figures.deviation(samples, (0, 1))
    assert found[1, 2] == pytest.approx(0.25)
    assert found.sum() == found[1, 2]
    assert figures.deviation(samples, (2,)).sum() == 0


def test_a_run_s_figures_and_numbers(random_run):
    run = random_run(1, 2)
    image = run.finest("image0")
    noise = np.random.default_rng(0).normal(0, 0.2, (3, *image.shape)).astype(np.float32)
    by_scale = {0: np.clip(image + noise, -1, 1), 2: np.stack([image] * 3)}
    made = figure_command.drawn_figures(run, "image0", by_scale, "1a", 2)
    assert [name for name, _ in made] == ["figure_1a", "start_scales_channel0", "start_scales_channel1"]
    assert all(picture.dtype == np.uint8 and picture.shape[-1] == 3 for _, picture in made)
    table = [figure_command.measured(run, "image0", scale, samples) for scale, samples in by_scale.items()]
    assert [row["start_scale"] for row in table] == [0, 2]
    assert table[1]["diversity"] == table[1]["rmse"] == 0
    assert table[0]["diversity"] > 0.05
    assert table[0]["rmse"] == pytest.approx(np.sqrt(np.square(by_scale[0] - image).mean((1, 2, 3))).mean(), rel=1e-4)
    text = figure_command.lines("image0", table).splitlines()
    assert len(text) == 4
    assert len({len(line) for line in text[1:]}) == 1
