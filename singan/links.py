"""Links and special files, which could have a command read or change what lies elsewhere, or wait for ever.

The path given for a working directory may be a link or pass through some; below it there are folders and files only.
"""

import os
import stat
from pathlib import Path

from singan.errors import UserError
from singan.files import is_bucket

OF_WANDB = "wandb"  # its own folder in a workdir, where it keeps links to its newest run; nothing of ours follows them
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_workdir(path: str | os.PathLike) -> None:
    """Looks at every entry below a working directory, without following any; in a bucket there are no links.

    Called before anything of a workdir is given to a library, which would follow them.

    Raises:
      UserError: something is neither a plain file nor a folder (it is named), or a folder cannot be looked at.
    """
    if is_bucket(path):
        return
    root = os.fspath(path)
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if folder != root or entry.name != OF_WANDB:
                            waiting.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        _refuse(entry)
        except (FileNotFoundError, NotADirectoryError):
            continue  # no run at all, which its reader says; or a training that is at work has removed it
        except OSError as error:
            raise UserError(f"cannot read {folder}: {error.strerror or error}") from error


def _refuse(entry: os.DirEntry) -> None:
    kind = _KINDS.get(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode), "no plain file")
    if entry.is_symlink():
        raise UserError(
            f"{entry.path} is {kind}, and below a working directory none is followed: put what it points to in its"
            " place (the path given for the working directory itself may be a link)"
        )
    raise UserError(f"{entry.path} is {kind}, which is not part of a run: move it out of the working directory")


def leads_out(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Returns whether a path below a folder comes by links to something outside it."""
    # realpath, because resolve() raises on links that go round in a circle.
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
