"""What the variants of sample_quality share, once as in the paper and once for a CPU.

python -m experiments.sample_quality.run --workdir=runs/quality                                            (:small)
python -m experiments.sample_quality.run --config=experiments/sample_quality/config.py --workdir=runs/quality_250

Expected: 10 scales from 26 to 192 pixels, of 2000 steps (:small 4, from 25 to 48 pixels, of 500 steps).
--images=FILE,FILE,.. takes images of your own, of any sizes and channels.
"""

from launch.configs import default_config


def get_config(variant: str = ""):
    """Returns the configuration. variant: '' with the paper's settings; 'small' for a look on a CPU."""
    if variant not in ("", "small"):
        raise ValueError(f"there is no variant {variant!r}: leave it out, or give config.py:small")
    config = default_config()
    config.data.num_crops = 3
    config.data.crop_size = 192
    config.tracking.wandb = "off"
    if variant == "small":
        config.data.crop_size = 96
        config.pyramid.max_size = 48
        config.train.steps_per_scale = 500
        config.train.checkpoint_every = 500
    return config
