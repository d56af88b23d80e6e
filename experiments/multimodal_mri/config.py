"""Brain MRI with T1, T2 and FLAIR as the channels of one image: do samples agree across modalities?

python -m datasets.build brats --manual_dir=DOWNLOAD --data_dir=DATA
python -m launch.train --config=experiments/multimodal_mri/config.py --config.data.path=DATA --workdir=runs/mri
python -m launch.sample --workdir=runs/mri --start_scales=1 --format=nifti --out=samples/mri

The same in minutes on two CPU cores, at 64 pixels, with config.py:small in the second line.
Expected: 10 scales from 25x25 to 240x240 (:small 5, to 64x64); black stays black in every modality.
"""

from launch.configs import default_config


def get_config(variant: str = ""):
    """Returns the configuration. variant: '' as in the paper, on up to 64 slices; 'small' for a look on a CPU."""
    if variant not in ("", "small"):
        raise ValueError(f"there is no variant {variant!r}: leave it out, or give config.py:small")
    config = default_config()
    config.data.source = "tfds:brats/slices"
    config.data.channels = ("t1", "t2", "flair")
    config.data.first_slice = 60  # where the brain is largest
    config.data.last_slice = 100
    config.data.min_brain = 0.1
    config.data.max_images = 64
    config.data.shuffle_seed = 0  # spread over the patients, not all from the first two
    if variant == "small":
        config.data.max_images = 3
        config.pyramid.max_size = 64
        config.network.width_doubles_every = 8  # as narrow at the finest scale as at the coarsest: it is a small one
        config.train.steps_per_scale = 300
        config.train.chunk = 50
        config.train.checkpoint_every = 150
    return config
