"""Curves as inline SVG without scripts: one quantity a panel, the scales side by side from coarse to fine."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from launch.report.markup import Html, tag
from launch.results.history import Point, ScaleHistory, values
from launch.results.numbers import number

WIDTH, HEIGHT = 360, 210  # of the drawing's own units, which are pixels on a phone
LEFT, RIGHT, TOP, BOTTOM = 48, 6, 8, 24
LOG_FROM = 10.0  # times: positive values that span more are drawn on a logarithmic axis
STEP = "steps of training; each part is one scale, coarsest first"
LINES = 8  # that can be told apart, by colour and dashes; more runs are drawn over and over in these


class Series(NamedTuple):
    """One line: its name and, for each scale, its points; Point.step is the place on the x axis."""

    name: str
    parts: Sequence[Sequence[Point]]


class Panel(NamedTuple):
    """What a panel shows: title, unit, and for each name in the rows of metrics.jsonl what its line is called."""

    title: str
    unit: str
    series: Mapping[str, str]


PANELS = (
    Panel(
        "Reconstruction RMSE", "in units of the [-1, 1] range", {"generator/reconstruction_rmse": "reconstruction RMSE"}
    ),
    Panel("Critic's scores", "no unit", {"critic/real": "−D(real)", "critic/fake": "D(generated)"}),
    Panel("Gradient penalty", "weighted, no unit", {"critic/gradient_penalty": "gradient penalty"}),
    Panel("Generator's adversarial loss", "−D(generated), no unit", {"generator/adversarial": "adversarial loss"}),
    Panel("Gradient norms", "no unit", {"critic/gradient_norm": "critic", "generator/gradient_norm": "generator"}),
    Panel("Speed", "image-steps/s", {"image_steps_per_second": "speed"}),
)
# Said by another panel, or without a shape to look at.
UNDRAWN = ("generator/reconstruction", "steps_per_second", "images_alive")


def training_curves(scales: Sequence[ScaleHistory]) -> list[Html]:
    """Returns a panel for each quantity that the rows of chunks hold."""
    known = {name for panel in PANELS for name in panel.series}
    others = dict.fromkeys(name for scale in scales for name in scale.curves if name not in {*known, *UNDRAWN})
    drawn = []
    for title, unit, series in [*PANELS, *(Panel(name, "", {name: name}) for name in others)]:
        lines = [Series(label, [scale.curves.get(name, []) for scale in scales]) for name, label in series.items()]
        if any(any(line.parts) for line in lines):
            bands = _bands(scales)
            drawn.append(_figure(title, unit, lines, bands, STEP))
    return drawn


def ends_by_scale(scales: Sequence[ScaleHistory], name: str, title: str, unit: str) -> Html | None:
    """Returns a panel of what every scale ended with, over its images; None where nothing was said."""
    parts = []
    for scale in scales:
        if (numbers := values(scale.ends.get(name))).size:
            low, high = np.percentile(numbers, (10, 90))
            parts.append(Point(scale.scale, float(numbers.mean()), float(low), float(high)))
    if not parts:
        return None
    bands = [(str(scale.scale), scale.scale - 0.5, scale.scale + 0.5) for scale in scales]
    return _figure(title, unit, [Series(title, [parts])], bands, "scale, at its end")


def side_by_side(runs: Mapping[str, Sequence[ScaleHistory]], steps: Mapping[str, Sequence[int]]) -> list[Html]:
    """Returns panels with a line for each run, against the scale and the share of its steps that is done.

    Args:
      runs: what was said of each run's scales, by the run's name; all runs of the page, as their order colours them.
      steps: of each run's whole scales.
    """
    last = max((scale.scale for scales in runs.values() for scale in scales), default=-1)
    bands = [(str(scale), float(scale), scale + 1.0) for scale in range(last + 1)]
    drawn = []
    for panel in PANELS:
        for name, label in panel.series.items():
            lines = [
                Series(run, [_placed(scale, name, steps[run][scale.scale]) for scale in runs[run]]) for run in runs
            ]
            if any(any(line.parts) for line in lines):
                title = panel.title if len(panel.series) == 1 else f"{panel.title}: {label}"
                drawn.append(_figure(title, panel.unit, lines, bands, STEP))
    return drawn


def ends_side_by_side(ends: Mapping[str, Mapping[int, float]], title: str, unit: str) -> Html | None:
    """Returns a panel with a line for each run: what its scales ended with, {run: {scale: mean over images}}."""
    lines = [
        Series(run, [[Point(scale, of[scale], of[scale], of[scale]) for scale in sorted(of)]] if of else [])
        for run, of in ends.items()
    ]
    scales = [scale for of in ends.values() for scale in of]
    if not scales:
        return None
    bands = [(str(scale), scale - 0.5, scale + 0.5) for scale in range(max(scales) + 1)]
    return _figure(title, unit, lines, bands, "scale, at its end")


def _placed(scale: ScaleHistory, name: str, steps: int) -> list[Point]:
    """Returns a curve's means, from the scale's number to the next one as its steps are done."""
    points = scale.curves.get(name, [])
    begin = max((p.step for p in points), default=0.0) - scale.steps
    return [Point(scale.scale + min((p.step - begin) / steps, 1.0), p.mean, p.mean, p.mean) for p in points]


def _bands(scales: Sequence[ScaleHistory]) -> list[tuple[str, float, float]]:
    """Returns the name and the global steps of each scale."""
    bands = []
    for scale in scales:
        steps = [point.step for points in scale.curves.values() for point in points]
        begin = bands[-1][2] if bands else 0.0
        end = max(steps, default=begin + 1)
        bands.append((str(scale.scale), begin, max(end, begin + 1e-9)))
    return bands


def _figure(
    title: str, unit: str, lines: Sequence[Series], bands: Sequence[tuple[str, float, float]], axis: str
) -> Html:
    points = [point for line in lines for part in line.parts for point in part]
    lows, highs = [point.low for point in points], [point.high for point in points]
    log = min(lows) > 0 and max(highs) / min(lows) > LOG_FROM
    bottom, top, ticks = _scale(min(lows), max(highs), log)
    begin, end = bands[0][1], bands[-1][2]
    y_of = math.log10 if log else float

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - begin) / (end - begin)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (y_of(value) - y_of(bottom)) / (y_of(top) - y_of(bottom))

    drawn = [*_frame(bands, ticks, x, y)]
    for order, line in enumerate(lines):
        for part in filter(None, line.parts):
            if any(point.high > point.low for point in part):
                edge = [(p.step, p.high) for p in part] + [(p.step, p.low) for p in reversed(part)]
                drawn.append(tag("path", d=_path(edge, x, y) + "Z", class_=f"spread s{order % LINES}"))
            if len(part) == 1 or axis != STEP:
                spots = [(f"{x(p.step):.1f}", f"{y(p.mean):.1f}") for p in part]
                drawn += [tag("circle", cx=cx, cy=cy, r="2.5", class_=f"s{order % LINES}") for cx, cy in spots]
            drawn.append(tag("path", d=_path([(p.step, p.mean) for p in part], x, y), class_=f"line s{order % LINES}"))
    spread = any(point.high > point.low for point in points)
    said = [unit, "logarithmic" if log else "", "line: mean over images, band: 10th to 90th percentile" * spread]
    svg = tag("svg", drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title} against {axis}")
    names = [tag("span", line.name, class_=f"s{i % LINES}") for i, line in enumerate(lines) if any(line.parts)]
    keys = tag("p", names, class_="keys")
    caption = tag("figcaption", tag("b", title), " ", tag("span", ", ".join(filter(None, said))))
    return tag("figure", caption, keys if len(lines) > 1 else None, svg, class_="chart")


def _frame(bands, ticks, x, y) -> list[Html]:
    """Returns every other scale's ground, the lines of the y axis, and the names on both axes."""
    drawn, every = [], -(-len(bands) // 12)
    for order, (name, begin, end) in enumerate(bands):
        if order % 2:
            place = {"x": f"{x(begin):.1f}", "y": TOP, "width": f"{x(end) - x(begin):.1f}"}
            drawn.append(tag("rect", **place, height=HEIGHT - BOTTOM - TOP, class_="band"))
        if order % every == 0:
            middle = f"{(x(begin) + x(end)) / 2:.1f}"
            drawn.append(tag("text", name, x=middle, y=HEIGHT - BOTTOM + 15, text_anchor="middle"))
    drawn.append(tag("text", "scale", x=LEFT - 6, y=HEIGHT - BOTTOM + 15, text_anchor="end"))
    for tick in ticks:
        height = f"{y(tick):.1f}"
        drawn.append(tag("path", d=f"M{LEFT} {height}H{WIDTH - RIGHT}", class_="rule"))
        drawn.append(tag("text", _tick(tick), x=LEFT - 6, y=f"{y(tick) + 4:.1f}", text_anchor="end"))
    return drawn


def _path(points: Sequence[tuple[float, float]], x, y) -> str:
    return "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)


def _scale(low: float, high: float, log: bool) -> tuple[float, float, list[float]]:
    """Returns the ends of the y axis and its ticks."""
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = max(1, len(decades) // 5)
        factors = (1, 2, 5) if len(decades) < 4 else (1,)
        ticks = [f * 10.0**d for d in decades[::every] for f in factors]
        bottom = max((t for t in ticks if t <= low), default=low)
        top = min((t for t in ticks if t >= high), default=high)
        return bottom, top, [t for t in ticks if bottom <= t <= top]
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    ticks = [round(i * size, 12) for i in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _tick(value: float) -> str:
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−") if value else number(0)
