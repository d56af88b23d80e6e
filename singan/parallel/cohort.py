"""N images at once: the only file with parallel words.

A function of ONE image becomes a program of a cohort:

    jit( shard_map over the mesh axis 'image'          devices; no collectives: images never talk to each other
           lax.map over groups                         when a device's images do not fit its memory together
             vmap over the images of a group           so that small images fill a large device
               lax.scan over the steps of a chunk )    no host round trip inside a chunk

This is what `jax.pmap(jax.vmap(step))` used to be written for: jax.pmap is in maintenance and shard_map underneath,
and gives the same numbers (tests/singan/parallel/cohort_test.py holds that). Use `parallel` where you would look for
pmap.
`jit(vmap(step))` with sharded arguments instead is not the same: the partitioner gathers the per-image weights.

On a CPU a group is one image: mapping images one after another keeps each image's convolutions ordinary ones, while
vmap would turn them into grouped ones, which are several times slower there.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from singan.model.spec import ScaleSpec
from singan.model.state import ScaleInputs, ScaleState, alive
from singan.model.step import Draw, draw, metric_names, train_step
from singan.parallel import executable_cache
from singan.shapes import Array, PyTree

AXIS = "image"
TRUSTED_CHANNELS = 32  # up to which several CPU devices of a process have been seen to train as one does
PRECISIONS = {"highest": "highest", "tf32": "tensorfloat32", "bf16": "bfloat16"}  # JAX's names of train.precision

# XLA:CPU hands unpadded convolutions to a library that is slow inside loops; this keeps it for reductions, where it
# helps (measured: 107 against 385 GFLOP/s at 187 px on jax 0.10.2). A compiler that does not know the option does
# without.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def image_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the 1-D mesh named 'image' over the given devices, or over all of them."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def training_mesh(images: int, channels: int | None = None, warn: Callable[[str], Any] = lambda text: None) -> Mesh:
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
      warn: told, in the first process, where a CPU's devices are left alone.
    """
    by_process: dict[int, list] = {}
    for device in sorted(jax.devices(), key=lambda device: (device.process_index, device.id)):
        by_process.setdefault(device.process_index, []).append(device)
    each = max(1, min(images, *map(len, by_process.values())))
    narrow = channels is not None and channels <= TRUSTED_CHANNELS
    if each > 1 and not narrow and jax.default_backend() == "cpu":
        if jax.process_index() == 0:
            warn(f"one CPU device of {each} is used: several may train wide networks wrongly")
        each = 1
    return image_mesh([device for devices in by_process.values() for device in devices[:each]])


def padded_size(images: int, mesh: Mesh, group: int) -> int:
    """Returns the cohort size with which every device has the same number of whole groups."""
    unit = mesh.size * group
    return -(-images // unit) * unit


def shard(tree: PyTree, mesh: Mesh) -> PyTree:
    """Returns the tree with its leading axis spread over the mesh; the host's arrays are copied, never shared.

    Where the mesh spans several processes, the tree holds this process's rows, and every process has as many.
    """
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    # XLA:CPU may adopt a NumPy buffer as it is, and a donated buffer is written over: hence the copy.
    copies = jax.tree.map(lambda leaf: np.array(leaf), tree)
    if not mesh.is_multi_process:
        return jax.device_put(copies, sharding)
    count = len({device.process_index for device in mesh.devices.flat})
    whole = lambda leaf: (len(leaf) * count, *leaf.shape[1:])  # noqa: E731
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf, whole(leaf)), copies)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Returns global arrays whole on every device: the one program in which devices talk to each other."""
    return _replicator(mesh)(tree)


@functools.lru_cache
def _replicator(mesh: Mesh) -> Callable[..., Any]:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def local_rows(array: Any) -> np.ndarray:
    """Returns a host copy of the rows of an array that lie on this process's devices; all of them for a NumPy array."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable:
        return np.array(array)
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.array(shard.data) for shard in shards])


def abstract(tree: PyTree, size: int, mesh: Mesh) -> PyTree:
    """Returns the shapes and shardings of `size` trees like the given one, stacked and placed, without making them."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((size, *np.shape(leaf)), np.asarray(leaf).dtype, sharding=sharding), tree
    )


def stack(trees: Sequence[PyTree], size: int) -> PyTree:
    """Returns the images' trees stacked along a new leading axis of length `size`, the first one repeated to fill."""
    filled = [*trees, *[trees[0]] * (size - len(trees))]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *filled)


def parallel(
    function: Callable[..., Any], mesh: Mesh, group: int = 1, donate: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """Returns the jitted cohort form of a function of one image.

    Args:
      function: takes trees of one image and returns a tree of one image.
      group: images of one device that are vmapped together; the rest of a device's images follow group by group.
        1 never vmaps.
      donate: numbers of the arguments whose buffers may be written over.

    The arguments of the result have a leading axis whose length is a multiple of mesh.size * group (padded_size).
    """

    def of_device(*arguments):
        if group == 1:
            return lax.map(lambda one: function(*one), arguments)
        count = jax.tree.leaves(arguments)[0].shape[0] // group
        if count == 1:
            return jax.vmap(function)(*arguments)
        grouped = jax.tree.map(lambda leaf: leaf.reshape(count, group, *leaf.shape[1:]), arguments)
        result = lax.map(lambda some: jax.vmap(function)(*some), grouped)
        return jax.tree.map(lambda leaf: leaf.reshape(count * group, *leaf.shape[2:]), result)

    spec = PartitionSpec(AXIS)
    mapped = jax.shard_map(of_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    return jax.jit(mapped, donate_argnums=donate)


def chunk_of_one(
    spec: ScaleSpec, steps: int, skip_dead: bool, inputs: ScaleInputs, state: ScaleState, drawn: Draw = draw
) -> tuple[ScaleState, dict[str, Array]]:
    """Returns one image's state after `steps` steps and its metrics, each averaged over the steps' updates.

    Args:
      skip_dead: pass over an image that has diverged (or only fills the cohort up) without computing it. It saves
        the time where images are mapped one after another, and nothing under vmap.
    """

    def body(state, _):
        new, metrics = train_step(spec, inputs, state, drawn)
        return new, jax.tree.map(jnp.mean, metrics)

    def train(state):
        state, metrics = lax.scan(body, state, length=steps)
        return state, jax.tree.map(jnp.mean, metrics)

    def skip(state):
        return state, {name: jnp.full((), jnp.nan) for name in metric_names(spec)}

    return lax.cond(alive(state), train, skip, state) if skip_dead else train(state)


def chunk_program(spec: ScaleSpec, mesh: Mesh, group: int, steps: int, drawn: Draw = draw) -> Callable[..., Any]:
    """Returns the jitted program (inputs, state) -> (state, metrics) of one chunk; the state's buffers are reused."""

    def one(inputs, state):
        return chunk_of_one(spec, steps, group == 1, inputs, state, drawn)

    return parallel(one, mesh, group, donate=(1,))


def trace_program(program: Callable[..., Any], *arguments: PyTree, precision: str = "highest") -> Any:
    """Returns the program traced for the shapes of its arguments, as `compile_program` does it (and JAX remembers it).

    Args:
      precision: of matrix products and convolutions: 'highest' (float32), 'tf32' or 'bf16'.
    """
    with jax.default_matmul_precision(PRECISIONS[precision]):
        return program.trace(*arguments)


def compile_program(
    program: Callable[..., Any], *arguments: PyTree, precision: str = "highest", name: tuple[Any, ...] = ()
) -> Any:
    """Returns the program compiled for the shapes of its arguments, with the options that its platform needs.

    Args:
      arguments: arrays or shapes, all with shardings over one mesh or all without.
      precision: of the convolutions' operands: 'highest' (float32), 'tf32' or 'bf16'.
      name: everything that the program is made from, if a later process may take it as it is from the disk, where
        JAX keeps compiled programs at all (singan/parallel/executable_cache.py).
    """
    mesh = _mesh(arguments)
    platform = mesh.devices.flat[0].platform if mesh is not None else jax.default_backend()
    options = _CPU_OPTIONS if platform == "cpu" else {}
    store = executable_cache.current() if name and mesh is not None and not mesh.is_multi_process else None
    if store is None or mesh is None:
        return _compile(program, arguments, precision, options)
    key = executable_cache.key(name, mesh, arguments, precision, options)
    compiled = store.load(key, mesh)
    if compiled is None:
        with executable_cache.reads() as reads:
            compiled = _compile(program, arguments, precision, options)
        if not reads:
            store.save(key, compiled)
    return compiled


def _compile(program: Callable[..., Any], arguments: PyTree, precision: str, options: dict[str, str]) -> Any:
    with jax.default_matmul_precision(PRECISIONS[precision]):
        lowered = program.lower(*arguments)
    try:
        return lowered.compile(options)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if "xla_cpu_experimental_ynn" not in str(error):
            raise
        return lowered.compile()


def _mesh(arguments: PyTree) -> Mesh | None:
    meshes = (getattr(getattr(leaf, "sharding", None), "mesh", None) for leaf in jax.tree.leaves(arguments))
    return next((mesh for mesh in meshes if isinstance(mesh, Mesh)), None)
