import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from singan.config import parse
from singan.model.pyramid import make_pyramid
from singan.model.spec import make_spec
from singan.parallel.cohort import image_mesh
from singan.parallel.costs import (
    SHARE,
    Memory,
    ScaleCost,
    asked_flops,
    compiled_memory,
    count_collectives,
    example,
    fit_group,
    largest_group,
    memory_budget,
    scale_cost,
)
from singan.parallel.tpu_topologies import USABLE_MEMORY
from singan.storage.finished_scale import FinishedScale, weights_template
from singan.training.scale_setup import ScaleSetup, TrainingImage

FIXED, EACH = 1000, 70  # bytes that stay on the device, and of each image that is trained at the same time


class Compiler:
    """Compiles nothing, and counts how often it is asked to."""

    def __init__(self, fixed=FIXED, each=EACH, constant=0):
        self.asked = []
        self.of = lambda group: Memory(fixed, constant + each * group, 0)

    def __call__(self, group):
        self.asked.append(group)
        return self.of(group)


class Device:
    platform = "gpu"

    def __init__(self, stats, kind="of no name"):
        self.memory_stats, self.device_kind = lambda: stats, kind


class TpuCompiler:
    """Compiles a real program for a group size, but refuses as libtpu does what needs more than `limit` bytes."""

    def __init__(self, limit, text):
        self.limit, self.text, self.asked = limit, text, []

    def __call__(self, group):
        self.asked.append(group)
        if (needed := group * 2**20) > self.limit:
            raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {self.text.format(needed / 2**20)}")
        shape = jax.ShapeDtypeStruct((group, 2**18), jnp.float32)
        return jax.jit(jnp.negative, donate_argnums=0).lower(shape).compile()


@pytest.mark.parametrize("images", [1, 2, 7, 10, 64, 1000])
@pytest.mark.parametrize("room", [1, 2, 3, 6, 9, 64, 999])
def test_the_group_fits_in_as_few_and_as_even_groups_as_can_be(images, room):
    compiler = Compiler()
    budget = FIXED + room * EACH
    group = largest_group(images, budget, compiler)
    assert compiler.of(group).total <= budget
    groups = -(-images // group)
    assert groups == -(-images // min(room, images))  # no fewer groups would fit
    assert groups * group - images < groups  # even: less than one idle place per group
    assert len(compiler.asked) == len(set(compiler.asked)) <= 3


def test_ten_images_at_most_six_at_a_time_are_five_and_five():
    assert largest_group(10, FIXED + 6 * EACH, Compiler()) == 5


def test_memory_that_hardly_depends_on_the_group_still_ends_with_one_that_fits():
    compiler = Compiler(constant=500)
    budget = FIXED + 500 + 4 * EACH
    assert compiler.of(largest_group(64, budget, compiler)).total <= budget
    assert len(compiler.asked) <= 6


def test_all_at_once_where_there_is_no_limit_or_room_enough():
    compiler = Compiler()
    assert largest_group(50, None, compiler) == 50
    assert compiler.asked == []
    assert largest_group(50, FIXED + 50 * EACH, compiler) == 50
    assert compiler.asked == [50]


def test_one_where_not_even_one_fits():
    assert largest_group(8, 10, Compiler()) == 1
    assert largest_group(1, 10, Compiler()) == 1


def test_compiled_memory_counts_donated_buffers_once():
    program = lambda donate: jax.jit(lambda x, y: x + y, donate_argnums=donate)  # noqa: E731
    shapes = [jax.ShapeDtypeStruct((256,), jnp.float32)] * 2
    kept, donated = (compiled_memory(program(donate).lower(*shapes).compile()) for donate in ((), (0,)))
    assert kept.arguments == donated.arguments == 2048
    assert (kept.output, donated.output) == (1024, 0)
    assert kept.total == 3072 + kept.temporary


def test_the_budget_is_a_share_of_what_the_device_reports():
    assert memory_budget(Device({"bytes_limit": 1000})) == int(SHARE * 1000)
    assert memory_budget(Device(None)) is None
    assert memory_budget(jax.devices("cpu")[0]) is None


def test_the_budget_of_a_device_that_is_only_compiled_for_is_that_of_its_kind():
    def refuse():
        raise jax.errors.JaxRuntimeError("MemoryStats is only supported for addressable PjRt devices.")

    device = Device(None, "TPU v5 lite")
    device.memory_stats = refuse
    assert memory_budget(device) == int(SHARE * USABLE_MEMORY["TPU v5 lite"])


@pytest.mark.parametrize(
    "text",
    [
        "Ran out of memory in memory space hbm. Used {:.2f}M of 4.00M hbm. Exceeded hbm capacity by ...",
        "the total memory required for HLO temporaries ({:.2f}M) exceeds available HBM (4.00M).",
        "in other words",
    ],
)
def test_a_compiler_that_refuses_a_group_is_asked_for_a_smaller_one(text):
    compiler = TpuCompiler(4 * 2**20, text)
    planned = fit_group(9, Device({"bytes_limit": 4 * 2**20}), compiler)
    assert planned.group == 3  # of nine images at most three at a time
    assert planned.memory == compiled_memory(planned.compiled)
    assert planned.memory.total == 3 * 2**20
    assert compiler.asked == [9, 3]


def test_what_is_too_large_by_itself_or_refused_for_another_reason_is_told():
    device = Device({"bytes_limit": 10})
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"Used 1\.00M"):
        fit_group(4, device, TpuCompiler(1, "Used {:.2f}M of"))

    def broken(group):
        raise jax.errors.JaxRuntimeError(f"INTERNAL: {group} is a bad number")

    with pytest.raises(jax.errors.JaxRuntimeError, match="4 is a bad number"):
        fit_group(4, device, broken)


def test_a_wanted_group_is_taken_and_a_cpu_takes_one():
    compiler = TpuCompiler(2**30, "")
    assert fit_group(8, Device({"bytes_limit": 10}), compiler, wanted=5).group == 5
    assert fit_group(3, Device({"bytes_limit": 10}), compiler, wanted=5).group == 3
    assert fit_group(8, jax.devices("cpu")[0], compiler).group == 1
    assert compiler.asked == [5, 3, 1]


@pytest.mark.parametrize("schedule", ["sequential", "concurrent"])
@pytest.mark.parametrize("scale", [0, 2, 3])
def test_the_example_of_a_scale_has_the_shapes_of_its_training(tiny_config, schedule, scale):
    config = tiny_config("reference", 3, schedule=schedule)
    config = parse({**dataclasses.asdict(config), "pyramid": {"min_size": 11, "max_size": 20, "num_scales": 4}})
    spec = make_spec(config, make_pyramid(20, 19, config.pyramid, "reference"), 2, "direct", scale)
    below = [jax.tree.map(lambda leaf: leaf[None], weights_template(spec.at(s))) for s in range(scale)]
    finished = [FinishedScale(("one",), {}, weights, {}) for weights in below]
    image = TrainingImage("one", np.zeros((20, 19, 2), np.float32), np.zeros(2, np.float32))
    opening = ScaleSetup(config, spec, [image], finished, image_mesh(jax.devices()[:1]))
    shapes = lambda tree: jax.tree.map(lambda leaf: (np.shape(leaf), np.asarray(leaf).dtype), tree)  # noqa: E731
    assert shapes(example(spec)) == shapes((opening.inputs()[0], opening.state(0)))


def test_the_cost_of_a_scale_on_four_devices(tiny_spec):
    spec = tiny_spec(1, num_layers=2, critic_updates=2, generator_updates=3)
    cost = scale_cost(spec, image_mesh(jax.devices()[:4]), images=7)
    assert (cost.scale, cost.size, cost.width) == (1, spec.size, spec.width)
    assert (cost.images, cost.group, cost.most, cost.collectives) == (2, 1, None, 0)
    assert 0.9 < cost.flops / cost.asked_flops < 1.2
    assert cost.memory.arguments > 2 * 4 * np.prod(spec.size) * spec.channels
    assert cost.bytes > 0
    assert cost.compile_seconds > 0


def test_collectives_are_counted_where_devices_talk():
    mesh, spec = image_mesh(jax.devices()[:4]), PartitionSpec("image")

    def talking(x):
        return jax.lax.psum(x, "image") + jax.lax.ppermute(x, "image", [(0, 1)])

    def count(function):
        mapped = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
        return count_collectives(jax.jit(mapped).lower(np.ones(8, np.float32)).compile().as_text())

    assert count(talking) == 2
    assert count(jnp.sin) == 0


def test_a_scales_flops_are_known_without_compiling_it(tiny_spec):
    spec, mesh = tiny_spec(1, num_layers=2, critic_updates=2, generator_updates=3), image_mesh(jax.devices()[:1])
    assert asked_flops(spec, mesh) == pytest.approx(scale_cost(spec, mesh, 1).asked_flops * spec.steps)


def test_a_step_takes_as_long_as_its_products_or_its_memory():
    cost = ScaleCost(0, (25, 25), 32, 4, 4, Memory(0, 0, 0), None, 197e9, 1.0, 0.82e9, 0, 1.0)
    assert cost.roofline_seconds("TPU v5 lite", "bf16") == pytest.approx(1e-3)
    assert cost.roofline_seconds("TPU v5 lite", "highest") == pytest.approx(6e-3)
    assert dataclasses.replace(cost, bytes=8.2e9).roofline_seconds("TPU v5 lite", "highest") == pytest.approx(10e-3)
    assert cost.roofline_seconds("cpu", "bf16") is None
