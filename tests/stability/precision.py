"""How far float32, and the other precisions of products, move from float64: a small pyramid, every scale trained alike.

python -m tests.stability.precision [--steps=20] [--preset=reference] [--options]

The float64 run is the same code with every array and every random number widened. Prints, after 1, 2, 5, 10 ... steps,
the relative difference of the losses, of the weights' movement and of the reconstruction from the float64 run.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags

SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
FLOAT32 = "float32"
CHOSEN = {FLOAT32: "highest", "tf32 option": "tf32", "bf16 option": "bf16"}  # what is shown, and its train.precision
QUICKLY_COMPILED = {"xla_backend_optimization_level": 0}


@dataclasses.dataclass(frozen=True)
class Difference:
    """From the float64 run, each relative: of the losses, of the weights' movement, of the reconstruction."""

    scale: int
    size: tuple[int, int]
    what: str
    step: int
    losses: float
    weights: float
    reconstruction: float


def compare(steps: int, preset: str = "corrected", form: str = "direct", options: bool = False) -> Iterator[Difference]:
    """Yields the differences of every scale; on a CPU, only the form `direct` takes notice of tf32 and bf16."""
    from singan.config import parse
    from singan.model.noise import image_key_data
    from singan.model.scale_start import reconstruct
    from singan.model.state import ScaleInputs, TrainedScale, hyperparameters
    from singan.model.step import draw
    from singan.parallel.cohort import PRECISIONS

    spec, image = _spec(preset, form), _image()
    chosen = {what: PRECISIONS[name] for what, name in CHOSEN.items() if options or what == FLOAT32}
    below: list[TrainedScale] = []
    reconstruction, rec_noise = None, None
    for scale in range(len(spec.pyramid)):
        here = spec.at(scale)
        real = here.pyramid.level(image, scale)[None]
        if scale == 0:
            previous, amplitude = np.zeros_like(real), np.float32(1)
        else:
            from singan.model.generation import upsample_to_next_scale

            previous = np.asarray(upsample_to_next_scale(here, reconstruction), np.float32)
            amplitude = np.float32(0.1 * np.sqrt(np.mean(np.square(previous - real))))
        inputs = ScaleInputs(
            real,
            previous,
            np.full(3, -1, np.float32),
            amplitude,
            image_key_data(0, "x"),
            tuple(below),
            hyperparameters(parse({"preset": "corrected"}).train, 1, spec.steps),
        )
        state = _state(here, scale)
        rec_noise = state.reconstruction_noise if scale == 0 else rec_noise
        noises = [jax.jit(lambda i, n, s=here: draw(s, i, n))(inputs, np.int32(n)) for n in range(steps)]
        runs = {}
        for what, precision in {"float64": "highest", **chosen}.items():
            kind = np.float64 if what == "float64" else np.float32
            with jax.default_matmul_precision(precision), jax.enable_x64(what == "float64"):
                runs[what] = list(_run(here, _as(inputs, kind), _as(state, kind), [_as(n, kind) for n in noises]))
        start = _flat(state.generator["params"])
        for what in chosen:
            for step in [s for s in SHOWN if s <= steps]:
                found, exact = runs[what][step - 1], runs["float64"][step - 1]
                yield Difference(
                    scale,
                    here.size,
                    what,
                    step,
                    float(np.max(np.abs(found.losses - exact.losses)) / np.max(np.abs(exact.losses))),
                    _relative(found.weights - start, exact.weights - start),
                    _relative(found.image, exact.image),
                )
        generator = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), runs[FLOAT32][-1].generator)
        trained = TrainedScale(generator, amplitude)
        noise = rec_noise if scale == 0 else None
        reconstruction = np.asarray(reconstruct(here, trained, noise, inputs.previous, inputs.padding), np.float32)
        below.append(trained)


@dataclasses.dataclass(frozen=True)
class _Reached:
    """What a run has come to after a step; numbers as float64."""

    losses: np.ndarray
    generator: Any
    image: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        return _flat(self.generator["params"])


def _run(spec: Any, inputs: Any, state: Any, noises: Sequence[Any]) -> Iterator[_Reached]:
    from singan.model.scale_start import reconstruct
    from singan.model.state import TrainedScale
    from singan.model.step import update_networks

    def step(inputs, state, noise):
        new, metrics = update_networks(spec, inputs, state, noise)
        rec_noise = new.reconstruction_noise if spec.scale == 0 else None
        trained = TrainedScale(new.generator, inputs.amplitude)
        return new, metrics, reconstruct(spec, trained, rec_noise, inputs.previous, inputs.padding)

    compiled = jax.jit(step, compiler_options=QUICKLY_COMPILED)
    for number, noise in enumerate(noises):
        state, metrics, image = compiled(inputs, dataclasses.replace(state, step=np.int32(number)), noise)
        losses = np.concatenate([np.ravel(np.asarray(value, np.float64)) for value in metrics.values()])
        yield _Reached(losses, jax.tree.map(np.asarray, state.generator), np.asarray(image, np.float64))


def _spec(preset: str, form: str) -> Any:
    from singan.config import parse
    from singan.model.pyramid import make_pyramid
    from singan.model.spec import make_spec

    config = parse(
        {
            "preset": preset,
            "pyramid": {"min_size": 11, "max_size": 24, "num_scales": 3},
            "network": {"width": 4, "num_layers": 3},
            "train": {"critic_updates": 1, "generator_updates": 1},
        }
    )
    return make_spec(config, make_pyramid(24, 20, config.pyramid, str(config.method.resize_border)), 3, form)


def _state(spec: Any, scale: int) -> Any:
    from singan.model.networks import initial_variables
    from singan.model.noise import image_key_data
    from singan.model.scale_start import starting_noise, starting_state

    noise = np.asarray(starting_noise(spec, image_key_data(0, "x"))) if scale == 0 else None
    below = None
    if spec.continues_previous_scale:
        rng = np.random.default_rng(scale)
        below = tuple(initial_variables(net, spec.channels, rng) for net in (spec.generator, spec.critic))
    return starting_state(spec, 0, "x", noise, below)


def _image() -> np.ndarray:
    """A picture of smooth structure with detail, float32 [24, 20, 3]."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:24, 0:20]
    waves = [np.sin(rows / (2 + c)) * np.cos(columns / (3 + c)) for c in range(3)]
    return np.clip(np.stack(waves, -1) * 0.8 + rng.normal(0, 0.1, (24, 20, 3)), -1, 1).astype(np.float32)


def _as(tree: Any, kind: Any) -> Any:
    """Returns the tree with its real numbers widened or narrowed; counts and keys stay."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, kind) if np.asarray(leaf).dtype.kind == "f" else np.asarray(leaf), tree
    )


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def main(argv: list[str]) -> int:
    del argv
    print("scale  pixels  what                step    losses   weights  reconstruction")
    for d in compare(STEPS.value, PRESET.value, options=OPTIONS.value):
        size = f"{d.size[0]}x{d.size[1]}"
        print(
            f"{d.scale:<7}{size:8}{d.what:20}{d.step:<8}{d.losses:<9.1e}{d.weights:<9.1e}{d.reconstruction:.1e}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    STEPS = flags.DEFINE_integer("steps", 20, "Steps of each scale.", lower_bound=1)
    PRESET = flags.DEFINE_enum("preset", "corrected", ("corrected", "reference"), "As config.preset.")
    OPTIONS = flags.DEFINE_boolean("options", False, "Try the options tf32 and bf16 too.")
    app.run(lambda argv: sys.exit(main(argv)))
