"""Every precision with the same five seeds, so that runs can be compared in pairs.

python -m launch.sweep --config=experiments/precision/config.py --sweep=experiments/precision/sweep.py \\
    --workdir=runs/precision --config.data.path=runs/precision_images
"""

from launch.sweep.language import product


def get_sweep():
    return product({"seed": list(range(5)), "train.precision": ["highest", "tf32", "bf16"]})
