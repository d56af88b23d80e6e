"""The configurations that users start from: the quickstart, its ablations, and images of their own."""

import pytest

from experiments.own_images import config as own_images
from experiments.quickstart import config as quickstart
from experiments.quickstart.sweep import get_sweep
from launch.configs import load_config
from launch.images.find import find_images
from singan.errors import UserError
from singan.model.pyramid import make_pyramid


def sizes(made, side):
    return make_pyramid(side, side, made.pyramid, str(made.method.resize_border)).sizes


def test_the_quickstart_has_the_crops_and_scales_that_its_readme_names():
    for variant, crops, expected in (("", 3, [26, 34, 44]), ("longer", 4, [25, 31, 38, 46, 56])):
        made = load_config(quickstart.get_config(variant))
        assert len(find_images(made.data).ids) == crops
        assert sizes(made, made.data.crop_size) == tuple((side, side) for side in expected)
    with pytest.raises(ValueError, match=r"config\.py:longer"):
        quickstart.get_config("long")


def test_the_quickstart_s_ratios_give_pyramids_of_their_own():
    ratios = [run["pyramid.ratio"] for run in get_sweep() if "pyramid.ratio" in run]
    found = set()
    for ratio in (None, *ratios):
        config = quickstart.get_config()
        config.pyramid.ratio = ratio or config.pyramid.ratio
        made = load_config(config)
        found.add(sizes(made, made.data.crop_size))
    assert len(found) == 1 + len(ratios) == 3


def test_images_of_one_s_own_have_the_methods_settings_and_must_be_named(tmp_path):
    config = own_images.get_config()
    made = load_config(config)
    assert len(sizes(made, 240)) == 7
    assert made.train == load_config({}).train
    assert made.network == load_config({}).network
    with pytest.raises(UserError, match=r"^no images are given: .*--config\.data\.path=FOLDER"):
        find_images(made.data)
