"""Every install line of the pages and of the commands' hints: the package index has versions that go together."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

from launch.sweep.backends.accelerators import find_accelerator
from launch.sweep.backends.machines import setup_script
from tests import pythons

ROOT = Path(__file__).parents[2]
INSTALL = re.compile(r"\b(?:pip|uv tool) install ([^`\n]*)")
WORD = re.compile(r"""("[^"]*"|'[^']*')|([^\s"']+)""")
REQUIREMENT = re.compile(r"(\.|\w[\w.-]*)(\[[\w,-]+\])?([<>=!~]=?[\w.*,<>=!~]+)?")
IN_CODE = ("singan", "launch", "experiments", "datasets")


def written() -> list[str]:
    """Returns the texts in which install lines can be: pages, cells, strings of the code, what machines run."""
    places = (".", "docs", "datasets", "datasets/*", "experiments/*")
    pages = [path for place in places for path in ROOT.glob(f"{place}/*.md")]
    texts = [path.read_text(encoding="utf-8") for path in pages]
    for path in (file for room in IN_CODE for file in (ROOT / room).rglob("*.py")):
        constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        texts += [value for value in constants if isinstance(value, str) and "{" not in value]
    texts += [setup_script(find_accelerator(name)) for name in ("v5e-8", "H100")]
    notebook = json.loads((ROOT / "docs/tutorial.ipynb").read_text(encoding="utf-8"))
    extras = re.findall(r'"(jax\[\w+\])"', json.dumps(notebook).replace('\\"', '"'))
    assert extras  # the notebook installs by a list of arguments
    return [*texts, *(f"pip install -c constraints.txt -e . {extra}" for extra in extras)]


def requirements(line: str) -> tuple[str, ...]:
    """Returns pip's arguments of an install line, as given in a clone; empty where it is only spoken of."""
    found: list[str] = []
    before = ""
    for quoted, bare in WORD.findall(line):
        word = quoted[1:-1] or bare.rstrip(",;:)")
        if before == "-c":
            found.append("constraints.txt")
        elif word in ("-c", "-e"):
            found.append(word)
        elif before == "--python" or word in ("--python", "--user", "-q"):
            pass  # where to, and how loud
        elif REQUIREMENT.fullmatch(word):
            found.append(re.sub("^medisingan", ".", word) if before == "-e" else word)
        else:
            break
        if not quoted and word != bare:
            break  # the sentence goes on
        before = word
    return tuple(found)


def install_lines() -> list[tuple[str, ...]]:
    """Returns what the pages and the code tell people to install, each once."""
    lines = {requirements(match[1]) for text in written() for match in INSTALL.finditer(text)}
    return sorted(lines - {()})


def test_the_install_lines_are_found():
    lines = install_lines()
    assert ("-c", "constraints.txt", "-e", ".") in lines
    assert ("-c", "constraints.txt", "-e", ".[bucket]", "jax[tpu]") in lines
    assert ("-c", "constraints.txt", "-e", ".[tpu-aot]") in lines
    assert ("-e", ".[bucket]") in lines  # of a message
    assert ("skypilot[gcp]>=0.14",) in lines


def test_one_cuda_everywhere():
    named = {word for line in install_lines() for word in line if "cuda" in word}
    assert named == {"jax[cuda12]"}


@pytest.fixture(scope="session", params=pythons.VERSIONS)
def fresh_python(request, tmp_path_factory) -> Path:
    """The Python of a new environment, for each version that this machine has."""
    python = pythons.find(request.param) or pytest.skip(f"no Python {request.param} that runs was found")
    environment = tmp_path_factory.mktemp(f"python{request.param}") / "venv"
    subprocess.run([python, "-m", "venv", environment], check=True)
    return environment / "bin/python"


def install(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "pip", "install", "--dry-run", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("line", install_lines(), ids=" ".join)
def test_an_install_line_resolves(fresh_python, line):
    done = install(fresh_python, *line)
    if done.returncode == 0:
        return
    missing = re.search(r"satisfies the requirement (\S+).*\(from versions: none\)", done.stderr)
    if missing:  # the index has nothing of that name: it cannot be reached, or holds a selection only
        pytest.skip(f"the package index has no {missing[1]}")
    pytest.fail("\n".join(text for text in done.stderr.splitlines() if not text.startswith("WARNING")))
