import jax
import jax.numpy as jnp
import pytest

from singan.planning import SHARE, Memory, compiled_memory, largest_group, memory_budget

FIXED, EACH = 1000, 70  # bytes that stay on the device, and of each image that is trained at the same time


class Compiler:
    """Compiles nothing, and counts how often it is asked to."""

    def __init__(self, fixed=FIXED, each=EACH, constant=0):
        self.asked = []
        self.of = lambda group: Memory(fixed, constant + each * group, 0)

    def __call__(self, group):
        self.asked.append(group)
        return self.of(group)


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
    class Device:
        platform = "gpu"

        def __init__(self, stats):
            self.memory_stats = lambda: stats

    assert memory_budget(Device({"bytes_limit": 1000})) == int(SHARE * 1000)
    assert memory_budget(Device(None)) is None
    assert memory_budget(jax.devices("cpu")[0]) is None
