"""A wandb sweep of the same runs, for machines whose wandb agents take them one by one."""

from collections.abc import Sequence

import yaml

from launch.sweep.plan import Sweep


def wandb_sweep(sweep: Sweep, command: Sequence[str]) -> str:
    """Returns the YAML of a wandb sweep whose agents each train the run that they are given a name of.

    wandb hands out the names alone. The runs are the sweep's own, with their workdirs, ids and group, so that every
    other command finds them as ever. Agents are for single-host machines that share the workdir's file system.

    Args:
      command: flags of launch.sweep.
    """
    content = {
        "name": sweep.group,
        "program": "launch.sweep",
        "method": "grid",
        "command": ["${env}", "${interpreter}", "-m", "launch.sweep", *command, "${args}"],
        "parameters": {"only": {"values": [run.name for run in sweep.runs]}},
    }
    return yaml.safe_dump(content, sort_keys=False, width=10**6)
