"""How long training takes, per scale and cohort size, beside a plain PyTorch SinGAN of the same work.

make bench                                            (both sides in one run; PyTorch where torch is installed)
python -m experiments.training_time.bench --size=166x248 --cohorts=1,8 --out=results/bench

Both sides make whole training steps: three critic and three generator updates on the same image with the same sizes,
and the draws through the frozen scales. Times are medians; each PyTorch time is taken right before and after its
neighbour. README.md of this folder says what each table means.
"""

import re
import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments.training_time import bench_report, bench_steps, device_scaling, gpu_report, reference_peer
from launch import cli, runtime
from singan import files
from singan.config import Config, parse
from singan.errors import UserError
from singan.model.convolution import form_for
from singan.model.pyramid import Pyramid, plan
from singan.model.spec import ScaleSpec, make_spec
from singan.parallel.device_rates import copy_rate

SIZE = flags.DEFINE_string("size", "128", "Pixels of the image: a side, or HEIGHTxWIDTH such as 166x248.")
COHORTS = flags.DEFINE_list("cohorts", ["1", "8"], "Numbers of images trained at once.")
SECONDS = flags.DEFINE_float("seconds", 1.0, "Least time spent on each figure.", lower_bound=0.01)
PRECISION = flags.DEFINE_enum("precision", "highest", ["highest", "tf32", "bf16"], "Of this project's side.")
TORCH = flags.DEFINE_boolean("torch", True, "Time the PyTorch step too, where torch is installed.")
DEVICES = flags.DEFINE_boolean("devices", False, "Spread the largest cohort over 1, 2, 4, ... local devices too.")
PEER = flags.DEFINE_string("peer", "", "A checkout of the PyTorch reference (tamarott/SinGAN), timed too.")
PEER_PYTHON = flags.DEFINE_string("peer_python", sys.executable, "The Python that runs the checkout of --peer.")
OUT = flags.DEFINE_string("out", "results/bench", "The files to write (.json, .md, .png), without their endings.")
TINY = flags.DEFINE_boolean("tiny", False, "Two scales of small networks: proves on any machine that it works.")


def main(argv: list[str]) -> int:
    del argv
    height, width = _size(SIZE.value)
    cohorts = _cohorts(COHORTS.value)
    tiny = {"pyramid": {"num_scales": 2}, "network": {"width": 4, "max_width": 4, "num_layers": 3}}
    config = parse(tiny if TINY.value else {"pyramid": {"max_size": max(height, width, 250)}})
    pyramid = plan(height, width, config.pyramid)
    if PEER.value:
        reference_peer.check(PEER.value, PEER_PYTHON.value)
    mesh = runtime.start_jax(1)
    pytorch = bench_steps.pytorch_timer(SECONDS.value) if TORCH.value else None
    if TORCH.value and pytorch is None:
        print("torch is not installed: no PyTorch column (pip install torch, the extra `bench`)", file=sys.stderr)
    results = {
        "machine": gpu_report.machine(mesh),
        "torch": bench_steps.pytorch_version() if pytorch else None,
        "size": [height, width, 3],
        "precision": PRECISION.value,
        "tiny": TINY.value,
        "steps_per_scale": config.train.steps_per_scale,
        "scales": [list(size) for size in pyramid.sizes],
        "cohorts": cohorts,
        "copy_rate": copy_rate(16 if TINY.value else 256),
        "steps": [],
        "devices": [],
        "reference": None,
    }
    with files.named_os_errors(OUT.value):
        Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    bench_report.write(OUT.value, results)  # what cannot be written is better said before the measurements
    print(f"{bench_report.about(results)}\n\n{bench_report.HEADS}", flush=True)
    with bench_steps.empty_cache() as cache_hits:
        for scale in range(len(pyramid)):
            spec = _spec(config, pyramid, scale)
            rate = bench_steps.best_rate(PRECISION.value, TINY.value)
            before = pytorch(spec) if pytorch else None
            for images in cohorts:
                row = bench_steps.measure(spec, images, mesh, PRECISION.value, SECONDS.value, rate, cache_hits)
                # Timed on both sides of each figure, so that a machine whose speed drifts does not favour either.
                after = pytorch(spec) if pytorch else None
                row["pytorch_ms"] = (before + after) / 2 if before and after else None
                row["ratio"] = row["pytorch_ms"] / row["ms_per_step_and_image"] if row["pytorch_ms"] else None
                before = after
                results["steps"].append(row)
                print(bench_report.line(row), flush=True)
            bench_report.write(OUT.value, results)
        if DEVICES.value:
            _devices(config, pyramid, results)
    if PEER.value:
        expected = {row["scale"]: row["pytorch_ms"] or row["ms_per_step_and_image"] for row in results["steps"]}
        specs = [_spec(config, pyramid, scale) for scale in range(len(pyramid))]
        results["reference"] = reference_peer.measure(PEER.value, PEER_PYTHON.value, specs, expected, SECONDS.value)
    bench_report.write(OUT.value, results)
    written = filter(None, (f"{OUT.value}.json", f"{OUT.value}.md", bench_report.plot(OUT.value, results)))
    print(f"\n{bench_report.summary(results)}\nwrote {', '.join(written)}")
    return 0


def _devices(config: Config, pyramid: Pyramid, results: dict[str, Any]) -> None:
    devices = jax.local_devices()
    images = max(*results["cohorts"], len(devices))
    for scale in device_scaling.scales_to_measure(len(pyramid), devices[0].platform):
        spec = _spec(config, pyramid, scale)
        rate = bench_steps.best_rate(PRECISION.value, TINY.value)
        results["devices"] += device_scaling.measure(spec, images, PRECISION.value, SECONDS.value, rate)


def _spec(config: Config, pyramid: Pyramid, scale: int) -> ScaleSpec:
    return make_spec(config, pyramid, 3, form_for(jax.default_backend()), scale)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text)
    if not found or max(map(int, filter(None, found.groups()))) > 1024:
        raise UserError(f"--size={text} must be a number of pixels up to 1024, such as 128, or two, such as 166x248")
    return int(found[1]), int(found[2] or found[1])


def _cohorts(texts: list[str]) -> list[int]:
    if not texts or not all(re.fullmatch(r"[1-9]\d{0,3}", text) for text in texts):
        raise UserError(f"--cohorts={','.join(texts)} must be whole numbers from 1 on, such as 1,8")
    return sorted({int(text) for text in texts})


if __name__ == "__main__":
    cli.run(main)
