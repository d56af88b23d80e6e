"""How fast trained pyramids make images: batches beside one by one, composites, files while drawing, and pairs.

python -m experiments.training_time.drawing       (the second half of make bench)

The pyramids have the sizes and widths of real ones of 128x128x3 and random weights, which take the same time. "One by
one" is one device call for each image, with the same compiled program kept: what batching saves is the calls, the
start image and the transfers, not a compilation.
"""

import itertools
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from skimage import io

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
from singan.sampling.pairs import Pairs
from singan.storage.finished_scale import FinishedScale, weights_template
from singan.storage.layout_files import write_layout
from singan.storage.run import Run
from singan.storage.run_record import record_of
from singan.storage.workdir import Workdir, write_image

SIDE = flags.DEFINE_integer("side", 128, "Pixels of the image's sides.", lower_bound=48, upper_bound=512)
DRAWN = flags.DEFINE_integer("drawn", 64, "Samples drawn in batches and one by one.", lower_bound=2)
WRITTEN = flags.DEFINE_integer("written", 128, "Samples written to disk.", lower_bound=2)
COMPOSITES = 16
BATCH = 64
PYRAMIDS = 16  # that pairs are drawn from, one of each in a batch
BATCHES_OF_PAIRS = 4


def main(argv: list[str]) -> int:
    del argv
    mesh = runtime.start_jax(1)
    about = machine(mesh)
    print(f"{about['time']}, commit {about['git_commit'] or '-'}, {about['device']}, jax {about['jax']}")
    with tempfile.TemporaryDirectory() as folder:
        run = _run(Path(folder) / "run", {"num_crops": 1, "crop_size": SIDE.value})
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
        _draw_pairs(Path(folder), mesh)
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


def _draw_pairs(folder: Path, mesh) -> None:
    """Prints the pairs of image and masks that 16 pyramids make in a second, new layouts and transfers included."""
    tiles, masks = folder / "tiles", folder / "masks"
    tiles.mkdir()
    masks.mkdir()
    random = np.random.default_rng(0)
    row, column = np.mgrid[: SIDE.value, : SIDE.value]
    centres = [(y, x) for y in range(8, SIDE.value - 8, 16) for x in range(8, SIDE.value - 8, 16)]
    objects = np.zeros((SIDE.value, SIDE.value), np.uint16)
    for number, (y, x) in enumerate(centres, 1):
        objects[np.hypot(row - y, column - x) < 6] = number
    for index in range(PYRAMIDS):
        io.imsave(tiles / f"{index:02d}.png", random.integers(0, 256, (SIDE.value, SIDE.value, 3), np.uint8))
        io.imsave(masks / f"{index:02d}.png", objects, check_contrast=False)
    data = {"source": "files", "path": str(tiles), "masks": str(masks), "condition": ("binary", "boundary")}
    batches = Pairs(_run(folder / "conditional", data), batch=PYRAMIDS, mesh=mesh).numbered(itertools.count())
    next(batches)  # compiled and warm
    started = time.perf_counter()
    deque(itertools.islice(batches, BATCHES_OF_PAIRS), maxlen=0)
    rate = BATCHES_OF_PAIRS * PYRAMIDS / (time.perf_counter() - started)
    print(
        f"pairs of {SIDE.value}x{SIDE.value}x3 and {len(centres)} objects from {PYRAMIDS} pyramids: {rate:.1f} a second"
    )


def _run(path: Path, data: dict[str, Any]) -> Run:
    """Returns a run with random weights, as training leaves it, of the images that a configuration's `data` names."""
    config = parse({"data": data})
    workdir, images = Workdir(path), load_images(config.data)
    records = tuple(record_of(image) for image in images)
    for image in images:
        write_image(workdir, image.id, image.pixels)
        if image.layout is not None:
            write_layout(workdir, image.id, image.layout)
    first = records[0]
    spec = make_spec(
        config,
        pyramid_of(first.shape, config),
        first.generated,
        conv_impl_for(jax.default_backend()),
        condition=first.given,
    )
    ids, scales = tuple(record.id for record in records), []
    for scale in range(len(spec.pyramid)):
        weights = jax.tree.map(lambda leaf: np.stack([leaf] * len(ids)), weights_template(spec.at(scale)))
        if scale == 0:
            noise = [starting_noise(spec, image_key_data(0, image_id)) for image_id in ids]
            weights["reconstruction_noise"] = np.stack(noise)
        scales.append(FinishedScale(ids, {}, weights, {}))
    return Run(workdir, config, records, spec, tuple(scales))


if __name__ == "__main__":
    cli.run(main)
