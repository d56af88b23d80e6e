"""Names of accelerators: one for people, and what gcloud, SkyPilot and Kubernetes Engine call it."""

import dataclasses
import math
import re

from singan.config import nearest
from singan.errors import UserError


@dataclasses.dataclass(frozen=True)
class GkeSlice:
    """A TPU slice as the labels of a Kubernetes Engine node pool have it."""

    accelerator: str
    topology: str
    chips_per_host: int

    @property
    def hosts(self) -> int:
        return math.prod(map(int, self.topology.split("x"))) // self.chips_per_host


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A TPU slice or GPUs of one machine."""

    gcloud: str  # accelerator type of a TPU VM, '' where there is none: GPUs, and TPU7x
    sky: str  # '' where SkyPilot does not have it
    runtime: str = ""  # the TPU VM's software
    zone: str = ""  # where Google has them, a default
    gke: GkeSlice | None = None


# Generation: gcloud's name, runtime version, a zone (Cloud TPU documentation, "TPU regions and zones").
_TPUS = {
    "v4": ("v4", "tpu-ubuntu2204-base", "us-central2-b"),
    "v5e": ("v5litepod", "v2-alpha-tpuv5-lite", "us-west4-a"),
    "v5p": ("v5p", "v2-alpha-tpuv5", "us-east5-a"),
    "v6e": ("v6e", "v2-alpha-tpuv6e", "us-east5-b"),
}
# Kubernetes Engine's label. Slices of v4, v5p and v7x are named by cores, two a chip; those of v5e and v6e by chips.
_GKE = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
    "v7x": "tpu7x",
}
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8"}
_GPUS = ("T4", "L4", "V100", "A100", "A100-80GB", "H100", "H200", "B200")


def find_accelerator(name: str) -> Accelerator:
    """Returns the accelerator of a name such as v5e-8, v6e-16, A100 or H100:8.

    Raises:
      UserError: there is none of that name; the nearest is named.
    """
    tpu = re.fullmatch(r"(?:tpu-)?(v\d\w*?)(?:litepod)?-(\d+)", name)
    if tpu:
        generation, size = "v5e" if "litepod" in name else tpu[1], int(tpu[2])
        if generation in _TPUS and size > 0:
            gcloud, runtime, zone = _TPUS[generation]
            return Accelerator(f"{gcloud}-{size}", f"tpu-{gcloud}-{size}", runtime, zone, _gke_slice(generation, size))
        if generation == "v7x" and (gke := _gke_slice(generation, size)):
            return Accelerator("", "", gke=gke)
    gpu = re.fullmatch(r"([\w-]+?)(?::(\d+))?", name)
    if gpu and gpu[1] in _GPUS and gpu[2] != "0":
        return Accelerator("", f"{gpu[1]}:{gpu[2] or 1}")
    known = [*(f"{generation}-8" for generation in _TPUS), *_GPUS, *(f"{gpu}:8" for gpu in _GPUS)]
    raise UserError(
        f"there is no accelerator {name!r}{nearest(name, known)}: TPU slices are named like v5e-8 or v7x-8, GPUs like"
        " A100 or H100:8"
    )


def _gke_slice(generation: str, size: int) -> GkeSlice | None:
    """Returns the slice as Kubernetes Engine has it, None where it has none of that size."""
    if generation in ("v5e", "v6e"):
        return GkeSlice(_GKE[generation], _FLAT[size], size if size <= 8 else 4) if size in _FLAT else None
    chips = size // 2
    return GkeSlice(_GKE[generation], _CUBES[chips], 4) if chips in _CUBES and size % 2 == 0 else None
