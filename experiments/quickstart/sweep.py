"""Ablations of the quickstart: one setting changed at a time, in minutes a run on two CPU cores.

python -m launch.sweep --config=experiments/quickstart/config.py --sweep=experiments/quickstart/sweep.py \\
    --workdir=runs/quickstart_ablations

With sweep.py:rates the learning rates alone, drawn at random. --dry_run prints the plan, --status where it stands.
"""

from launch.sweep.language import chain, log_uniform, sample, zip_

CLOUD = {"accelerator": "v5e-8", "zone": "us-west4-a", "machines": 1}  # small runs: one machine, one after another


def get_sweep(which: str = "ablations"):
    """Returns the runs. which: 'ablations', or 'rates' for learning rates drawn at random."""
    if which == "rates":
        rates = {f"train.{net}_learning_rate": log_uniform(1e-4, 5e-3) for net in ("generator", "critic")}
        return sample(rates, 8, seed=0)
    if which != "ablations":
        raise ValueError(f"there is no sweep {which!r}: leave it out, or give sweep.py:rates")
    return chain(
        {},  # as configured
        {"preset": "reference", "train.critic_updates": 3},
        {"method.norm_statistics": "running"},
        {"train.schedule": "concurrent"},
        {"pyramid.ratio": [0.78, 0.85]},
        {"train.reconstruction_weight": [1.0, 100.0]},
        zip_({"train.generator_learning_rate": [1e-4, 2e-3], "train.critic_learning_rate": [1e-4, 2e-3]}),
    )
