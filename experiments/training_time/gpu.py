"""Everything about speed on one accelerator, in less than nine minutes: checks, then tables, beside PyTorch.

python -m experiments.training_time.gpu --out=results/gpu   (writes gpu.json and gpu.md, and a plot with matplotlib)
python -m experiments.training_time.gpu --tiny              (proves on any machine that the script works)

Needs jax, flax, optax and numpy; torch for the peer. It starts no measurement that the time left does not allow, and
what was not measured is said to be so. What is most worth knowing comes first: the checks, the rates of the machine,
the forms of the convolution, then whole steps in waves.
"""

import argparse
import dataclasses
import functools
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.training_time import device_checks, gpu_report
from experiments.training_time.waves import Job, image_plan, waves_of
from experiments.training_time.whole_steps import (
    asked_flops,
    compile_chunk,
    measure,
    synthetic_image,
)
from singan.config import parse
from singan.model.convolution import form_for
from singan.model.pyramid import plan
from singan.model.spec import ScaleSpec, make_spec
from singan.parallel import planning
from singan.parallel.cohort import image_mesh
from singan.parallel.convolution_timing import time_form, vmapped_forms
from singan.parallel.device_rates import copy_rate, matmul_rate

PRECISIONS = ("tf32", "bf16", "highest")


def main() -> int:
    options = _options()
    started = time.monotonic()
    session = Session(options, started)
    session.checks()
    session.rates()
    session.forms()
    for jobs in waves_of(len(session.pyramid), options.cohorts, options.tiny):
        session.wave(jobs)
    session.profile()
    session.save()
    print(f"\n{gpu_report.markdown(session.results)}\nwrote {options.out}.json and .md in {session.spent():.0f} s")
    return 0 if all(check["passed"] for check in session.results["checks"]) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="results/gpu", help="files to write, without their endings")
    parser.add_argument("--minutes", type=float, default=7.5, help="no measurement starts that may end after them")
    parser.add_argument("--size", type=int, default=240, help="pixels of the image's sides")
    parser.add_argument("--cohorts", default="1,4,16,64", help="numbers of images trained at once")
    parser.add_argument("--tiny", action="store_true", help="a small image and few measurements, for any machine")
    options = parser.parse_args()
    try:
        options.cohorts = sorted({int(text) for text in options.cohorts.split(",")})
    except ValueError:
        parser.error(f"--cohorts={options.cohorts}: whole numbers, such as 1,4,16")
    if options.tiny:
        options.size, options.cohorts = 30, [1, 2]
    return options


class Session:
    """The measurements so far, and the time that is left for others."""

    def __init__(self, options: argparse.Namespace, started: float):
        self._options, self._started, self._folder = options, started, Path(options.out).parent
        self._folder.mkdir(parents=True, exist_ok=True)
        self._cache()
        self.mesh = image_mesh(jax.devices()[:1])
        self.config = parse({"network": {"width": 4, "max_width": 8, "num_layers": 3}} if options.tiny else {})
        self.pyramid = plan(options.size, options.size, self.config.pyramid)
        self._best: dict[tuple[int, int, str], str] = {}
        self._temporary: dict[tuple[int, str], float] = {}  # bytes of an image, at a scale and precision
        self._longest: dict[str, float] = {}
        self.results: dict[str, Any] = {
            "machine": gpu_report.machine(self.mesh),
            "size": [options.size, options.size, 3],
            "steps_per_scale": self.config.train.steps_per_scale,
            "scales": [list(size) for size in self.pyramid.sizes],
            "checks": [],
            "rates": {},
            "forms": [],
            "steps": [],
            "peer": [],
            "profiles": [],
            "left_out": [],
        }

    def spent(self) -> float:
        """Returns the seconds since the start."""
        return time.monotonic() - self._started

    def checks(self) -> None:
        # Few layers and updates, so that the checks leave the time to the tables.
        network, updates = {"width": 8, "num_layers": 3}, {"critic_updates": 1, "generator_updates": 1}
        config = parse({"pyramid": {"min_size": 15, "max_size": 24}, "network": network, "train": updates})
        small = make_spec(config, plan(24, 24, config.pyramid), 3, "grouped", 1)
        checks = [
            device_checks.forms_agree,
            functools.partial(device_checks.step_as_on_a_cpu, small),
            functools.partial(device_checks.images_leave_each_other_alone, small, self.mesh),
        ]
        self.results["checks"] = device_checks.run(checks, self.tell)
        self.save()

    def rates(self) -> None:
        side = 512 if self._options.tiny else 8192
        for precision in PRECISIONS:
            self.results["rates"][precision] = rate = matmul_rate(precision, side)
            self.tell(f"matrix product of {side}, {precision}: {rate / 1e12:.3g} TFLOP/s")
        self.results["copy_rate"] = copy_rate(16 if self._options.tiny else 1024)
        self.tell(f"elementwise: {self.results['copy_rate'] / 1e9:.3g} GB/s")

    def forms(self) -> None:
        """Times every form at a layer of a coarse, a middle and the finest scale; steps use the fastest."""
        scales = sorted({0, len(self.pyramid) // 2 - 1, len(self.pyramid) - 1})
        cohorts = self._options.cohorts[:1] + self._options.cohorts[-2:-1]
        for precision in PRECISIONS:
            for scale in reversed(scales):
                spec = self._spec(scale)
                for images in dict.fromkeys(cohorts):
                    rows = []
                    for form in vmapped_forms(images):
                        row = self._try(
                            f"form {form}",
                            lambda form=form, spec=spec, images=images, precision=precision: dataclasses.asdict(
                                time_form(form, spec.size[0], spec.width, images, precision)
                            ),
                            share=0.35,
                        )
                        rows += [row] if row else []
                    self.results["forms"] += rows
                    if rows:
                        best = min(rows, key=lambda row: row["ms_per_image"])
                        self._best[scale, images, precision] = best["form"]
                        self.tell(gpu_report.forms_line(rows))
        self.save()

    def wave(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.kind == "peer":
                self._peer(job.scale)
            else:
                self._steps(job)
        self.save()

    def _steps(self, job: Job) -> None:
        form = job.form or self._best_form(job)
        spec = dataclasses.replace(self._spec(job.scale), form=form)
        group, images = image_plan(job.images, self._temporary.get((job.scale, job.precision)), self._budget())

        def timed() -> dict[str, Any]:
            flops = asked_flops(spec)
            compiled = compile_chunk(spec, images, group, 1 if self._options.tiny else 4, self.mesh, job.precision)
            return {**measure(compiled, 0.6), "precision": job.precision, "asked_flops_per_image": flops}

        row = self._try(f"scale {job.scale}, N={images}, {job.precision}, {form}", timed)
        if row:
            self._temporary[job.scale, job.precision] = row["temporary_bytes"] / group
            rate = row["asked_flops_per_image"] / row["ms_per_step_and_image"] * 1e3
            row["flops_per_second"], row["share_of_matmul"] = rate, rate / self.results["rates"][job.precision]
            self.results["steps"].append(row)
            self.tell(gpu_report.step_line(row))

    def _peer(self, scale: int) -> None:
        try:
            import torch  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError:
            return
        from experiments.training_time.pytorch_peer import seconds_per_step

        spec = self._spec(scale)
        device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"

        def timed() -> dict[str, Any]:
            real = synthetic_image(*spec.size).transpose(2, 0, 1)
            image = torch.from_numpy(np.ascontiguousarray(real))[None].to(device)
            seconds = seconds_per_step(image, (image + 0.1).clamp(-1, 1), spec.width, 0.3)
            return {"scale": scale, "ms_per_step_and_image": 1e3 * seconds, "device": device}

        row = self._try(f"PyTorch at scale {scale}", timed)
        if row:
            self.results["peer"].append({**row, "torch": str(torch.__version__), "precision": "PyTorch's default"})
            self.tell(f"PyTorch, scale {scale}: {row['ms_per_step_and_image']:.2f} ms a step (without the draws)")

    def profile(self) -> None:
        """Traces a chunk of the coarsest and the finest scale that were measured."""
        measured = [row for row in self.results["steps"] if row["precision"] == PRECISIONS[0]]
        scales = sorted({row["scale"] for row in measured})
        for scale in dict.fromkeys((*scales[-1:], *scales[:1])):
            row = max((row for row in measured if row["scale"] == scale), key=lambda row: row["images"])
            spec = dataclasses.replace(self._spec(scale), form=row["form"])
            arguments = spec, row["images"], row["group"], self.mesh, row["precision"], self._folder / f"trace_{scale}"
            found = self._try(f"profile of scale {scale}", functools.partial(gpu_report.profile, *arguments))
            if found:
                self.results["profiles"].append(found)
                self.tell(f"scale {scale}, N={row['images']}:\n{found['table']}")

    def save(self) -> None:
        """Writes what there is, so that a run that is cut off leaves what it measured."""
        self.results["seconds"] = self.spent()
        gpu_report.write(self._options.out, self.results)

    def tell(self, text: str) -> None:
        print(f"[{self.spent():5.0f} s] {text}", flush=True)

    def _spec(self, scale: int) -> ScaleSpec:
        return make_spec(self.config, self.pyramid, 3, "shifted", scale)

    def _best_form(self, job: Job) -> str:
        """Returns the form that was fastest at the nearest measured scale and cohort size."""
        near = [key for key in self._best if key[2] == job.precision] or list(self._best)
        distance = lambda key: (abs(key[0] - job.scale), abs(key[1] - job.images))  # noqa: E731
        return self._best[min(near, key=distance)] if near else form_for("gpu")

    def _budget(self) -> int | None:
        return planning.memory_budget(self.mesh.devices.flat[0])

    def _try(self, name: str, measurement: Any, share: float = 1.0) -> Any:
        """Returns what a measurement returns, or None where it fails or the time (a share of it) does not allow it."""
        kind = name.split(",")[0].split(" ")[0]
        if self.spent() + self._longest.get(kind, 0.0) > share * 60 * self._options.minutes:
            self.results["left_out"].append(f"{name}: no time left")
            return None
        began = time.monotonic()
        try:
            return measurement()
        except Exception as error:  # a form that a device cannot compile is a result
            text = str(error).splitlines()[0][:200] if str(error) else ""
            self.results["left_out"].append(f"{name}: {type(error).__name__}: {text}")
            self.tell(f"{name} failed: {text}")
            return None
        finally:
            self._longest[kind] = max(self._longest.get(kind, 0.0), time.monotonic() - began)

    def _cache(self) -> None:
        jax.config.update("jax_enable_compilation_cache", False)  # what is told is how long compiling takes


if __name__ == "__main__":
    sys.exit(main())
