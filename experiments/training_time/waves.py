"""Which whole steps are measured on an accelerator, and in what order: what is most worth knowing first."""

import dataclasses

from singan.parallel.planning import Memory, largest_group


@dataclasses.dataclass(frozen=True)
class Job:
    """A measurement of a scale: of this project's step (kind 'steps') or of PyTorch's ('peer')."""

    scale: int
    kind: str = "steps"
    images: int = 1
    precision: str = "tf32"
    form: str = ""  # of the convolution; '' for the fastest that was found


def waves_of(scales: int, cohorts: list[int], tiny: bool = False) -> list[list[Job]]:
    """Returns the jobs in waves.

    Args:
      scales: of the pyramid.
      cohorts: numbers of images, ascending.
    """
    finest, middle = scales - 1, scales // 2
    ends = list(dict.fromkeys((finest, 0, middle)))
    most, fair = cohorts[-1], cohorts[-2] if len(cohorts) > 1 else cohorts[-1]
    outside_in = sorted(range(scales), key=lambda scale: min(scale, finest - scale))
    if tiny:
        return [[Job(finest), Job(finest, images=most), Job(finest, "peer")], [Job(0, images=most, precision="bf16")]]
    return [
        [Job(scale, "peer") for scale in range(scales)],
        [Job(scale, images=images) for scale in ends for images in (fair, cohorts[0])],
        [Job(scale, images=fair) for scale in outside_in if scale not in ends],
        [Job(scale, images=fair, precision="bf16") for scale in ends],
        [Job(scale, images=most) for scale in ends],
        [Job(scale, images=fair, precision="highest") for scale in ends],
        [Job(scale, images=fair, precision="bf16") for scale in outside_in if scale not in ends],
        [Job(scale, images=images) for scale in ends for images in cohorts[1:-2]],
        [Job(finest, images=fair, form=form) for form in ("grouped", "shifted", "gathered", "packed", "mapped")],
        [Job(scale, images=most) for scale in outside_in if scale not in ends],
    ]


def image_plan(images: int, temporary: float | None, budget: int | None) -> tuple[int, int]:
    """Returns (group, images) with which N images are trained on one device, in whole groups that fit.

    Args:
      temporary: bytes that one image takes while it trains, where it is known; images are tried as they are otherwise.
    """
    if temporary is None or budget is None:
        return images, images
    group = largest_group(images, budget, lambda group: Memory(0, int(temporary * group), 0))
    return group, -(-images // group) * group
