"""What this machine has to share out among the runs of a sweep, found without starting JAX, which would take it all."""

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from singan.errors import UserError

# How libtpu is told to use a part of a host's chips: chips -> how they lie (Cloud TPU documentation).
_TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1"}


@dataclasses.dataclass(frozen=True)
class Slot:
    """What one run at a time gets."""

    name: str
    environment: Mapping[str, str]
    cores: tuple[int, ...] = ()  # () leaves the run to all of them


def share_out(concurrency: int, devices_per_run: int) -> list[Slot]:
    """Returns the slots: as many runs can go on at once.

    Args:
      concurrency: runs at once; 0 for as many as there are groups of devices, and one on a CPU.
      devices_per_run: GPUs or TPU chips of each; a CPU is one device, of whose cores each run gets a share.

    Raises:
      UserError: this machine has not that many devices.
    """
    kind, devices = _devices()
    if kind == "cpu":
        if devices_per_run > 1:
            raise UserError(f"--devices_per_run={devices_per_run}: this machine has a CPU alone, which is one device")
        return _cpu_slots(concurrency or 1)
    possible = len(devices) // devices_per_run
    if max(concurrency, 1) > possible:
        raise UserError(
            f"{max(concurrency, 1)} runs at once with {devices_per_run} device(s) each need more than the"
            f" {len(devices)} {kind.upper()} device(s) of this machine: lower --concurrency or --devices_per_run"
        )
    groups = [devices[i * devices_per_run : (i + 1) * devices_per_run] for i in range(concurrency or possible)]
    if kind == "gpu":
        return [Slot(f"GPU {','.join(group)}", {"CUDA_VISIBLE_DEVICES": ",".join(group)}) for group in groups]
    if len(groups) == 1 and devices_per_run == len(devices):
        return [Slot("all TPU chips", {})]
    if devices_per_run not in _TPU_BOUNDS:
        raise UserError(f"--devices_per_run={devices_per_run}: a run takes 1, 2, 4 or all {len(devices)} TPU chips")
    bounds = {"TPU_CHIPS_PER_PROCESS_BOUNDS": _TPU_BOUNDS[devices_per_run], "TPU_PROCESS_BOUNDS": "1,1,1"}
    return [Slot(f"TPU {','.join(group)}", {**bounds, "TPU_VISIBLE_DEVICES": ",".join(group)}) for group in groups]


def _devices() -> tuple[str, list[str]]:
    """Returns the kind (gpu, tpu, cpu) and the devices' numbers, as JAX would choose it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms in ("", "cuda", "gpu") and (gpus := _gpus()):
        return "gpu", gpus
    chips = sorted([*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")])
    if platforms in ("", "tpu") and chips:
        return "tpu", [str(number) for number in range(len(chips))]
    return "cpu", []


def _gpus() -> list[str]:
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return printed.split()


def _cpu_slots(count: int) -> list[Slot]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    slots = []
    for number in range(count):
        # Every core once; where there are fewer cores than runs, they take turns.
        own = cores[number * len(cores) // count : (number + 1) * len(cores) // count] or [cores[number % len(cores)]]
        threads = {"OMP_NUM_THREADS": str(len(own)), "OPENBLAS_NUM_THREADS": str(len(own))} if count > 1 else {}
        slots.append(Slot(f"{len(own)} CPU core(s)", threads, tuple(own) if count > 1 else ()))
    return slots
