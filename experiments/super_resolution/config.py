"""A pyramid for super-resolution: how much detail does the finest generator add beyond the image's own size?

python -m launch.train --config=experiments/super_resolution/config.py:4 --config.data.path=IMAGES --workdir=runs/sr
python -m launch.manipulate --workdir=runs/sr --task=super_resolve --factor=4 --out=larger

The number is the factor, 2 to 8 (4 where it is left out); config.py:4,small trains 300 steps a scale, for a quick look.
Expected: images exactly 4 times as large, beside their cubic interpolation in *_comparison.png.
"""

from launch.configs import default_config
from singan.errors import UserError
from singan.sampling.super_resolution import wanted_ratio


def get_config(variant: str = "4"):
    """Returns the configuration. variant: the factor, and ',small' for a look on a CPU."""
    number, _, size = variant.partition(",")
    try:
        ratio = wanted_ratio(float(number))
    except (ValueError, UserError):
        raise ValueError(f"there is no variant {variant!r}: give a factor from 2 to 8, as config.py:4") from None
    if size not in ("", "small"):
        raise ValueError(f"there is no variant {variant!r}: leave {size!r} out, or give config.py:{number},small")
    config = default_config()
    # As the reference's SR.py: scales that differ by as much as a step of enlargement, and a faithful reconstruction.
    config.pyramid.ratio = ratio
    config.pyramid.min_size = 18
    config.train.reconstruction_weight = 100.0
    if size == "small":
        config.network.width_doubles_every = 8
        config.train.steps_per_scale = 300
        config.train.chunk = 50
        config.train.checkpoint_every = 150
    return config
