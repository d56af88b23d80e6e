"""report.html: what it says of a run, that it needs nothing but itself, and how it looks in a browser."""

import html.parser
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from launch.report import curves
from launch.report.page import try_write_report, write_report
from launch.results.history import MAX_POINTS, MAX_ROWS, Point, ScaleHistory, read_history
from launch.results.numbers import duration, number
from launch.results.run_facts import read_facts
from singan.config import parse
from singan.errors import UserError
from singan.storage import workdir as records
from singan.storage.workdir import ImageRecord, Workdir
from singan.value_map import ValueMap
from tests.browser import DESKTOP, Page, chromium  # noqa: F401
from tests.launch.train.train_test import SCALES, Commands

PHONE = (390, 844)
UGLY = "<img src=x onerror=alert(1)>&\"'"
SECRET = "a1b2c3d4e5f6a1b2c3d4e5f6a1b2c3d4e5f6a1b2"
HEADLINE = ("SWD", "SIFID, random features", "diversity", "RMSE to training image", "nearest-patch ratio", "copied")


class Elements(html.parser.HTMLParser):
    """The elements of a page as (name, attributes), and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


def assert_self_contained(text: str) -> None:
    """No scripts, and no address but those of the page's own parts and data."""
    page = Elements(text)
    assert not [name for name, _ in page.found if name in ("script", "iframe", "object", "embed", "base", "form")]
    for name, attributes in page.found:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "srcset", "action", "data", "poster", "style"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/png;base64,", "data:,", "#")), (name, key, value)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def evaluation(ids: list[str], starts: tuple[str, ...] = ("0", "1"), shift: float = 0.0) -> dict:
    """evaluation.json as launch.evaluate writes it, with every kind of entry."""

    def entry(value: float, **more) -> dict:
        return {"mean": value + shift, "p10": value + shift - 0.01, "p90": value + shift + 0.02, **more}

    def metrics(**more) -> dict:
        return {
            "swd": entry(0.1234, **more),
            "swd/1": entry(0.05, **more),
            "random_sifid": {"undefined": "the image has too few pixels <16>"},
            "diversity": entry(0.456, **more),
            "rmse": entry(0.234, **more),
            "nearest_patch_ratio": entry(0.891, **more),
            "copied": entry(0.0123, **more),
            "fid/red": entry(120.0, **more) | {"note": "biased high"},
        }

    return {
        "format": 1,
        "settings": {"num_samples": 6, "seed": 0, "start_scales": [0, 1], "finest_scale": 1, "inception": None},
        "definitions": {"swd": "sliced Wasserstein <distance>", "fid": "Fréchet distance"},
        "images": {name: {start: metrics(count=6) for start in starts} for name in ids},
        "cohort": {start: metrics(images=len(ids)) for start in starts},
    }


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Commands:
    return Commands(tmp_path_factory)


@pytest.fixture
def finished(commands, tmp_path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(commands.finished_run(), tmp_path / "run"))


@pytest.fixture
def ugly(tmp_path) -> Path:
    """A workdir whose names and texts are those of an attacker, without a trained scale."""
    workdir = Workdir(tmp_path / "ugly")
    workdir.path.mkdir()
    records.write_config(workdir, parse({"data": {"path": f"</style><script>{UGLY}</script>"}}))
    value_map = ValueMap((0.0,), (255.0,), (None,), "uint8")
    records.write_images(workdir, [ImageRecord(UGLY, f"{UGLY}\x00.png", (40, 40, 1), (UGLY,), value_map, "0" * 32)])
    start = {"time": "2026-01-31T09:30:00+00:00", "command": ["/x/launch/train.py", f"--config={UGLY}"]}
    record = {"id": UGLY, "starts": [start], "status": UGLY, "diverged": {UGLY: UGLY}}
    workdir.run.write_text(json.dumps(record))
    (workdir.path / "evaluation.json").write_text(json.dumps(evaluation([UGLY], (UGLY,))))
    return workdir.path


@pytest.mark.processes
def test_the_page_says_what_was_trained_how_it_went_and_how_to_do_it_again(finished, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    ids = [record.id for record in records.read_images(Workdir(finished))]
    (finished / "evaluation.json").write_text(json.dumps(evaluation(ids)))
    text = write_report(finished).read_text()
    assert_self_contained(text)
    assert SECRET not in text
    page, run = Elements(text), read_facts(finished)
    assert "finished, 2 of 2 scales done" in page.text
    assert all(name in page.text for name in ids)
    # Pictures: each image's thumbnail, each scale's grid.
    alternatives = [image["alt"] or "" for image in page.of("img")]
    assert len(alternatives) == len(ids) + SCALES
    # Every quantity of the rows has a curve: seven panels, and two of what scales ended with.
    assert len(page.of("svg")) == 9
    assert sum("atch" in panel["aria-label"] for panel in page.of("svg")) == 1  # the preset's distance of patches
    last = run.history[-1].ends["reconstruction_rmse"]
    assert number(float(np.mean(last))) in page.text
    for command in (
        "launch.train --config=",
        "launch.sample --workdir=",
        "launch.compare ",
        "launch.report --workdir=",
    ):
        assert f"python -m {command}" in page.text
    assert "train.steps_per_scale" in page.text
    # Metrics: the mean and percentiles beside each other, fidelity with the rest, reasons, definitions.
    assert all(name in page.text for name in HEADLINE)
    assert "0.123 [0.11–0.14]" in page.text
    assert "undefined: the image has too few pixels <16>" in page.text
    assert "sliced Wasserstein <distance>" in page.text
    assert "FID, red is biased high" in page.text


@pytest.mark.processes
def test_the_command_writes_the_page_or_says_what_is_wrong(commands, finished, tmp_path):
    result = commands.run("report", f"--workdir={finished}")
    assert (result.returncode, result.stderr) == (0, "")
    assert str(finished / "report.html") in result.stdout
    result = commands.run("report", f"--workdir={tmp_path / 'nothing'}")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "nothing").exists()


def test_nothing_of_a_run_becomes_html(ugly):
    text = write_report(ugly).read_text()
    assert_self_contained(text)
    page = Elements(text)
    assert not page.of("img")
    # An id, a channel, a source, a status, a path: as they are, to be read.
    assert page.text.count(UGLY) >= 8
    assert f"</style><script>{UGLY}</script>" in page.text
    assert "\x00" not in text
    assert "Not a number" not in page.text


def test_what_is_missing_or_damaged_is_said_and_the_rest_is_shown(ugly):
    (ugly / "run.json").write_text("{half")
    (ugly / "metrics.jsonl").write_bytes(
        b'{"global_step": 5, "scale": 0, "scale_step": 5, "steps_per_second": 2.0}\n{"glo'
    )
    (ugly / "evaluation.json").write_text('{"format": 2}')
    page = Elements(write_report(ugly).read_text())
    assert "run.json is damaged" in page.text
    assert "has format 2, this version reads 1" in page.text
    assert "Not evaluated yet" in page.text
    assert "0 of " in page.text


def test_an_error_never_stops_the_training_that_asks_for_the_page(tmp_path, ugly):
    said: list[str] = []
    try_write_report(tmp_path / "nothing", said.append)
    (ugly / "report.html").mkdir()  # which no file can replace
    try_write_report(ugly, said.append)
    assert len(said) == 2
    assert all("report.html could not be written" in line and "\n" not in line for line in said)
    with pytest.raises(UserError):
        write_report(tmp_path / "nothing")


def test_a_long_file_is_thinned_to_means_and_what_scales_ended_with_is_kept(tmp_path):
    path, count = tmp_path / "metrics.jsonl", 3 * MAX_ROWS
    with path.open("w") as file:
        for step in range(1, count + 1):
            row = {"global_step": step, "scale": 0, "scale_step": step, "time": step / 10, "steps_per_second": 10.0}
            file.write(json.dumps(row | {"critic/real": step, "critic/fake": None}) + "\n")
        end = {"global_step": count, "scale": 0, "scale_step": count, "time": count / 10}
        file.write(json.dumps(end | {"end/swd": [0.1, None, 0.3]}) + "\n")
        file.write(json.dumps(end | {"time": 1e9, "evaluation/start_00/swd": 0.5}) + "\n")
    started = time.process_time()
    (scale,) = read_history(path)
    assert time.process_time() - started < 2
    assert scale.ends == {"swd": [0.1, None, 0.3]}
    assert list(scale.curves) == ["steps_per_second", "critic/real"]
    points = scale.curves["critic/real"]
    assert len(points) == MAX_POINTS
    assert all(point.mean == point.step == point.low == point.high for point in points)
    assert abs(np.mean([point.mean for point in points]) - count / 2) < 2
    assert scale.steps == count
    assert abs(scale.seconds - count / 10) < 1  # the evaluation, long afterwards, does not count


def test_the_time_between_a_stop_and_the_next_start_does_not_count(tmp_path):
    times = [105.0, 110.0, 1003.0, 1006.0]
    rows = [{"global_step": i, "scale": i // 3, "scale_step": i, "time": t} for i, t in enumerate(times)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scales = read_history(tmp_path / "metrics.jsonl", starts=[100.0, 1000.0])
    assert [scale.seconds for scale in scales] == [13.0, 3.0]


def test_images_of_one_row_give_their_mean_and_percentiles(tmp_path):
    row = {"global_step": 1, "scale": 0, "scale_step": 1, "generator/x": [*range(11), None]}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row))
    (scale,) = read_history(tmp_path / "metrics.jsonl")
    assert scale.curves["generator/x"] == [Point(1, 5.0, 1.0, 9.0)]


@pytest.mark.parametrize(("values", "log"), [((1.0, 0.1, 0.001), True), ((1.0, 0.9, 0.2), False), ((1, 0, 50), False)])
def test_a_curve_keeps_the_order_of_values_on_the_axis_that_fits_them(values, log):
    points = [Point(step, float(value), float(value), float(value)) for step, value in enumerate(values, 1)]
    (figure,) = curves.training_curves([ScaleHistory(0, {"critic/gradient_penalty": points})])
    assert ("logarithmic" in figure) == log
    (line,) = re.findall(r'<path d="M([^"]+)" class="line s0">', figure)
    x, y = np.array([point.split() for point in line.split("L")], float).T
    assert (np.diff(x) > 0).all()
    assert (np.sign(np.diff(y)) == -np.sign(np.diff(values))).all()
    assert x.max() <= curves.WIDTH
    assert (y.min() >= curves.TOP) & (y.max() <= curves.HEIGHT - curves.BOTTOM)
    ratio = (y[1] - y[0]) / (y[2] - y[0])
    scaled = np.log(values) if log else np.array(values, float)
    assert ratio == pytest.approx((scaled[1] - scaled[0]) / (scaled[2] - scaled[0]), abs=0.01)


def test_numbers_and_times_are_written_as_people_read_them():
    assert [number(v) for v in (0.12345, 12.345, 1234.5, 3, 0.0, 0.00001234, -0.5)] == [
        *("0.123", "12.3", "1,234", "3", "0", "1.23e-5", "-0.500")
    ]
    assert [number(v) for v in (float("nan"), None, float("inf"))] == ["–"] * 3
    assert [duration(s) for s in (3.21, 75, 600, 9000, 200000)] == ["3.2 s", "75 s", "10 min", "2 h 30 min", "2 d 8 h"]


def look(page: Page, path: Path, size: tuple[int, int]) -> None:
    """Opens a page with every part unfolded and checks what no page may get wrong."""
    page.open(path, size)
    page.run("for (const part of document.querySelectorAll('details')) part.open = true")
    assert page.overflow() == 0
    assert page.run("return [...document.images].filter((image) => !image.complete || !image.naturalWidth).length") == 0
    small = (
        "return [...document.querySelectorAll('svg')].filter((svg) => svg.getBoundingClientRect().width < 250).length"
    )
    assert page.run(small) == 0
    links = "return [...document.links].filter((a) => !document.querySelector(a.getAttribute('href'))).length"
    assert page.run(links) == 0
    assert (page.complaints(), page.requests()) == ([], [])


def colour(page: Page, scheme: str) -> str:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    return page.run("return getComputedStyle(document.body).backgroundColor")


@pytest.mark.processes
@pytest.mark.slow
def test_it_is_readable_on_a_phone_and_on_a_desk_by_day_and_night(finished, ugly, chromium):  # noqa: F811
    ids = [record.id for record in records.read_images(Workdir(finished))]
    (finished / "evaluation.json").write_text(json.dumps(evaluation(ids)))
    for path in (write_report(finished), write_report(ugly)):
        for size in (PHONE, DESKTOP):
            look(chromium, path, size)
    assert colour(chromium, "light") != colour(chromium, "dark")
