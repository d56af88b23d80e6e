"""What the quality table is made of: parts of real stained tissue, once as in the paper and once for a CPU.

python -m experiments.paper_tables.run --workdir=runs/tables                                  (:small, minutes)
python -m experiments.paper_tables.run --config=experiments/paper_tables/config.py --workdir=runs/tables_250

Expected: 10 scales from 26 to 192 pixels, of 2000 steps (:small 5, from 25 to 56 pixels, of 250 steps).
--config.data.path=FOLDER takes images of your own.
"""

from launch.configs import default_config


def get_config(variant: str = ""):
    """Returns the configuration. variant: '' with the paper's settings; 'small' for a look on a CPU."""
    if variant not in ("", "small"):
        raise ValueError(f"there is no variant {variant!r}: leave it out, or give config.py:small")
    config = default_config()
    config.data.num_crops = 3
    config.data.crop_size = 192
    if variant == "small":
        config.data.crop_size = 96
        config.pyramid.max_size = 56
        config.network.width_doubles_every = 8  # as narrow at the finest scale as at the coarsest: it is a small one
        config.train.steps_per_scale = 250
        config.train.chunk = 50
        config.train.checkpoint_every = 250
    return config
