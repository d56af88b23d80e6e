"""Three pieces of real medical pictures, small enough to be trained fifteen times on a CPU.

python -m experiments.precision.images --out=runs/precision_images
python -m launch.sweep --config=experiments/precision/config.py --sweep=experiments/precision/sweep.py \\
    --workdir=runs/precision --config.data.path=runs/precision_images

Expected: three scales of 26, 35 and 48 pixels, of 150 steps, with networks half as wide as the paper's.
"""

from launch.configs import default_config


def get_config():
    config = default_config()
    config.pyramid.max_size = 48
    config.pyramid.ratio = 0.6
    config.network.width = 16
    config.train.steps_per_scale = 150
    config.train.chunk = 50
    config.train.checkpoint_every = 150
    config.tracking.wandb = "off"
    return config
