"""The machine that a command runs on: devices, the compilation cache, and the signals that ask it to stop."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import jax
from jax.sharding import Mesh

from singan.files import is_bucket
from singan.parallel.cohort import training_mesh


def start_jax(images: int, channels: int | None = None) -> Mesh:
    """Returns the mesh that a cohort of `images` images is trained on; see singan.parallel.cohort.training_mesh.

    Must be called before any other use of JAX.
    """
    use_compilation_cache()
    return training_mesh(images, channels, lambda text: print(text, file=sys.stderr))


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
