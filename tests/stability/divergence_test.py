"""Images that diverge in every way that they can, side by side with one that does not: its bits never change."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.singan.parallel.cohort_test import Chunks, at, same


def _infinite(inputs, state):
    real = inputs.real.copy()
    real[0, 4, 5, 1] = np.inf
    return dataclasses.replace(inputs, real=real), state


def _not_a_number(inputs, state):
    real = inputs.real.copy()
    real[0, -1, 0, 0] = np.nan
    return dataclasses.replace(inputs, real=real), state


def _overflowing(inputs, state):
    """Finite, and infinite once squared."""
    return dataclasses.replace(inputs, real=inputs.real * np.float32(1e25)), state


def _far_too_fast(inputs, state):
    """Weights as one step of a learning rate of 1e30 leaves them, of this image alone."""
    params = jax.tree.map(lambda leaf: leaf + np.float32(1e30), state.generator["params"])
    return inputs, dataclasses.replace(state, generator={**state.generator, "params": params})


def _poisoned_moments(inputs, state):
    """Of Adam, as a bit that has flipped leaves them."""
    adam = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan) if leaf.dtype.kind == "f" else leaf, state.critic_adam)
    return inputs, dataclasses.replace(state, critic_adam=adam)


WAYS = (_infinite, _not_a_number, _overflowing, _far_too_fast, _poisoned_moments)


@pytest.mark.parametrize(("form", "group"), [("direct", 1), ("shifted", 3)])
def test_whatever_diverges_is_frozen_and_the_others_keep_their_bits(tiny_spec, one_image, form, group):
    chunks = Chunks(tiny_spec(1, form=form, num_layers=2, critic_updates=1, generator_updates=1), quickly=True)
    clean = [one_image(chunks.spec, number) for number in range(6)]
    broken = [clean[0], *(way(*image) for way, image in zip(WAYS, clean[1:], strict=True))]
    alone, alone_metrics = chunks(clean, group=group)
    state, metrics = chunks(broken, group=group, chunks=1)
    same(at((state, metrics), 0), at((alone, alone_metrics), 0))
    assert (alone.diverged_at == -1).all()
    assert state.diverged_at.tolist() == [-1, 0, 0, 0, 0, 0], [way.__name__ for way in WAYS]
    for index, (_, before) in enumerate(broken[1:], start=1):
        for name in ("generator", "critic", "generator_adam", "critic_adam"):
            same(at(getattr(state, name), index), getattr(before, name))
        assert not all(np.isfinite(values[index]) for values in metrics.values())
