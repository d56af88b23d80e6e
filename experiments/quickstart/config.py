"""Four crops of real stained tissue, trained at once in a few minutes on two CPU cores.

make quickstart, or:
python -m launch.train --config=experiments/quickstart/config.py --workdir=runs/quickstart

Expected: five scales from 25 to 56 pixels; the last lines say where the samples lie.
"""

from launch.configs import default_config


def get_config():
    config = default_config()
    config.data.num_crops = 4
    config.data.crop_size = 96
    config.pyramid.max_size = 56
    config.network.width_doubles_every = 8  # as narrow at the finest scale as at the coarsest: it is a small one
    config.train.steps_per_scale = 250
    config.train.chunk = 50
    config.train.checkpoint_every = 100
    return config
