"""No image's loss depends on another image's weights, and shard_map is what jax.pmap was."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singan.model import losses as model_losses
from singan.model.concurrent import GeneratorInputs
from singan.model.step import train_step
from singan.parallel.cohort import image_mesh, parallel, shard, stack

QUICKLY_COMPILED = {"xla_backend_optimization_level": 0}


@pytest.mark.parametrize("which", ["critic", "generator"])
def test_a_loss_does_not_depend_on_the_weights_of_other_images(tiny_spec, one_image, which):
    """d loss_i / d params_j of the vmapped loss is exactly zero for i != j."""
    spec = tiny_spec(1, num_layers=2)
    trees = zip(*(one_image(spec, i) for i in range(3)), strict=True)
    inputs, state = (jax.tree.map(jnp.asarray, stack(some, 3)) for some in trees)
    wide = [(0, 0), (0, 0), (2, 2), (2, 2), (0, 0)]
    x = jnp.pad(inputs.previous + 0.1 * inputs.real, wide)

    def critic_loss(params, real, fake, x):
        return model_losses.critic_loss(spec, params, {"params": params}, real, fake, np.float32(0.4), 0.1)[0]

    def generator_loss(params, critic, real, x):
        return model_losses.generator_loss(
            spec, (params,), ({"params": params},), critic, GeneratorInputs(x, x), GeneratorInputs(x, x), real, 10.0
        )[0]

    if which == "critic":
        params, rest = state.critic["params"], (inputs.real, inputs.previous, x)
        losses = lambda params: jax.vmap(critic_loss)(params, *rest)  # noqa: E731
    else:
        params, rest = state.generator["params"], (state.critic, inputs.real, x)
        losses = lambda params: jax.vmap(generator_loss)(params, *rest)  # noqa: E731
    jacobian = jax.jit(jax.jacrev(losses), compiler_options=QUICKLY_COMPILED)(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(jacobian):
        assert leaf.shape[:2] == (3, 3)
        for i in range(3):
            for j in range(3):
                if i != j:
                    np.testing.assert_array_equal(leaf[i, j], 0, err_msg=f"{path} {i} {j}")
                elif not (which == "critic" and len(path) == 1 and path[0].key == "bias"):  # which cancels out
                    assert np.abs(leaf[i, i]).max() > 1e-6


def test_pmap_of_vmap_gives_the_same_numbers(tiny_spec, one_image):
    """jax.pmap(jax.vmap(step)) is what `parallel` has replaced: the same numbers, to the bit."""
    spec = tiny_spec(0, num_layers=2, critic_updates=1, generator_updates=1)
    images = [one_image(spec, number) for number in range(8)]
    stacked = [stack(trees, 8) for trees in zip(*images, strict=True)]
    devices = jax.devices("cpu")[:4]

    def step(inputs, state):
        return train_step(spec, inputs, state)

    mesh = image_mesh(devices)
    state, metrics = parallel(step, mesh, group=2)(*(shard(tree, mesh) for tree in stacked))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pmap.*", category=DeprecationWarning)
        old = jax.pmap(jax.vmap(step), devices=devices)
        split = jax.tree.map(lambda leaf: leaf.reshape(4, 2, *leaf.shape[1:]), stacked)
        old_state, old_metrics = old(*split)
    joined = jax.tree.map(lambda leaf: np.array(leaf).reshape(8, *leaf.shape[2:]), (old_state, old_metrics))
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, (state, metrics)), joined)
    assert np.isfinite(joined[1]["critic/gradient_norm"]).all()
    assert (joined[0].step == 1).all()
