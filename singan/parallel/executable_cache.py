"""Compiled programs kept on disk by what they are made from, so that a later process need not even trace them.

JAX's own cache knows a program by its text, and tracing it to that text is most of what a warm start takes.
Here a program is known by a name that says all of its choices, such as ("chunk", spec, group, steps), together with the
source of this package, the shapes, the devices, the versions of the libraries and their settings. The store lies beside
JAX's cache (jax_compilation_cache_dir) and is off where that is: no directory, or jax_enable_compilation_cache off.

What is read here is code that runs, as in JAX's own cache: only files of the user who runs it are read, from a
directory that nobody else may write to.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import platform
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.sharding import Mesh

from singan import files
from singan.shapes import PyTree

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
ENVIRONMENT = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
NO_MATTER = ("cache", "log", "dump", "trace", "cuda_visible")  # in names of JAX's settings that change no program
LOADED = "/medisingan/program_store/loaded"  # the event of jax.monitoring, once for every program that was read
READ_BY_JAX = "/jax/compilation_cache/cache_hits"  # JAX's own event
KEPT_DAYS = 30  # that the programs of other source are kept
DIGEST = 32  # bytes


class ProgramStore:
    """The programs of one directory and of this source; every failure to read or to write is a program not kept."""

    def __init__(self, directory: Path):
        self._root = directory / "programs"
        self._own = self._root / source_digest()

    def load(self, key: str, mesh: Mesh) -> Any | None:
        """Returns the compiled program, ready for the mesh's devices, or None: not there, damaged, or unreadable."""
        try:
            path = self._path(key)
            data = path.read_bytes()
            if path.stat().st_uid != os.geteuid():
                return None
            if hashlib.blake2b(data[DIGEST:], digest_size=DIGEST).digest() != data[:DIGEST]:
                return None
            executable, in_tree, out_tree = pickle.loads(zlib.decompress(data[DIGEST:]))
            devices = list(mesh.devices.flat)
            compiled = serialize_executable.deserialize_and_load(
                executable, in_tree, out_tree, backend=devices[0].client, execution_devices=devices
            )
            whole = compiled.memory_analysis() is not None  # which planning asks for
        except Exception:  # whatever it is, the program can be made again
            return None
        if not whole:
            return None
        jax.monitoring.record_event(LOADED)
        return compiled

    def save(self, key: str, compiled: Any) -> None:
        """Keeps a compiled program, where it can be written as bytes at all."""
        try:
            data = zlib.compress(pickle.dumps(serialize_executable.serialize(compiled)), level=1)
            if not self._own.is_dir():
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._own.mkdir(mode=0o700, exist_ok=True)
                self._remove_old()
            files.write_bytes(self._path(key), hashlib.blake2b(data, digest_size=DIGEST).digest() + data)
        except Exception:  # a full disk, a backend that cannot: the next process compiles again
            return

    def _path(self, key: str) -> Path:
        return self._own / f"{key}.program"

    def _remove_old(self) -> None:
        for other in self._root.iterdir():
            with contextlib.suppress(OSError):
                if other != self._own and other.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
                    shutil.rmtree(other, ignore_errors=True)


@contextlib.contextmanager
def reads() -> Iterator[list[str]]:
    """Context that yields a list, which is empty as long as JAX has read nothing from its own cache.

    What JAX has read XLA:CPU cannot write again: it has lost the names of its functions, and what is read back from it
    fails when it runs ("NOT_FOUND: Function ... not found", jaxlib 0.10.2). Reads of other threads count too: then a
    program is not kept that could have been.
    """
    found: list[str] = []

    def note(event: str, **_: Any) -> None:
        if event == READ_BY_JAX:
            found.append(event)

    jax.monitoring.register_event_listener(note)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_listener(note)


def current() -> ProgramStore | None:
    """Returns the store beside JAX's cache, or None where that is off."""
    directory = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    on = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    return ProgramStore(Path(directory)) if directory and on and not files.is_bucket(directory) else None


def key(name: tuple[Any, ...], mesh: Mesh, arguments: PyTree, precision: str, options: dict[str, Any]) -> str:
    """Returns what a program is kept under.

    Args:
      name: all choices that the program is made from; their repr is what counts, and must say everything.
      arguments: arrays or their shapes.
      options: the compiler's.
    """
    leaves, tree = jax.tree.flatten(arguments)
    shapes = [(leaf.shape, str(leaf.dtype), bool(getattr(leaf, "weak_type", False))) for leaf in leaves]
    devices = [(device.id, device.platform, device.device_kind) for device in mesh.devices.flat]
    return hashlib.blake2b(
        repr((name, str(tree), shapes, devices, precision, sorted(options.items()), _surroundings())).encode(),
        digest_size=DIGEST,
    ).hexdigest()


@functools.lru_cache
def source_digest(root: Path = Path(__file__).parent) -> str:
    """Returns a digest of a package's source (16 hex digits); of this one's unless another is given."""
    content = hashlib.blake2b(digest_size=8)
    for path in sorted(root.rglob("*.py")):
        source = path.read_bytes()
        content.update(f"{path.relative_to(root)} {len(source)}\n".encode() + source)
    return content.hexdigest()


def _surroundings() -> tuple[Any, ...]:
    settings = {name: value for name, value in jax.config.values.items() if not any(w in name for w in NO_MATTER)}
    settings["jax_enable_x64"] = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    environment = [os.environ.get(name) for name in ENVIRONMENT]
    return *_machine(), environment, sorted((name, str(value)) for name, value in settings.items())


@functools.lru_cache
def _machine() -> tuple[Any, ...]:
    backend = jax.devices()[0].client
    versions = []
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append((name, metadata.version(name)))
    devices, processors = len(backend.devices()), os.cpu_count()  # XLA:CPU cuts a program for so many
    return sys.version_info[:2], versions, backend.platform_version, devices, processors, _processor()


def _processor() -> str:
    """Returns what a CPU's code depends on; a home directory may be that of several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return " ".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
