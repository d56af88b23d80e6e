"""The one door to other people's command-line programs: found, run, and their failures told in a line."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from singan.errors import UserError

HOW_TO_GET = {
    "kubectl": "gcloud components install kubectl, then gcloud container clusters get-credentials CLUSTER",
    "gcloud": "install Google Cloud's command line (https://cloud.google.com/sdk/docs/install), then gcloud init",
    # Not an extra: what it needs conflicts with what wandb needs (click), so it gets an environment of its own.
    "sky": "uv tool install 'skypilot[gcp]>=0.14' (uv: pip install uv), then sky check",
}


def find_program(program: str) -> str | None:
    """Returns the path of a program on PATH, or else where uv and pipx link their tools; None without one."""
    tools = os.environ.get("UV_TOOL_BIN_DIR") or os.environ.get("XDG_BIN_HOME") or Path.home() / ".local/bin"
    return shutil.which(program) or shutil.which(program, path=os.fspath(tools))


class Runner:
    """Runs commands on this machine."""

    def require(self, program: str) -> None:
        """Checks that a program is installed.

        Raises:
          UserError: it is not; the text says how to get it.
        """
        if find_program(program) is None:
            raise UserError(f"{program} is not installed: {HOW_TO_GET[program]}; --dry_run shows the plan without it")

    def run(self, command: Sequence[str], *, check: bool = True) -> str:
        """Returns what a command printed on stdout.

        Args:
          check: whether its failing is an error; else a failed command returns ''.

        Raises:
          UserError: it failed; the text has its last line.
        """
        done = subprocess.run(
            _located(command), capture_output=True, stdin=subprocess.DEVNULL, text=True, errors="replace", check=False
        )
        if done.returncode == 0:
            return done.stdout
        if not check:
            return ""
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it printed nothing")
        raise UserError(f"{' '.join(command[:5])} ... failed with exit code {done.returncode}: {last}")

    def show(self, command: Sequence[str]) -> None:
        """Runs a command whose output is for the person at the terminal; its failing is no error."""
        subprocess.run(_located(command), check=False)


def _located(command: Sequence[str]) -> list[str]:
    return [find_program(command[0]) or command[0], *command[1:]]
