"""What the benchmark's measurements are written as: lines while it runs, JSON, Markdown and a plot."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from experiments.reporting.tables import markdown_table
from experiments.training_time import device_scaling, reference_peer
from singan import files

# On a CPU: images of the cohort, longest side in pixels (None for every scale), least geometric mean of the ratio.
TARGETS = ((1, None, 2.0), (8, 33, 3.5), (8, 54, 2.5))
COARSE = (33, 54)  # pixels up to which geometric means are taken too
HEADS = (
    "scale     pixels width   N  ms/step/image  PyTorch ms  ratio  GFLOP  GFLOP/s  of matmul"
    "  compile s   warm s   MiB  MiB/image"
)

Results = dict[str, Any]


def write(stem: str, results: Results) -> None:
    """Writes stem.json and stem.md, each whole or not at all; raises UserError where it cannot."""
    files.write_json(f"{stem}.json", results)
    files.write_text(f"{stem}.md", markdown(results))


def about(results: Results) -> str:
    """Returns one line of where, when and with what was measured."""
    machine = results["machine"]
    return (
        f"{machine['time']}, commit {machine['git_commit'] or '-'}, {machine['device']}, {machine['host_cores']} cores"
        f" of {machine['processor'] or 'an unnamed processor'}, precision {results['precision']}, jax {machine['jax']},"
        f" {results['torch'] or 'no torch'}, python {machine['python']}"
    )


def checks(results: Results) -> str:
    """Returns a line for each check of the device."""
    return "\n".join(f"{'ok' if one['passed'] else 'FAILED'}: {one['text']}" for one in results["checks"])


def line(row: dict[str, Any], named: bool = False) -> str:
    """Returns a measured row as one line below HEADS, with its precision and form where it is to be named."""
    mib, warm = row["memory_bytes"] / 2**20, row["warm_compile_seconds"]
    peer = f"{row['pytorch_ms']:10.1f}  {row['ratio']:5.2f}" if row["ratio"] else f"{'-':>10}  {'-':>5}"
    return (
        f"{row['scale']:5d} {_pixels(row):>10} {row['features']:5d} {row['images']:3d}"
        f"  {row['ms_per_step_and_image']:13.1f}  {peer}  {row['asked_flops_per_image'] / 1e9:5.3g}"
        f"  {row['flops_per_second'] / 1e9:7.4g}  {row['share_of_matmul']:9.0%}  {row['compile_seconds']:9.1f}"
        f"  {'-' if warm is None else f'{warm:.1f}':>7}  {mib:4.0f}  {mib / row['images']:9.1f}"
        + (f"  {row['precision']} {row['form']}" if named else "")
    )


def means(results: Results) -> list[dict[str, Any]]:
    """Returns the geometric means of PyTorch's time over this project's, of each cohort size and range of scales.

    Each has images, pixels (the longest side taken; None for every scale), scales, mean and least.
    """
    rows = []
    for images in results["cohorts"]:
        for pixels in (None, *COARSE):
            ratios = [
                row["ratio"]
                for row in results["steps"]
                if row["images"] == images and row["ratio"] and (pixels is None or _side(row) <= pixels)
            ]
            if ratios:
                mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
                rows.append(
                    {"images": images, "pixels": pixels, "scales": len(ratios), "mean": mean, "least": min(ratios)}
                )
    return rows


def targets(results: Results) -> list[dict[str, Any]]:
    """Returns the targets of a CPU that the results of all scales say something of: each with met (bool) and text."""
    if "(cpu)" not in results["machine"]["device"] or results["tiny"] or not _complete(results):
        return []
    by_range = {(one["images"], one["pixels"]): one for one in means(results)}
    judged = []
    if every := by_range.get((1, None)):
        text = f"N = 1, every scale faster than PyTorch: the least ratio is {every['least']:.2f}"
        judged.append({"met": every["least"] > 1, "text": text})
    for images, pixels, least in TARGETS:
        if one := by_range.get((images, pixels)):
            text = f"N = {images}, {_range(pixels)}, geometric mean of at least {least:g}: it is {one['mean']:.2f}"
            judged.append({"met": one["mean"] >= least, "text": text})
    return judged


def whole_training(results: Results, images: int) -> list[dict[str, Any]]:
    """Returns what all steps of each scale take for a cohort, in seconds: coarsest first, the sum of all last.

    Each has scale (None for the sum), training, cold and warm (training with compilation), and pytorch (None where it
    was not timed): the same images one after another. warm is None where it is not known.
    """
    rows = []
    for row in results["steps"]:
        if row["images"] != images:
            continue
        training = row["steps"] * images / 1e3 * row["ms_per_step_and_image"]
        warm, full = row["warm_compile_seconds"], results["steps_per_scale"] * images / 1e3
        rows.append(
            {
                "scale": row["scale"],
                "training": training,
                "cold": training + row["compile_seconds"],
                "warm": None if warm is None else training + warm,
                "pytorch": full * row["pytorch_ms"] if row["pytorch_ms"] else None,
            }
        )
    total: dict[str, Any] = {"scale": None}
    for name in ("training", "cold", "warm", "pytorch"):
        values = [row[name] for row in rows]
        total[name] = sum(values) if _complete(results) and None not in values else None
    return [*rows, total]


def _complete(results: Results) -> bool:
    return len(results["steps"]) == len(results["scales"]) * len(results["cohorts"])


def summary(results: Results) -> str:
    """Returns the geometric means, and which targets are met or missed, in plain lines."""
    lines = []
    for part in _by_precision(results):
        lines += [
            f"N = {one['images']}{part['label']}, {_range(one['pixels'])} ({one['scales']}): PyTorch / this project,"
            f" geometric mean {one['mean']:.2f}, least {one['least']:.2f}"
            for one in means(part)
        ]
        lines += [f"target {'met' if one['met'] else 'MISSED'}: {one['text']}" for one in targets(part)]
        for images in results["cohorts"]:
            *_, total = whole_training(part, images)
            if total["cold"] is not None:
                cold, warm, pytorch = (_seconds(total[name]) for name in ("cold", "warm", "pytorch"))
                peer = f", PyTorch {pytorch} s" if total["pytorch"] else ""
                lines.append(
                    f"N = {images}{part['label']}, {results['steps_per_scale']} steps a scale:"
                    f" {cold} s with cold and {warm} s with warm compilation{peer}"
                )
    return "\n".join(lines)


def _by_precision(results: Results) -> list[Results]:
    """Returns the results of each precision, as a run of it alone has them, with a `label` where there are several."""
    names = results["precision"].split(",")
    return [
        {
            **results,
            "label": f", {name}" if len(names) > 1 else "",
            "steps": [row for row in results["steps"] if row["precision"] == name],
        }
        for name in names
    ]


def markdown(results: Results) -> str:
    """Returns the tables as a page of Markdown; README.md of this folder says what they mean."""
    size, several = results["size"], _by_precision(results)
    parts = [
        f"# Training time on {results['machine']['device']}",
        f"{about(results)}. Image {size[0]}x{size[1]}x{size[2]}, {len(results['scales'])} scales."
        f" Command: `{results['machine']['command']}`",
    ]
    if results["checks"]:
        parts.append("## Checks\n\n" + "\n".join(f"- {text}" for text in checks(results).splitlines()))
    parts += [f"## Steps{part['label']}\n\n{_steps(part['steps'])}" for part in several]
    parts.append("## Against PyTorch\n\n" + "\n".join(f"- {text}" for text in summary(results).splitlines()))
    for part in several:
        parts += [
            f"## A whole training, N = {images}{part['label']}\n\n"
            f"Seconds of a whole training of the cohort: recipe {results['recipe']} here, {results['steps_per_scale']}"
            " steps a scale in PyTorch.\n\n" + _whole(whole_training(part, images))
            for images in results["cohorts"]
        ]
        parts += [
            f"## Roofline{part['label']}\n\nElementwise operations read and write {results['copy_rate'] / 1e9:.3g} GB/s"
            f" here.\n\n{_roofline(part['steps'], results['copy_rate'])}",
            f"## Throughput{part['label']}\n\nSteps of an image per second.\n\n"
            + _by_cohort(part, lambda row: f"{1e3 / row['ms_per_step_and_image']:.3g}")
            + "\n\nMiB of the cohort on its device.\n\n"
            + _by_cohort(part, lambda row: f"{row['memory_bytes'] / 2**20:.0f}"),
        ]
    if results["forms"]:
        parts.append(f"## Forms of the convolution\n\n{_forms(results['forms'])}")
    if results["devices"]:
        parts.append("## Devices\n\n" + _devices(results["devices"], "(cpu)" in results["machine"]["device"]))
    if results["reference"]:
        parts.append(
            "## Reference implementation\n\n"
            + reference_peer.section(results["reference"], several[0]["steps"], results["steps_per_scale"])
        )
    if results["left_out"]:
        parts.append("## Not measured\n\n" + "\n".join(f"- {text}" for text in results["left_out"]))
    return "\n\n".join(parts) + "\n"


def plot(stem: str, results: Results) -> str:
    """Writes stem.png: milliseconds by scale, and the share of the matmul rate.

    Returns its path, or "" where matplotlib is not installed and nothing is written.
    """
    try:
        import matplotlib  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return ""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plots  # pyright: ignore[reportMissingImports]

    figure, (times, shares) = plots.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    by_scale: dict[int, list[float]] = {}
    for part, images in itertools.product(_by_precision(results), results["cohorts"]):
        rows = sorted((row for row in part["steps"] if row["images"] == images), key=lambda row: row["scale"])
        scales = [row["scale"] for row in rows]
        label = f"this project, N = {images}{part['label']}"
        times.plot(scales, [row["ms_per_step_and_image"] for row in rows], "o-", label=label)
        shares.plot(scales, [100 * row["share_of_matmul"] for row in rows], "o-", label=label)
        for row in rows:
            by_scale.setdefault(row["scale"], []).extend([row["pytorch_ms"]] * bool(row["pytorch_ms"]))
    peer = {scale: sum(values) / len(values) for scale, values in sorted(by_scale.items()) if values}
    if peer:
        times.plot(list(peer), list(peer.values()), "s--", color="black", label="PyTorch")
        reached = {row["scale"]: row["asked_flops_per_image"] / row["matmul_rate"] for row in results["steps"]}
        percent = [1e5 * reached[scale] / peer[scale] for scale in peer]
        shares.plot(list(peer), percent, "s--", color="black", label="PyTorch")
    if results["reference"]:
        rows = results["reference"]["rows"]
        times.plot([r["scale"] for r in rows], [r["ms"] for r in rows], "^:", color="gray", label="reference")
    times.set(yscale="log", xlabel="scale", ylabel="ms per step and image")
    shares.set(xlabel="scale", ylabel="share of the matrix product's rate, %", ylim=(0, None))
    for axes in (times, shares):
        axes.set_xticks(range(len(results["scales"])))
        axes.legend(fontsize=8)
    figure.suptitle(f"{results['machine']['device']}, commit {results['machine']['git_commit'] or '-'}", fontsize=9)
    figure.savefig(f"{stem}.png", dpi=130)
    plots.close(figure)
    return f"{stem}.png"


def _steps(steps: Sequence[dict[str, Any]]) -> str:
    heads = (
        "scale,pixels,width,N,at once,ms,PyTorch ms,ratio,GFLOP,GFLOP/s,of matmul,cold compile s,warm compile s,MiB,"
        "MiB an image"
    )
    rows = [
        (row["scale"], _pixels(row), row["features"], row["images"], row["group"])
        + (f"{row['ms_per_step_and_image']:.2f}", _number(row["pytorch_ms"], ".1f"), _number(row["ratio"], ".2f"))
        + (f"{row['asked_flops_per_image'] / 1e9:.3g}", f"{row['flops_per_second'] / 1e9:.4g}")
        + (f"{row['share_of_matmul']:.0%}", f"{row['compile_seconds']:.1f}")
        + (_number(row["warm_compile_seconds"], ".1f"), f"{row['memory_bytes'] / 2**20:.0f}")
        + (f"{row['memory_bytes'] / 2**20 / row['images']:.1f}",)
        for row in steps
    ]
    return markdown_table([heads.split(","), *rows])


def _whole(rows: list[dict[str, Any]]) -> str:
    heads = ("scale", "steps", "cold", "warm", "PyTorch", "ratio, cold", "ratio, warm")
    cells = []
    for row in rows:
        ratios = [row["pytorch"] / row[name] if row["pytorch"] and row[name] else None for name in ("cold", "warm")]
        times = [_seconds(row[name]) for name in ("training", "cold", "warm", "pytorch")]
        cells.append(("all" if row["scale"] is None else row["scale"], *times, *(_number(r, ".2f") for r in ratios)))
    return markdown_table([heads, *cells])


def _roofline(steps: Sequence[dict[str, Any]], copy_rate: float) -> str:
    rows = []
    for row in steps:
        flops, moved = row["asked_flops_per_image"], row["bytes_per_image"]
        roof = min(row["matmul_rate"], flops / moved * copy_rate) if moved else row["matmul_rate"]
        rows.append(
            (row["scale"], row["images"], f"{flops / 1e9:.3g}", f"{moved / 1e9:.3g}" if moved else "-")
            + (f"{flops / moved:.1f}" if moved else "-", f"{row['matmul_rate'] / 1e9:.4g}", f"{roof / 1e9:.4g}")
            + (f"{row['flops_per_second'] / 1e9:.4g}", f"{row['share_of_matmul']:.0%}")
            + (f"{row['flops_per_second'] / roof:.0%}",)
        )
    heads = "scale,N,GFLOP,GB,FLOP per byte,matmul GFLOP/s,roof GFLOP/s,achieved GFLOP/s,of matmul,of roof"
    return markdown_table([heads.split(","), *rows])


def _by_cohort(results: Results, cell: Any) -> str:
    known = {(row["scale"], row["images"]): cell(row) for row in results["steps"]}
    rows = [
        (scale, f"{height}x{width}", *(known.get((scale, images), "-") for images in results["cohorts"]))
        for scale, (height, width) in enumerate(results["scales"])
    ]
    return markdown_table([("scale", "pixels", *(f"N = {images}" for images in results["cohorts"])), *rows])


def _forms(times: Sequence[dict[str, Any]]) -> str:
    """Returns a table of ms an image of one layer's value, gradients and second derivatives."""
    rows = [
        (one["side"], one["features"], one["images"], one["precision"], one["form"], f"{one['ms_per_image']:.3f}")
        + (f"{one['compile_seconds']:.1f}", f"{one['temporary_bytes'] / 2**20:.0f}")
        for one in times
    ]
    return markdown_table([("px", "channels", "N", "precision", "form", "ms", "compile s", "MiB"), *rows])


def _devices(rows: list[dict[str, Any]], cpu: bool) -> str:
    cells = [
        (row["scale"], row["images"], row["devices"], f"{row['images_steps_per_second']:.4g}")
        + (f"{row['efficiency']:.0%}",)
        for row in rows
    ]
    note = f"{device_scaling.DEMONSTRATION}\n\n" if cpu else ""
    return note + markdown_table([("scale", "N", "devices", "images x steps per second", "efficiency"), *cells])


def _side(row: dict[str, Any]) -> int:
    return max(row["height"], row["width"])


def _pixels(row: dict[str, Any]) -> str:
    return f"{row['height']}x{row['width']}"


def _range(pixels: int | None) -> str:
    return "all scales" if pixels is None else f"scales up to {pixels} px"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _seconds(value: float | None) -> str:
    return _number(value, ".1f" if value is not None and value < 100 else ".0f")
