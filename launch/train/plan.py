"""Prints what a training would take without training it: launch.train --plan."""

from collections.abc import Iterator

from jax.sharding import Mesh

from launch import runtime
from launch.train.cohorts import Cohort
from launch.train.convolution_choice import choose
from singan.config import Config, with_recipe
from singan.model.pyramid import Pyramid
from singan.model.spec import make_spec, steps_of_scale
from singan.parallel.costs import ScaleCost, asked_flops, scale_cost
from singan.parallel.device_rates import matmul_rate
from singan.presets import RECIPES

HEAD = (
    "scale     size channels  images  at once       MiB   TFLOP an image   at least  compiled in",
    "                       a device           a device       all steps       hours            s",
)


def outline(config: Config, cohort: Cohort) -> str:
    """Returns how many images of which channels are trained in which scales, in one line."""
    sizes = " ".join(f"{h}x{w}" for h, w in cohort.pyramid.sizes)
    count, train = len(cohort.pyramid), config.train
    steps = [steps_of_scale(train.steps_per_scale, train.step_shares or (), scale, count) for scale in range(count)]
    of_steps = f"{steps[0]} steps" if len(set(steps)) == 1 else f"{' '.join(map(str, steps))} steps"
    channels = ", ".join(cohort.channels)
    return f"{len(cohort.rows)} images, channels {channels}; {count} scales of {of_steps}: {sizes}"


def print_plan(config: Config, cohort: Cohort) -> None:
    """Prints the outline and the table of a cohort, line by line as they are known."""
    print(outline(config, cohort), flush=True)
    images = len(cohort.rows)
    mesh = runtime.start_jax(images, cohort.widest(config))
    for line in table(config, cohort.pyramid, cohort.generated, images, mesh, cohort.given):
        print(line, flush=True)


def table(config: Config, pyramid: Pyramid, channels: int, images: int, mesh: Mesh, given: int = 0) -> Iterator[str]:
    """Yields the lines of what each scale takes: its programs are compiled, and kept for the training itself.

    The hours are those of matrix products alone, at the rate that one of this device reaches when nothing else is to
    be done: training takes a few times as long at coarse scales and comes near it at fine ones.
    """
    device = mesh.devices.flat[0]
    first = make_spec(
        config, pyramid, channels, choose(config, pyramid, channels, images, mesh)["form"], condition=given
    )
    precision = config.train.precision
    rate = matmul_rate(precision, 1024 if device.platform == "cpu" else 4096)
    yield f"{mesh.size} x {device.device_kind}, precision {precision}: matrix products at {rate / 1e12:.2f} TFLOP/s"
    yield from HEAD
    hours = 0.0
    for scale in range(len(pyramid)):
        cost = scale_cost(first.at(scale), mesh, images)
        flops = cost.asked_flops * first.at(scale).steps
        least = flops / rate / 3600
        hours += least
        yield _line(cost, flops / cost.images, least)
    yield f"at least {hours:.2g} hours for all images and scales"
    for recipe in RECIPES:
        if recipe != config.train.recipe and config.preset != "reference":
            other = make_spec(with_recipe(config, recipe), pyramid, channels, first.conv_impl)
            flops = sum(asked_flops(other.at(scale), mesh) for scale in range(len(pyramid)))
            least = -(-images // mesh.size) * flops / rate / 3600
            yield f"at least {least:.2g} hours with --config.train.recipe={recipe}"


def _line(cost: ScaleCost, flops: float, hours: float) -> str:
    size = "x".join(map(str, cost.size))
    return (
        f"{cost.scale:5d} {size:>8} {cost.width:8d} {cost.images:8d} {cost.group:8d} {cost.memory.total / 2**20:9.0f}"
        f" {flops / 1e12:16.3g} {hours:10.3g} {cost.compile_seconds:12.1f}"
    )
