"""How the throughput of a cohort grows with the devices that it is spread over (make bench ARGS=--devices)."""

from typing import Any

import jax

from experiments.training_time import whole_steps
from singan.model.spec import ScaleSpec
from singan.parallel.cohort import image_mesh

DEMONSTRATION = (
    "These devices are parts of one CPU and share its cores: the table shows that the cohort is spread, not that it is"
    " faster. Only the coarsest scale is measured."
)


def device_counts(devices: int) -> list[int]:
    """Returns 1, 2, 4, ... as far as there are devices, and all of them."""
    return sorted({2**power for power in range(devices.bit_length()) if 2**power <= devices} | {devices})


def scales_to_measure(scales: int, platform: str) -> list[int]:
    """Returns both ends and the middle of the pyramid; of a CPU's devices the coarsest scale alone."""
    return [0] if platform == "cpu" else sorted({0, scales // 2, scales - 1})


def measure(spec: ScaleSpec, images: int, seconds: float, rate: float) -> list[dict[str, Any]]:
    """Returns a row for each number of this process's devices: the same `images` images, images x steps per second.

    Efficiency is the throughput against that of one device times the number of devices. Places that only fill up,
    where the images do not share out evenly, count as no image.
    """
    rows = []
    for count in device_counts(len(jax.local_devices())):
        mesh = image_mesh(jax.local_devices()[:count])
        row = whole_steps.measure(whole_steps.compile_fitting(spec, images, mesh, seconds, rate * count), seconds)
        throughput = 1e3 / row["ms_per_step_and_image"]
        alone = rows[0]["images_steps_per_second"] if rows else throughput
        rows.append(
            {
                **row,
                "devices": count,
                "images_steps_per_second": throughput,
                "efficiency": throughput / (count * alone),
            }
        )
    return rows
