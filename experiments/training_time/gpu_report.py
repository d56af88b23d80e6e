"""What the measurements on an accelerator are written as: lines while they run, JSON, Markdown and a plot."""

import contextlib
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from experiments.training_time.whole_steps import compile_chunk
from singan import files
from singan.model.spec import ScaleSpec
from singan.parallel import trace

TARGET_SECONDS = 60  # for one image, all scales: PERFORMANCE's aim for an H200


def machine(mesh: Mesh) -> dict[str, Any]:
    """Returns where, when and by what command something is measured."""
    git = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    commit = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout
    device = mesh.devices.flat[0]
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "git_commit": commit.strip(),
        "device": f"{mesh.size} x {device.device_kind} ({device.platform})",
        "host_cores": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def _command() -> str:
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return " ".join(["python", "-m", module.name, *sys.argv[1:]] if module else sys.argv)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def write(stem: str, results: dict[str, Any]) -> None:
    """Writes stem.json and stem.md, each whole or not at all, and stem.png where matplotlib is installed."""
    files.write_json(f"{stem}.json", results)
    files.write_text(f"{stem}.md", markdown(results))
    _plot(stem, results)


def forms_line(rows: list[dict[str, Any]]) -> str:
    """Returns one line of the forms of a layer, fastest first."""
    ordered = sorted(rows, key=lambda row: row["ms_per_image"])
    first = rows[0]
    times = ", ".join(f"{row['form']} {row['ms_per_image']:.3f}" for row in ordered)
    return (
        f"{first['side']} px, {first['features']} ch., N={first['images']}, {first['precision']}: ms an image: {times}"
    )


def step_line(row: dict[str, Any]) -> str:
    """Returns one line of a whole step."""
    return (
        f"scale {row['scale']} ({row['height']} px), N={row['images']} by {row['group']}, {row['precision']},"
        f" {row['form']}: {row['ms_per_step_and_image']:.3f} ms a step and image,"
        f" {row['flops_per_second'] / 1e12:.3g} TFLOP/s ({row['share_of_matmul']:.0%} of a matrix product),"
        f" {row['memory_bytes'] / 2**20:.0f} MiB, compiled in {row['compile_seconds']:.0f} s"
    )


def profile(spec: ScaleSpec, images: int, group: int, mesh: Mesh, precision: str, directory: Path) -> dict[str, Any]:
    """Returns the longest operations of one chunk of two steps, and writes its trace."""
    compiled = compile_chunk(spec, images, group, 2, mesh, precision)
    state, _ = jax.block_until_ready(compiled.program(compiled.inputs, compiled.state))
    with jax.profiler.trace(directory):
        jax.block_until_ready(compiled.program(compiled.inputs, state))
    rows = trace.operations(directory)
    return {
        "scale": spec.scale,
        "images": images,
        "form": spec.form,
        "precision": precision,
        "table": trace.table(rows, 12),
        "operations": [[row.name, row.seconds, row.count] for row in rows[:50]],
    }


def whole_image(results: dict[str, Any], precision: str) -> tuple[float, list[int]] | None:
    """Returns (seconds for all scales of one image at each scale's best cohort, the scales that were not measured).

    A scale that was not measured is given the time of the nearest one that was, by their pixels and squared widths.
    None where nothing was measured at that precision.
    """
    best: dict[int, dict[str, Any]] = {}
    for row in results["steps"]:
        if row["precision"] == precision:
            known = best.get(row["scale"])
            if known is None or row["ms_per_step_and_image"] < known["ms_per_step_and_image"]:
                best[row["scale"]] = row
    if not best:
        return None
    seconds, missing = 0.0, []
    for scale, (height, width) in enumerate(results["scales"]):
        near = best[min(best, key=lambda other: abs(other - scale))]
        ratio = height * width / (near["height"] * near["width"])
        if scale not in best:
            missing.append(scale)
            ratio *= 4 ** (scale // 4 - near["scale"] // 4)
        seconds += (
            near["ms_per_step_and_image"] / 1e3 * (ratio if scale not in best else 1) * results["steps_per_scale"]
        )
    return seconds, missing


def markdown(results: dict[str, Any]) -> str:
    """Returns the tables as a page of Markdown."""
    about, size = results["machine"], results["size"]
    parts = [
        f"# Training time on {about['device']}",
        f"{about['time']}, commit {about['git_commit'] or '-'}, jax {about['jax']}, python {about['python']},"
        f" {about['host_cores']} cores; image {size[0]}x{size[1]}x{size[2]}, {len(results['scales'])} scales."
        f" Command: `{about['command']}`",
        "## Checks\n\n" + "\n".join(f"- {'ok' if c['passed'] else 'FAILED'}: {c['text']}" for c in results["checks"]),
        "## Rates of this machine, in this run\n\n"
        + table(
            ("matrix product", "TFLOP/s"),
            [(name, f"{rate / 1e12:.3g}") for name, rate in results["rates"].items()],
        )
        + (f"\n\nElementwise: {results['copy_rate'] / 1e9:.3g} GB/s." if "copy_rate" in results else ""),
        "## Whole steps\n\nms a step and image, the draws through the frozen scales included; PyTorch's step is given"
        " its previous images.\n\n" + _steps(results),
        "## Forms of the convolution\n\nms an image of one layer's value, gradients and second derivatives.\n\n"
        + table(
            ("px", "channels", "N", "precision", "form", "ms", "compile s", "MiB"),
            [
                (r["side"], r["features"], r["images"], r["precision"], r["form"], f"{r['ms_per_image']:.3f}")
                + (f"{r['compile_seconds']:.1f}", f"{r['temporary_bytes'] / 2**20:.0f}")
                for r in results["forms"]
            ],
        ),
        "## One whole image\n\n" + _images(results),
    ]
    for one in results["profiles"]:
        title = f"## Profile: scale {one['scale']}, N = {one['images']}, {one['form']}, {one['precision']}"
        parts.append(f"{title}\n\n```\n{one['table']}\n```")
    if results["left_out"]:
        parts.append("## Not measured\n\n" + "\n".join(f"- {text}" for text in results["left_out"]))
    return "\n\n".join(parts) + "\n"


def _steps(results: dict[str, Any]) -> str:
    peer = {row["scale"]: row["ms_per_step_and_image"] for row in results["peer"]}
    rows = []
    for row in sorted(results["steps"], key=lambda row: (row["scale"], row["precision"], row["images"])):
        other = peer.get(row["scale"])
        rows.append(
            (
                row["scale"],
                f"{row['height']}x{row['width']}",
                row["features"],
                row["images"],
                row["group"],
                row["precision"],
                row["form"],
                f"{row['ms_per_step_and_image']:.3f}",
                f"{other:.2f}" if other else "-",
                f"{other / row['ms_per_step_and_image']:.1f}" if other else "-",
                f"{row['asked_flops_per_image'] / 1e9:.3g}",
                f"{row['flops_per_second'] / 1e12:.3g}",
                f"{row['share_of_matmul']:.0%}",
                f"{row['memory_bytes'] / 2**20:.0f}",
                f"{row['compile_seconds']:.1f}",
            )
        )
    heads = "scale,size,channels,N,at once,precision,form,ms,PyTorch ms,ratio,GFLOP,TFLOP/s,of matmul,MiB,compile s"
    return table(tuple(heads.split(",")), rows)


def _images(results: dict[str, Any]) -> str:
    lines = []
    for precision in results["rates"]:
        found = whole_image(results, precision)
        if found:
            seconds, missing = found
            note = f"; scales {missing} from their neighbours" if missing else ""
            rate = f"{3600 / seconds:.0f} an hour{note}"
            lines.append(f"- {precision}: {seconds:.1f} s an image at each scale's best cohort ({rate})")
    if len(results["peer"]) == len(results["scales"]):
        seconds = sum(row["ms_per_step_and_image"] for row in results["peer"]) / 1e3 * results["steps_per_scale"]
        lines.append(f"- PyTorch, one image at a time, without the draws: {seconds:.0f} s")
    return "\n".join(lines)


def table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """Returns a table of Markdown; rows have as many cells as there are heads."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def pyplot() -> Any:
    """Returns matplotlib's pyplot, drawing into files, or None where matplotlib is not installed."""
    try:
        import matplotlib  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot  # pyright: ignore[reportMissingImports]

    return pyplot


def _plot(stem: str, results: dict[str, Any]) -> None:
    plots = pyplot()
    if plots is None:
        return
    figure, axes = plots.subplots(figsize=(7, 4.5), layout="constrained")
    for precision in results["rates"]:
        rows = [row for row in results["steps"] if row["precision"] == precision]
        for scale in sorted({row["scale"] for row in rows}):
            line = sorted((row for row in rows if row["scale"] == scale), key=lambda row: row["images"])
            label = f"scale {scale}, {precision}"
            axes.plot([r["images"] for r in line], [1e3 / r["ms_per_step_and_image"] for r in line], "o-", label=label)
    axes.set(xscale="log", yscale="log", xlabel="images in the cohort", ylabel="steps of an image per second")
    if results["steps"]:
        axes.legend(fontsize=7, ncols=2)
    axes.set_title(results["machine"]["device"], fontsize=9)
    figure.savefig(f"{stem}.png", dpi=130)
    plots.close(figure)
