"""The two manipulations that make something else than an image of the same size: a film, and a larger image."""

from collections.abc import Sequence

import numpy as np

from launch import command_flags as flags
from launch import selection
from launch.images import geometry
from launch.images.channels import channel_groups, file_word
from launch.manipulate import inputs, results
from launch.samples import pictures
from singan import files
from singan.errors import UserError
from singan.model.pyramid import resize_to
from singan.sampling import animation, manipulation, super_resolution
from singan.storage.run import Run

FACTOR = flags.DEFINE_float("factor", 4.0, "To super-resolve: times as large, 2 to 8.")
TRUTH = flags.DEFINE_list("truth", [], "To super-resolve: the images in full size, to compare with.")
NUM_FRAMES = flags.DEFINE_integer("num_frames", 60, "To animate: frames.", lower_bound=2)
BETA = flags.DEFINE_float("beta", 0.9, "To animate: how smoothly it moves.", lower_bound=0, upper_bound=1)
FPS = flags.DEFINE_float("fps", 10.0, "To animate: frames per second.", lower_bound=1)


def animate(run: Run, ids: Sequence[str], start_scales: Sequence[str], seed: int, out_flag: str) -> int:
    """Writes OUT/start_SS/<id>.gif for each image, one for each channel group."""
    scales = selection.chosen_scales(run, start_scales)
    out = files.make_directory(out_flag)
    for scale in scales:
        folder = files.make_directory(out / f"start_{scale:02d}")
        films = animation.animate(run, list(ids), NUM_FRAMES.value, scale, BETA.value, seed=seed)
        for name, film in zip(ids, films, strict=True):
            record = run.record(name)
            groups = channel_groups(record.channels)
            shown = geometry.upright(record.value_map.shown(film), record.details)
            for group, channels in groups.items():
                suffix = "" if len(groups) == 1 else f"_{file_word(group)}"
                frames = pictures.to_uint8(shown[..., channels])
                results.write_gif(folder / f"{name}{suffix}.gif", frames, FPS.value)
    print(f"{len(ids)} animation(s) of {NUM_FRAMES.value} frames from scale(s) {', '.join(map(str, scales))} in {out}")
    return 0


def super_resolve(run: Run, ids: Sequence[str], paths: Sequence[str], seed: int, form: str, out_flag: str) -> int:
    """Writes OUT/<name>.png or .npy, and beside it the cubic interpolation; tells PSNR where the truth is known."""
    if form == "nifti":
        raise UserError("--format=nifti holds the source's own grid, which super-resolution leaves: use png or npy")
    if paths:
        given = inputs.read_inputs(run, ids, paths, [])
        names, owners, images = ([getattr(one, key) for one in given] for key in ("name", "image_id", "pixels"))
    else:
        names, owners, images = list(ids), list(ids), [run.finest(name) for name in ids]
    if TRUTH.value and len(TRUTH.value) != len(images):
        raise UserError(f"--truth names {len(TRUTH.value)} files for {len(images)} images: give one for each")
    made = super_resolution.super_resolve(run, owners, images, FACTOR.value, seed)
    truths = [inputs.read_pixels(path, run.record(owner)) for path, owner in zip(TRUTH.value, owners, strict=False)]
    for path, truth, large in zip(TRUTH.value, truths, made, strict=False):
        manipulation.check_proportions(path, truth.shape, "the enlarged image", large.shape)
    out = files.make_directory(out_flag)
    for index, (name, owner, large) in enumerate(zip(names, owners, made, strict=True)):
        record, size = run.record(owner), large.shape[:2]
        shown = {"cubic": resize_to(images[index], size), "super-resolved": large}
        if truths:
            shown["truth"] = resize_to(truths[index], size)
            for kind in ("cubic", "super-resolved"):
                print(f"{name}: {kind} {psnr(shown['truth'], shown[kind]):.2f} dB PSNR")
        if form == "npy":
            files.write_npy(out / f"{name}.npy", record.value_map.invert(large))
        shown = {word: geometry.upright(record.value_map.shown(image), record.details) for word, image in shown.items()}
        rows = pictures.image_rows(name, list(shown.values()), record.channels)
        files.write_bytes(out / f"{name}_comparison.png", pictures.encode_png(pictures.grid(rows, list(shown))))
        for suffix, pixels in pictures.of_channels(shown["super-resolved"], record.channels):
            files.write_bytes(out / f"{name}{suffix}.png", pictures.encode_png(pixels))
    print(f"{len(made)} image(s), {FACTOR.value:g} times as large, are in {out}")
    return 0


def psnr(truth: np.ndarray, image: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio in dB of images in [-1, 1] (peak 2)."""
    return float(10 * np.log10(4 / np.mean(np.square(truth.astype(np.float64) - image))))
