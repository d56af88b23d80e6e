"""Names of accelerators: one for people, and what gcloud and SkyPilot call it."""

import dataclasses
import re

from singan.config import nearest
from singan.errors import UserError


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A TPU slice or GPUs of one machine."""

    gcloud: str  # accelerator type, '' where it is no TPU
    sky: str
    runtime: str = ""  # the TPU VM's software
    zone: str = ""  # where Google has them, a default


# Generation: gcloud's name, runtime version, a zone (Cloud TPU documentation, "TPU regions and zones").
_TPUS = {
    "v4": ("v4", "tpu-ubuntu2204-base", "us-central2-b"),
    "v5e": ("v5litepod", "v2-alpha-tpuv5-lite", "us-west4-a"),
    "v5p": ("v5p", "v2-alpha-tpuv5", "us-east5-a"),
    "v6e": ("v6e", "v2-alpha-tpuv6e", "us-east5-b"),
}
_GPUS = ("T4", "L4", "V100", "A100", "A100-80GB", "H100", "H200", "B200")


def find_accelerator(name: str) -> Accelerator:
    """Returns the accelerator of a name such as v5e-8, v6e-16, A100 or H100:8.

    Raises:
      UserError: there is none of that name; the nearest is named.
    """
    tpu = re.fullmatch(r"(?:tpu-)?(v\d\w*?)(?:litepod)?-(\d+)", name)
    if tpu:
        generation = "v5e" if "litepod" in name else tpu[1]
        if generation in _TPUS and int(tpu[2]) > 0:
            gcloud, runtime, zone = _TPUS[generation]
            return Accelerator(f"{gcloud}-{tpu[2]}", f"tpu-{gcloud}-{tpu[2]}", runtime, zone)
    gpu = re.fullmatch(r"([\w-]+?)(?::(\d+))?", name)
    if gpu and gpu[1] in _GPUS and gpu[2] != "0":
        return Accelerator("", f"{gpu[1]}:{gpu[2] or 1}")
    known = [*(f"{generation}-8" for generation in _TPUS), *_GPUS, *(f"{gpu}:8" for gpu in _GPUS)]
    raise UserError(
        f"there is no accelerator {name!r}{nearest(name, known)}: TPU slices are named like v5e-8 or v6e-16, GPUs like"
        " A100 or H100:8"
    )
