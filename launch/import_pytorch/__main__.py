"""Makes a run of a SinGAN that was trained with the reference PyTorch implementation; PyTorch is not needed.

python -m launch.import_pytorch --from=TrainedModels/birds/scale_factor=0.750000,alpha=10 --workdir=runs/birds
"""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from launch import cli, runtime
from launch import command_flags as flags
from launch.import_pytorch import read_run
from launch.import_pytorch import replay as pytorch_replay
from launch.import_pytorch.read_run import PytorchRun
from launch.import_pytorch.replay import Replay
from singan import files
from singan.config import Config
from singan.errors import UserError
from singan.model.state import TrainedScale
from singan.parallel import cohort
from singan.source_image import SourceImage
from singan.storage import workdir as records
from singan.storage.checkpoints import ScaleCheckpoints
from singan.storage.finished_scale import FinishedScale
from singan.storage.run_record import claim_workdir
from singan.storage.workdir import Workdir

FROM = flags.DEFINE_string("from", None, "give --from=DIR, which has reals.pth and 0/netG.pth in it.", required=True)
WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=DIR, a new directory for the run.", required=True)
NAME = flags.DEFINE_string("name", "", "Id of the image; made of the folder's name where not given.")
CHANNELS = flags.DEFINE_list("channels", [], "Names of the image's channels, such as red,green,blue,mask.")
BACKGROUND = flags.DEFINE_string(
    "background", "auto", "Value that surrounds the subject: auto, none, a number, or one per channel (0 to 255)."
)
VALUE_RANGE = flags.DEFINE_enum(
    "value_range",
    "auto",
    ["auto", "-1,1", "0,1"],
    "Values that the network was given: -1,1 as in the reference, 0,1 (an array as it is), or auto: by reals.pth.",
)
ACCEPT_MISMATCH = flags.DEFINE_boolean(
    "accept_mismatch", False, "Import it though no known rule between scales explains the stored noise amplitudes."
)


def main(argv: list[str]) -> int:
    del argv
    target = Path(WORKDIR.value)
    _check_free(target)
    source = read_run.read_run(Path(FROM.value))
    words = (NAME.value, tuple(CHANNELS.value), BACKGROUND.value)
    image = read_run.image_of(source, *words)
    config = read_run.config_of(source)
    read_run.check_weights(source, config)
    mesh = runtime.start_jax(1)
    config, replays = pytorch_replay.choose_rule(source, config, image, mesh)
    if text := pytorch_replay.disagreement(source, config, replays):
        if not ACCEPT_MISMATCH.value:
            raise UserError(
                f"{text}: samples would look different from PyTorch's; check that all files are of one training, or"
                " give --accept_mismatch to import it with that rule"
            )
        print(f"warning: {text}; samples will look different from PyTorch's", file=sys.stderr)
    unit = VALUE_RANGE.value == "0,1"
    if VALUE_RANGE.value == "auto":
        unit = read_run.is_unit(source, str(config.method.between_scales))
    replayed = pytorch_replay.summary(source, config, replays)
    image = read_run.image_of(source, *words, unit, replayed)
    with _made_whole(target) as workdir:
        _write(source, config, image, replays, replayed, workdir, mesh)
    for scale, (weights, replay) in enumerate(zip(source.scales, replays, strict=True)):
        real = source.reals[scale]
        size, error = f"{real.shape[0]}x{real.shape[1]}", np.sqrt(np.mean(np.square(replay.reconstruction[0] - real)))
        print(
            f"scale {scale:<2} {size:9}  width {weights.width:<4} RMSE of the reconstruction {error:.4f}"
            f"  noise amplitude {weights.amplitude:.5f}, replayed {replay.amplitude:.5f}"
        )
    print(f"{len(replays)} of {len(source.reals)} scales of {image.id} are in {target} (RMSE: of values in [-1, 1])")
    rule, share = replayed["between_scales"], replayed["misfit"]
    how = "" if share is None else f", which replays the noise amplitudes within {max(share, 1e-4):.2%}"
    print(f"  between scales: {rule}{how}")
    low, high = (image.value_map.least or image.value_map.low)[0], image.value_map.high[0]
    print(f"  values of samples: {low:g} to {high:g} (--value_range={VALUE_RANGE.value})")
    print(f"  samples   python -m launch.sample --workdir={target} --out=samples --start_scales=0,1")
    return 0


def _write(
    source: PytorchRun,
    config: Config,
    image: SourceImage,
    replays: Sequence[Replay],
    replayed: Mapping[str, Any],
    workdir: Workdir,
    mesh: Mesh,
) -> None:
    record = claim_workdir(workdir, config, [image], mesh)
    parent_fingerprint, step = "", config.train.steps_per_scale
    for scale, (weights, replay) in enumerate(zip(source.scales, replays, strict=True)):
        tree = {
            "trained": TrainedScale(weights.generator, weights.amplitude),
            "critic": weights.critic,
            "reconstruction": replay.reconstruction,
            "reconstruction_noise": source.reconstruction_noise if scale == 0 else None,
        }
        tree = cohort.stack([tree], 1)
        extra = {"kind": "weights", "diverged": {}, "below": parent_fingerprint, "trained_from": record.origin.digest}
        with ScaleCheckpoints(workdir.checkpoints(scale), lambda text: print(text, file=sys.stderr)) as checkpoints:
            digests = checkpoints.save(step, tree, (image.id,), extra)
        records.write_done(workdir, scale, digests, {}, record.origin.digest)
        parent_fingerprint = FinishedScale((image.id,), {}, tree, digests).fingerprint
    whole = len(source.scales) == len(source.reals)
    record.update(workdir, status="finished" if whole else "imported", diverged={}, imported=dict(replayed))


def _check_free(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--workdir={target} holds something already: choose another one")


@contextlib.contextmanager
def _made_whole(target: Path) -> Iterator[Workdir]:
    """A workdir beside `target` that takes its place when the context is left without an error, and else vanishes."""
    files.make_directory(target.absolute().parent)
    temporary = target.absolute().parent / f".tmp-{target.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        yield Workdir(files.make_directory(temporary))
        with files.named_os_errors(target):
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    cli.run(main)
