import jax
import numpy as np
import pytest

from singan.parallel.cohort import image_mesh
from singan.sampling.animation import animate
from singan.sampling.samples import start_image

pytestmark = pytest.mark.usefixtures("compiled_quickly_and_once")

CPU = image_mesh(jax.devices("cpu")[:1])


def movement(film):
    return np.abs(np.diff(film, axis=0)).mean()


def test_a_walk_moves_on_from_the_reconstruction_and_smoothly(random_run):
    run = random_run()
    films = animate(run, ["image0", "image1"], 12, start_scale=2, beta=0.9, mesh=CPU)
    assert films.shape == (2, 12, 17, 15, 2)
    assert films.dtype == np.float32
    assert np.abs(films).max() <= 1
    for film in films:
        assert movement(film) > 0
        far_apart = np.abs(film[0] - film[-1]).mean()
        assert far_apart > movement(film)  # it goes somewhere, and does not jump about
    assert np.abs(films[0] - films[1]).max() > 0.05
    np.testing.assert_array_equal(animate(run, ["image1"], 12, 2, 0.9, mesh=CPU)[0], films[1])


@pytest.mark.slow
def test_a_larger_beta_moves_more_smoothly_and_a_full_pull_not_at_all(random_run):
    run = random_run(1)
    jerk = lambda film: np.abs(np.diff(film, 2, axis=0)).mean()  # noqa: E731
    smooth, rough = (animate(run, ["image0"], 12, 3, beta, mesh=CPU)[0] for beta in (0.98, 0.5))
    assert jerk(smooth) < jerk(rough)
    still = animate(run, ["image0"], 3, 3, pull=1.0, mesh=CPU)[0]
    assert movement(still) == 0
    own = [jax.tree.map(lambda leaf: leaf[0], tree) for tree in (run.trained(["image0"]), run.padding(["image0"]))]
    entered = start_image(run.spec, own[0], run.reconstruction_noise(["image0"])[0], own[1], 3)
    assert np.abs(entered[0] - still[0]).mean() < 1  # what the finest scale adds to the reconstruction below it
