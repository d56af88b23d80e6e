"""Results of a manipulation as files: each result, and one picture that compares the start scales."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from launch.images import geometry
from launch.samples import pictures, writers
from singan import files
from singan.model.pyramid import resize_to
from singan.sampling import manipulation, masks
from singan.sampling.manipulation import Result
from singan.sampling.masks import MaskRule
from singan.storage.run import Run


def write_results(run: Run, out: Path, form: str, results: Sequence[Result], rule: MaskRule) -> None:
    """Writes results as OUT/start_SS/<input>..., as samples are written; what was not blended is <input>_unmasked.

    What was blended is of the training image's size in every format, so that it can be laid over it.
    """
    for result in results:
        folder = files.make_directory(out / f"start_{result.start_scale:02d}")
        kinds = {"": result.raw} if result.blended is None else {"": result.blended, "_unmasked": result.raw}
        for suffix, pixels in kinds.items():
            if not suffix and result.blended is not None:
                pixels = on_source_grid(run, result, rule)
            record = dataclasses.replace(run.record(result.input.image_id), id=result.input.name + suffix)
            with writers.open_writer(form, folder, [record], len(pixels), result.start_scale) as writer:
                writer.add([record.id], 0, pixels[None])


def on_source_grid(run: Run, result: Result, rule: MaskRule) -> np.ndarray:
    """Returns a result blended on the training image's own grid, float32 [k, H, W, C]; its very bits outside."""
    background = run.pixels(result.input.image_id)
    assert result.input.mask is not None  # it is blended
    mask = manipulation.mask_at(result.input.mask, background.shape[:2])
    raw = resize_to(result.raw, background.shape[:2])
    return masks.blend(background[None], raw, masks.soft_mask(mask, rule))


def write_comparison(run: Run, path: Path, by_scale: Sequence[Sequence[Result]]) -> None:
    """Writes one picture: a row for each input and channel group, a column for each start scale.

    Args:
      by_scale: for each start scale the results of all inputs, in one order.
    """
    rows = []
    for results in zip(*by_scale, strict=True):
        one, record = results[0].input, run.record(results[0].input.image_id)
        size = results[0].raw.shape[1:3]
        shown = [run.finest(one.image_id), resize_to(one.pixels, size)]
        if one.mask is not None:
            inside = manipulation.mask_at(one.mask, size)[..., None]
            drawn = np.where(inside, np.float32(1), np.float32(-1)) * np.ones(len(record.channels), np.float32)
            shown.append(record.value_map.from_shown(drawn))
        shown += [(result.raw if result.blended is None else result.blended)[0] for result in results]
        rows += pictures.image_rows(
            one.name,
            [geometry.upright(record.value_map.shown(image), record.details) for image in shown],
            record.channels,
        )
    masked = by_scale[0][0].input.mask is not None
    columns = ["training image", "input", *(["mask"] if masked else [])]
    columns += [f"start {results[0].start_scale}" for results in by_scale]
    files.write_bytes(path, pictures.encode_png(pictures.grid(rows, columns)))


def write_gif(path: Path, frames: np.ndarray, frames_per_second: float) -> None:
    """Writes frames uint8 [t, h, w, 1 or 3] as a GIF that starts over and over."""
    shown = [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in frames]
    buffer = io.BytesIO()
    duration = round(1000 / frames_per_second)
    shown[0].save(buffer, "GIF", save_all=True, append_images=shown[1:], duration=duration, loop=0)
    files.write_bytes(path, buffer.getvalue())
