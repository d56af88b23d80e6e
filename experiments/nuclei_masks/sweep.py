"""Ablations on tissue with its nuclei: one setting changed at a time, at two lengths of training where time matters.

python -m launch.sweep --config=experiments/nuclei_masks/config.py --sweep=experiments/nuclei_masks/sweep.py \\
    --workdir=sweeps/nuclei --backend=skypilot --bucket=gs://BUCKET --config.data.path=gs://BUCKET/tensorflow_datasets

For a look on this machine: --config=experiments/nuclei_masks/config.py:small --workdir=runs/nuclei_ablations
--config.data.path=DATA, without the rest.
"""

from launch.sweep.language import chain, product, zip_

CLOUD = {"accelerator": "v5e-8", "zone": "us-west4-a", "spot": True}


def get_sweep():
    return chain(
        {},  # as configured
        {"preset": "reference"},
        {"method.norm_statistics": "running"},
        product({"train.schedule": ["sequential", "concurrent"], "train.steps_per_scale": 1000}),
        {"train.schedule": "concurrent"},
        {"pyramid.ratio": [0.65, 0.85]},
        {"train.reconstruction_weight": [1.0, 100.0]},
        zip_({"train.generator_learning_rate": [1e-4, 2e-3], "train.critic_learning_rate": [1e-4, 2e-3]}),
    )
