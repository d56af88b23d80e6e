"""How long a training step takes, per scale and cohort size, beside a plain PyTorch step of the same work.

make bench                                            (both sides in one run; PyTorch where torch is installed)
python -m experiments.training_time.bench --size=128 --cohorts=1,4,8 --out=bench.json

Both sides do three critic and three generator updates on the same image with the same sizes, and are given their
previous images, so that the step itself is compared. Times are medians; the ratio is PyTorch's over this project's.
"""

import datetime
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import lax

from launch import cli, runtime
from launch.sources import load_images
from singan import cohort, planning
from singan.config import Config, parse
from singan.convolution import form_for
from singan.errors import UserError
from singan.handover import starting_noise, starting_state
from singan.noise import image_key_data
from singan.pyramid import plan
from singan.spec import ScaleSpec, make_spec
from singan.state import ScaleInputs, ScaleState
from singan.step import StepNoise, update_networks

SIZE = flags.DEFINE_integer("size", 128, "Pixels of the image's sides.", lower_bound=32, upper_bound=512)
COHORTS = flags.DEFINE_list("cohorts", ["1", "4", "8"], "Numbers of images trained at once.")
SECONDS = flags.DEFINE_float("seconds", 1.0, "Least time spent on each figure.", lower_bound=0.01)
PRECISION = flags.DEFINE_enum("precision", "highest", ["highest", "tf32", "bf16"], "Of this project's side.")
PEER = flags.DEFINE_boolean("peer", True, "Time the PyTorch step too, where torch is installed.")
OUT = flags.DEFINE_string("out", "", "A JSON file for the table.")

COARSE = 54  # pixels up to which the geometric mean of the larger cohorts is taken


def main(argv: list[str]) -> int:
    del argv
    try:
        sizes = [int(text) for text in COHORTS.value]
    except ValueError:
        raise UserError(f"--cohorts={','.join(COHORTS.value)} must be whole numbers, such as 1,4,8") from None
    mesh = runtime.start_jax(max(sizes))
    config = parse({"data": {"num_crops": 1, "crop_size": SIZE.value}, "train": {"precision": PRECISION.value}})
    pixels = load_images(config.data)[0].pixels
    pyramid = plan(SIZE.value, SIZE.value, config.pyramid)
    peer = _peer() if PEER.value else None
    print(_machine(mesh, peer is not None), flush=True)
    heads = "scale  pixels width   N  ms/step/image  PyTorch ms  ratio  compile s  MiB  MiB/image"
    print(heads, flush=True)
    rows = []
    for scale in range(len(pyramid)):
        spec = make_spec(config, pyramid, pixels.shape[-1], form_for(mesh.devices.flat[0].platform), scale)
        real = pyramid.level(pixels, scale)
        before = 1e3 * peer(real, spec.width) if peer else 0.0
        for images in sizes:
            row = _measure(config, spec, real, images, mesh)
            # Timed on both sides of each figure, so that a machine whose speed drifts does not favour either.
            after = 1e3 * peer(real, spec.width) if peer else 0.0
            row["pytorch_ms"] = (before + after) / 2 if peer else None
            row["ratio"] = row["pytorch_ms"] / row["ms"] if peer else None
            before = after
            rows.append(row)
            print(_line(row), flush=True)
    for text in _means(rows, sizes):
        print(text)
    if OUT.value:
        Path(OUT.value).write_text(json.dumps({"machine": _machine(mesh, peer is not None), "rows": rows}, indent=2))
    return 0


def _measure(config: Config, spec: ScaleSpec, real: np.ndarray, images: int, mesh: Any) -> dict[str, Any]:
    """Returns the median milliseconds per step and image of a cohort, with its compile time and memory."""
    previous = np.clip(real + 0.1, -1, 1)[None]
    group = 1 if mesh.devices.flat[0].platform == "cpu" else -(-images // mesh.size)
    inputs, states = [], []
    for number in range(images):
        name = f"image-{number}"
        key = image_key_data(0, name)
        below = None
        if spec.inherits:  # what the weights are does not matter to the time
            fresh = starting_state(_without_inheritance(spec), 0, name, None, None)
            below = fresh.generator, fresh.critic
        noise = np.asarray(starting_noise(spec, key)) if spec.scale == 0 else None
        states.append(starting_state(spec, 0, name, noise, below))
        zeros = np.zeros(spec.channels, np.float32)
        inputs.append(ScaleInputs(real[None], previous, zeros, np.float32(0.1), key, ()))
    size = cohort.padded_size(images, mesh, group)
    placed, state = cohort.place(cohort.stack(inputs, size), mesh), cohort.place(cohort.stack(states, size), mesh)

    def one(inputs: ScaleInputs, state: ScaleState, steps: Any) -> tuple[ScaleState, Any]:
        def body(number: Any, state: ScaleState) -> ScaleState:
            key = jax.random.fold_in(jax.random.wrap_key_data(inputs.key_data), number)
            noise = jax.random.normal(key, inputs.real.shape)
            updates = config.train.critic_updates
            passes = jnp.broadcast_to(inputs.previous, (updates, *inputs.previous.shape))
            random = StepNoise(noise, passes, jax.random.uniform(key, (updates,)))
            return update_networks(spec, inputs, state, random)[0]

        # The number of steps is an argument, so that one compilation serves the first guess and the timed chunks.
        return lax.fori_loop(0, steps, body, state), jnp.zeros(())

    def run(state: ScaleState, steps: int) -> tuple[ScaleState, float]:
        started = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(placed, state, cohort.place(np.full(size, steps, np.int32), mesh)))
        return state, time.perf_counter() - started

    program = cohort.parallel(one, mesh, group, donate=(1,))
    started = time.perf_counter()
    counts = cohort.place(np.zeros(size, np.int32), mesh)
    compiled = cohort.compile_program(program, placed, state, counts, precision=PRECISION.value)
    compile_seconds = time.perf_counter() - started
    state, _ = run(state, 1)
    state, seconds = run(state, 1)
    steps = int(np.clip(SECONDS.value / 3 / seconds, 1, 200))
    times = []
    while len(times) < 3 or sum(times) * steps < SECONDS.value:
        state, seconds = run(state, steps)
        times.append(seconds / steps)
    return {
        "scale": spec.scale,
        "height": spec.size[0],
        "width": spec.width,
        "images": images,
        "ms": 1e3 * sorted(times)[len(times) // 2] / images,
        "compile_seconds": compile_seconds,
        "memory_bytes": planning.compiled_memory(compiled).total,
    }


def _without_inheritance(spec: ScaleSpec) -> ScaleSpec:
    """Returns a spec of the same width that does not inherit weights."""
    every = spec.network.width_doubles_every
    return spec.at(spec.scale // every * every)


def _peer() -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        print("torch is not installed: no PyTorch column (pip install torch, the extra `bench`)", file=sys.stderr)
        return None
    from experiments.training_time.pytorch_peer import seconds_per_step

    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"

    def timed(real: np.ndarray, width: int) -> float:
        image = torch.from_numpy(np.ascontiguousarray(real.transpose(2, 0, 1)))[None].to(device)
        return seconds_per_step(image, (image + 0.1).clamp(-1, 1), width, SECONDS.value)

    return timed


def _line(row: dict[str, Any]) -> str:
    mib = row["memory_bytes"] / 2**20
    peer = f"{row['pytorch_ms']:10.1f}  {row['ratio']:5.2f}" if row["ratio"] else f"{'-':>10}  {'-':>5}"
    return (
        f"{row['scale']:5d}  {row['height']:6d} {row['width']:5d} {row['images']:3d}  {row['ms']:13.1f}  {peer}"
        f"  {row['compile_seconds']:9.1f} {mib:4.0f}  {mib / row['images']:9.1f}"
    )


def _means(rows: list[dict[str, Any]], sizes: list[int]) -> list[str]:
    texts = []
    for images in sizes:
        for label, least in (("all scales", 10**6), (f"scales up to {COARSE} px", COARSE)):
            ratios = [r["ratio"] for r in rows if r["images"] == images and r["height"] <= least and r["ratio"]]
            if ratios:
                mean = float(np.exp(np.mean(np.log(ratios))))
                texts.append(
                    f"N = {images}, {label}: PyTorch / this project, geometric mean {mean:.2f}, least {min(ratios):.2f}"
                )
    return texts


def _machine(mesh: Any, peer: bool) -> str:
    device = mesh.devices.flat[0]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    versions = f"jax {jax.__version__}"
    if peer:
        import torch  # pyright: ignore[reportMissingImports]

        versions += f", torch {torch.__version__} with {torch.get_num_threads()} threads"
    return (
        f"{datetime.date.today()}, commit {commit.stdout.strip() or '-'}, {mesh.size} x {device.device_kind},"
        f" {_processor()}, precision {PRECISION.value}, {versions}, python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.processor()


if __name__ == "__main__":
    cli.run(main)
