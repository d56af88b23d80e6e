"""Conditional pyramids, whole: trained, resumed, in company and alone, read back and sampled."""

import dataclasses

import jax
import numpy as np
import pytest

import singan
from singan.config import parse
from singan.errors import UserError
from singan.model.condition import condition_level, make_pool
from singan.model.encodings import encode
from singan.model.layouts import layout_of
from singan.model.pyramid import Pyramid, make_pyramid
from singan.parallel.cohort import image_mesh
from singan.sampling.samples import draw
from singan.storage import workdir as records
from singan.storage.layout_files import layout_array, write_layout
from singan.storage.origin import origin_of
from singan.storage.workdir import ImageRecord, Workdir, pixel_digest
from singan.training import trainer
from singan.training.observer import Silent
from singan.training.scale_run import Stopped
from singan.training.scale_setup import TrainingImage
from singan.value_map import ValueMap, join, mask_map

pytestmark = pytest.mark.usefixtures("compiled_quickly_and_once")
WORDS = ("binary", "boundary")
SIZE = 16
CONFIG = {
    "data": {"condition": WORDS, "layouts": 5},
    "pyramid": {"min_size": 11, "max_size": SIZE, "ratio": 0.7},
    "network": {"width": 4, "num_layers": 2},
    "train": {"steps_per_scale": 4, "chunk": 2, "checkpoint_every": 2},
}


class Unwarned(Silent):
    """An observer for whom a warning is a failure."""

    def warn(self, text):
        raise AssertionError(text)


def layout(number):
    objects = np.zeros((SIZE, SIZE), np.int32)
    objects[2:6, 3 + number : 8 + number] = 1
    objects[9:13, 8:12] = 2
    return layout_of(objects)


def train(path, ids=("a", "b"), stop=lambda: False, **config):
    """Trains images of two squares, darker inside, and returns the run."""
    config, workdir = parse({**CONFIG, **config}), Workdir(path)
    value_map = join([ValueMap((0.0,), (255.0,), (None,), "uint8", ("type",)), mask_map(2, 1.0, np.uint8)])
    pyramid, rows, images = make_pyramid(SIZE, SIZE, config.pyramid), [], []
    workdir.path.mkdir(exist_ok=True)
    for number, name in enumerate("ab"):
        if name not in ids:
            continue
        shown = layout(number)
        noise = np.random.default_rng(number).uniform(-0.3, 0.3, (SIZE, SIZE, 1))
        grey = (np.where(shown.objects[..., None] > 0, -0.5, 0.5) + noise).astype(np.float32)
        given = encode(shown, WORDS, 1).astype(np.float32) / 127.5 - 1
        pixels = np.concatenate([grey, given], axis=-1)
        about = {"words": WORDS, "channels": 2, "classes": 1, "digest": pixel_digest(layout_array(shown))}
        records.write_image(workdir, name, pixels)
        write_layout(workdir, name, shown)
        rows.append(
            ImageRecord(
                name, "made", pixels.shape, ("grey", *WORDS), value_map, pixel_digest(pixels), {"condition": about}
            )
        )
        pool = make_pool(shown, WORDS, 1, pyramid, config.seed, name, config.data.layouts)
        images.append(TrainingImage(name, grey, np.zeros(1, np.float32), pool))
    records.write_images(workdir, rows)
    records.write_config(workdir, config)
    mesh, origin = image_mesh(jax.devices()[:1]), origin_of(config, rows)
    trainer.train(config, images, pyramid, workdir, Unwarned(), mesh, "direct", stop, origin=origin)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("conditional") / "run")


def digests(path):
    return {done.parent.name: done.read_text() for done in sorted(path.glob("scales/*/DONE"))}


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_bit(trained, tmp_path):
    asked = iter([False, True])
    with pytest.raises(Stopped):
        train(tmp_path / "run", stop=lambda: next(asked, True))
    assert digests(train(tmp_path / "run")) == digests(trained)


@pytest.mark.slow
def test_an_image_trains_as_it_would_alone(trained, tmp_path):
    alone = digests(train(tmp_path / "run", ids=("b",)))
    together = digests(trained)
    for scale, text in alone.items():
        assert text.strip() in together[scale].splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("config", [{"seed": 1}, {"data": {**CONFIG["data"], "layouts": 3}}])
def test_seed_and_pool_matter(trained, tmp_path, config):
    assert digests(train(tmp_path / "run", **config))["00"] != digests(trained)["00"]


def test_samples_bring_the_layouts_they_were_given(trained):
    run = singan.load_run(trained)
    assert (run.spec.channels, run.spec.condition) == (1, 2)
    (batch,) = draw(run, ["a", "b"], 3, seed=4)
    assert batch.pixels.shape == (2, 3, SIZE, SIZE, 3)
    for drawn, given in zip(batch.pixels, batch.layouts, strict=True):
        for sample, one in zip(drawn, given, strict=True):
            np.testing.assert_allclose(sample[..., 1:], encode(one, WORDS, 1) / 127.5 - 1, atol=1e-6)
    (again,) = draw(run, ["b"], 3, seed=4)
    np.testing.assert_array_equal(again.pixels[0], batch.pixels[1])


def test_the_layout_changes_the_image(trained):
    run = singan.load_run(trained)
    own, moved = layout(0), layout(1)
    a, b = (next(draw(run, ["a"], 1, layouts=lambda *_, one=one: one)).pixels for one in (own, moved))
    assert np.abs(a - b)[..., 0].max() > 1e-3


def test_above_scale_0_samples_have_the_layout_of_the_image_and_no_other(trained):
    run = singan.load_run(trained)
    batch = next(draw(run, ["a"], 2, start_scale=1))
    for sample in batch.pixels[0]:
        np.testing.assert_allclose(sample[..., 1:], run.finest("a")[..., 1:], atol=1e-6)
    still = next(draw(run, ["a"], 1, start_scale=1, temperature=0.0)).pixels[0, 0]
    reconstruction = run.scales[-1].rows(["a"])["reconstruction"][0, 0]
    np.testing.assert_allclose(still[..., :1], np.clip(reconstruction, -1, 1), atol=1e-5)
    with pytest.raises(UserError, match="start at"):
        next(draw(run, ["a"], 1, start_scale=1, layouts=lambda *_: layout(0)))


def test_pairs_are_endless_and_the_seed_decides(trained):
    run = singan.load_run(trained)
    pairs = run.pairs(batch=3, seed=7)
    first, second = next(pairs), next(pairs)
    assert first["image"].shape == (3, SIZE, SIZE, 1)
    assert first["objects"].shape == first["classes"].shape == (3, SIZE, SIZE)
    assert first["ids"] == ("a", "b", "a")
    assert ((first["objects"] > 0) == (first["classes"] == 1)).all()
    assert (first["objects"] != second["objects"]).any()
    assert np.abs(first["image"] - second["image"]).max() > 1
    of_second_worker = next(run.pairs(batch=3, seed=7, worker=1, workers=2))
    for name in ("image", "objects", "classes"):
        np.testing.assert_array_equal(of_second_worker[name], second[name])
    alone = next(run.pairs(batch=1, seed=8, images=["b"]))
    assert alone["ids"] == ("b",)


def test_samples_of_another_size_have_layouts_of_that_size(trained):
    run = singan.load_run(trained)
    batch = next(draw(run, ["a"], 1, size=(1.5, 1.0)))
    assert batch.pixels.shape == (1, 1, 24, SIZE, 3)
    assert batch.layouts[0][0].objects.shape == (24, SIZE)


def test_a_conditional_run_manipulates_no_image(trained):
    run = singan.load_run(trained)
    for work in (lambda: run.animate("a"), lambda: run.super_resolve("a"), lambda: run.paint("a", [])):
        with pytest.raises(UserError, match="conditional"):
            work()


def test_a_damaged_layout_is_told(trained):
    run = singan.load_run(trained)
    other = dataclasses.replace(run.record("a"), details=run.record("b").details)
    with pytest.raises(UserError, match="damaged"):
        dataclasses.replace(run, images=(other,)).layout("a")


def test_a_coarse_level_is_the_mean_over_areas():
    pyramid = Pyramid((16, 16), (16, 16), ((8, 8), (16, 16)), 0.5, "mirror")
    finest = np.zeros((16, 16, 1), np.uint8)
    finest[4, 6] = 200
    coarse = np.asarray(condition_level(pyramid, 0, finest))
    assert coarse[2, 3, 0] == 50
    assert coarse.sum() == 50
