"""Compares runs: configuration, quality, speed and samples side by side, on the terminal, in a page and as CSV.

python -m launch.compare runs/a runs/b --out=comparison
python -m launch.compare runs/a samples_of_another_generator ENTITY/PROJECT/ID

Takes workdirs, folders with an evaluation.json that launch.evaluate --real --generated wrote, and wandb run paths.
"""

from pathlib import Path

from absl import flags

from launch import cli, compare_page, compare_runs, compare_tables, compare_text
from singan import files
from singan.errors import UserError

OUT = flags.DEFINE_string("out", "comparison", "Where compare.html and compare.csv are written.")
FORMAT = flags.DEFINE_enum(
    "format", "table", ("table", "markdown", "csv"), "What is printed: a table for a terminal, Markdown, or the CSV."
)


def main(argv: list[str]) -> int:
    if len(argv) < 3:
        raise UserError("give two or more runs: python -m launch.compare runs/a runs/b")
    runs = compare_runs.load(argv[1:])
    if len(runs) < 2:
        raise UserError("give two or more different runs: these are one and the same")
    tables = compare_tables.parts(runs)
    out = files.make_directory(Path(OUT.value))
    lines = compare_tables.to_csv(runs, tables)
    files.write_text(out / "compare.csv", lines)
    files.write_text(out / "compare.html", compare_page.build(runs, tables))
    if FORMAT.value == "csv":
        print(lines, end="")
        return 0
    print({"table": compare_text.terminal, "markdown": compare_text.markdown}[FORMAT.value](runs, tables))
    print(f"\nthe page is {out / 'compare.html'}, all numbers are in {out / 'compare.csv'}")
    return 0


if __name__ == "__main__":
    cli.run(main, positional=True)
