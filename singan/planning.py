"""What fits: the compiled memory of a program, the memory of a device, and how many images train at the same time."""

import dataclasses
from collections.abc import Callable
from typing import Any

SHARE = 0.9  # of a device's memory that a program may take; the rest is the allocator's


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes per device of a compiled program."""

    arguments: int
    temporary: int
    output: int

    @property
    def total(self) -> int:
        return self.arguments + self.temporary + self.output


def compiled_memory(compiled: Any) -> Memory:
    """Returns what XLA's memory analysis says of a compiled program (donated outputs are counted once)."""
    analysis = compiled.memory_analysis()
    aliased = analysis.alias_size_in_bytes
    return Memory(
        analysis.argument_size_in_bytes, analysis.temp_size_in_bytes, max(analysis.output_size_in_bytes - aliased, 0)
    )


def memory_budget(device: Any) -> int | None:
    """Returns the bytes that programs may take on a device, or None where the device does not say (CPU)."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return int(SHARE * stats["bytes_limit"]) if stats and "bytes_limit" in stats else None


def largest_group(images: int, budget: int | None, memory_of: Callable[[int], Memory]) -> int:
    """Returns how many of a device's images to train at the same time, in as few and as even groups as fit.

    Args:
      images: images of one device.
      budget: bytes; None for no limit.
      memory_of: compiles the program for a group size and returns its memory; asked as rarely as possible. What is
        not temporary (weights of images that wait for their turn) stays on the device whatever the group.

    Returns 1 even when a single image does not fit: the device will say so itself, with its own numbers.
    """
    group = images
    while budget is not None and group > 1:
        memory = memory_of(group)
        if memory.total <= budget:
            break
        fits = int(group * max(budget - memory.arguments - memory.output, 0) / max(memory.temporary, 1))
        group = max(1, min(fits, group - 1))
        group = -(-images // -(-images // group))  # even groups: 10 images at most 6 at a time are 5 and 5
    return group
