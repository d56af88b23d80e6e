"""Healthy slices of BraTS as backgrounds for tumours: does a tumour pasted into one sit there as if it had grown there?

python -m datasets.build brats --manual_dir=DOWNLOAD --data_dir=DATA
python -m launch.train --config=experiments/tumour_insertion/config.py --config.data.path=DATA --workdir=runs/healthy
python -m experiments.tumour_insertion.insert --workdir=runs/healthy --tumours=DATA --format=nifti --out=inserted

The same in minutes on two free CPU cores, at 96 pixels, with config.py:small in the second line.
Expected: 10 scales from 25x25 to 240x240 (:small 6, to 96x96), so that tumours enter at scales 1 2 3 5 7 9 (1 2 3 5).
"""

from launch.configs import default_config


def get_config(variant: str = ""):
    """Returns the configuration. variant: '' as in the paper, on up to 64 slices; 'small' for a look on a CPU."""
    if variant not in ("", "small"):
        raise ValueError(f"there is no variant {variant!r}: leave it out, or give config.py:small")
    config = default_config()
    config.data.source = "tfds:brats/slices"
    config.data.channels = ("t1", "t1ce", "t2", "flair")
    config.data.has_tumour = "no"
    config.data.first_slice = 60  # where the brain is largest
    config.data.last_slice = 100
    config.data.min_brain = 0.1
    config.data.max_images = 64
    config.data.shuffle_seed = 0  # spread over the patients, not all from the first two
    if variant == "small":
        config.data.max_images = 2
        config.pyramid.max_size = 96
        config.network.width_doubles_every = 8  # as narrow at the finest scale as at the coarsest: it is a small one
        config.train.steps_per_scale = 200
        config.train.chunk = 50
        config.train.checkpoint_every = 100
    return config
