"""The parts of report.html that say how a run went, each from its facts."""

import datetime
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from launch.images import geometry
from launch.images.channels import channel_groups
from launch.report import curves
from launch.report.markup import Html, facts, picture, table, tag
from launch.results import quality
from launch.results.history import values
from launch.results.numbers import MISSING, counted, duration, interval, number, shown
from launch.results.run_facts import STATUS, RunFacts
from launch.samples import pictures
from singan import config as configs
from singan import files
from singan.storage.workdir import ImageRecord

MAX_THUMBNAILS, THUMBNAIL = 12, 128  # pictures; pixels of the longer side
MAX_CHANNELS = 4  # pictures of one image among the thumbnails
MAX_LISTED = 100  # rows of a table by image
PICTURE_BYTES = 24 * 2**20  # of all grids of a page; the finest scales come first


def state(run: RunFacts) -> Html:
    """Returns how far the run is, how long it took, and on what."""
    last = run.starts[-1] if run.starts else {}
    speeds = [scale.image_steps_per_second for scale in run.history]
    versions = last.get("versions") or {}
    said = [
        ("Status", STATUS.get(str(run.record.get("status")), run.record.get("status", MISSING))),
        ("Scales done", f"{len(run.finished)} of {len(run.sizes) or '?'}"),
        ("Wall time", duration(run.seconds) if run.seconds else MISSING),
        ("Speed, finest scale", f"{number(speeds[-1])} image-steps/s" if speeds else MISSING),
        ("Precision", run.config.train.precision),
        ("Devices", last.get("devices", MISSING)),
        ("Processes", last.get("processes", MISSING)),
        ("Starts", len(run.starts) or MISSING),
        ("First start", _time(run.starts[0].get("time")) if run.starts else MISSING),
        ("Run id", run.record.get("id", MISSING)),
        ("Code", commit(last)),
        ("Python", last.get("python", MISSING)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or MISSING),
    ]
    return facts(said)


def commit(start: Any) -> str:
    """Returns the commit of a start in words."""
    said = str(start.get("git_commit") or "")
    changed = ", with uncommitted changes" if said.endswith("+") else ""
    return f"commit {said[:12]}{changed}" if said else "commit unknown"


def trained_on(run: RunFacts) -> list[Html]:
    """Returns what the images are, with a few of them as pictures."""
    shapes = {image.shape for image in run.images}
    channels = list(dict.fromkeys(image.channels for image in run.images))
    said = [
        ("Images", f"{len(run.images):,}"),
        ("Shape", "; ".join(f"{h}×{w} pixels" for h, w, _ in sorted(shapes))),
        ("Channels", "; ".join(", ".join(names) for names in channels)),
        ("Source", run.config.data.path or run.config.data.source),
    ]
    shown = run.images[:MAX_THUMBNAILS]
    thumbnails = [
        tag("figure", [picture(png, f"{image.id} {name}") for name, png in images], tag("figcaption", image.id))
        for image in shown
        if (images := _thumbnails(run, image))
    ]
    left = len(run.images) - len(shown)
    rows = [[image.id, image.source, _size(image), *_value_map(image)] for image in run.images[:MAX_LISTED]]
    head = ["image", "source", "pixels", "channel: value shown as −1 to 1", "background", "stored as"]
    listed = table(head, rows, "Images", words=range(1, len(head)))
    more = _more(len(run.images), "image", "images.json")
    return [
        facts(said),
        tag("div", thumbnails, class_="thumbnails"),
        tag("p", f"and {counted(left, 'image')} more", class_="quiet") if left > 0 else Html(""),
        tag("details", tag("summary", "Ids, sources and value maps"), listed, more),
    ]


def by_scale(run: RunFacts) -> Html:
    """Returns a table with one row a scale."""
    rows = []
    for scale in run.history:
        size = run.sizes[scale.scale] if scale.scale < len(run.sizes) else None
        alive = scale.curves.get("images_alive")
        rows.append(
            [
                scale.scale,
                f"{size[0]}×{size[1]}" if size else MISSING,
                f"{scale.steps:,}",
                number(round(alive[-1].mean)) if alive else MISSING,
                duration(scale.seconds) if scale.seconds else MISSING,
                number(scale.image_steps_per_second),
                _spread(scale.ends.get("reconstruction_rmse")),
                _spread(scale.ends.get("noise_amplitude")),
            ]
        )
    head = ["scale", "pixels", "steps", "images", "wall time", "image-steps/s"]
    head += ["reconstruction RMSE", "noise amplitude"]
    return table(head, rows, "Scales")


def curve_panels(run: RunFacts) -> Html:
    """Returns all curves."""
    scales, unit = run.history, "in units of the [-1, 1] range"
    ends = [
        curves.ends_by_scale(scales, "reconstruction_rmse", "Final reconstruction RMSE", unit),
        curves.ends_by_scale(scales, "noise_amplitude", "Noise amplitude", unit),
    ]
    return tag("div", curves.training_curves(scales), ends, class_="charts")


def sample_grids(run: RunFacts) -> list[Html]:
    """Returns the grids, the finest scale open and the others folded, as far as they are not too large together."""
    drawn, left = [], PICTURE_BYTES
    for scale in sorted(run.finished, reverse=True):
        if (path := run.grid(scale)) is None:
            continue
        png = files.read_bytes(path)
        left -= len(png)
        size = run.sizes[scale] if scale < len(run.sizes) else None
        name = f"Scale {scale}" + (f", {size[0]}×{size[1]} pixels" if size else "")
        if left < 0:
            shown = tag("p", "left out to keep this page small: ", tag("code", path.relative_to(run.workdir.path)))
        else:
            shown = tag("div", picture(png, f"samples, {name}"), class_="grid", tabindex="0")
        drawn.append(tag("details", tag("summary", name), shown, open=not drawn))
    return drawn or [tag("p", "No scale is finished yet.")]


def diverged(run: RunFacts) -> Html:
    """Returns the images that were left out."""
    if not run.diverged:
        return tag("p", "None.")
    rows = [[name, where] for name, where in list(run.diverged.items())[:MAX_LISTED]]
    more = _more(len(run.diverged), "image", "run.json")
    return tag("div", table(["image", "diverged at"], rows, "Diverged images", words=[1]), more)


def configuration(run: RunFacts) -> list[Html]:
    """Returns what differs from the defaults, and all keys."""
    now = configs.flatten(configs.to_mapping(run.config))
    usual = configs.flatten(configs.to_mapping(configs.parse({"preset": run.config.preset})))
    rows = [[key, shown(value), shown(usual[key])] for key, value in now.items() if value != usual[key]]
    head = ["key", "value", "default"]
    changed = table(head, rows, "Changed values", words=[1, 2]) if rows else tag("p", "All values are the defaults.")
    every = table(head[:2], [[key, shown(value)] for key, value in now.items()], "All values", words=[1])
    said = f"Preset {run.config.preset}, seed {run.config.seed}. What differs from its defaults:"
    return [tag("p", said), changed, tag("details", tag("summary", f"All {len(now)} values"), every)]


def commands(run: RunFacts) -> list[Html]:
    """Returns the commands that make the run again, sample it and measure it."""
    workdir = f"--workdir={run.workdir.path}"
    first = [str(word) for word in (run.starts[0].get("command") or [])] if run.starts else []
    train = ["python", *first]
    if first and Path(first[0]).parts[-2:] in (("launch", "train.py"), ("train", "__main__.py")):  # as of old, and now
        train[1:2] = ["-m", "launch.train"]
    lines = [
        ("Train", shlex.join(train) if first else ""),
        ("Sample", _line("sample", workdir, "--num_samples=16", "--start_scales=0,1", "--out=samples")),
        ("Evaluate", _line("evaluate", workdir)),
        ("Compare with another run", f"{_line('compare', str(run.workdir.path))} OTHER"),
        ("Write this page again", _line("report", workdir)),
    ]
    code = commit(run.starts[0]) if run.starts else "commit unknown"
    parts = [(tag("h3", name), command(line)) for name, line in lines if line]
    return [tag("p", f"In a checkout of the code ({code}):"), *(Html("".join(pair)) for pair in parts)]


def command(line: str) -> Html:
    """Returns a command that is broken between its words alone, not after the '--' of a flag."""
    words = [tag("span", word) for word in line.split(" ")]
    return tag("pre", Html(" ".join(words)))


def scale_quality(run: RunFacts) -> list[Html]:
    """Returns the metrics of each scale's samples, which training measures by itself."""
    scales = [scale for scale in run.history if any(name in scale.ends for name in quality.AT_SCALES)]
    if not scales:
        return []
    rows = [[s.scale, *(quality.of_scale(s.ends, name).text() for name in quality.AT_SCALES)] for s in scales]
    head = ["scale", *map(quality.name_of, quality.AT_SCALES)]
    reasons = [tag("p", f"Undefined where nothing is shown: {reason}") for reason in run.undefined]
    seconds = sum(float(values(scale.ends.get("metrics_seconds")).sum()) for scale in scales)
    cost = f" Measuring took {duration(seconds)}" if seconds else ""
    if seconds and run.seconds:
        cost += f", {number(100 * seconds / run.seconds, 2)} % of the wall time"
    known = run.evaluation.definitions if run.evaluation else {}  # which stand above
    said = (
        f"Of {counted(run.config.tracking.num_samples, 'sample')} of each image, from noise at every scale, at the end"
        f" of each scale: mean over images [10th–90th percentile].{cost and cost + '.'}"
    )
    return [
        tag("h3", "At each scale's end"),
        tag("p", said),
        table(head, rows, "Metrics of each scale's samples"),
        *reasons,
        definitions({name: text for name, text in quality.scale_definitions().items() if name not in known}),
    ]


def definitions(texts: Any) -> Html:
    """Returns what metrics mean."""
    pairs = {name: (tag("dt", tag("code", name)), tag("dd", text)) for name, text in texts.items()}
    first = [pairs.pop(name) for name in quality.ordered(()) if name in pairs]
    rest = tag("dl", list(pairs.values()), class_="definitions")
    return tag(
        "div",
        tag("dl", first, class_="definitions"),
        tag("details", tag("summary", "What the other metrics are"), rest) if pairs else None,
    )


def _time(of: Any) -> str:
    """Returns '2026-01-31 09:30 UTC' for an ISO time."""
    try:
        return f"{datetime.datetime.fromisoformat(of).astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    except (TypeError, ValueError):
        return MISSING


def _spread(of: Any) -> str:
    numbers = values(of)
    if not numbers.size:
        return MISSING
    low, high = np.percentile(numbers, (10, 90))
    return interval(float(numbers.mean()), low, high) if numbers.size > 1 else number(float(numbers[0]))


def _line(command: str, *words: str) -> str:
    return shlex.join(["python", "-m", f"launch.{command}", *words])


def _more(count: int, what: str, file: str) -> Html:
    said = f"{MAX_LISTED} of {counted(count, what)} are listed; {file} has all."
    return tag("p", said, class_="quiet") if count > MAX_LISTED else Html("")


def _size(image: ImageRecord) -> str:
    return f"{image.shape[0]}×{image.shape[1]}"


def _value_map(image: ImageRecord) -> Sequence[str]:
    of = image.value_map
    limits = zip(image.channels, of.least or of.low, of.high, strict=True)
    ranges = [f"{name}: {number(low)} to {number(high)}" for name, low, high in limits]
    background = [MISSING if value is None else number(value) for value in of.background]
    return [
        "; ".join(ranges),
        background[0] if len(set(background)) == 1 else "; ".join(background),
        of.dtype,
    ]


def _thumbnails(run: RunFacts, image: ImageRecord) -> list[tuple[str, bytes]]:
    """Returns small pictures of an image's channel groups as (name, PNG); [] where its file cannot be read."""
    try:
        pixels = files.read_npy(run.workdir.image(image.id))
    except (OSError, ValueError, EOFError):
        return []
    every = max(1, max(pixels.shape[:2]) // (2 * THUMBNAIL))
    kept = np.clip(np.nan_to_num(pixels[::every, ::every]), -1, 1)  # a damaged file may hold any values
    small = geometry.upright(image.value_map.shown(kept), image.details)
    thumbnails = []
    for name, numbers in list(channel_groups(image.channels).items())[:MAX_CHANNELS]:
        panel = pictures.to_uint8(small[..., numbers])
        drawn = Image.fromarray(panel[..., 0] if panel.shape[-1] == 1 else panel)
        drawn.thumbnail((THUMBNAIL, THUMBNAIL))
        thumbnails.append((name, pictures.encode_png(np.asarray(drawn))))
    return thumbnails
