"""The SinGANs of the augmentation study: each tile with its mask as a further channel, all tiles as one cohort.

python -m experiments.augmentation_study.run --workdir=runs/study --config.data.path=FOLDER --plan
python -m experiments.augmentation_study.run --workdir=runs/study --config.data.path=FOLDER --minutes=60
python -m experiments.augmentation_study.run --config=experiments/augmentation_study/config.py:small \
    --workdir=runs/small --config.data.path=FOLDER                                              (a look, minutes)

FOLDER holds images/*.png and instances/*.png of the same names; --config.data.source=tfds:pannuke or tfds:brats/slices
takes a prepared folder instead. What is compared is in settings.py.
Expected: scales from 25 to 128 pixels, of 500 steps (:small to 64 pixels, of 40 steps).
"""

from launch.configs import default_config


def get_config(variant: str = ""):
    """Returns the configuration. variant: '' for the study; 'small' for a look."""
    if variant not in ("", "small"):
        raise ValueError(f"there is no variant {variant!r}: leave it out, or give config.py:small")
    config = default_config()
    config.pyramid.max_size = 128  # --study.tile: a sample is as large as a tile
    config.train.steps_per_scale = 500
    config.tracking.num_samples = 2
    if variant == "small":
        config.pyramid.max_size = 64
        config.pyramid.ratio = 0.5  # wanted
        config.network.width = 16
        config.network.width_doubles_every = 8  # as narrow at the finest scale as at the coarsest: it is a small one
        config.train.steps_per_scale = 40
        config.train.chunk = 20
        config.train.checkpoint_every = 40
        config.tracking.wandb = "off"
    return config
