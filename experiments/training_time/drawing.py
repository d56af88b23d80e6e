"""How fast trained pyramids make images: batches beside one by one, composites together, and files while drawing.

python -m experiments.training_time.drawing       (the second half of make bench)

The pyramid has the sizes and widths of a real one of 128x128x3 and random weights, which take the same time. "One by
one" is one device call for each image, with the same compiled program kept: what batching saves is the calls, the
start image and the transfers, not a compilation.
"""

import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from experiments.training_time.machine import machine
from launch import cli, runtime
from launch import command_flags as flags
from launch.images.find import load_images
from launch.samples import writers
from singan.config import parse
from singan.model.convolution import conv_impl_for
from singan.model.noise import image_key_data
from singan.model.pyramid import pyramid_of
from singan.model.scale_start import starting_noise
from singan.model.spec import make_spec
from singan.sampling import manipulation
from singan.sampling import samples as sampling
from singan.sampling.manipulation import Input
from singan.storage.finished_scale import FinishedScale, weights_template
from singan.storage.run import Run
from singan.storage.workdir import ImageRecord, Workdir, pixel_digest, write_image

SIDE = flags.DEFINE_integer("side", 128, "Pixels of the image's sides.", lower_bound=48, upper_bound=512)
DRAWN = flags.DEFINE_integer("drawn", 64, "Samples drawn in batches and one by one.", lower_bound=2)
WRITTEN = flags.DEFINE_integer("written", 128, "Samples written to disk.", lower_bound=2)
COMPOSITES = 16
BATCH = 64


def main(argv: list[str]) -> int:
    del argv
    mesh = runtime.start_jax(1)
    about = machine(mesh)
    print(f"{about['time']}, commit {about['git_commit'] or '-'}, {about['device']}, jax {about['jax']}")
    with tempfile.TemporaryDirectory() as folder:
        run = _run(Path(folder))
        (image_id,) = run.ids
        for start in (0, len(run.scales) - 2):
            memory_lines: list[str] = []

            def log_memory(samples: int, memory, memory_lines=memory_lines) -> None:
                memory_lines.append(f"{memory.total / 2**20:.0f} MiB for {samples} a call")

            def draw(batch: int, start=start, log_memory=log_memory) -> None:
                drawn = sampling.draw(
                    run, [image_id], DRAWN.value, start, batch=batch, mesh=mesh, log_memory=log_memory
                )
                deque(drawn, maxlen=0)

            _compare(f"{DRAWN.value} samples of {SIDE.value}x{SIDE.value}x3 from scale {start}", draw, (BATCH, 1))
            print(f"    memory: {'; '.join(dict.fromkeys(memory_lines))}")
        inputs = [Input(image_id, f"{i}", np.roll(run.finest(image_id), i, 0)) for i in range(COMPOSITES)]

        def inject(together: int) -> None:
            for first in range(0, COMPOSITES, together):
                manipulation.inject(run, inputs[first : first + together], 2, mesh=mesh)

        _compare(f"{COMPOSITES} composites from scale 2", inject, (COMPOSITES, 1))
        for form in ("npy", "png"):
            _write(run, image_id, form, Path(folder), mesh)
    return 0


def _compare(what: str, make: Callable[[int], None], sizes: tuple[int, int]) -> None:
    for size in sizes:
        make(size)  # compiled and warm
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(3):
        for size in sizes:
            started = time.perf_counter()
            make(size)
            times[size].append(time.perf_counter() - started)
    together, alone = (sorted(times[size])[1] for size in sizes)
    print(f"{what}: together {together:.2f} s, one by one {alone:.2f} s, ratio {alone / together:.2f}", flush=True)


def _write(run: Run, image_id: str, form: str, folder: Path, mesh) -> None:
    """Prints how long drawing takes without and with files: with the device never waiting the two are equal."""

    def draw(writer: writers.SampleWriter | None) -> float:
        started = time.perf_counter()
        for batch in sampling.draw(run, [image_id], WRITTEN.value, 0, batch=BATCH, mesh=mesh):
            if writer:
                writer.add(batch.ids, batch.first, batch.pixels)
        return time.perf_counter() - started

    records = [run.record(image_id)]
    draw(None)
    alone = draw(None)
    out = folder / form
    out.mkdir()
    with writers.open_writer(form, out, records, WRITTEN.value, 0) as writer:
        both = draw(writer)
    print(f"{WRITTEN.value} samples: drawn {alone:.1f} s, drawn and written as {form} {both:.1f} s", flush=True)


def _run(folder: Path) -> Run:
    config = parse({"data": {"num_crops": 1, "crop_size": SIDE.value}})
    (image,) = load_images(config.data)
    spec = make_spec(config, pyramid_of(image.pixels.shape, config), 3, conv_impl_for(jax.default_backend()))
    workdir = Workdir(folder / "run")
    write_image(workdir, image.id, image.pixels)
    shape = (SIDE.value, SIDE.value, 3)
    record = ImageRecord(image.id, image.source, shape, image.channels, image.value_map, pixel_digest(image.pixels))
    scales = []
    for scale in range(len(spec.pyramid)):
        weights = weights_template(spec.at(scale))
        if scale == 0:
            weights["reconstruction_noise"] = np.asarray(starting_noise(spec, image_key_data(0, image.id)))
        scales.append(FinishedScale((image.id,), {}, jax.tree.map(lambda leaf: leaf[None], weights), {}))
    return Run(workdir, config, (record,), spec, tuple(scales))


if __name__ == "__main__":
    cli.run(main)
