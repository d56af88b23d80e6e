"""Which images, scales and sizes of a run a command is to work on, from its flags."""

import sys
from collections.abc import Sequence

from singan.config import nearest
from singan.errors import UserError
from singan.sampling.samples import check_temperature
from singan.storage.run import Run


def chosen_images(run: Run, wanted: Sequence[str]) -> list[str]:
    """Returns the wanted ids, each once; all of the run's where none is wanted.

    Raises:
      UserError: one is not in the run, or has diverged.
    """
    for name in wanted:
        if name not in run.ids:
            known = {record.id for record in run.images}
            why = "has diverged and was left out" if name in known else f"is not in this run{nearest(name, run.ids)}"
            raise UserError(f"--images: {name!r} {why}; it has {', '.join(run.ids[:5])}{' ...' * (len(run.ids) > 5)}")
    if not run.ids:
        raise UserError(f"every image of {run.workdir.path} has diverged: there is nothing to work with")
    return list(dict.fromkeys(wanted)) or list(run.ids)


def chosen_scales(run: Run, wanted: Sequence[str], least: int = 0) -> list[int]:
    """Returns the wanted scales that the run has, each once; what it has not is left out with a note on stderr.

    Args:
      wanted: numbers as text.
      least: the coarsest that makes sense: 0 to sample, 1 to inject an image.

    Raises:
      UserError: one is no number, or none is left.
    """
    try:
        numbers = list(dict.fromkeys(int(text) for text in wanted))
    except ValueError:
        raise UserError(f"--start_scales={','.join(wanted)} must be whole numbers, such as 1,2") from None
    there = [scale for scale in numbers if least <= scale < len(run.scales)]
    has = f"{least} to {len(run.scales) - 1}"
    if least >= len(run.scales):
        raise UserError(f"{run.workdir.path} has only scale 0 so far, and this starts at scale {least}: train it on")
    if not there:
        raise UserError(f"--start_scales={','.join(wanted)}: this can only start at scales {has}")
    if left_out := [scale for scale in numbers if scale not in there]:
        print(f"note: scales {left_out} are left out: this can start at {has}", file=sys.stderr)
    return there


def chosen_temperature(wanted: float, scales: Sequence[int], size: tuple[float, float] = (1.0, 1.0)) -> float:
    """Returns the wanted temperature, where samples of all these start scales can be drawn at it."""
    for scale in scales:
        check_temperature(wanted, scale, size)
    return wanted


def chosen_size(wanted: Sequence[str]) -> tuple[float, float]:
    """Returns (height, width) in multiples of the image's, from one number for both or two."""
    try:
        numbers = [float(text) for text in wanted]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise UserError(f"--size={','.join(wanted)} must be height,width in multiples of the image's, such as 1.0,1.5")
    return numbers[0], numbers[-1]
