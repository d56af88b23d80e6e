"""Writes report.html of a run, as training does at the end of each scale.

python -m launch.report --workdir=runs/quickstart
"""

from launch import cli
from launch import command_flags as flags
from launch.report.page import write_report

WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=DIR, the directory of a run.", required=True)


def main(argv: list[str]) -> int:
    del argv
    print(f"the report is in {write_report(WORKDIR.value)}")
    return 0


if __name__ == "__main__":
    cli.run(main)
