"""The pages lead somewhere: links to files that exist, commands to modules, the map of the code to what is there."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("docs", "datasets", "experiments")
PAGES = [*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))]
MAP = re.compile(
    r"^( *)((?:[\w.]+(?:/|\.py) ?)+)", re.MULTILINE
)  # a line of the map: files or folders before what they are
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
CODE = re.compile(rf"{FENCED.pattern}|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"python -m ((?:launch|datasets|experiments|tests)(?:\.\w+)*)")


def headings(page: str) -> set[str]:
    """The anchors that a page's headings get: lower case, hyphens for spaces, no punctuation."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading of one; addresses of other sites are not followed."""
    broken = []
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in headings(target.read_text())):
            broken.append(link)
    return broken


def table_rows(page: str, heading: str) -> list[str]:
    """The rows of the tables below a heading, without their heads."""
    section = page.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [line for line in section.splitlines() if line.startswith("| `")]


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# What is, and what isn't `so`\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](gone.md) [c](there.md#what-is-and-what-isnt-so) [d](there.md#gone) `[e](code.md)`\n"
        "![f](gone.png) [g](https://example.org/x) [![h](gone.svg)](there.md)\n```\n[i](code.md)\n```\n"
    )
    assert broken_links(page) == ["gone.md", "there.md#gone", "gone.png"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_point_to_files_and_headings_that_exist(page):
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_is_a_module_that_can_be_run(page):
    missing = []
    for name in set(COMMAND.findall(page.read_text())):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
        if spec is None:
            missing.append(name)
    assert missing == []


def test_the_readme_names_every_command_and_only_targets_that_exist():
    rows = table_rows((ROOT / "README.md").read_text(), "Commands")
    named = {name for row in rows for name in COMMAND.findall(row)}
    folders = {path.parent.name for path in (ROOT / "launch").glob("*/__main__.py")}
    commands = {f"launch.{name}" for name in folders | {"sample", "aot"}} | {"datasets.build"}
    assert named == commands
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {name for row in rows if "make " in row for name in re.findall(r"`(?:make )?([\w-]+)`", row.split("|")[1])}
    assert asked
    assert asked <= targets


def test_the_workspace_shows_every_folder_and_only_what_exists():
    shown, folders = set(), [""]
    drawn = FENCED.search((ROOT / "WORKSPACE.md").read_text())
    assert drawn
    for indent, names in MAP.findall(drawn.group()):
        folders = folders[: len(indent) // 2 + 1]
        shown |= {folders[-1] + name for name in names.split()}
        folders.append(folders[-1] + names.split()[-1])
    assert {name for name in shown if not (ROOT / name).exists()} == set()
    below = {
        f"{path.parent.relative_to(ROOT)}/" for room in ("singan", "launch") for path in (ROOT / room).rglob("*.py")
    }
    studies = {f"{path.parent.relative_to(ROOT)}/" for path in ROOT.glob("experiments/*/__init__.py")}
    assert (below | studies) - shown == set()
    assert {
        path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("singan/*.py"), *ROOT.glob("launch/*.py")]
    } - shown == {"singan/__init__.py", "launch/__init__.py"}
