"""Builds the wheel, in which the folders of this repository lie in one package, medisingan (see WORKSPACE.md).

A clone keeps the folders as they are: `pip install -e .` puts the repository itself on the path.
"""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = ("singan", "datasets", "launch", "experiments")
# Modules by name, in imports, strings and comments alike; not files such as experiments/quickstart/config.py.
MODULE = re.compile(rf"(?<![\w./-])({'|'.join(FOLDERS)})(?=\.[a-z_{{]| import )")


def in_one_package(source: str) -> str:
    """Returns a file's source as the wheel has it: launch.train is medisingan.launch.train there."""
    return MODULE.sub(r"medisingan.\1", source)


class BuildInOnePackage(build_py):
    """Copies the modules as `in_one_package` has them."""

    def build_module(self, module, module_file, package):
        """Returns what build_py does: where the module was written, and whether it was."""
        written, copied = super().build_module(module, module_file, package)
        path = Path(written)
        path.write_text(in_one_package(path.read_text(encoding="utf-8")), encoding="utf-8")
        return written, copied


if __name__ == "__main__":
    packages = find_packages(include=[f"{folder}*" for folder in FOLDERS])
    if "editable_wheel" in sys.argv:
        setup(packages=["medisingan", *packages])
    else:
        setup(
            packages=["medisingan", *(f"medisingan.{package}" for package in packages)],
            package_dir={"medisingan": "medisingan", **{f"medisingan.{folder}": folder for folder in FOLDERS}},
            cmdclass={"build_py": BuildInOnePackage},
        )
