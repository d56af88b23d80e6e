import jax
import numpy as np
import pytest

from singan.parallel.cohort import image_mesh
from singan.sampling import fine_tuning
from singan.sampling.manipulation import Input

pytestmark = pytest.mark.usefixtures("compiled_quickly_and_once")

CPU = image_mesh(jax.devices("cpu")[:1])


def leaves_differ(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return [bool((np.asarray(a) != np.asarray(b)).any()) for a, b in pairs]


def own(run, name):
    return jax.tree.map(lambda leaf: leaf[0], run.trained([name]))


@pytest.mark.slow
def test_fine_tuning_changes_the_finest_generator_alone_and_each_by_itself(random_run, random_image):
    run = random_run()
    inputs = [Input(f"image{i % 2}", f"input{i}", random_image(i, 2)) for i in (3, 4)]
    told = []
    tuned = fine_tuning.fine_tune_to_composites(run, inputs, 3, steps=3, mesh=CPU, on_progress=told.append)
    assert told == [3]
    for one, pyramid in zip(inputs, tuned, strict=True):
        before = own(run, one.image_id)
        assert not any(leaves_differ(pyramid[:3], before[:3]))
        assert any(leaves_differ(pyramid[3].generator, before[3].generator))
        assert pyramid[3].amplitude == before[3].amplitude
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(pyramid))
    alone = fine_tuning.fine_tune_to_composites(run, inputs[:1], 3, steps=3, mesh=CPU)[0]
    assert not any(leaves_differ(alone, tuned[0]))
    other = [Input("image1", "input3", random_image(5, 2))]
    assert any(leaves_differ(fine_tuning.fine_tune_to_composites(run, other, 3, steps=3, mesh=CPU)[0], tuned[0]))


def test_painting_in_few_colours_trains_the_scale_where_they_enter(random_run, random_image):
    run = random_run(1)
    inputs = [Input("image0", "a", random_image(3, 2)), Input("image0", "b", random_image(4, 2))]
    palettes, pyramids = fine_tuning.quantize(run, inputs, 3, 1, steps=2, mesh=CPU)
    assert [colours.shape for colours in palettes] == [(3, 2)] * 2
    before = own(run, "image0")
    for pyramid in pyramids:
        assert not any(leaves_differ((pyramid[0], pyramid[2:]), (before[0], before[2:])))
        assert any(leaves_differ(pyramid[1], before[1]))
    assert not any(leaves_differ(*pyramids))
