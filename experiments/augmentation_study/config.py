"""The SinGANs of the augmentation study: each patch with its mask as a further channel, all patches as one cohort.

python -m experiments.augmentation_study.run --workdir=runs/study --config.data.path=FOLDER            (:small, minutes)
python -m experiments.augmentation_study.run --config=experiments/augmentation_study/config.py \
    --config.data.path=FOLDER --workdir=runs/study_full

FOLDER holds images/*.png and instances/*.png of the same names; --config.data.source=tfds:pannuke or tfds:brats/slices
takes a prepared folder instead. What is compared is in settings.py.
Expected: 10 scales from 26 to 192 pixels, of 2000 steps (:small 3, from 26 to 48 pixels, of 160 steps).
"""

from launch.configs import default_config


def get_config(variant: str = ""):
    """Returns the configuration. variant: '' with the paper's settings; 'small' for a look on a CPU."""
    if variant not in ("", "small"):
        raise ValueError(f"there is no variant {variant!r}: leave it out, or give config.py:small")
    config = default_config()
    config.pyramid.max_size = 192
    config.tracking.num_samples = 2
    if variant == "small":
        config.pyramid.max_size = 48
        config.pyramid.ratio = 0.5  # wanted; 26, 35 and 48 pixels
        config.network.width = 16
        config.network.width_doubles_every = 8  # as narrow at the finest scale as at the coarsest: it is a small one
        config.train.steps_per_scale = 160
        config.train.chunk = 40
        config.train.checkpoint_every = 160
        config.tracking.wandb = "off"
    return config
