"""The processes that train one cohort together: what they tell each other, and which of them has which image.

Each process of a TPU pod, or of several hosts with GPUs, runs the same command and the same code. It trains its own
images on its own devices; nothing of an image ever goes to another process while it trains. What all must know alike
(metrics, stops, digests) is gathered, always on the main thread and in the same order everywhere: a process that
gathers alone waits for ever.
"""

import dataclasses
import functools
import io
import itertools
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from singan.errors import UserError
from singan.parallel import cohort

_T = TypeVar("_T")
_SHORTEST = 256  # bytes of a message; longer ones are padded to a power of two, so that few programs are compiled


class Agreed(UserError):
    """A UserError that every process raises at the same point: each of them ends by itself."""


class Processes:
    """All processes of this training; one alone has nothing to tell, and none of this then uses a device."""

    def __init__(self, count: int = 1, index: int = 0):
        """All processes construct theirs at the same point: it gathers the hosts' names."""
        self.count, self.index = count, index
        self.hosts: list[str] = self.all_gather(platform.node())  # of each process

    @property
    def first(self) -> bool:
        """Whether this is the process that writes records, rows and pictures."""
        return self.index == 0

    def name(self, index: int) -> str:
        """Returns how a person is told of a process."""
        return f"process {index} (host {self.hosts[index]})"

    def all_gather(self, value: Any) -> list[Any]:
        """Returns the JSON values that all processes gave, in the order of the processes."""
        if self.count == 1:
            return [value]
        return [json.loads(one) for one in self._gather_bytes(json.dumps(value).encode())]

    def gather_arrays(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the named arrays of all processes; no two give the same name."""
        if self.count == 1:
            return dict(arrays)
        buffer = io.BytesIO()
        named: dict[str, Any] = {f"_{name}": array for name, array in arrays.items()}  # savez has words of its own
        np.savez(buffer, **named)
        result: dict[str, np.ndarray] = {}
        for one in self._gather_bytes(buffer.getvalue()):
            with np.load(io.BytesIO(one), allow_pickle=False) as loaded:
                result |= {name[1:]: loaded[name] for name in loaded.files}
        return result

    def broadcast(self, value: Any) -> Any:
        """Returns process 0's JSON value."""
        return self.all_gather(value if self.first else None)[0]

    def barrier(self) -> None:
        """Returns when every process has come here."""
        self.all_gather(None)

    def run_on_all(self, action: Callable[[], _T]) -> _T:
        """Returns what `action` returns here, or raises in all processes when it raises a UserError in any."""
        if self.count == 1:
            return action()
        result: Any = None
        error = ""
        try:
            result = action()
        except UserError as raised:
            error = str(raised)
        errors = self.all_gather(error)
        for index, text in enumerate(errors):
            if text:
                raise Agreed(text if all(one == text for one in errors) else f"{self.name(index)}: {text}")
        return result

    def run_on_first(self, action: Callable[[], Any]) -> None:
        """Has process 0 do something, and returns when it is done. Raises in all processes as `run_on_all`."""
        self.run_on_all(action if self.first else lambda: None)

    def _gather_bytes(self, message: bytes) -> list[bytes]:
        lengths = self._gather_rows(np.array([len(message)], np.int32))[:, 0]
        size = max(_SHORTEST, 1 << int(lengths.max() - 1).bit_length())
        padded = np.frombuffer(message.ljust(size, b"\0"), np.uint8)
        return [row[:length].tobytes() for row, length in zip(self._gather_rows(padded), lengths, strict=True)]

    def _gather_rows(self, row: np.ndarray) -> np.ndarray:
        """Returns the rows of all processes, [processes, ...].

        JAX's process_allgather wants as many devices of every process; this uses one of each.
        """
        sharding = NamedSharding(self._mesh, PartitionSpec("process"))
        placed = jax.make_array_from_process_local_data(sharding, row[None], (self.count, *row.shape))
        return np.array(cohort.replicate(placed, self._mesh))

    @functools.cached_property
    def _mesh(self) -> Mesh:
        """One device of each process."""
        first = [min(_devices_of(index), key=lambda device: device.id) for index in range(self.count)]
        return Mesh(np.asarray(first), ("process",), axis_types=(AxisType.Auto,))


@dataclasses.dataclass(frozen=True)
class ImageAssignment:
    """Which process trains which image, for a whole run: an image never moves, as long as the processes are the same.

    Attributes:
      by_process: the ids of each process, in order.
      index: of this process.
    """

    by_process: tuple[tuple[str, ...], ...]
    index: int = 0

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids, in the cohort's order."""
        return tuple(name for names in self.by_process for name in names)

    @property
    def own(self) -> tuple[str, ...]:
        return self.by_process[self.index]

    @property
    def most(self) -> int:
        """Images of the process that has the most."""
        return max(len(names) for names in self.by_process)

    def of(self, ids: Sequence[str]) -> "ImageAssignment":
        """Returns the same assignment for some of the images."""
        kept = set(ids)
        return ImageAssignment(
            tuple(tuple(name for name in names if name in kept) for names in self.by_process), self.index
        )

    def rows(self, each: int) -> list[int]:
        """Returns where the images `ids` lie in an array that has `each` rows of every process."""
        return [index * each + row for index, names in enumerate(self.by_process) for row in range(len(names))]


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """Those who train a cohort: the processes, their devices and their images."""

    processes: Processes
    mesh: Mesh  # over all processes' devices, each process's next to each other
    own_mesh: Mesh  # over this process's devices
    assignment: ImageAssignment

    def of(self, ids: Sequence[str]) -> "ProcessGroup":
        """Returns the same group for some of the images."""
        return dataclasses.replace(self, assignment=self.assignment.of(ids))


def shares(count: int, processes: int) -> list[range]:
    """Returns the positions of each process's images: blocks of a list, as even as can be."""
    each, more = divmod(count, processes)
    starts = [index * each + min(index, more) for index in range(processes + 1)]
    return [range(begin, end) for begin, end in itertools.pairwise(starts)]


def make_process_group(processes: Processes, mesh: Mesh, by_process: Sequence[Sequence[str]]) -> ProcessGroup:
    """Returns the group of the processes on the mesh, given each process's image ids."""
    own = [device for device in mesh.devices.flat if device.process_index == processes.index]
    own_mesh = mesh if len(own) == mesh.size else Mesh(np.asarray(own), mesh.axis_names, axis_types=mesh.axis_types)
    return ProcessGroup(
        processes, mesh, own_mesh, ImageAssignment(tuple(tuple(names) for names in by_process), processes.index)
    )


def _devices_of(index: int) -> list[Any]:
    return [device for device in jax.devices() if device.process_index == index]
