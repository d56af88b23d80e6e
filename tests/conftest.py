"""What all tests share: eight fake CPU devices, checked shape annotations, and tiny images, scales and states."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_num_cpu_devices", 8)  # before the first use of a device
# Whatever is imported from singan/ from here on has its shape annotations checked at every call.
jaxtyping.install_import_hook("singan", "beartype.beartype")

from singan.api import TrainedRun  # noqa: E402
from singan.config import Config, parse  # noqa: E402
from singan.model.networks import initial_variables  # noqa: E402
from singan.model.noise import image_key_data  # noqa: E402
from singan.model.pyramid import make_pyramid  # noqa: E402
from singan.model.scale_start import starting_noise, starting_state  # noqa: E402
from singan.model.spec import ScaleSpec, make_spec  # noqa: E402
from singan.model.state import ScaleInputs, ScaleState, TrainedScale, hyperparameters  # noqa: E402
from singan.parallel import cohort  # noqa: E402
from singan.storage.finished_scale import FinishedScale, weights_template  # noqa: E402
from singan.storage.workdir import ImageRecord, Workdir, pixel_digest, write_image  # noqa: E402
from singan.value_map import ValueMap  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
UNOPTIMISED = "--xla_backend_optimization_level=0"
TINY = {
    "pyramid": {"min_size": 11, "max_size": 17, "ratio": 0.8},  # 13x11 14x13 16x14 17x15
    "network": {"width": 4},
    "train": {"steps_per_scale": 10, "chunk": 2},
}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and reference values beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("../shared/data is not there")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _commands_compile_quickly() -> Iterator[None]:
    """What tests start as processes of their own compiles without optimisation: tiny networks need none."""
    jax.devices()  # this process has read the flags that it was given, and keeps to them
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {UNOPTIMISED}".strip())
        yield


@contextlib.contextmanager
def _kept_in(directory: Path, seconds: float = 0.0) -> Iterator[None]:
    settings = {
        "jax_compilation_cache_dir": str(directory),
        "jax_persistent_cache_min_compile_time_secs": seconds,
        "jax_persistent_cache_min_entry_size_bytes": 0,
        "jax_enable_compilation_cache": True,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX opens its cache once
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def kept_in() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """Context in which what is compiled is kept in a directory: kept_in(directory, seconds).

    By this project, and by JAX what took it at least `seconds` to compile.
    """
    return _kept_in


@pytest.fixture(scope="module")
def compiled_quickly() -> Iterator[None]:
    """Programs of cohorts are not optimised, where neither their speed nor a reference's last bits matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cohort._CPU_OPTIONS, "xla_backend_optimization_level", 0)
        yield


@pytest.fixture(scope="module")
def compiled_quickly_and_once(tmp_path_factory, compiled_quickly) -> Iterator[None]:
    """Trainings of equal shapes within a file share what they compile, which is not optimised."""
    with _kept_in(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., Config]:
    """Makes the configuration of tiny_spec: tiny_config(preset, num_layers, **train)."""

    def make(preset: str = "corrected", num_layers: int = 5, **train: Any) -> Config:
        network = {**TINY["network"], "num_layers": num_layers}
        return parse({"preset": preset, **TINY, "network": network, "train": {**TINY["train"], **train}})

    return make


@pytest.fixture(scope="session")
def tiny_spec(tiny_config) -> Callable[..., ScaleSpec]:
    """Makes a scale of a tiny pyramid (13x11 14x13 16x14 17x15): see `make`.

    Fewer layers compile faster, where the layers are not what a test is about.
    """

    def make(
        scale: int = 0,
        channels: int = 2,
        form: str = "direct",
        preset: str = "corrected",
        num_layers: int = 5,
        **train: Any,
    ) -> ScaleSpec:
        config = tiny_config(preset, num_layers, **train)
        pyramid = make_pyramid(17, 15, config.pyramid, str(config.method.resize_border))
        return make_spec(config, pyramid, channels, form, scale)

    return make


@pytest.fixture(scope="session")
def random_image() -> Callable[..., np.ndarray]:
    """Makes a smooth-ish image of tiny_spec's full size: random_image(number, channels), float32 in [-1, 1]."""

    def make(number: int = 0, channels: int = 2) -> np.ndarray:
        coarse = np.random.default_rng(number).uniform(-1, 1, (6, 5, channels))
        return coarse.repeat(3, 0).repeat(3, 1)[:17].astype(np.float32)

    return make


@pytest.fixture(scope="session")
def random_trained() -> Callable[[ScaleSpec, int], TrainedScale]:
    """Makes a scale with random weights, as large as trained ones: random_trained(spec, number)."""

    def make(spec: ScaleSpec, number: int = 0) -> TrainedScale:
        variables = initial_variables(spec.generator, spec.channels, np.random.default_rng([number, spec.scale]))
        params = {name: leaf * 10 if name == "kernel" else leaf for name, leaf in variables["params"].items()}
        return TrainedScale({**variables, "params": params}, np.float32(1 if spec.scale == 0 else 0.3))

    return make


@pytest.fixture
def random_run(tmp_path, tiny_config, random_image, random_trained) -> Callable[..., TrainedRun]:
    """Makes a run of images image0, image1 ... with random weights, without training: random_run(images, channels)."""

    def make(images: int = 2, channels: int = 2, num_layers: int = 3, **train: Any) -> TrainedRun:
        config = tiny_config("corrected", num_layers, **train)
        spec = make_spec(config, make_pyramid(17, 15, config.pyramid), channels, "direct")
        workdir, rows = Workdir(tmp_path / "run"), []
        value_map = ValueMap((0.0,) * channels, (1000.0,) * channels, (0.0,) * channels, "int16")
        for number in range(images):
            pixels = random_image(number, channels)
            pixels[:3] = -1  # background
            pixels = value_map.apply(value_map.invert(pixels, as_stored=True))
            write_image(workdir, f"image{number}", pixels)
            names = tuple(f"channel{c}" for c in range(channels))
            digest = pixel_digest(pixels)
            rows.append(ImageRecord(f"image{number}", "made", pixels.shape, names, value_map, digest))
        scales = []
        for scale in range(len(spec.pyramid)):
            here, weights = spec.at(scale), []
            for number, row in enumerate(rows):
                noise = np.asarray(starting_noise(here, image_key_data(0, row.id))) if scale == 0 else None
                weights.append(
                    {
                        **weights_template(here),
                        "trained": random_trained(here, number),
                        "reconstruction_noise": noise,
                    }
                )
            ids = tuple(row.id for row in rows)
            scales.append(FinishedScale(ids, {}, jax.tree.map(lambda *leaves: np.stack(leaves), *weights), {}))
        return TrainedRun(workdir, config, tuple(rows), spec, tuple(scales))

    return make


@pytest.fixture(scope="session")
def one_image(random_image, random_trained) -> Callable[..., tuple[ScaleInputs, ScaleState]]:
    """Makes what a scale's training of image `number` starts from: one_image(spec, number, **rates and weights)."""

    def make(spec: ScaleSpec, number: int = 0, **rates: float) -> tuple[ScaleInputs, ScaleState]:
        train = {"steps_per_scale": spec.train.steps_per_scale, **rates}
        train = parse({"preset": "corrected", "train": train}).train
        key_data = image_key_data(0, f"image{number}")
        real = spec.pyramid.level(random_image(number, spec.channels), spec.scale)[None]
        below = real + np.random.default_rng(number).normal(0, 0.1, real.shape).astype(np.float32)
        noise = np.asarray(starting_noise(spec, key_data)) if spec.scale == 0 else None
        inputs = ScaleInputs(
            real,
            np.zeros_like(real) if spec.scale == 0 else np.clip(below, -1, 1),
            np.linspace(-1, 0, spec.channels, dtype=np.float32),
            np.float32(1 if spec.scale == 0 else 0.05),
            key_data,
            tuple(random_trained(spec.at(scale), number) for scale in range(spec.scale)),
            hyperparameters(train, 1, spec.steps),
        )
        return inputs, _fresh_state(spec, f"image{number}", noise)

    return make


def _fresh_state(spec: ScaleSpec, image_id: str, noise: np.ndarray | None) -> ScaleState:
    below = None
    if spec.continues_previous_scale:
        rng = np.random.default_rng(len(image_id) + sum(image_id.encode()))
        below = tuple(initial_variables(net, spec.channels, rng) for net in (spec.generator, spec.critic))
    return starting_state(spec, 0, image_id, noise, below)
