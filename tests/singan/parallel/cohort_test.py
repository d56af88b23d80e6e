"""Image i in a cohort is image i alone: on any number of devices, in any place, beside any neighbours."""

import dataclasses
import logging
import re

import jax
import numpy as np
import pytest

from singan.model.step import METRICS
from singan.parallel import cohort
from singan.parallel.cohort import abstract, chunk_program, compile_program, image_mesh, padded_size, shard, stack

STEPS = 2  # in a chunk
COLLECTIVE = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"


def mesh(devices):
    return image_mesh(jax.devices("cpu")[:devices])


class Chunks:
    """Runs chunks of cohorts, compiling each form once, and without optimisation where that is asked for."""

    def __init__(self, spec, quickly=False):
        self.spec, self._quickly = spec, quickly
        self._programs = {}

    def compiled(self, size, devices, group, example):
        key = size, devices, group
        if key not in self._programs:
            shapes = [abstract(tree, size, mesh(devices)) for tree in example]
            program = chunk_program(self.spec, mesh(devices), group, STEPS)
            with pytest.MonkeyPatch.context() as patch:
                if self._quickly:
                    patch.setitem(cohort._CPU_OPTIONS, "xla_backend_optimization_level", 0)
                self._programs[key] = compile_program(program, *shapes)
        return self._programs[key]

    def __call__(self, images, devices=1, group=1, chunks=1):
        """Returns host copies of the state and of the last chunk's metrics, for images of (inputs, state)."""
        size = padded_size(len(images), mesh(devices), group)
        inputs, state = (shard(stack(trees, size), mesh(devices)) for trees in zip(*images, strict=True))
        program = self.compiled(size, devices, group, images[0])
        for _ in range(chunks):
            state, metrics = program(inputs, state)
        return jax.tree.map(np.array, (state, metrics))


@pytest.fixture(scope="module")
def chunks(tiny_spec):
    return Chunks(tiny_spec(1, num_layers=2))


@pytest.fixture(scope="module")
def eight(chunks, one_image):
    return [one_image(chunks.spec, number) for number in range(8)]


@pytest.fixture(scope="module")
def on_one_device(chunks, eight):
    return chunks(eight, devices=1)


def at(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def same(result, expected):
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_an_image_alone_is_the_image_in_a_cohort_of_eight_to_the_bit(chunks, eight, on_one_device):
    state, metrics = on_one_device
    assert (state.step == STEPS).all()
    assert (state.diverged_at == -1).all()
    assert set(metrics) == set(METRICS)
    assert all(len(set(values.tolist())) == 8 for values in metrics.values())  # each image has its own
    for index in (0, 3, 7):
        alone = chunks([eight[index]])
        same(at(alone, 0), at(on_one_device, index))
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), at(alone[0], 0).generator, eight[index][1].generator)
        assert min(jax.tree.leaves(moved)) > 1e-5


def test_a_chunk_on_eight_devices_holds_no_collectives(chunks, eight):
    text = chunks.compiled(8, 8, 1, eight[0]).as_text()
    assert "while(" in text
    assert re.findall(COLLECTIVE, text) == []


def test_eight_devices_give_the_bits_of_one(chunks, eight, on_one_device):
    same(chunks(eight, devices=8), on_one_device)


def test_neither_place_nor_neighbours_matter(chunks, eight, on_one_device):
    order = [5, 2, 2, 7, 0, 1, 6, 5]
    same(chunks([eight[i] for i in order]), at(on_one_device, order))


def test_images_that_only_fill_up_are_passed_over(chunks, eight, on_one_device):
    marked = dataclasses.replace(eight[0][1], diverged_at=np.int32(0))
    images = [*eight[:3], *[(eight[0][0], marked)] * 5]
    assert padded_size(3, mesh(8), 1) == 8
    state, metrics = chunks(images, devices=8)
    same(at((state, metrics), slice(3)), at(on_one_device, slice(3)))
    for index in range(3, 8):
        same(at(state, index), marked)  # not even a step is counted: nothing was computed
        assert all(np.isnan(values[index]) for values in metrics.values())


def test_sizes_are_filled_up_to_whole_groups_on_every_device():
    assert [padded_size(n, mesh(4), 2) for n in (1, 8, 9, 16)] == [8, 8, 16, 16]
    assert padded_size(5, mesh(1), 1) == 5


def test_stack_repeats_the_first_and_place_copies():
    host = np.arange(3.0)
    stacked = stack([host, host + 1], 4)
    np.testing.assert_array_equal(stacked, [host, host + 1, host, host])
    assert len(shard(stacked, mesh(4)).addressable_shards) == 4
    # A buffer on a 64-byte boundary is what a CPU device would take as it is, and write over when it is donated.
    buffer = np.zeros(4096 + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    aligned = buffer[start : start + 4096].view(np.float32)
    placed = shard(aligned, mesh(1))
    aligned[:] = -1
    np.testing.assert_array_equal(placed, 0)


def test_an_image_with_a_nan_is_frozen_and_the_others_keep_their_bits(chunks, eight, on_one_device):
    real = eight[3][0].real.copy()
    real[0, 4, 5, 1] = np.nan
    late = dataclasses.replace(eight[3][1], step=np.int32(6))
    broken = dataclasses.replace(eight[3][0], real=real), late
    state, metrics = chunks([*eight[:3], broken, *eight[4:]], devices=1)
    others = [0, 1, 2, 4, 5, 6, 7]
    same(at((state, metrics), others), at(on_one_device, others))
    assert state.diverged_at[3] == 6
    for name in ("generator", "critic", "generator_adam", "critic_adam"):
        same(at(getattr(state, name), 3), getattr(late, name))
    assert np.isnan(metrics["critic/real"][3])
    # The chunk after it passes the image over.
    again, _ = chunks([(broken[0], at(state, 3))])
    same(at(again, 0), at(state, 3))


def test_later_chunks_go_on_without_compiling(chunks, eight, on_one_device, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.jit(lambda x: x + 1.5)(np.float32(0))  # shows that compiling is noticed
        assert any("Compiling" in record.message for record in caplog.records)
        caplog.clear()
        state, _ = chunks(eight, chunks=3)
        # Making arrays compiles small things once; a chunk's program is none of them.
        compiled = [r.message for r in caplog.records if "Compiling" in r.message and "of_device" in r.message]
    assert compiled == []
    assert (state.step == 3 * STEPS).all()
    assert (state.generator["params"]["kernel"] != on_one_device[0].generator["params"]["kernel"]).all()


def test_the_search_for_collectives_would_find_one():
    summed = jax.shard_map(
        lambda x: jax.lax.psum(x, "image"),
        mesh=mesh(8),
        in_specs=jax.sharding.PartitionSpec("image"),
        out_specs=jax.sharding.PartitionSpec(),
    )
    assert re.findall(COLLECTIVE, jax.jit(summed).lower(np.ones(8)).compile().as_text())


# vmap and the shifted form sum in another order, and Adam's first steps divide gradients by their own size, which
# carries rounding over to the weights. One update moves a weight by up to 5e-4, and 6 were made.
VMAPPED = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def vmapped_chunks(tiny_spec):
    """In the form of a TPU."""
    return Chunks(tiny_spec(1, form="shifted", num_layers=2), quickly=True)


@pytest.fixture(scope="module", params=["shifted", "gathered"])
def chunks_of_a_form(request, tiny_spec, vmapped_chunks):
    """Of forms with passes one after another and, all but the TPU's, with those of the same weights in one batch."""
    shifted = request.param == "shifted"
    return vmapped_chunks if shifted else Chunks(tiny_spec(1, form=request.param, num_layers=2), quickly=True)


def test_groups_of_vmapped_images_give_the_same_training(chunks_of_a_form, eight, on_one_device):
    state, metrics = chunks_of_a_form(eight, devices=2, group=2)
    expected, expected_metrics = on_one_device
    for name in METRICS:
        np.testing.assert_allclose(metrics[name], expected_metrics[name], **VMAPPED, err_msg=name)
    for name in ("generator", "critic"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **VMAPPED), getattr(state, name), getattr(expected, name)
        )
    assert (state.step == STEPS).all()


def test_an_image_with_a_nan_leaves_its_group_alone_too(vmapped_chunks, eight):
    clean, _ = vmapped_chunks(eight, devices=2, group=2)
    broken = dataclasses.replace(eight[2][0], amplitude=np.float32(np.nan)), eight[2][1]
    state, _ = vmapped_chunks([*eight[:2], broken, *eight[3:]], devices=2, group=2)
    others = [0, 1, 3, 4, 5, 6, 7]
    same(at(state, others), at(clean, others))
    assert state.diverged_at[2] == 0
    same(at(state.generator, 2), eight[2][1].generator)
