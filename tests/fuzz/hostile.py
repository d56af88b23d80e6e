"""What people put into a workdir to have a command harm others: links, special files, locks, text for terminals."""

import csv
import io
import json
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from launch.compare import load
from launch.compare import tables as compare_tables
from launch.compare import text as compare_text
from launch.images import image_folders
from launch.results.run_facts import read_facts
from launch.streams import Printed
from singan import files
from singan.errors import UserError
from singan.storage.run import load_run
from singan.storage.workdir import FORMAT
from singan.storage.workdir_lock.lock import WorkdirLock
from singan.storage.workdir_lock.owner import this_process
from tests.fuzz import strategies
from tests.fuzz.areas import Area
from tests.fuzz.images import good_files
from tests.fuzz.oracle import Fault
from tests.fuzz.workdirs import EVALUATION, names, template

KINDS = ("outside", "folder outside", "inside", "loop", "dangling", "device", "FIFO", "socket")


@st.composite
def places(draw) -> tuple[str, str, str]:
    """A path in a workdir, what is put there, and who finds it."""
    name = draw(st.sampled_from([*names(), ".lock", "wandb/latest-run", "images/new.npy", "notes"]))
    depth = draw(st.integers(0, name.count("/")))
    path = "/".join(name.split("/")[: depth + 1])
    return path, draw(st.sampled_from(KINDS)), draw(st.sampled_from(("load_run", "compare", "lock")))


def use_links(example: tuple[str, str, str], folder: Path) -> None:
    """Puts a link or a special file anywhere into a run: refused by name, and what it leads to is as it was."""
    with tempfile.TemporaryDirectory() as outside:
        _use_link(*example, folder / "run", Path(outside))


def _use_link(name: str, kind: str, reader: str, run: Path, outside: Path) -> None:
    shutil.copytree(template(), run)
    (outside / "1").mkdir(parents=True)
    for secret in ("1/file", f".tmp-a-{2**22 + 1}-0a1b2c3d", "file"):
        (outside / secret).write_text("secret")
    path = run / name
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    _put(path, kind, outside)
    try:
        if reader == "load_run":
            load_run(run)
        elif reader == "compare":
            load.load([str(run), str(template())])
        else:
            with WorkdirLock(run):
                read_facts(run)
    except UserError as error:
        if str(path) not in str(error):
            raise Fault(f"not named: {name}, a {kind}: {error}") from None
        raise
    finally:
        if sorted(p.read_text() for p in outside.rglob("*") if p.is_file()) != ["secret"] * 3:
            raise Fault(f"{name}, a {kind}: changed what it leads to")
    if not name.startswith("wandb/"):  # wandb's own
        raise Fault(f"{name}, a {kind}, was taken")


def _put(path: Path, kind: str, outside: Path) -> None:
    match kind:
        case "FIFO":
            os.mkfifo(path)
        case "socket":
            here = os.getcwd()
            os.chdir(path.parent)  # a socket's path may have some hundred characters only
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path.name)
            os.chdir(here)
        case _:
            to = {"outside": outside / "file", "folder outside": outside, "inside": ".", "loop": path.name}
            path.symlink_to(to.get(kind, "/dev/zero" if kind == "device" else "nothing"))


def use_study(example: list[tuple[str, str]], folder: Path) -> None:
    """A reader study's folder with links in it: nothing of elsewhere is shown."""
    real, outside = folder / "real", folder / "outside"
    for place in (real, outside):
        place.mkdir()
        (place / "a.png").write_bytes(good_files()["colour.png"])
    shutil.copy(outside / "a.png", outside / "file")
    for number, (name, kind) in enumerate(example):
        _put(real / f"{number}{name}.png", kind, outside)
    for entry in image_folders.list_entries(str(real), "real"):
        if any(Path(os.path.realpath(path)).is_relative_to(outside) for path in entry.paths):
            raise Fault(f"{entry.source} comes from elsewhere")
    raise UserError("links are left out, which stderr says")


CONTROLS = ("\x1b[2J", "\x1b]0;title\x07", "\r", "\x9b31m", "\u202e", "\n", "\x08", "\x00", "\x7f")
hostile_text = st.lists(
    st.one_of(st.sampled_from(CONTROLS), st.sampled_from(("=1+1", "+1", "-1", "@A1", "|", "-0.5")), strategies.text),
    min_size=1,
    max_size=4,
).map(lambda parts: "".join(parts).encode("utf-8", "replace").decode())


def use_text(example: tuple[list[str], list[str], bool], folder: Path) -> None:
    """Records that are whole and say what they like: text, nothing else, for terminals and spreadsheets."""
    of_run, of_config, whole = example
    run = folder / "run"
    shutil.copytree(template(), run)
    status, commit, devices = of_run
    start = {"time": status, "git_commit": commit, "devices": devices, "host": commit, "command": of_run}
    rewrite(run / "run.json", {"status": status, "starts": [start], "diverged": {commit: devices}})
    config = json.loads((run / "config.json").read_text())
    config["tracking"] |= dict(zip(("project", "name", "group"), of_config, strict=True))
    rewrite(run / "config.json", config, whole)
    evaluation = json.loads(json.dumps(EVALUATION))
    evaluation["cohort"][status] = {commit: {"undefined": devices}}
    evaluation["definitions"][commit] = devices
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    runs = load.load([str(run), str(template())])
    tables = compare_tables.parts(runs)
    lines = compare_tables.to_csv(runs, tables)
    for text in (compare_text.terminal(runs, tables), compare_text.markdown(runs, tables)):
        if bad := [c for c in text if not c.isprintable() and c != "\n"]:
            raise Fault(f"{bad[0]!r} reaches the terminal")
    for cell in (cell for row in csv.reader(io.StringIO(lines, newline="")) for cell in row):
        if set(cell) & set(CONTROLS) - {"\n"}:
            raise Fault(f"{cell!r} is in the CSV")
        if cell.lstrip().startswith(("=", "+", "-", "@")):
            float(cell)


def rewrite(path: Path, changes: dict[str, Any], whole: bool = True) -> None:
    """Changes a record, and its digest with it if it is to be whole."""
    content = {**json.loads(path.read_text()), **changes}
    content.pop("digest", None)
    content.pop("format", None)
    digest = files.digest(content) if whole else "0" * 32
    path.write_text(json.dumps({"format": FORMAT, "digest": digest, **content}))


def use_printed(example: tuple[str, str, bool], folder: Path) -> None:
    """Prints text through a pipe that is read, and through one that nobody reads."""
    text, encoding, bars = example
    read, write = os.pipe()
    stream = Printed(write, encoding, bars)
    print(text, file=stream, flush=True)
    said = os.read(read, 2**16).decode(encoding)
    if set(said) & (set(CONTROLS) - {"\n"} - ({"\r"} if bars and text.startswith("\r") else set())):
        raise Fault(f"{said!r} was printed")
    os.close(read)
    for _ in range(3):
        print(text, file=stream, flush=True)
    os.close(write)
    raise UserError(f"in an error: {text}")  # is one line, whatever it is


locks = st.one_of(
    strategies.damaged_json({**this_process(), "token": "t", "heartbeat": 1.0}).map(lambda held: json.dumps(held)),
    strategies.text,
    st.builds(
        lambda host, ago: json.dumps(
            {**this_process(), "host": host, **({"heartbeat": time.time() - ago} if ago is not None else {})}
        ),
        st.one_of(st.just("elsewhere"), hostile_text),
        st.one_of(st.sampled_from((0.0, 0.05, 1e3, -1e6, 1e300, None)), strategies.floats),
    ),
)


def use_lock(example: str, folder: Path) -> None:
    """Starts where a lock says anything: taken over, or refused in one line."""
    (folder / ".lock").write_text(example, encoding="utf-8", errors="replace")
    with WorkdirLock(folder, refresh=0.02, lease=0.1):
        held = json.loads((folder / ".lock").read_text())
    assert held["pid"] == os.getpid()


AREAS = [
    Area("links in a workdir", places(), use_links, 40, 300, prepare=template),
    Area(
        "links in a reader study",
        st.lists(st.tuples(st.sampled_from(("a", "b")), st.sampled_from(KINDS)), min_size=1, max_size=3),
        use_study,
        15,
        100,
    ),
    Area(
        "hostile text in a workdir",
        st.tuples(*[st.lists(hostile_text, min_size=3, max_size=3)] * 2, st.integers(0, 9).map(bool)),
        use_text,
        20,
        200,
        prepare=template,
    ),
    Area(
        "printed text",
        st.tuples(hostile_text, st.sampled_from(("ascii", "latin-1", "utf-8")), st.booleans()),
        use_printed,
        80,
        600,
    ),
    Area("locks of other hosts", locks, use_lock, 12, 80),
]
