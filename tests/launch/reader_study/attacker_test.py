"""An attacker who has the page of a reader study and a script, but no eye: what a file was must not tell what is real.

Real and synthetic images show the same random fields, so that all that tells them apart is how their values were kept.
"""

import base64
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from launch.images.image_folders import Entry, StudyImage
from launch.reader_study import design, giveaways, match_images, page
from launch.reader_study.scoring import auc, chance_interval

ROOT = Path(__file__).resolve().parents[3]
COUNT, SIDE = 50, 64


def fields(seed: int, count: int = COUNT) -> np.ndarray:
    """[n, SIDE, SIDE] in [0, 1]: smooth tissue of varying brightness and contrast on a background of exactly 0."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    result = []
    for _ in range(count):
        smooth, fine = (gaussian_filter(rng.standard_normal((SIDE, SIDE)), sigma) for sigma in (5, 1))
        tissue = rng.uniform(0.4, 0.5) + rng.uniform(0.1, 0.13) * smooth / smooth.std() + 0.04 * fine / fine.std()
        result.append(np.where(np.hypot(rows, columns) < rng.uniform(0.75, 0.95), np.clip(tissue, 0.01, 1), 0))
    return np.stack(result)


def stretched(field: np.ndarray, step: float = 0) -> np.ndarray:
    """0 to 255: from the 1st to the 99th percentile of its tissue, what is beyond cut off; of a field of such steps."""
    low, high = np.percentile(field[field > 0], (1, 99))
    kept = np.rint(field / step) * step if step else field
    return np.clip((kept - low) / (high - low), 0, 1) * 255


def smeared(field: np.ndarray) -> np.ndarray:
    """As a generator leaves it: a background, and white, that are not quite one value."""
    noise = np.random.default_rng(int(field.sum() * 1e6)).random(field.shape)
    return np.where(field <= 0, 0.01 * noise, np.where(field >= 1, 1 - 0.01 * noise, field))


# How real images keep a field of [0, 1], and how the same field looks in the same units without gaps.
Keep = Callable[[np.ndarray], np.ndarray]
KINDS: dict[str, tuple[Keep, Keep]] = {
    "uint16, steps of 16": (lambda f: (np.rint(f * 250) * 16).astype(np.uint16), lambda f: f * 4000),
    "8 bits stretched to 12": (lambda f: np.rint(np.rint(f * 255) * 4095 / 255).astype(np.uint16), lambda f: f * 4095),
    "8 bits stretched to 16": (lambda f: (np.rint(f * 255) * 257).astype(np.uint16), lambda f: f * 65535),
    "even values": (lambda f: (np.rint(f * 127) * 2).astype(np.uint8), lambda f: f * 254),
    "180 levels in 8 bits": (lambda f: np.rint(np.rint(f * 180) * 1.417).astype(np.uint8), lambda f: f * 255),
    "gamma in 8 bits": (
        lambda f: np.rint((np.rint(f * 255) / 255) ** 0.6 * 255).astype(np.uint8),
        lambda f: f**0.6 * 255,
    ),
    "floats, steps of 0.1": (lambda f: (np.rint(f * 1000) / 10).astype(np.float32), lambda f: f * 100),
    "each cut at percentiles": (lambda f: np.rint(stretched(f, 1 / 255)).astype(np.uint8), stretched),
    "each cut, 12 bits": (lambda f: np.rint(stretched(f, 1 / 255) * 16).astype(np.int16), lambda f: stretched(f) * 16),
    "smeared ends": (lambda f: np.rint(f * 1000).astype(np.int16), lambda f: smeared(f) * 1000),
    "labels": (
        lambda f: np.digitize(f, (0.3, 0.45, 0.6)).astype(np.uint8),
        lambda f: abs(np.digitize(f, (0.3, 0.45, 0.6)) + 0.3 * np.sin(40 * f)),
    ),
}


def kept(kind: str, rounded: bool = False, seed: int = 0) -> list[list[np.ndarray]]:
    """The real and the synthetic planes of a kind."""
    keep, draw = KINDS[kind]
    drawn = [draw(field).astype(np.float32) for field in fields(seed)]
    return [
        [keep(field) for field in fields(seed)],
        [np.rint(one).astype(np.int32) for one in drawn] if rounded else drawn,
    ]


def made_alike(sides: list[list[np.ndarray]], scaling: str = "common") -> match_images.MatchedImages:
    real, drawn = ([StudyImage("", (plane,), ("t1",)) for plane in side] for side in sides)
    return match_images.match_images(real, drawn, scaling=scaling, key=1)


def page_of(images: match_images.MatchedImages) -> tuple[str, list[bool]]:
    """Returns the page of a study of 50 real and 50 synthetic images, and which of its images are real."""
    entries = [Entry(f"{number}", (), ()) for number in range(COUNT)]
    made = design.arrange(design.Choice(entries, entries, COUNT), images, "single", b"secret")
    return page.build(made, "title", 0), [item.answer == "real" for item in made.items]


def pictures(text: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields what the page holds of each image: its id, its text, its values [H, W]."""
    match = re.search(r'id="study">(.*?)</script>', text)
    assert match is not None
    about = json.loads(match[1])
    for item in about["items"]:
        (name,) = item["images"]
        found = re.search(rf'id="{name}">([A-Za-z0-9+/=]*)</script>', text)
        assert found is not None
        values = np.frombuffer(base64.b64decode(found[1]), "<u2" if about["bytes"] == 2 else np.uint8)
        yield item["id"], found[1], values.reshape(about["height"], about["width"]).astype(int)


def measured(text: str) -> dict[str, np.ndarray]:
    """What the attacker measures: {name: [images]}."""
    rows = []
    for place, (name, data, plane) in enumerate(pictures(text)):
        values, counts = np.unique(plane, return_counts=True)
        gaps = np.diff(values)
        middle = counts[len(counts) // 8 : -len(counts) // 8 or None].astype(float)
        rows.append(
            {
                "place": place,
                "id": int(name, 16),
                "bytes": len(data),
                "zipped bytes": len(zlib.compress(plane.astype("<u2").tobytes(), 9)),
                "height": plane.shape[0],
                "width": plane.shape[1],
                "levels": len(values),
                "least gap": gaps.min(initial=999),
                "mean gap": gaps.mean() if len(gaps) else 0,
                "gaps of one": np.mean(gaps == 1) if len(gaps) else 0,
                "widest gap": gaps.max(initial=0),
                "minimum": values[0],
                "maximum": values[-1],
                "share at minimum": counts[0] / plane.size,
                "share at maximum": counts[-1] / plane.size,
                "share of one value": counts.max() / plane.size,
                "even values": np.mean(plane % 2 == 0),
                "multiples of 3": np.mean(plane % 3 == 0),
                "rough histogram": np.square(np.diff(middle)).sum() / middle.sum() if len(middle) else 0,
                "noise": np.median(abs(np.diff(plane, 2))),
            }
        )
    return {name: np.array([row[name] for row in rows], float) for name in rows[0]}


def areas(text: str, real: list[bool]) -> dict[str, float]:
    """The area under the ROC curve of each measure alone, and of a linear discriminant of all."""
    found = measured(text)
    truth = np.array(real)
    result = {name: auc(values, truth) for name, values in found.items()}
    return result | {"all": combined(np.stack(list(found.values()), 1), truth)}


def combined(rows: np.ndarray, real: np.ndarray) -> float:
    """The mean area of Fisher's discriminant: learnt on one half of the images, tried on the other, and the reverse."""
    rows = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-9)
    places = np.arange(len(rows)) % 2 == 0
    result = []
    for train in (places, ~places):
        means = [rows[train & (real == kind)].mean(0) for kind in (True, False)]
        spread = np.cov(rows[train].T) + 0.1 * np.eye(rows.shape[1])
        score = rows @ np.linalg.solve(spread, means[0] - means[1])
        result.append(auc(score[~train], real[~train]))
    return max(float(np.mean(result)), 0.5)  # it has learnt which way to point: below a half, it has learnt nothing


def outside(found: dict[str, float]) -> dict[str, float]:
    """Those areas that are not within what chance gives in 95 % of studies of so many images."""
    low, high = chance_interval(COUNT, COUNT)
    assert (low, high) == pytest.approx((0.386, 0.614), abs=0.001)
    return {name: round(area, 3) for name, area in found.items() if not low <= area <= high}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drawn", ["floats", "rounded to one"])
def test_no_measure_tells_the_kinds_apart(kind, drawn):
    """No correction for many measures: both kinds show equal fields, so that chance moves no area so far."""
    assert outside(areas(*page_of(made_alike(kept(kind, drawn != "floats"))))) == {}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "labels"])
def test_nor_where_each_image_has_its_own_range(kind):
    assert outside(areas(*page_of(made_alike(kept(kind), "image")))) == {}


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("floats, steps of 0.1", "smeared ends", "labels")]
)
def test_without_a_common_grid_the_number_of_values_tells(kind):
    """The tests above can fail."""
    real, drawn = ([np.rint(plane)[None].astype(np.uint16) for plane in side] for side in kept(kind))
    found = areas(*page_of(match_images.MatchedImages(real, drawn, ("t1",), (65536,), "")))
    assert found["all"] > 0.95
    assert min(found["levels"], 1 - found["levels"], found["rough histogram"], 1 - found["rough histogram"]) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_stay_what_they_were(kind):
    sides = kept(kind)
    images = made_alike(sides)
    for given, shown in zip(sides, (images.real, images.generated), strict=True):
        for before, after in zip(given, shown, strict=True):
            assert np.corrcoef(before.ravel(), after[0].ravel())[0, 1] > (0.95 if kind == "labels" else 0.998)
    if kind in ("uint16, steps of 16", "8 bits stretched to 16"):  # one even grid: real values are numbered, no more
        step = {"uint16, steps of 16": 16, "8 bits stretched to 16": 257}[kind]
        assert all(
            np.array_equal(after[0], before // step) for before, after in zip(sides[0], images.real, strict=True)
        )


def test_a_study_of_files_in_steps_of_16(tmp_path):
    """The whole path: 16-bit PNG files against a stack of samples, and what make says of them."""
    real, drawn = kept("uint16, steps of 16")
    (tmp_path / "real").mkdir()
    (tmp_path / "drawn" / "start_00").mkdir(parents=True)
    for number, plane in enumerate(real):
        Image.fromarray(plane).save(tmp_path / "real" / f"{number}.png")
    blurred = np.stack([gaussian_filter(plane, 0.7) for plane in drawn])
    out = {}
    for name, stack in (("sharp", np.stack(drawn)), ("blurred", blurred)):
        np.save(tmp_path / "drawn" / "start_00" / "scan.npy", stack[..., None])
        flags = [f"--real={tmp_path / 'real'}", f"--generated={tmp_path / 'drawn'}", "--practice=0"]
        words = [sys.executable, "-m", "launch.reader_study", "make", *flags, f"--out={tmp_path / name}.html"]
        out[name] = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    items = json.loads((tmp_path / "sharp.key.json").read_text())["items"]
    assert outside(areas((tmp_path / "sharp.html").read_text(), [item["answer"] == "real" for item in items])) == {}
    slopes = {
        name: re.search(r"spectra: real (\S+), synthetic (\S+); .* of (\S+) \(0.39 to 0.61 by chance\)", text)
        for name, text in out.items()
    }
    found = {name: [float(number) for number in match.groups()] for name, match in slopes.items() if match}
    assert found["sharp"][0] == pytest.approx(found["sharp"][1], abs=0.1)
    assert 0.39 < found["sharp"][2] < 0.61
    assert found["blurred"][1] < found["blurred"][0] - 0.5
    assert found["blurred"][2] > 0.9
    assert "alone tells them apart" not in out["sharp"].replace("; alone it", "")


def test_slopes_of_known_spectra():
    rng = np.random.default_rng(0)
    radius = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128))
    radius[0, 0] = 1
    for power in (0, -2, -3):
        filtered = np.fft.ifft2(np.fft.fft2(rng.standard_normal((128, 128))) * radius ** (power / 2)).real
        assert giveaways.spectrum_slope(filtered[None]) == pytest.approx(power, abs=0.15)
    assert giveaways.spectrum_slope(np.ones((2, 16, 16))) == 0


def test_what_still_tells_is_said():
    rng = np.random.default_rng(0)
    real, drawn = rng.integers(0, 200, (2, 20, 1, 16, 16))
    drawn[:, :, :8] = 0
    lines = giveaways.report(list(real), list(drawn))
    assert lines[0].startswith("slope of the spectra: real ")
    assert any(
        "the share of pixels at the least value alone tells them apart with an area of 0.00" in line for line in lines
    )
