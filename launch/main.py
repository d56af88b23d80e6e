"""The console command `medisingan COMMAND ...`: each does what `python -m launch.COMMAND ...` does.

medisingan train --config=quickstart --workdir=runs/quickstart
"""

import ast
import importlib.metadata
import inspect
import re
import runpy
import sys
import textwrap
from collections.abc import Iterator

from launch import studies
from singan import config

# Name: the module that is run, and what it does.
COMMANDS = {
    "train": ("launch.train", "trains or resumes a run"),
    "sample": ("launch.sample", "samples new images"),
    "manipulate": ("launch.manipulate", "harmonises, edits, paints, animates or super-resolves an image"),
    "evaluate": ("launch.evaluate", "measures fidelity, diversity and copying"),
    "report": ("launch.report", "writes report.html of a run again"),
    "compare": ("launch.compare", "puts runs side by side"),
    "sweep": ("launch.sweep", "plans and starts many runs"),
    "build-dataset": ("datasets.build", "prepares BraTS or PanNuke"),
    "reader-study": ("launch.reader_study", "makes a page on which experts tell real from synthetic"),
    "data-card": ("launch.data_card", "writes the data card beside a set of samples"),
    "import-pytorch": ("launch.import_pytorch", "turns a SinGAN trained in PyTorch into a run"),
    "aot": ("launch.aot", "compiles for a TPU slice that is not here"),
}
DONE, USER_ERROR = 0, 2  # exit codes
_WIDTH = 120


def main() -> int:
    """Runs the command that the command line names; returns the exit code where the command does not exit itself."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "-help", "help"):
        print(usage())
        return DONE
    if name in ("--version", "-V"):
        print(f"medisingan {importlib.metadata.version('medisingan')}")
        return DONE
    if name not in COMMANDS:
        meant = config.nearest(name, COMMANDS)
        print(f"error: there is no command {name!r}{meant}: medisingan --help lists them", file=sys.stderr)
        return USER_ERROR
    sys.argv = [f"medisingan {name}", *rest]
    runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)
    return DONE


def usage() -> str:
    """Returns the commands, and the configuration's keys with their defaults and comments."""
    commands = [f"  {name:<16}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "medisingan COMMAND [--flag=value ...]     each command lists its flags with --help",
            "",
            *commands,
            "",
            "Configurations that --config takes by name, beside files of your own:",
            *textwrap.wrap(", ".join(studies.names()), _WIDTH, initial_indent="  ", subsequent_indent="  "),
            "",
            "Keys of the configuration, given to train, sweep and aot as --config.KEY=VALUE:",
            "",
            *_described(config.Config),
        ]
    )


def _described(cls: type, prefix: str = "") -> Iterator[str]:
    """Yields a line for each key of a configuration's class, and its comments in the source below it."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for node in definition.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        key, default = node.target.id, getattr(cls, node.target.id, None)
        if default is None and isinstance(made := getattr(config, ast.unparse(node.annotation), None), type):
            yield from _described(made, f"{prefix}{key}.")
            continue
        first = node.lineno - 1
        while lines[first - 1].lstrip().startswith("#"):
            first -= 1
        above = [line.strip().removeprefix("#").strip() for line in lines[first : node.lineno - 1]]
        behind = re.search(r"#\s*(.*)", lines[node.end_lineno - 1][node.end_col_offset :]) if node.end_lineno else None
        yield f"  {prefix}{key}={_shown(default)}"
        for comment in (" ".join(above), behind[1] if behind else ""):
            yield from textwrap.wrap(comment, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _shown(value: object) -> str:
    if value is None:
        return "(as the preset says)"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    sys.exit(main())
