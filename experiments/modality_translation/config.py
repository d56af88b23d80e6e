"""Channels that are missing, from those that are there: can a pyramid of one image translate another one?

python -m datasets.build brats --manual_dir=DOWNLOAD --data_dir=DATA
python -m launch.train --config=experiments/modality_translation/config.py --config.data.path=DATA --workdir=runs/tr
python -m experiments.modality_translation.translate --workdir=runs/tr --data=DATA --out=translated

The same in minutes on two CPU cores, at 64 pixels, with config.py:small in the second line; nuclei from tissue with
config.py:nuclei or config.py:nuclei,small and a data_dir of pannuke.
Expected: 10 scales to 240x240 (:small 5, to 64x64); nuclei 10 to 250x250 (nuclei,small 6, to 64x64).
"""

from experiments.multimodal_mri import config as mri
from experiments.nuclei_masks import config as nuclei


def get_config(variant: str = ""):
    """Returns the configuration. variant: '' for T1, T2 and FLAIR, 'nuclei' for RGB and nuclei; ',small' for a CPU."""
    words = [word for word in variant.split(",") if word]
    if unknown := [word for word in words if word not in ("nuclei", "small")]:
        raise ValueError(f"there is no variant {unknown[0]!r}: give config.py:small, :nuclei or :nuclei,small")
    study = nuclei if "nuclei" in words else mri
    config = study.get_config("small" if "small" in words else "")
    # Each image is a study of its own, with several inputs: few of them tell as much as many.
    config.data.max_images = 2 if "small" in words else 8
    return config
