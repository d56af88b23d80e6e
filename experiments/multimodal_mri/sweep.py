"""Ablations on brain MRI: one setting changed at a time, and whether the two that act on frozen scales add up.

python -m launch.sweep --config=experiments/multimodal_mri/config.py --sweep=experiments/multimodal_mri/sweep.py \\
    --workdir=sweeps/mri --backend=skypilot --bucket=gs://BUCKET --config.data.path=gs://BUCKET/tensorflow_datasets

For a look on this machine: --config=experiments/multimodal_mri/config.py:small --workdir=runs/mri_ablations
--config.data.path=DATA, without the rest.
"""

from launch.sweep.language import chain, zip_

CLOUD = {"accelerator": "v5e-8", "zone": "us-west4-a", "spot": True}


def get_sweep():
    return chain(
        {},  # as configured
        {"preset": "reference"},
        {"method.norm_statistics": "running"},
        {"method.norm_statistics": "running", "method.between_scales": "uint8"},
        {"method.padding": "zero"},  # what the black around the head is worth
        {"train.schedule": "concurrent"},
        {"pyramid.ratio": [0.65, 0.85]},
        {"train.reconstruction_weight": [1.0, 100.0]},
        zip_({"train.generator_learning_rate": [1e-4, 2e-3], "train.critic_learning_rate": [1e-4, 2e-3]}),
    )
