"""TPU slices by name, to compile for on a machine that has none (with the libtpu wheel), and the memory of their chips.

Cloud TPU counts cores in the names of v4 and v5p slices, two to a chip, and chips in those of v5e and v6e; JAX sees one
device a chip in all of them. The compiler names a slice by the grid of its chips.
"""

import dataclasses
import importlib.util
import os
from typing import Any

from jax.experimental import topologies

from singan.config import nearest
from singan.errors import UserError

INSTALL = 'pip install -c constraints.txt -e ".[tpu-aot]"'


@dataclasses.dataclass(frozen=True)
class Topology:
    """A TPU slice: what JAX calls it, and what else the compiler must know of it."""

    jax_name: str
    chips: int
    options: tuple[tuple[str, Any], ...] = ()


_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")
# Generation: the grids of its slices, names per chip, and the compiler's options.
_GENERATIONS = {
    "v4": (_CUBES, 2, (("chip_config_name", "megacore"),)),  # else each of a chip's cores is a device
    "v5e": (_FLAT, 1, ()),
    "v5p": (_CUBES, 2, ()),
    "v6e": (_FLAT, 1, ()),
}


def _table() -> dict[str, Topology]:
    table = {}
    for generation, (grids, per_chip, options) in _GENERATIONS.items():
        if grids is _FLAT:  # the compiler's hosts have 2x2 chips unless told otherwise
            alone = (*options, ("chips_per_host_bounds", (1, 1, 1)))
            table[f"{generation}-1"] = Topology(f"{generation}:1x1", 1, alone)
        for grid in grids:
            chips = 1
            for side in grid.split("x"):
                chips *= int(side)
            table[f"{generation}-{chips * per_chip}"] = Topology(f"{generation}:{grid}", chips, options)
    return table


TOPOLOGIES = _table()  # v4-8 -> v4:2x2x1, v5e-8 -> v5e:2x4 ...

# Bytes of a chip that programs can have, by JAX's device_kind: what the compiler of libtpu 0.0.42 allows them, a little
# less than the chip has.
USABLE_MEMORY = {
    "TPU v4": int(30.75 * 2**30),
    "TPU v5 lite": int(15.75 * 2**30),
    "TPU v5": int(95.74 * 2**30),
    "TPU v6 lite": int(31.25 * 2**30),
}

# FLOP/s of matrix products in bf16 and bytes/s of memory of a chip at best, by JAX's device_kind, as Cloud TPU's pages
# on system architecture have them.
PEAK_RATES = {
    "TPU v4": (275e12, 1.2e12),
    "TPU v5 lite": (197e12, 0.82e12),
    "TPU v5": (459e12, 2.765e12),
    "TPU v6 lite": (918e12, 1.64e12),
}


def find_topology(name: str) -> Topology:
    """Returns the slice of a name such as v5e-8, v5litepod-8 or v4-32.

    Raises:
      UserError: there is none of that name; the nearest is named.
    """
    short = name.removeprefix("tpu-").replace("v5litepod", "v5e")
    if short not in TOPOLOGIES:
        raise UserError(
            f"there is no TPU topology {name!r}{nearest(short, TOPOLOGIES)}: here, for this machine's devices, or"
            f" {', '.join(TOPOLOGIES)}"
        )
    return TOPOLOGIES[short]


def devices_of(topology: Topology) -> list[Any]:
    """Returns a slice's devices, which programs can be compiled for and nothing else.

    Raises:
      UserError: libtpu, the compiler, is not installed or does not know the slice.
    """
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError(f"compiling for a TPU needs its compiler, libtpu: {INSTALL}")
    # libtpu takes /tmp/libtpu_lockfile when it is loaded, for a chip that one process may have at a time, and a second
    # process gets 'ABORTED: Internal error when accessing libtpu multi-process lockfile', also where both only compile.
    # Nothing is run here, so both may. The rest keeps it from looking for a TPU VM around it, and from writing logs.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_LOG_DIR", "disabled")
    try:
        description = topologies.get_topology_desc(topology.jax_name, "tpu", **dict(topology.options))
    except RuntimeError as error:
        raise UserError(f"libtpu does not compile for {topology.jax_name}: {str(error).splitlines()[0]}") from error
    return list(description.devices)
