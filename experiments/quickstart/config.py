"""Three crops of real stained tissue, trained at once in a few minutes on two CPU cores.

make quickstart, or:
python -m launch.train --config=experiments/quickstart/config.py --workdir=runs/quickstart

With config.py:longer four larger crops, on five scales, in about three times the time: finer samples.
Expected: three scales from 26 to 44 pixels (:longer five, from 25 to 56); the last lines say where the samples lie.
"""

from launch.configs import default_config


def get_config(variant: str = ""):
    """Returns the configuration. variant: '' for the shortest run worth looking at, or 'longer'."""
    if variant not in ("", "longer"):
        raise ValueError(f"there is no variant {variant!r}: leave it out, or give config.py:longer")
    config = default_config()
    config.network.width_doubles_every = 8  # as narrow at the finest scale as at the coarsest: it is a small one
    config.train.chunk = 50
    config.train.checkpoint_every = 100
    config.train.critic_updates = 1  # half the work of a step, and twice the steps instead
    if variant == "longer":
        config.data.num_crops = 4
        config.data.crop_size = 96
        config.pyramid.max_size = 56
        config.train.steps_per_scale = 500
        return config
    config.data.num_crops = 3
    config.data.crop_size = 64
    config.pyramid.max_size = 44
    config.pyramid.ratio = 0.7  # one scale fewer
    config.train.steps_per_scale = 200
    return config
