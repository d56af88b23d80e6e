"""The files of the studies by name, from any folder: quickstart is experiments/quickstart/config.py."""

from pathlib import Path

from singan.config import nearest

HOME = Path(__file__).resolve().parents[1]  # the repository, or in an installed wheel the package medisingan


def names(file: str = "config.py") -> list[str]:
    """Returns the studies that have a file of this name."""
    return sorted(path.parent.name for path in HOME.glob(f"experiments/*/{file}"))


def find_file(given: str, file: str) -> str:
    """Returns the path that a flag's value stands for, with the argument that may follow its colon.

    Args:
      given: PATH, PATH:ARGUMENT, STUDY or STUDY:ARGUMENT. A file of this name goes before a study of this name.
      file: of a study: config.py or sweep.py.
    """
    name, colon, argument = given.partition(":")
    for path in (HOME / "experiments" / name / file, HOME / name):
        if name and not Path(name).is_file() and path.is_file() and path.is_relative_to(HOME / "experiments"):
            return f"{path}{colon}{argument}"
    return given


def no_such_file(flag: str, given: str, file: str) -> str:
    """Returns the text of an error: `given`, without its argument, is neither a file nor a study."""
    known = names(file)
    return f"--{flag}={given}: there is no such file{nearest(given, known)}; by name there are {', '.join(known)}"
