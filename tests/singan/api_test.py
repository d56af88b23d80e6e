import numpy as np
import pytest

import singan
from singan.api import TrainedRun
from singan.errors import UserError


@pytest.fixture
def run(random_run):
    return random_run()


def test_samples_come_in_the_source_s_values(run):
    drawn = run.sample(3, start_scale=3, images=["image1"], size=(1.0, 2.0), seed=4)
    assert list(drawn) == ["image1"]
    assert drawn["image1"].shape == (3, 17, 30, 2)
    assert drawn["image1"].min() >= 0
    assert 100 < drawn["image1"].max() <= 1000


def test_a_composite_keeps_its_background(run):
    background = run.record("image0").value_map.invert(run.pixels("image0"))
    mask = np.zeros((17, 15))
    mask[8:10, 6:8] = 1
    composite = np.where(mask[..., None] > 0, 900, background)
    made = run.harmonize("image0", [composite, background], [mask, mask], start_scale=3, num_samples=2)
    assert made.shape == (2, 2, 17, 15, 2)
    assert np.abs(made[0] - background).max() > 10
    np.testing.assert_allclose(made[:, :, 0, 0], np.broadcast_to(background[0, 0], (2, 2, 2)), atol=20)
    with pytest.raises(UserError, match="mask 0 is empty"):
        run.harmonize("image0", [composite], [0 * mask])
    with pytest.raises(UserError, match=r"is \[H, W, 2\], not \[17, 15, 3\]"):
        run.paint("image0", [np.zeros((17, 15, 3))])


def test_load_run_gives_such_an_object():
    assert singan.load_run.__annotations__["return"] in (TrainedRun, "TrainedRun")
    with pytest.raises(UserError, match="does not exist"):
        singan.load_run("no/such/run")
    with pytest.raises(AttributeError, match="no attribute 'lod_run'"):
        _ = singan.lod_run
