"""Compares runs: configuration, quality, speed and samples side by side, on the terminal, in a page and as CSV.

python -m launch.compare runs/a runs/b --out=comparison
python -m launch.compare runs/sweep --wandb_report=ENTITY/PROJECT
python -m launch.compare runs/a samples_of_another_generator ENTITY/PROJECT/ID

Takes workdirs, roots of sweeps (all their runs), folders with an evaluation.json that launch.evaluate --real
--generated wrote, and wandb run paths.
"""

from launch import cli
from launch import command_flags as flags
from launch.compare import load, page, text, wandb_report
from launch.compare import tables as compare_tables
from singan import files
from singan.errors import UserError

OUT = flags.DEFINE_string("out", "comparison", "Where compare.html and compare.csv are written.")
FORMAT = flags.DEFINE_enum(
    "format", "table", ("table", "markdown", "csv"), "What is printed: a table for a terminal, Markdown, or the CSV."
)
REPORT = flags.DEFINE_string(
    "wandb_report", "", "ENTITY/PROJECT (or PROJECT): also make a report of these runs there, for all who may see them."
)


def main(argv: list[str]) -> int:
    if len(argv) < 2:
        raise UserError("give two or more runs, or the root of a sweep: python -m launch.compare runs/a runs/b")
    runs = load.load(argv[1:])
    if len(runs) < 2:
        raise UserError("give two or more different runs: python -m launch.compare runs/a runs/b")
    if REPORT.value:
        wandb_report.project_of(REPORT.value)
    tables = compare_tables.parts(runs)
    out = files.make_directory(OUT.value)
    lines = page.write(runs, tables, out)
    if FORMAT.value == "csv":
        print(lines, end="")
    else:
        print({"table": text.terminal, "markdown": text.markdown}[FORMAT.value](runs, tables))
        print(f"\nthe page is {out / 'compare.html'}, all numbers are in {out / 'compare.csv'}")
    if REPORT.value:
        title = f"Comparison of {files.absolute(argv[1]).resolve().name if len(argv) == 2 else f'{len(runs)} runs'}"
        print(f"the report is {wandb_report.make_report(runs, tables, REPORT.value, title)}")
    return 0


if __name__ == "__main__":
    cli.run(main, positional=True)
