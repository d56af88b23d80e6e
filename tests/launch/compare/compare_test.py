"""python -m launch.compare: what stands side by side on the terminal, in compare.csv and in compare.html."""

import csv
import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from launch.compare import load
from launch.compare import page as compare_page
from launch.compare import tables as compare_tables
from launch.compare import text as compare_text
from launch.compare.compared import Compared
from launch.compare.from_wandb import of_run
from launch.results.quality import HEADLINE, Evaluation, Measured
from launch.spreadsheet import csv_lines
from singan.config import parse, to_mapping
from singan.errors import UserError
from singan.storage import workdir as records
from singan.storage.workdir import Workdir
from tests.browser import DESKTOP, chromium  # noqa: F401
from tests.launch.report.report_test import PHONE, SECRET, UGLY, Elements, assert_self_contained, evaluation, look
from tests.launch.train.train_test import SCALES, Commands

NAMES = [name for group in HEADLINE.values() for name in group]


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Commands:
    return Commands(tmp_path_factory)


@pytest.fixture
def copies(commands, tmp_path) -> Callable[..., Path]:
    """Makes a copy of a finished run with other values in its config.json: copies(name, {'train': {...}}, shift)."""

    def make(name: str, changes: dict[str, dict[str, Any]], shift: float | None = 0.0) -> Path:
        path = Path(shutil.copytree(commands.finished_run(), tmp_path / name))
        for scale in path.glob("scales/*"):  # which would say that they are of another configuration
            shutil.rmtree(scale / "checkpoints")
            (scale / "trained_from.json").unlink()
        config = to_mapping(records.read_config(Workdir(path)))
        for group, values in changes.items():
            config[group] |= values
        records.write_config(Workdir(path), parse(config))
        if shift is not None:
            (path / "evaluation.json").write_text(json.dumps(evaluation(["left", "right"], shift=shift)))
        return path

    return make


def made(name: str, **more: Any) -> Compared:
    return Compared(name, f"runs/{name}", {"status": "finished"}, **{"config": {"seed": 0}, **more})


def table(runs: list[Compared]) -> str:
    return compare_text.terminal(runs, compare_tables.parts(runs))


@pytest.mark.processes
def test_two_runs_and_a_baseline_stand_side_by_side(commands, copies, tmp_path, monkeypatch):
    monkeypatch.setitem(commands.environment, "WANDB_API_KEY", SECRET)
    a, b = copies("a", {}), copies("b", {"network": {"max_width": 64}}, shift=0.5)
    baseline = tmp_path / "gpnn"
    baseline.mkdir()
    (baseline / "evaluation.json").write_text(json.dumps(evaluation(["left", "right"], ("-1",), shift=1.0)))
    out = tmp_path / "out"
    result = commands.run("compare", a, b, baseline, f"--out={out}")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    tables = lines[: next(i for i, line in enumerate(lines) if line.startswith("3 runs side by side"))]
    assert max(map(len, tables)) <= 100  # what follows has paths
    differing = lines.index("Configuration, where it differs")
    assert lines[differing + 3].split() == ["network.max_width", "128", "64", "–"]
    assert lines[differing + 4] == ""
    assert "The start scale of gpnn is not known: its numbers stand beside each start scale." in lines
    # Every number of the file, once for each run and start scale.
    rows = list(csv.DictReader(io.StringIO((out / "compare.csv").read_text())))
    found = {(r["run"], r["scale"], r["name"]): r for r in rows if r["part"] == "evaluation"}
    for start in ("0", "1"):
        for run, shift in (("a", 0.0), ("b", 0.5), ("gpnn", 1.0)):
            assert {name for r, s, name in found if (r, s) == (run, start)} >= set(NAMES)
            swd = found[run, start, "swd"]
            assert [float(swd[key]) for key in ("value", "p10", "p90")] == pytest.approx(
                [0.1234 + shift, 0.1134 + shift, 0.1434 + shift]
            )
            assert found[run, start, "random_sifid"]["value"] == ""
            assert "too few pixels" in found[run, start, "random_sifid"]["note"]
    # The metrics of the scales, as the rows of metrics.jsonl have them.
    ends = [json.loads(line) for line in (a / "metrics.jsonl").read_text().splitlines()]
    ends = [row for row in ends if "end/reconstruction_rmse" in row]
    told = {(r["run"], r["scale"]): r for r in rows if (r["part"], r["name"]) == ("scale", "reconstruction_rmse")}
    for scale in range(SCALES):
        assert float(told["a", str(scale)]["value"]) == pytest.approx(np.mean(ends[scale]["end/reconstruction_rmse"]))
    text = (out / "compare.html").read_text()
    assert_self_contained(text)
    assert SECRET not in text + result.stdout
    page = Elements(text)
    assert len(page.of("img")) == 2  # the grids of both runs
    assert "sliced Wasserstein <distance>" in page.text
    assert sum(result.stdout.count(f"{name}\n") for name in ("Samples, start scale 0", "Samples, start scale 1")) == 2


@pytest.mark.processes
@pytest.mark.slow
def test_the_page_is_readable_on_a_phone_and_on_a_desk(copies, tmp_path, chromium):  # noqa: F811
    runs = load.load([str(copies("a", {})), str(copies("b", {"train": {"chunk": 7}}, shift=None))])
    ugly = made(UGLY, config={"seed": 0, UGLY: UGLY}, problems=(f"</style><script>{UGLY}",))
    for number, several in enumerate((runs, [*runs, ugly], [ugly, *runs, made("c"), made("d" * 60), made("e")])):
        path = tmp_path / f"{number}.html"
        path.write_text(compare_page.build(several, compare_tables.parts(several)))
        assert_self_contained(path.read_text())
        for size in (PHONE, DESKTOP):
            look(chromium, path, size)


@pytest.mark.processes
@pytest.mark.slow
def test_what_is_not_evaluated_is_compared_on_what_it_has_with_the_command(copies):
    a, b = copies("a", {}, shift=None), copies("b", {"train": {"chunk": 7}}, shift=None)
    runs = load.load([str(a), f"{b}/", str(a)])
    assert [one.name for one in runs] == ["a", "b"]
    text = table(runs)
    assert f"a is not evaluated yet: python -m launch.evaluate --workdir={a} b is not" in " ".join(text.split())
    assert "train.chunk" in text
    assert "reconstruction RMSE, last" in text
    assert "start scale" not in text


@pytest.mark.processes
@pytest.mark.slow
def test_runs_of_different_images_and_settings_are_said_to_be(copies):
    a, b = copies("a", {}), copies("b", {})
    first, *others = records.read_images(Workdir(b))
    records.write_images(Workdir(b), [dataclasses.replace(first, digest="0" * 32), *others])
    measured = json.loads((b / "evaluation.json").read_text())
    measured["settings"]["num_samples"] = 16
    (b / "evaluation.json").write_text(json.dumps(measured))
    remarks = compare_tables.remarks(load.load([str(a), str(b)]))
    assert any("different training images (a 2, b 2; 1 in common)" in line for line in remarks)
    assert any("different settings (num_samples)" in line for line in remarks)
    assert not any("different" in line for line in compare_tables.remarks(load.load([str(a), str(a)])))


@pytest.mark.processes
@pytest.mark.slow
def test_runs_of_one_name_are_told_apart(copies, tmp_path):
    copies("one/run", {})
    copies("two/run", {})
    runs = load.load([str(tmp_path / "one/run"), str(tmp_path / "two/run")])
    assert [one.name for one in runs] == ["one/run", "two/run"]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 9])
def test_any_number_of_runs_fits_a_terminal(count):
    value = Measured(0.1234, 0.0123, 0.2345, 4)
    runs = [
        made(f"a_run_with_a_long_name_{n}", config={f"group.key_{k}": n for k in range(12)}, ends={0: {"swd": value}})
        for n in range(count)
    ]
    text = table(runs)
    assert max(map(len, text.splitlines())) <= 100
    joined = "".join(text.split())
    assert all(f"a_run_with_a_long_name_{n}" in joined or f"name_{n}" in joined for n in range(count))
    assert all(f"key_{k}" in joined for k in range(12))
    assert text.count("0.123") == count


def test_markdown_keeps_its_columns_whatever_a_value_holds():
    runs = [made("a", config={"x": "1|2"}), made("b|c", config={"x": "3"})]
    lines = compare_text.markdown(runs, compare_tables.parts(runs)).splitlines()
    assert "|  | a | b\\|c |" in lines
    assert "| x | 1\\|2 | 3 |" in lines


HOSTILE = "\x1b[2J\x9b31m\u202e=cmd|' /C calc'!A0\rforged"


def test_no_text_of_a_run_moves_the_cursor_or_is_calculated():
    reason = Measured(reason=f"={HOSTILE}")
    evaluated = Evaluation({}, {}, {f"0{HOSTILE}": {f"+{HOSTILE}": reason, "swd": Measured(-0.5, -1.0, 0.1, 2)}}, {})
    ugly = {"about": {"status": f"={HOSTILE}", "commit": f"@{HOSTILE}"}, "problems": (f"a\n{HOSTILE}",)}
    runs = [
        made("a", config={"tracking.name": f"={HOSTILE}", "seed": 0, "shift": "-0.5"}, evaluation=evaluated),
        dataclasses.replace(made(f"-{HOSTILE}", config={"tracking.name": "b", "seed": -1, "shift": "1"}), **ugly),
    ]
    tables = compare_tables.parts(runs)
    lines = compare_tables.to_csv(runs, tables)
    for text in (compare_text.terminal(runs, tables), compare_text.markdown(runs, tables), lines):
        assert "\\x1b[2J" in text
        assert all(character.isprintable() or character == "\n" for character in text)
    assert not any(line.startswith("forged") for line in compare_text.markdown(runs, tables).splitlines())
    rows = list(csv.reader(io.StringIO(lines)))
    formulas = [cell for row in rows for cell in row if cell.startswith(tuple("=+-@"))]
    assert sorted(set(formulas)) == ["-0.5", "-1", "-1.0"]
    assert {"'=\\x1b", "'-\\x1b", "'+\\x1b", "'@\\x1b"} <= {cell[:6] for row in rows for cell in row}


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        *(("=1+1", "'=1+1"), ("+49 30 1", "'+49 30 1"), ("-2+3", "'-2+3"), ("@SUM(A1)", "'@SUM(A1)"), ("-", "'-")),
        *((" =1", "' =1"), ("\t=1", "'\t=1"), ("\r=1", "\\r=1"), ("＝1", "'＝1"), ("-inf", "-inf"), ("-0.5", "-0.5")),
        *(("+1e-3", "+1e-3"), (-0.5, "-0.5"), (None, ""), (True, "True"), ("a=b", "a=b"), ("a\nb", "a\nb")),
    ],
)
def test_a_cell_is_a_number_or_text_and_no_formula(value, cell):
    ((found, last),) = list(csv.reader(io.StringIO(csv_lines(("x", "y"), [(value, "end")]), newline="")))[1:]
    assert (found, last) == (cell, "end")


def test_csv_holds_what_a_value_holds():
    runs = [made("a", config={"x": 'say "x", \n twice'}), made("b", config={"x": "3"})]
    rows = list(csv.DictReader(io.StringIO(compare_tables.to_csv(runs, compare_tables.parts(runs)))))
    assert ('say "x", \n twice', "config") in [(row["value"], row["part"]) for row in rows]


def test_bad_places_are_refused_in_one_line(tmp_path):
    (tmp_path / "96x96").mkdir()
    (tmp_path / "96x96/config.json").write_text("{}")
    with pytest.raises(UserError, match="96x96"):
        load.load([str(tmp_path)])
    with pytest.raises(UserError, match="neither a directory nor a wandb run"):
        load.load([str(tmp_path / "nothing")])
    damaged = tmp_path / "folder"
    damaged.mkdir()
    (damaged / "evaluation.json").write_text('{"format": 1, "cohort": []}')
    with pytest.raises(UserError, match="damaged"):
        load.load([str(damaged)])


@pytest.mark.processes
def test_a_wandb_run_without_network_or_key_is_refused_in_one_line(commands, tmp_path):
    unset = {name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"}
    home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "WANDB_BASE_URL": "http://127.0.0.1:1"}
    commands.environment = {**unset, **home}
    result = commands.run("compare", "team/project/abc123", tmp_path, f"--out={tmp_path / 'out'}")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "team/project/abc123" in line
    assert "wandb login" in line
    assert not (tmp_path / "out").exists()
    result = commands.run("compare", "one")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)


def test_a_wandb_run_is_read_by_the_names_that_training_and_evaluation_send(tmp_path):
    class File(SimpleNamespace):
        def download(self, root: str, replace: bool):
            path = Path(root) / self.name
            path.parent.mkdir(parents=True)
            path.write_bytes(b"picture")
            return path.open()

    summary = {
        "_runtime": 75.0,
        "scale_00/image_steps_per_second": 90.0,
        "scale_01/image_steps_per_second": 40.0,
        "scale_01/end/reconstruction_rmse_mean": 0.05,
        "scale_01/end/reconstruction_rmse_min": 0.01,
        "scale_01/samples": {"_type": "image-file", "path": "media/images/scale_01/samples_1.png"},
        "evaluation/start_00/swd": 0.2,
    }
    config = {"train": {"chunk": 5}, "seed": 1, "_wandb": {}}
    run = SimpleNamespace(
        summary=summary, config=config, name="online", state="finished", file=lambda path: File(name=path)
    )
    one = of_run("team/project/abc123", run)
    assert (one.name, one.config, one.seconds) == ("online", {"train.chunk": 5, "seed": 1}, 75.0)
    assert one.speeds == {0: 90.0, 1: 40.0}
    assert one.ends[1]["reconstruction_rmse"].mean == 0.05
    assert one.evaluation is not None
    assert one.evaluation.cohort["0"]["swd"].mean == 0.2
    assert one.grid == ("scale 1", b"picture")
    assert "0.200" in table([one, made("b")])
