"""The machine that a command runs on: devices, the compilation cache, and the signals that ask it to stop."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import jax
from jax.sharding import Mesh

from singan.files import is_bucket
from singan.parallel.cohort import image_mesh

TRUSTED_CHANNELS = 32  # up to which several CPU devices of a process have been seen to train as one does


def start_jax(images: int, channels: int | None = None) -> Mesh:
    """Returns the mesh that a cohort of `images` images is trained on: all devices, at most one for each image.

    Of several processes (launch/multihost/join.py) `images` counts those of the process that has the most; every
    process has as many devices in the mesh, next to each other.

    A CPU is one device, whose cores share each image's operations. Making every core a device of its own would be up
    to 1.4 times as fast at the coarsest scales, but programs that run at the same time in one process, as many as there
    are threads, compute wrongly in jaxlib 0.10.2 and 0.12.0: with 48 channels from about the 1,024th convolution on,
    with 32 they did not (tests/singan/parallel/two_programs_test.py). Devices of a CPU (XLA_FLAGS, jax_num_cpu_devices)
    are for tests of small networks, and for others all but one are left alone here.

    Args:
      channels: the most features that a network has; None where that is not known.

    Must be called before any other use of JAX.
    """
    use_compilation_cache()
    by_process: dict[int, list] = {}
    for device in sorted(jax.devices(), key=lambda device: (device.process_index, device.id)):
        by_process.setdefault(device.process_index, []).append(device)
    each = max(1, min(images, *map(len, by_process.values())))
    narrow = channels is not None and channels <= TRUSTED_CHANNELS
    if each > 1 and not narrow and jax.default_backend() == "cpu":
        if jax.process_index() == 0:
            print(f"one CPU device of {each} is used: several may train wide networks wrongly", file=sys.stderr)
        each = 1
    return image_mesh([device for devices in by_process.values() for device in devices[:each]])


def cache_directory() -> Path:
    """Returns where this project keeps between runs what it can make again: $XDG_CACHE_HOME/medisingan, or ~/.cache's.

    As the XDG Base Directory Specification has it, a value that is empty or no absolute path counts as none.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "medisingan"


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, so that only the first run of a shape compiles."""
    directory = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_directory() / "compiled")
    if not is_bucket(directory):
        try:
            Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:  # a home that cannot be written costs compile time, nothing else
            directory = None  # JAX would warn of every program
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


class StopRequest:
    """Whether SIGTERM or SIGINT has asked for a stop. The first signal is noted; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.signal_name = ""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._record_signal)

    def __call__(self) -> bool:
        return bool(self.signal_name)

    def _record_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
