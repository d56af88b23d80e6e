"""Compiled programs kept on disk by what they are made from, so that a later process need not even trace them.

JAX's own cache knows a program by its text, and tracing it to that text is most of what a warm start takes.
Here a program is known by a name that says all of its choices, such as ("chunk", spec, group, steps), together with the
source of this package, the shapes, the devices, the versions of the libraries and their settings. The store lies beside
JAX's cache (jax_compilation_cache_dir) and is off where that is: no directory, or jax_enable_compilation_cache off.

What is read here is code that runs. Only a file that the user made is read, from a folder in which nobody else can have
put it: that is asked of what was opened, before a byte is read. Where a folder is not like that, this store is off, and
JAX's cache alone is used.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import shutil
import stat
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
from singan.parallel import processor
from singan.shapes import PyTree

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
ENVIRONMENT = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
NO_MATTER = ("cache", "log", "dump", "trace", "cuda_visible")  # in names of JAX's settings that change no program
LOADED = "/medisingan/program_store/loaded"  # the event of jax.monitoring, once for every program that was read
READ_BY_JAX = "/jax/compilation_cache/cache_hits"  # JAX's own event
KEPT_DAYS = 30  # that the programs of other source are kept


class ExecutableCache:
    """The programs of one directory and of this source; every failure to read or to write is a program not kept."""

    def __init__(self, directory: Path):
        self._root = directory.resolve() / "programs"
        self._own = self._root / source_digest()

    def load(self, key: str, mesh: Mesh) -> Any | None:
        """Returns the compiled program, ready for the mesh's devices, or None: not there, damaged, or unreadable."""
        try:
            data = zlib.decompress(_read(self._own, f"{key}.program"))  # which compares a checksum
            executable, in_tree, out_tree = pickle.loads(data)
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
            path = self._own / f"{key}.program"
            files.write_bytes(path, data)
            path.chmod(0o600)
        except Exception:  # a full disk, a backend that cannot: the next process compiles again
            return

    def _remove_old(self) -> None:
        for other in self._root.iterdir():
            with contextlib.suppress(OSError):
                if other != self._own and other.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
                    shutil.rmtree(other, ignore_errors=True)


def _read(folder: Path, name: str) -> bytes:
    """Returns the bytes of a file that nobody but this user can have put there.

    Raises:
      OSError: it cannot be opened, is a link, or the folder or the file is open to others.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.ExitStack() as stack:
        directory = os.open(folder, flags | os.O_DIRECTORY)
        stack.callback(os.close, directory)
        about = os.fstat(directory)
        if about.st_uid != os.geteuid() or about.st_mode & 0o077 or not _is_closed(folder):
            raise PermissionError(f"{folder} is open to others")
        opened = os.open(name, flags, dir_fd=directory)
        with os.fdopen(opened, "rb") as file:
            about = os.fstat(opened)
            own = about.st_uid == os.geteuid() and about.st_nlink == 1 and not about.st_mode & 0o022
            if not (own and stat.S_ISREG(about.st_mode)):
                raise PermissionError(f"{folder / name} is not a file of this user alone")
            return file.read()


def _is_closed(folder: Path) -> bool:
    """Returns whether nobody else can have put this folder, whose path is absolute, where it is."""
    for parent in reversed(folder.parents):
        about = parent.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid not in (0, os.geteuid()):
            return False
        if about.st_mode & 0o022 and not about.st_mode & stat.S_ISVTX:
            return False
        if about.st_uid == os.geteuid() and not about.st_mode & 0o077:
            return True  # nobody else gets any further
    return True


@contextlib.contextmanager
def reads() -> Iterator[list[str]]:
    """Context that yields a list, which is empty as long as JAX has read nothing from its own cache.

    What JAX has read XLA:CPU cannot write again: it has lost the names of its functions, and what is read back from it
    fails when it runs ("NOT_FOUND: Function ... not found", jaxlib 0.10.2). Reads of other threads count too: then a
    program is not kept that could have been.
    """
    cache_reads: list[str] = []

    def record(event: str, **_: Any) -> None:
        if event == READ_BY_JAX:
            cache_reads.append(event)

    jax.monitoring.register_event_listener(record)
    try:
        yield cache_reads
    finally:
        jax.monitoring.unregister_event_listener(record)


def current() -> ExecutableCache | None:
    """Returns the store beside JAX's cache, or None where that is off."""
    directory = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    on = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    return ExecutableCache(Path(directory)) if directory and on and not files.is_bucket(directory) else None


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
    text = repr((name, str(tree), shapes, devices, precision, sorted(options.items()), _surroundings()))
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


@functools.lru_cache
def source_digest(root: Path = Path(__file__).parents[1]) -> str:
    """Returns a digest of a package's source (16 hex digits); of singan's unless another is given."""
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
    # What XLA:CPU compiles for; a home directory may be that of several machines.
    machine = len(backend.devices()), processor.threads(), processor.features()
    return sys.version_info[:2], versions, backend.platform_version, machine
