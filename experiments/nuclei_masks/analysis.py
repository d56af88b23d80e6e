"""Figure 1b of the paper, what the start scale changes, and how diverse and how new the samples are.

python -m experiments.nuclei_masks.analysis --workdir=runs/nuclei --out=figures/nuclei --start_scales=0,1,2,3
"""

from experiments import analysis
from launch import cli

PAPER_SCALE = 0  # from which the paper's samples are drawn

analysis.define_flags()


def main(argv: list[str]) -> int:
    del argv
    return analysis.main("1b", PAPER_SCALE)


if __name__ == "__main__":
    cli.run(main)
