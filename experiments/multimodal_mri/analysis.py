"""Figure 1a of the paper, what the start scale changes, and how diverse and how new the samples are.

python -m experiments.multimodal_mri.analysis --workdir=runs/mri --out=figures/mri --start_scales=0,1,2,3
"""

from experiments.reporting import figure_command
from launch import cli

PAPER_SCALE = 1  # from which the paper's samples are drawn

figure_command.define_flags()


def main(argv: list[str]) -> int:
    del argv
    return figure_command.main("1a", PAPER_SCALE)


if __name__ == "__main__":
    cli.run(main)
