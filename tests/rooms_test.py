"""The doors between the rooms (WORKSPACE.md): who may import whom, and what keeps the house readable."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("singan", "datasets", "launch", "experiments", "medisingan", "tests")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
MAX_LINES = 350

# What singan/ may import besides the standard library, NumPy and itself, and where.
EVERYWHERE = {"jax", "jaxlib", "optax", "numpy", "scipy", "singan"}  # JAX itself needs SciPy
ONLY_IN = {
    "flax": {"model/networks.py", "metrics/inception.py"},
    "orbax": {"storage/checkpoints.py", "storage/stored_checkpoints.py"},
    "jaxtyping": {"shapes.py"},
    "etils": {"files.py"},  # Orbax itself needs both
    "fsspec": {"files.py"},
    "psutil": {"storage/workdir_lock/owner.py"},
}
CLOSED = {  # room -> rooms that it must not know
    "singan": {"datasets", "launch", "experiments", "tests"},
    "datasets": {"singan", "launch", "experiments", "tests"},
    "launch": {"experiments", "tests"},
    "experiments": {"tests"},
}
# What a command prints is the same to whoever reads it: the one thing that datasets has from another room.
OPEN = {"datasets": {"datasets/build.py": {"launch"}}}
# Inside singan/ and launch/, from the top floor down: a file imports what lies on floors below its own, and of its own
# floor only what lies in its own folder. Names are folders, or files directly in singan/ and launch/.
FLOORS = {
    "singan": (
        {"array_training"},
        {"api"},
        {"training", "sampling"},
        {"storage"},
        {"source_image"},
        {"parallel"},
        {"model"},
        {"metrics"},
        {"pytorch"},
        {"links", "secrets"},
        {"resuming"},
        {"config", "value_map", "files"},
        {"config_checks", "legacy_defaults", "npy", "presets"},
        {"errors", "shapes", "text"},
    ),
    "launch": (
        {"main"},
        {"sweeps"},  # the old path of the sweep language, kept for users' own sweep files
        {"train", "sample", "manipulate", "compare", "sweep", "import_pytorch", "reader_study", "aot"},
        {"data_card"},
        {"evaluate"},
        {"report"},
        {"results", "samples"},
        {"images", "tracking", "multihost"},
        {"cli", "configs", "runtime", "selection"},
        {"spreadsheet", "streams", "studies", "command_flags"},
        {"text"},
    ),
}
# In experiments/, what every study may use: figures and tables, and the methods that studies compare with.
SHARED = ("reporting", "baselines")
# Orbax and Flax need absl themselves; that singan/ does not is seen from its imports above.
UNNEEDED = ("ml_collections", "wandb", "jaxtyping", "tensorflow_datasets", "tensorflow", "beartype")
IMPORT_WITHOUT = """
import importlib, importlib.abc, pathlib, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
for path in sorted(pathlib.Path("singan").rglob("*.py")):
    importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    print(path)
"""


def imported(source: str) -> set[str]:
    """The top-level packages that a file imports anywhere in it, also inside functions and under TYPE_CHECKING."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else str(node.module).split(".")[0])
    return names


def modules_of(room: str) -> dict[str, Path]:
    """Returns {dotted name: file} of a room."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in in_room(room)
    }


def imports_within(room: str) -> dict[str, set[str]]:
    """Returns {module: modules of the same room that it imports}, wherever in the file the import stands."""
    modules = modules_of(room)
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                asked = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                asked = [one if one in modules else str(node.module) for one in inside]
            else:
                continue
            found[name] |= {one for one in asked if one in modules and one not in (name, room)}
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def in_room(room: str) -> list[Path]:
    return [path for path in FILES if path.relative_to(ROOT).parts[0] == room]


def test_imports_are_found_wherever_they_stand():
    source = "import a.b, c\ndef f():\n    from d.e import g\nif 1:\n    from . import h\n"
    assert imported(source) == {"a", "c", "d", "."}
    assert {"singan", "datasets", "launch"} <= {path.relative_to(ROOT).parts[0] for path in FILES}


@pytest.mark.parametrize("room", CLOSED)
def test_doors_that_are_closed(room):
    crossed = {name_of(path): imported(path.read_text()) & {*CLOSED[room], "."} for path in in_room(room)}
    assert {path: names for path, names in crossed.items() if names} == OPEN.get(room, {})


@pytest.mark.parametrize("room", ["singan", "datasets", "launch", "experiments"])
def test_no_imports_run_in_a_circle(room):
    graphlib.TopologicalSorter(imports_within(room)).prepare()  # raises CycleError, which names the circle


def test_studies_import_what_studies_share_and_other_studies_config():
    """A study can be read, changed and deleted by itself; `SHARED` lists what lies in experiments/ for all of them."""
    crossed = {
        (name, other)
        for name, others in imports_within("experiments").items()
        for other in others
        if (own := name.split(".")[1]) != (folder := other.split(".")[1])
        and folder not in SHARED
        and (own in SHARED or other != f"experiments.{folder}.config")
    }
    assert crossed == set()


@pytest.mark.parametrize("room", FLOORS)
def test_imports_point_down(room):
    floor = {folder: number for number, names in enumerate(FLOORS[room]) for folder in names}
    place = {name: name.split(".")[1] for name in modules_of(room) if name != room}
    assert set(place.values()) == set(floor)
    up = [
        f"{name} -> {other}"
        for name, others in imports_within(room).items()
        for other in others
        if name != room and place[name] != place[other] and floor[place[name]] >= floor[place[other]]
    ]
    assert up == []


def test_singan_needs_little_and_some_of_it_in_one_file_only():
    foreign = {}
    for path in in_room("singan"):
        inside = path.relative_to(ROOT / "singan").as_posix()
        here = {name for name, files in ONLY_IN.items() if inside in files}
        if names := imported(path.read_text()) - EVERYWHERE - here - sys.stdlib_module_names:
            foreign[name_of(path)] = names
    assert foreign == {}


def test_singan_can_be_imported_without_what_only_launchers_and_tests_use():
    command = [sys.executable, "-c", IMPORT_WITHOUT, *UNNEEDED]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == len(in_room("singan"))


def test_no_file_is_a_drawer_for_everything():
    drawers = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert [name_of(path) for path in FILES if drawers & {path.stem, *path.relative_to(ROOT).parts}] == []


def test_files_can_be_held_in_the_head():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES if not path.stem.endswith("_test")}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}
