"""Stained tissue with its nuclei as a fourth channel: do samples bring their own segmentation?

python -m datasets.build pannuke --manual_dir=DOWNLOAD --data_dir=DATA
python -m launch.train --config=experiments/nuclei_masks/config.py --config.data.path=DATA --workdir=runs/nuclei
python -m launch.sample --workdir=runs/nuclei --start_scales=0 --format=pannuke --out=samples/nuclei

The same in minutes on two CPU cores, at 64 pixels, with config.py:small in the second line.
Expected: 10 scales from 26x26 to 250x250 (:small 6, from 25x25 to 64x64). The samples are a fold like PanNuke's own:
python -m datasets.build pannuke --manual_dir=samples/nuclei/start_00 --data_dir=OTHER
"""

from launch.configs import default_config


def get_config(variant: str = ""):
    """Returns the configuration. variant: '' as in the paper, on up to 64 patches; 'small' for a look on a CPU."""
    if variant not in ("", "small"):
        raise ValueError(f"there is no variant {variant!r}: leave it out, or give config.py:small")
    config = default_config()
    config.data.source = "tfds:pannuke"
    config.data.channels = ("rgb", "instance")
    config.data.min_nuclei = 10
    config.data.max_images = 64
    config.data.shuffle_seed = 0  # spread over folds and tissues
    if variant == "small":
        config.data.max_images = 3
        config.pyramid.max_size = 64
        config.network.width_doubles_every = 8  # as narrow at the finest scale as at the coarsest: it is a small one
        config.train.steps_per_scale = 300
        config.train.chunk = 50
        config.train.checkpoint_every = 150
    return config
