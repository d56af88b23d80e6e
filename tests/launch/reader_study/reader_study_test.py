"""python -m launch.reader_study: the page keeps its secret, can be clicked through in a browser, and is scored."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from launch.images.image_folders import Entry
from launch.reader_study import answers, design, match_images, page
from singan.errors import UserError
from tests.browser import DESKTOP, TABLET, Page, chromium  # noqa: F401

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[3]
SIDE = 24
ENTER, RIGHT = "\ue007", "\ue014"  # as WebDriver names keys
TITLE = '</script><b>"Real" & fake'


def command(*words: str | Path) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-m", "launch.reader_study", *map(str, words)]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)


def refused(result: subprocess.CompletedProcess) -> str:
    """Returns the one line of a user's error."""
    assert result.returncode == 2, result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def save_pictures(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / f"patch{seed}_{number:04d}.png")


def save_scans(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    scans = np.random.default_rng(seed).uniform(0, 900, (count, SIDE, SIDE + 4, 2)).astype(np.float32)
    scans[:, :6] = 0
    if seed:
        np.save(folder / "scan.npy", scans)
        return
    for number, scan in enumerate(scans):
        np.savez(folder / f"scan{number}.npz", image=scan, channels=np.array(["t1", "flair"]))


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Path:
    """A folder with three studies: tissue.html of 12 images, mri.html of 6 pairs, timed.html of 4, a channel each."""
    root = tmp_path_factory.mktemp("studies")
    save_pictures(root / "tissue_real", 11, 0)
    save_scans(root / "mri_real", 7, 0)
    for scale in (0, 1):
        save_pictures(root / "tissue" / f"start_{scale:02d}", 6, scale + 1)
        save_scans(root / "mri" / f"start_{scale:02d}", 4, scale + 1)
    tissue = (f"--real={root / 'tissue_real'}", f"--generated={root / 'tissue'}", f"--title={TITLE}")
    scans = (f"--real={root / 'mri_real'}", f"--generated={root / 'mri'}", "--mode=pairs")
    for words in (
        (*tissue, "--practice=2", "--num_items=12", f"--out={root / 'tissue.html'}"),
        (*scans, "--practice=1", f"--out={root / 'mri.html'}"),
        (
            *scans,
            "--practice=0",
            "--num_items=4",
            "--split_channels",
            "--time_limit=0.4",
            f"--out={root / 'timed.html'}",
        ),
    ):
        result = command("make", *words)
        assert result.returncode == 0, result.stderr
        assert "Keep it to yourself" in result.stdout
    return root


def key_of(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".key.json").read_text())


def description(text: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="study">(.*?)</script>', text)
    assert match is not None
    return json.loads(match[1])


def write_answers(path: Path, key: dict[str, Any], answer: Callable[[str], tuple[str, int]], **changes: Any) -> Path:
    """Writes a reader's file as the page does, `answer` taking the truth."""
    rows = []
    for item in key["items"]:
        if not item["practice"]:
            given, confidence = answer(item["answer"])
            rows.append({"item": item["id"], "answer": given, "confidence": confidence, "milliseconds": 1500})
    content = {"format": "medisingan-reader-study-answers-1", "study": key["study"], "reader": path.stem}
    path.write_text(json.dumps(content | {"answers": rows, "experience_years": None} | changes))
    return path


def test_the_page_does_not_hang_on_the_truth():
    """Were other items real, with other files and scales, the page would be the same to the last byte."""
    entries = [Entry(f"secret{i}", (), (), None, i % 2) for i in range(12)]
    choice = design.choose(entries, entries, "single", 0, 4, 0)
    planes = list(np.random.default_rng(0).integers(0, 999, (24, 2, 8, 8)).astype(np.uint16))
    made = match_images.MatchedImages(planes[:12], planes[12:], ("t1", "t2"), (999, 999), "")
    study = design.arrange(choice, made, "single", b"secret")
    other = {"real": "generated", "generated": "real"}
    turned = [
        item if item.practice else dataclasses.replace(item, answer=other[item.answer], real="x", start_scale=7)
        for item in study.items
    ]
    text = page.build(study, "title", 0)
    assert page.build(dataclasses.replace(study, items=turned), "title", 0) == text
    # Practice items have a token, which their feedback needs.
    first = dataclasses.replace(study.items[0], answer=other[study.items[0].answer])
    assert page.build(dataclasses.replace(study, items=[first, *study.items[1:]]), "title", 0) != text


def test_the_page_names_nothing_that_tells(studies):
    for name in ("tissue", "mri"):
        text = (studies / f"{name}.html").read_text()
        assert not re.search(r"patch\d|scan\d|start_|tissue_|mri_|\.npz|\.key\.json|seed", text)
        assert str(studies) not in text
        items = description(text)["items"]
        key = key_of(studies / f"{name}.html")
        assert [item["id"] for item in items] == [item["id"] for item in key["items"]]
        assert all(re.fullmatch("[0-9a-f]{8}", item["id"]) for item in items)
        assert [set(item) - {"token"} for item in items] == [{"id", "images", "groups"}] * len(items)
        assert ["token" in item for item in items] == [item["practice"] for item in key["items"]]
        images = re.findall(r'<script type="text/plain" id="(image-\w+-\d)">([A-Za-z0-9+/=]*)</script>', text)
        assert [image for image, _ in images] == [image for item in items for image in item["images"]]
        assert len({len(data) for _, data in images}) == 1


def test_equal_commands_make_equal_pages_and_other_seeds_other_orders(studies, tmp_path):
    flags = ("--practice=2", "--num_items=12", f"--title={TITLE}", f"--out={tmp_path / 'again.html'}")
    folders = (f"--real={studies / 'tissue_real'}", f"--generated={studies / 'tissue'}")
    assert command("make", *folders, *flags).returncode == 0
    assert (tmp_path / "again.html").read_bytes() == (studies / "tissue.html").read_bytes()
    assert (tmp_path / "again.key.json").read_bytes() == (studies / "tissue.key.json").read_bytes()
    assert "is the key of another study" in refused(command("make", *folders, *flags, "--seed=1"))
    assert command("make", *folders, *flags[:3], f"--out={tmp_path / 'other.html'}", "--seed=1").returncode == 0
    keys = [key_of(tmp_path / f"{name}.html") for name in ("again", "other")]
    assert keys[0]["study"] != keys[1]["study"]
    assert [i["answer"] for i in keys[0]["items"]] != [i["answer"] for i in keys[1]["items"]]


def test_text_cannot_become_markup(studies):
    text = (studies / "tissue.html").read_text()
    assert "<title>&lt;/script&gt;&lt;b&gt;&quot;Real&quot; &amp; fake</title>" in text
    assert description(text)["title"] == TITLE
    assert "<b>" not in text
    assert not re.search(r"""(src|href)=["'](?!data:)|@import|url\(|https?:""", text)


def test_answers_by_truth_score_one_and_files_are_written(studies, tmp_path):
    key = key_of(studies / "tissue.html")
    path = write_answers(tmp_path / "anna.json", key, lambda truth: (truth, 5))
    result = command("score", path, f"--key={studies / 'tissue.key.json'}", f"--out={tmp_path / 'scores'}")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert (scores["pooled"]["accuracy"], scores["pooled"]["auc"]) == (1, 1)
    assert (scores["pooled"]["answered"], scores["readers"][0]["group"]) == (12, "anna")
    assert (tmp_path / "scores" / "scores.csv").read_text().startswith("part,group,truth")
    with Image.open(tmp_path / "scores" / "scores.png") as picture:
        colours = picture.convert("RGB").getcolors(2**20) or []
        assert picture.width > 1000
        assert len(colours) > 50  # drawn, not blank


def test_answers_that_cannot_be_scored_are_refused_in_one_line(studies, tmp_path):
    key_path = studies / "tissue.key.json"
    key, truth = key_of(studies / "tissue.html"), answers.read_key(key_path)
    anna = write_answers(tmp_path / "anna.json", key, lambda truth: (truth, 5))
    write_answers(tmp_path / "again.json", key, lambda truth: (truth, 1), reader="Anna")
    foreign = write_answers(tmp_path / "foreign.json", key, lambda truth: (truth, 1), study="0123")
    write_answers(tmp_path / "odd.json", key, lambda truth: (truth, 9))
    twice = json.loads(anna.read_text())
    twice["answers"][3] = twice["answers"][2]
    (tmp_path / "twice.json").write_text(json.dumps(twice))
    (tmp_path / "cut.json").write_text(anna.read_text()[:200])
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "bytes.json").write_bytes(b"\x89PNG")
    for text, *names in (
        ("foreign.json has answers to study 0123, the key is of study", "anna", "foreign"),
        ("anna.json and .*again.json are both of reader Anna", "anna", "again"),
        ("cut.json is damaged: not JSON", "cut"),
        ("bytes.json is damaged: not JSON", "bytes"),
        ("list.json holds no answers", "list"),
        ("odd.json is damaged: answer 1 is none of this study's", "odd"),
        ("twice.json is damaged: answer 4 is to an item that was answered before", "twice"),
        ("nobody.json does not exist", "nobody"),
    ):
        with pytest.raises(UserError, match=text):
            answers.read_answers([tmp_path / f"{name}.json" for name in names], truth)
    with pytest.raises(UserError, match="is a key, not a reader's answers"):
        answers.read_answers([key_path], truth)
    with pytest.raises(UserError, match=r"holds a reader's answers: give the file that ends in \.key\.json"):
        answers.read_key(anna)
    (tmp_path / "empty.key.json").write_text(json.dumps(key | {"items": []}))
    with pytest.raises(UserError, match="is no key of a reader study"):
        answers.read_key(tmp_path / "empty.key.json")
    line = refused(command("score", anna, foreign, f"--key={key_path}", f"--out={tmp_path / 'scores'}"))
    assert "give the key that belongs to them" in line
    assert not (tmp_path / "scores").exists()


def test_half_finished_answers_are_scored_on_what_is_there(studies, tmp_path):
    key = key_of(studies / "tissue.html")
    half = write_answers(tmp_path / "half.json", key, lambda truth: (truth, 2))
    content = json.loads(half.read_text())
    content["answers"] = content["answers"][:5]
    half.write_text(json.dumps(content))
    none = write_answers(tmp_path / "none.json", key, lambda truth: (truth, 2), answers=[])
    flags = (f"--key={studies / 'tissue.key.json'}", f"--out={tmp_path / 'scores'}")
    result = command("score", half, none, *flags)
    assert result.returncode == 0
    assert "note: half has answered 5 of 12: scored on these" in result.stderr
    assert "note: none has answered 0 of 12: left out" in result.stderr
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert [(row["group"], row["answered"], row["finished"]) for row in scores["readers"]] == [("half", 5, False)]
    assert "nothing was answered" in refused(command("score", none, *flags))


def test_folders_that_do_not_fit_are_refused_and_leave_nothing(studies, tmp_path):
    out = f"--out={tmp_path / 'study.html'}"
    real = f"--real={studies / 'tissue_real'}"
    assert "differ in channels" in refused(command("make", real, f"--generated={studies / 'mri'}", out))
    assert "must end in .html" in refused(command("make", real, f"--generated={studies / 'mri'}", "--out=x"))
    assert "write make or score" in refused(command("judge", out))
    assert list(tmp_path.iterdir()) == []


def read_through(window: Page, reader: str, decide: Callable[[str], tuple[str, int]], by_keys: bool) -> Path:
    """Goes through a study of single images that is open at its first page; returns the file that it saves.

    Args:
      decide: takes an item's id; returns an answer and a confidence.
      by_keys: press keys instead of clicking.
    """
    window.find("#reader").send_keys(reader)
    window.find("#begin").click()
    while page_shown := window.run("return ['task', 'between'].find((id) => !document.getElementById(id).hidden)"):
        if page_shown == "between":
            window.find("#go-on").click()
            continue
        item, practice = window.run("return [item.id, Boolean(item.token)]")
        answer, confidence = decide(item)
        if by_keys:
            window.press({"real": "r", "generated": "s"}[answer], str(confidence), ENTER)
        else:
            window.find(f"#answers .choice:has([value='{answer}'])").click()
            window.find(f"#confidences .choice:has([value='{confidence}'])").click()
            window.find("#next").click()
        if practice:
            assert "This image is" in window.find("#feedback").text
            window.press(ENTER) if by_keys else window.find("#next").click()
    assert window.find("#done").is_displayed()
    return window.downloaded(f"answers-*-{reader}.json")


def unlabelled(window: Page) -> list[str]:
    """The visible controls that have no name for those who do not see them."""
    return window.run(
        """return [...document.querySelectorAll("button, input, progress, canvas, [tabindex='0']")]
        .filter((e) => e.checkVisibility() && !(e.labels && e.labels.length && e.labels[0].textContent.trim())
          && !e.getAttribute("aria-label") && !e.getAttribute("aria-labelledby") && !e.textContent.trim())
        .map((e) => e.outerHTML.slice(0, 80))"""
    )


def test_a_whole_study_is_clicked_through(studies, tmp_path, chromium):  # noqa: F811
    study, key = studies / "tissue.html", key_of(studies / "tissue.html")
    truth = {item["id"]: item["answer"] for item in key["items"]}
    rng = np.random.default_rng(0)
    readers = {
        "truth": lambda item: (truth[item], 5),
        "chance": lambda item: (str(rng.choice(["real", "generated"])), int(rng.integers(1, 6))),
    }
    paths = []
    for (reader, decide), size in zip(readers.items(), (DESKTOP, TABLET), strict=True):
        chromium.open(study, size)
        assert (chromium.overflow(), unlabelled(chromium)) == (0, [])
        paths.append(read_through(chromium, reader, decide, by_keys=size is TABLET))
        assert (chromium.complaints(), chromium.requests(), chromium.overflow()) == ([], [], 0)
        saved = json.loads(paths[-1].read_text())
        assert (saved["reader"], saved["finished"], len(saved["answers"])) == (reader, True, 12)
        assert [answer["item"] for answer in saved["answers"]] == [i["id"] for i in key["items"] if not i["practice"]]
        assert all(5 < answer["milliseconds"] < 20000 for answer in saved["answers"])
    result = command("score", *paths, f"--key={studies / 'tissue.key.json'}", f"--out={tmp_path}")
    assert result.returncode == 0, result.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    by_chance, by_truth = scores["readers"]
    assert (by_truth["accuracy"], by_truth["auc"]) == (1, 1)
    assert by_chance["wilson"][0] < 0.5 < by_chance["wilson"][1]


@pytest.mark.slow
def test_pairs_are_read_by_keys_with_a_pause_and_a_closed_page(studies, tmp_path, chromium):  # noqa: F811
    study, key = studies / "mri.html", key_of(studies / "mri.html")
    truth = {item["id"]: item["answer"] for item in key["items"]}
    chromium.open(study)
    chromium.press(ENTER)  # enter, with the reader's code still missing
    assert "enter your reader code" in chromium.find("#form-error").text
    chromium.press("b", "e", "n", ENTER)
    # Practice, with feedback: the wrong answer first.
    item = chromium.run("return item.id")
    chromium.press({"left": "r", "right": "l"}[truth[item]], "3", ENTER)
    assert chromium.find("#feedback").text == f"Not correct. The {truth[item]} one is real."
    chromium.press(ENTER)
    assert chromium.find("#between-title").text == "The practice is over"
    chromium.press(ENTER)
    for number in range(6):
        item = chromium.run("return item.id")
        assert not chromium.find("#next").is_enabled()
        chromium.press(truth[item][0], "4")
        if number == 2:
            chromium.press("p")
            assert chromium.find("#between-title").text == "Paused"
            chromium.find("#save-part").click()
            half = json.loads(chromium.downloaded("answers-*-ben.json").read_text())
            assert (half["finished"], len(half["answers"])) == (False, 2)
            chromium.open(study)
            assert chromium.find("#resume-text").text == "2 of 6 are answered."
            chromium.find("#begin").click()
            assert chromium.run("return item.id") == item
            chromium.press(truth[item][0], "4")
        chromium.press(ENTER)
    path = chromium.downloaded("answers-*-ben (1).json")
    result = command("score", path, f"--key={studies / 'mri.key.json'}", f"--out={tmp_path}")
    assert result.returncode == 0, result.stderr
    pooled = json.loads((tmp_path / "scores.json").read_text())["pooled"]
    assert (pooled["answered"], pooled["accuracy"], pooled["auc"]) == (6, 1, 1)
    assert chromium.complaints() == []


@pytest.mark.slow
def test_images_are_shown_as_they_are_with_window_channels_and_zoom(studies, chromium):  # noqa: F811
    chromium.open(studies / "mri.html")
    chromium.press("x", ENTER)
    shown = "return viewer.panels.map((panel) => study.groups[panel.group].name)"
    assert chromium.run(shown) == ["t1", "t1"]
    chromium.press("c")
    assert chromium.run(shown) == ["flair", "flair"]
    chromium.press("c")
    assert chromium.run(shown) == ["t1", "flair", "t1", "flair"]
    # The decoded values are the npz file's, rounded to the levels of the study.
    size = chromium.run("return [study.width, study.height, study.bytes, study.groups[0].levels]")
    assert size[:3] == [SIDE + 4, SIDE, 2]
    assert size[3] > 10000
    planes = chromium.run("return viewer.panels.map((panel) => [...panel.planes[0]])")
    item = key_of(studies / "mri.html")["items"][0]
    scan = np.load(studies / "mri_real" / item["real"])["image"]
    plane = np.array(planes[0 if item["answer"] == "left" else 2], float).reshape(SIDE, SIDE + 4)
    assert np.abs(plane / (size[3] - 1) * 900 - scan[..., 0]).max() < 0.1
    drawn = "viewer.panels[0].pixels.getContext('2d').getImageData(0, 0, 28, 24).data"
    grey = f"return [...{drawn}].filter((_, i) => i % 4 === 0)"
    usual = np.array(chromium.run(grey))
    chromium.press("w", "w", "w", "w")  # half the width: what is below a quarter becomes black
    narrow = np.array(chromium.run(grey))
    assert np.abs(np.clip((usual - 63.75) * 2, 0, 255) - narrow).max() <= 2
    chromium.press("+", "+")
    assert chromium.find("#zoom-text").text == "156 %"
    before = chromium.run("return viewer.centre[0]")
    chromium.press(RIGHT)  # right
    assert chromium.run("return viewer.centre[0]") > before
    chromium.press("0")
    assert chromium.run("return [viewer.zoom, viewer.wider, viewer.centre]") == [1, 0, [0.5, 0.5]]
    assert np.array_equal(np.array(chromium.run(grey)), usual)


@pytest.mark.slow
def test_time_runs_out_and_the_answer_still_counts(studies, chromium):  # noqa: F811
    chromium.open(studies / "timed.html")
    chromium.press("x", ENTER)
    assert chromium.run("return viewer.images.length") == 2
    chromium.run("const end = Date.now() + 500; while (Date.now() < end);")
    chromium.driver.execute_async_script("setTimeout(arguments[0], 300)")
    assert "time for this one is up" in chromium.find("#viewer").text
    # A page opened again does not give the time back.
    chromium.open(studies / "timed.html")
    chromium.press(ENTER)
    assert "time for this one is up" in chromium.find("#viewer").text
    chromium.press("l", "1", ENTER)
    groups = []
    for _ in range(3):
        groups.append(tuple(chromium.run("return viewer.panels.map((panel) => panel.group)")))
        chromium.press("l", "1", ENTER)
    assert set(groups) == {(0, 0), (1, 1)}
    assert chromium.complaints() == []
    saved = json.loads(chromium.downloaded("answers-*-x.json").read_text())
    assert [answer["time_up"] for answer in saved["answers"]] == [True, False, False, False]
