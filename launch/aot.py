"""Compiles every scale's training for a TPU slice, on a machine without one, and tells what it takes of each chip.

python -m launch.aot --config=experiments/multimodal_mri/config.py --topology=v5e-8 --images=64

Reads no data. --topology=here plans for the devices of this machine. Exit code 1: a program has collectives.
"""

import dataclasses
import sys
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from launch import cli, runtime
from launch import command_flags as flags
from launch.configs import load_config
from launch.results.text_table import text_table
from singan import files
from singan.config import to_mapping
from singan.errors import UserError
from singan.model.convolution import CONV_IMPLS, conv_impl_for
from singan.model.pyramid import pyramid_of
from singan.model.spec import make_spec
from singan.parallel.cohort import image_mesh
from singan.parallel.costs import ScaleCost, scale_cost
from singan.parallel.processes import Processes
from singan.parallel.tpu_topologies import devices_of, find_topology
from singan.storage import run_record

CONFIG = cli.config_flag()
TOPOLOGY = flags.DEFINE_string("topology", "v5e-8", "Such as v5e-8, v6e-16 or v4-32; here: this machine's devices.")
IMAGES = flags.DEFINE_integer("images", 64, "Images trained at once.", lower_bound=1)
HEIGHT = flags.DEFINE_integer("height", 240, "Of the images, pixels.", lower_bound=1)
WIDTH = flags.DEFINE_integer("width", 240, "Of the images, pixels.", lower_bound=1)
CHANNELS = flags.DEFINE_integer("channels", 3, "Of the images.", lower_bound=1)
SCALES = flags.DEFINE_list("scales", [], "Such as 0,4,9; all where not given.")
CONV_IMPL = flags.DEFINE_enum(
    "form", None, CONV_IMPLS, "Of the convolutions, instead of the platform's; direct: one by one."
)
OUT = flags.DEFINE_string("out", "", "JSON file to write the table to.")

DONE, TALKING = 0, 1
HEAD = (
    "|||images|at|MiB|MiB|MiB|MiB|MiB|would|GFLOP|as|GB||compile",
    "scale|size|width|a chip|once|args|temp|out|code|total|fit|a step|asked|a step|coll.|s",
)


def main(argv: list[str]) -> int:
    del argv
    config = load_config(CONFIG.value)
    pyramid = pyramid_of((HEIGHT.value, WIDTH.value), config)
    scales = _chosen_scales(len(pyramid))
    mesh = _mesh(TOPOLOGY.value, IMAGES.value)
    device = mesh.devices.flat[0]
    conv_impl = CONV_IMPL.value or conv_impl_for(device.platform)
    if conv_impl == "direct":  # with it a program maps images one after another
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, group_size=1))
    first = make_spec(config, pyramid, CHANNELS.value, conv_impl)
    height, width, channels = shape = HEIGHT.value, WIDTH.value, CHANNELS.value
    print(
        f"{IMAGES.value} images of {height}x{width}x{channels} on {mesh.size} x {device.device_kind} ({TOPOLOGY.value})"
        f", precision {config.train.precision}, form {conv_impl}\n{_lines([line.split('|') for line in HEAD])}",
        flush=True,
    )
    costs = []
    for scale in scales:
        costs.append(scale_cost(first.at(scale), mesh, IMAGES.value))
        print(_lines([_cells(costs[-1])]), flush=True)
    steps = [first.at(scale).steps for scale in scales]
    print(_totals(costs, steps))
    each = [cost.roofline_seconds(device.device_kind, config.train.precision) for cost in costs]
    known = [(seconds, cost) for seconds, cost in zip(each, costs, strict=True) if seconds is not None]
    chip_seconds = sum(s * n / cost.images for (s, cost), n in zip(known, steps, strict=True)) if known else None
    if chip_seconds is not None:
        print(f"one image takes at least {chip_seconds:.3g} chip-seconds at these scales (roofline of the chip)")
    if OUT.value:
        asked = {
            "topology": TOPOLOGY.value,
            "images": IMAGES.value,
            "shape": shape,
            "form": conv_impl,
            "config": to_mapping(config),
            "roofline_chip_seconds_per_image": chip_seconds,
        }
        rows = [dataclasses.asdict(cost) for cost in costs]
        files.write_json(OUT.value, {**run_record.start_entry(mesh, Processes()), **asked, "scales": rows})
        print(f"wrote {OUT.value}")
    if talking := [cost.scale for cost in costs if cost.collectives]:
        print(f"error: devices talk to each other at scales {talking}, and images never should", file=sys.stderr)
        return TALKING
    return DONE


def _mesh(topology: str, images: int) -> Mesh:
    if topology == "here":
        mesh = runtime.start_jax(images)
        jax.config.update("jax_enable_compilation_cache", False)  # what is told is how long compiling takes
        return mesh
    devices = find_topology(topology)
    jax.config.update("jax_platforms", "cpu")  # a TPU that is there is left to whoever uses it
    return image_mesh(devices_of(devices)[:images])


def _chosen_scales(count: int) -> list[int]:
    known = {str(scale): scale for scale in range(count)}
    for text in SCALES.value:
        if text.strip() not in known:
            raise UserError(f"--scales: there is no scale {text!r}: these images have scales 0 to {count - 1}")
    return sorted({known[text.strip()] for text in SCALES.value}) or list(known.values())


def _cells(cost: ScaleCost) -> tuple[str, ...]:
    memory = cost.memory
    parts = (memory.arguments, memory.temporary, memory.output, memory.code, memory.total)
    sizes = [f"{part / 2**20:.{0 if part > 2**27 else 1}f}" for part in parts]
    most = "-" if cost.most is None else str(cost.most)
    more = f"x{cost.flops / cost.asked_flops:.2f}" if cost.flops > 0 else "-"
    numbers = [f"{cost.asked_flops / 1e9:.4g}", more, f"{cost.bytes / 1e9:.4g}", str(cost.collectives)]
    size = "x".join(map(str, cost.size))
    cells = (str(cost.scale), size, str(cost.width), str(cost.images), str(cost.group), *sizes, most, *numbers)
    return (*cells, f"{cost.compile_seconds:.1f}")


def _lines(rows: Sequence[Sequence[str]]) -> str:
    widths = (5, 7, 5, 6, 4, 6, 6, 5, 5, 6, 5, 8, 5, 7, 5, 7)
    return "\n".join(text_table(rows, ">", gap=1, min_widths=widths))


def _totals(costs: list[ScaleCost], steps: list[int]) -> str:
    largest = max(costs, key=lambda cost: cost.memory.total)
    image = sum(cost.asked_flops / cost.images * each for cost, each in zip(costs, steps, strict=True))
    steps_of_all = steps[0] if len(set(steps)) == 1 else " ".join(map(str, steps))
    fit = [cost.most for cost in costs if cost.most is not None]
    return (
        f"at most {largest.memory.total / 2**20:.1f} MiB per chip, at scale {largest.scale}"
        + (f"; {min(fit)} images per chip would fit at once at each of these scales" if fit else "")
        + f"\none image, {steps_of_all} steps a scale: {image:.3g} FLOP as asked; collectives:"
        f" {sum(cost.collectives for cost in costs)}; compiled in {sum(cost.compile_seconds for cost in costs):.0f} s"
    )


if __name__ == "__main__":
    cli.run(main)
