"""How long training takes, per scale and cohort size, beside a plain PyTorch SinGAN of the same work.

make bench                                            (both sides in one run; PyTorch where torch is installed)
python -m experiments.training_time.bench --size=166x248 --cohorts=1,8 --out=results/bench
python -m experiments.training_time.gpu               (the same with the settings of an accelerator)

Both sides make whole training steps: three critic and three generator updates on the same image with the same sizes,
and the draws through the frozen scales. Times are medians. README.md of this folder says what each table means.
"""

import functools
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax

from experiments.reporting import official_checkout
from experiments.training_time import device_checks, device_scaling, reference_peer, report, whole_steps
from experiments.training_time.machine import machine
from launch import command_flags as flags
from launch import runtime
from singan import files
from singan.config import Config, parse
from singan.errors import UserError
from singan.model.convolution import conv_impl_for
from singan.model.pyramid import make_pyramid
from singan.model.spec import ScaleSpec, make_spec
from singan.parallel.cohort import PRECISIONS
from singan.parallel.convolution_timing import time_conv_impls
from singan.parallel.device_rates import copy_rate
from singan.presets import RECIPES

SIZE = flags.DEFINE_string("size", "128", "Pixels of the image: a side, or HEIGHTxWIDTH such as 166x248.")
COHORTS = flags.DEFINE_list("cohorts", ["1", "8"], "Numbers of images trained at once.")
SECONDS = flags.DEFINE_float("seconds", 1.0, "Least time spent on each figure.", lower_bound=0.01)
MINUTES = flags.DEFINE_float("minutes", 0.0, "No figure is started that may end later; 0: all are measured.")
PRECISION = flags.DEFINE_list("precision", ["highest"], "Of this project's side: any of highest, tf32, bf16.")
RECIPE = flags.DEFINE_enum(
    "recipe",
    "full",
    list(RECIPES),
    "Of this project's side: full does as many updates as PyTorch, fast is of the preset tuned.",
)
CHECKS = flags.DEFINE_boolean("checks", False, "First check that the device computes what a CPU does.")
FORMS = flags.DEFINE_boolean("forms", False, "Time every form of the convolution, and use the fastest.")
TORCH = flags.DEFINE_boolean("torch", True, "Time the PyTorch step too, where torch is installed.")
DEVICES = flags.DEFINE_boolean("devices", False, "Spread the largest cohort over 1, 2, 4, ... local devices too.")
PEER = flags.DEFINE_string("peer", "", "A checkout of the PyTorch reference (tamarott/SinGAN), timed too.")
PEER_PYTHON = flags.DEFINE_string("peer_python", sys.executable, "The Python that runs the checkout of --peer.")
OUT = flags.DEFINE_string("out", "results/bench", "The files to write (.json, .md, .png), without their endings.")
TINY = flags.DEFINE_boolean("tiny", False, "Two scales of small networks: proves on any machine that it works.")
TIMED_TOGETHER = 16  # images of a cohort whose forms are timed: launch.train times as many


def main(argv: list[str]) -> int:
    del argv
    bench = Bench()
    print(f"{report.about(bench.results)}\n\n", end="", flush=True)
    if CHECKS.value:
        bench.results["checks"] = device_checks.run(bench.mesh)
        print(f"{report.checks(bench.results)}\n", flush=True)
    print(report.HEADS, flush=True)
    with whole_steps.empty_cache() as cache_hits:
        bench.steps(cache_hits)
        if DEVICES.value:
            bench.devices()
    if PEER.value:
        bench.reference()
    report.write(OUT.value, bench.results)
    written = filter(None, (f"{OUT.value}.json", f"{OUT.value}.md", report.plot(OUT.value, bench.results)))
    print(f"\n{report.summary(bench.results)}\nwrote {', '.join(written)}")
    return 0 if all(check["passed"] for check in bench.results["checks"]) else 1


class Bench:
    """The measurements so far, and how others are taken."""

    def __init__(self) -> None:
        """Raises UserError where a flag or a file to write is wrong, before anything is measured."""
        self._started = time.monotonic()
        height, width = _size(SIZE.value)
        cohorts = _cohorts(COHORTS.value)
        if not PRECISION.value or not set(PRECISION.value) <= set(PRECISIONS):
            raise UserError(f"--precision={','.join(PRECISION.value)} must be some of {', '.join(PRECISIONS)}")
        settings = {"pyramid": {"max_size": max(height, width, 250)}}
        if TINY.value:
            settings = {"pyramid": {"num_scales": 2}, "network": {"width": 4, "max_width": 4, "num_layers": 3}}

        def configured(recipe: str, precision: str) -> Config:
            preset = "corrected" if recipe == "full" else "tuned"  # PyTorch makes the updates of `corrected`
            return parse({**settings, "preset": preset, "train": {"recipe": recipe, "precision": precision}})

        self._configs = {name: configured(RECIPE.value, name) for name in PRECISION.value}
        self._full = configured("full", PRECISION.value[0])
        config = self._configs[PRECISION.value[0]]
        self._pyramid = make_pyramid(height, width, config.pyramid)
        if PEER.value:
            official_checkout.check(PEER.value, PEER_PYTHON.value)
        self.mesh = runtime.start_jax(1)
        self._rate, self._fastest = whole_steps.best_rate, functools.cache(self._time_conv_impls)
        self._pytorch = whole_steps.pytorch_timer(SECONDS.value) if TORCH.value else None
        if TORCH.value and self._pytorch is None:
            print("torch is not installed: no PyTorch column (pip install torch, the extra `bench`)", file=sys.stderr)
        if MINUTES.value:  # figures of a scale are not taken one after another, and so its peers are measured once
            self._rate = functools.cache(self._rate)
            self._pytorch = self._pytorch and functools.cache(self._pytorch)
        self.results: dict[str, Any] = {
            "machine": machine(self.mesh),
            "torch": whole_steps.pytorch_version() if self._pytorch else None,
            "size": [height, width, 3],
            "precision": ",".join(PRECISION.value),
            "recipe": RECIPE.value,
            "tiny": TINY.value,
            "steps_per_scale": config.train.steps_per_scale,
            "scales": [list(size) for size in self._pyramid.sizes],
            "cohorts": cohorts,
            "copy_rate": copy_rate(16 if TINY.value else 256),
            "checks": [],
            "forms": [],
            "steps": [],
            "devices": [],
            "reference": None,
            "left_out": [],
        }
        with files.named_os_errors(OUT.value):
            Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
        report.write(OUT.value, self.results)  # what cannot be written is better said before the measurements

    def steps(self, cache_hits: Any) -> None:
        """Times whole steps of every scale, cohort and precision; with --minutes the most telling ones first."""
        settings = PRECISION.value, len(self._pyramid), self.results["cohorts"]
        jobs = most_telling_first(*settings) if MINUTES.value else in_order(*settings)
        longest, at, rate, before = 0.0, None, 0.0, None
        for precision, scale, images in jobs:
            began = time.monotonic()
            name = f"scale {scale}, N = {images}, {precision}"
            if MINUTES.value and began + longest - self._started > 60 * MINUTES.value:
                self.results["left_out"].append(f"{name}: no time left")
                continue
            try:
                spec = self._spec(scale, precision, images)
                plain = make_spec(self._full, self._pyramid, 3, "direct", scale)
                if at != (precision, scale):
                    rate = self._rate(precision, TINY.value)
                    before = self._pytorch(plain) if self._pytorch else None
                row = whole_steps.row(spec, images, self.mesh, SECONDS.value, rate, cache_hits)
                # Timed on both sides of each figure, so that a machine whose speed drifts does not favour either.
                after = self._pytorch(plain) if self._pytorch else None
            except jax.errors.JaxRuntimeError as error:  # what a device cannot take is a result
                self.results["left_out"].append(f"{name}: {next(iter(str(error).splitlines()), '')[:200]}")
                at = None
                continue
            row["steps"] = spec.steps
            row["pytorch_ms"] = (before + after) / 2 if before and after else None
            row["ratio"] = row["pytorch_ms"] / row["ms_per_step_and_image"] if row["pytorch_ms"] else None
            at, before, longest = (precision, scale), after, max(longest, time.monotonic() - began)
            self.results["steps"].append(row)
            print(report.line(row, len(PRECISION.value) > 1), flush=True)
            report.write(OUT.value, self.results)

    def devices(self) -> None:
        """Times the largest cohort on 1, 2, 4, ... devices."""
        devices = jax.local_devices()
        images = max(*self.results["cohorts"], len(devices))
        for scale in device_scaling.scales_to_measure(len(self._pyramid), devices[0].platform):
            rate = whole_steps.best_rate(PRECISION.value[0], TINY.value)
            spec = self._spec(scale, PRECISION.value[0], images)
            self.results["devices"] += device_scaling.measure(spec, images, SECONDS.value, rate)

    def reference(self) -> None:
        """Times the checkout of --peer at every scale that was measured."""
        expected = {row["scale"]: row["pytorch_ms"] or row["ms_per_step_and_image"] for row in self.results["steps"]}
        specs = [make_spec(self._full, self._pyramid, 3, "direct", scale) for scale in range(len(self._pyramid))]
        peer = PEER.value, PEER_PYTHON.value
        self.results["reference"] = reference_peer.measure(*peer, specs, expected, SECONDS.value)

    def _spec(self, scale: int, precision: str, images: int) -> ScaleSpec:
        conv_impl = self._fastest(precision, min(images, TIMED_TOGETHER)) if FORMS.value else ""
        conv_impl = conv_impl or conv_impl_for(jax.default_backend())
        return make_spec(self._configs[precision], self._pyramid, 3, conv_impl, scale)

    def _time_conv_impls(self, precision: str, images: int) -> str:
        """Returns what launch.train takes on a GPU: the fastest at the finest scale; "" where none ran."""
        finest = make_spec(self._configs[precision], self._pyramid, 3, conv_impl_for("gpu"), len(self._pyramid) - 1)
        times = time_conv_impls(finest, images)
        self.results["forms"] += times
        return times[0]["form"] if times else ""


def in_order(precisions: list[str], scales: int, cohorts: list[int]) -> list[tuple[str, int, int]]:
    """Returns all (precision, scale, images), a scale's cohorts one after another."""
    return [(precision, scale, images) for precision in precisions for scale in range(scales) for images in cohorts]


def most_telling_first(precisions: list[str], scales: int, cohorts: list[int]) -> list[tuple[str, int, int]]:
    """Returns all (precision, scale, images), the most telling first, for a time that may not allow them all.

    Args:
      precisions: the most important first.
      scales: of the pyramid; its ends and its middle come first.
      cohorts: numbers of images, ascending; the largest but one comes first, as the largest may not fit.
    """
    order = [*cohorts[-2:-1], *cohorts[:-2], *cohorts[-1:]]
    ends = [scales - 1, 0, scales // 2]

    def rank(job: tuple[str, int, int]) -> tuple[int, int]:
        precision, scale, images = job
        place = ends.index(scale) if scale in ends else len(ends)
        return 2 * precisions.index(precision) + (place == len(ends)) + order.index(images), place

    return sorted(in_order(precisions, scales, order), key=rank)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text)
    if not match or max(map(int, filter(None, match.groups()))) > 1024:
        raise UserError(f"--size={text} must be a number of pixels up to 1024, such as 128, or two, such as 166x248")
    return int(match[1]), int(match[2] or match[1])


def _cohorts(texts: list[str]) -> list[int]:
    if not texts or not all(re.fullmatch(r"[1-9]\d{0,3}", text) for text in texts):
        raise UserError(f"--cohorts={','.join(texts)} must be whole numbers from 1 on, such as 1,8")
    return sorted({int(text) for text in texts})


if __name__ == "__main__":
    from launch import cli

    cli.run(main)
