"""Which implementation of the convolution a run trains with: what run.json says, or what is fastest on this device.

Another one sums in another order, so that the numbers of a run depend on it in their last digits: it is chosen once,
recorded, and used again when the run goes on on a device of the same kind.
"""

import contextlib
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from launch import runtime
from launch.train.cohorts import Cohort
from singan import files
from singan.config import Config
from singan.errors import UserError
from singan.model.convolution import CONV_IMPLS, conv_impl_for
from singan.model.pyramid import Pyramid
from singan.model.spec import make_spec
from singan.parallel.convolution_timing import time_conv_impls
from singan.storage.run_record import RunRecord

MAX_TIMED = 16  # images that are timed together: more change the order little, and take memory


def conv_impl_of_run(record: RunRecord, config: Config, cohort: Cohort, mesh: Mesh) -> str:
    """Returns the implementation to train with, which run.json records with the reason (`choose`)."""
    new = lambda: choose(config, cohort.pyramid, cohort.generated, len(cohort.rows), mesh)  # noqa: E731
    return record.conv_impl(cohort.workdir, mesh.devices.flat[0], new)


def choose(config: Config, pyramid: Pyramid, channels: int, images: int, mesh: Mesh) -> dict[str, Any]:
    """Returns the implementation that a new run of `images` images takes, {'form': ..., 'why': ...}.

    On a GPU they are timed at the finest scale, which takes most of a training: once per kind of device and layer
    (some seconds, kept beside the compiled programs). A CPU and a TPU have theirs by evidence
    (convolution.conv_impl_for), and so have several processes, which must agree.
    """
    device = mesh.devices.flat[0]
    if device.platform != "gpu" or jax.process_count() > 1:
        return {"form": conv_impl_for(device.platform), "why": f"the form of {device.platform}"}
    spec = make_spec(config, pyramid, channels, conv_impl_for("gpu"), len(pyramid) - 1)
    images = min(MAX_TIMED, -(-images // mesh.size))
    size = "x".join(map(str, spec.size))
    key = (
        f"{device.device_kind}, jax {jax.__version__}, {size}, {spec.width} channels, {images} images,"
        f" {spec.train.precision}"
    )
    path = runtime.cache_directory() / "forms.json"
    known = _read(path)
    if known.get(key, {}).get("form") in CONV_IMPLS:
        return known[key]
    rows = time_conv_impls(spec, images)
    if not rows:
        return {"form": conv_impl_for("gpu"), "why": "no form could be timed"}
    choice = {"form": rows[0]["form"], "why": f"the fastest: {key}", "times": rows}
    with contextlib.suppress(OSError, UserError):  # a home that cannot be written costs the time, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {**known, key: choice})
    return choice


def _read(path: Path) -> dict[str, Any]:
    try:
        known = files.read_json(path)
    except (OSError, ValueError, UserError):
        return {}
    return known if isinstance(known, dict) else {}
