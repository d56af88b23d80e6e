"""What is measured at a scale's end: every surviving image, as in launch.evaluate, and words for what is undefined."""

import dataclasses

import jax
import numpy as np
import pytest

from launch.train import scale_samples
from launch.train.scale_samples import ScaleQuality, columns, in_words, sample_and_measure
from singan.metrics.diversity import diversity
from singan.metrics.memorisation import rmse_to_image
from singan.metrics.random_features import texture_distance
from singan.metrics.sliced_wasserstein import patch_distribution
from singan.metrics.values import Undefined
from singan.parallel.cohort import image_mesh
from singan.sampling import samples as sampling


def measured(run, count, shown, devices=2):
    config = dataclasses.replace(run.config, tracking=dataclasses.replace(run.config.tracking, num_samples=count))
    spec = run.spec.at(len(run.scales) - 1)
    images = {name: run.finest(name) for name in run.ids}
    padding = dict(zip(run.ids, run.padding(run.ids), strict=True))
    return sample_and_measure(
        config, spec, run.scales, images, padding, image_mesh(jax.devices()[:devices]), shown
    ), images


def test_metrics_are_those_of_singan_metrics_on_the_samples_that_the_run_draws(random_run, monkeypatch):
    run = random_run(images=3)
    monkeypatch.setattr(scale_samples, "BATCH", 8)  # two images a call: the third alone
    quality, images = measured(run, 4, run.ids[:2])
    drawn = {
        name: samples
        for batch in sampling.draw(run, run.ids, 4, seed=run.config.seed)
        for name, samples in zip(batch.ids, batch.pixels, strict=True)
    }
    assert set(quality.rows) == set(run.ids)
    assert set(quality.samples) == set(run.ids[:2])
    for name in run.ids:
        samples, image, row = drawn[name], images[name], quality.rows[name]
        if name in quality.samples:
            np.testing.assert_allclose(quality.samples[name], samples, atol=1e-5)
        expected = {
            "swd": np.mean([each["swd"] for each in patch_distribution(samples, image)]),
            "diversity": diversity(samples, image)["diversity"],
            "rmse": np.mean(np.asarray(rmse_to_image(samples, image))),
        }
        for metric, value in expected.items():
            assert row[metric] == pytest.approx(value, rel=1e-4), metric
    assert quality.seconds > 0


def test_images_too_small_for_a_metric_say_so_and_lose_no_other(random_run):
    run = random_run(images=1)  # 17x15 pixels, where random features need 16
    row = measured(run, 2, ())[0].rows["image0"]
    assert isinstance(row["random_sifid"], Undefined)
    assert row["random_sifid"] == texture_distance(run.finest("image0")[None], run.finest("image0"))[0]["random_sifid"]
    found = columns(ScaleQuality({"image0": row}, {}, 0.0), "image0")
    assert found["random_sifid"] is None
    assert found["undefined"].startswith("random_sifid: an image of 17x15 pixels is too small")
    assert all(isinstance(found[metric], float) for metric in ("swd", "diversity", "rmse"))


def test_one_sample_has_no_diversity_and_a_broken_one_no_numbers(random_run):
    run = random_run(images=2)
    broken = run.scales[-1].weights["trained"].amplitude
    broken[1] = np.nan
    quality, _ = measured(run, 1, ())
    assert "one sample" in str(quality.rows["image0"]["diversity"])
    assert isinstance(quality.rows["image0"]["swd"], float)
    assert columns(quality, "image1") == {
        **dict.fromkeys(scale_samples.METRICS),
        "undefined": columns(quality, "image1")["undefined"],
    }
    assert "swd: a sample holds values that are not numbers" in columns(quality, "image1")["undefined"]


def test_an_image_that_has_diverged_has_no_numbers_and_fidelity_is_not_said_alone():
    quality = ScaleQuality({"a": {"swd": 0.25, "diversity": 0.5, "rmse": 0.125}}, {}, 1.0)
    assert columns(quality, "b") == {**dict.fromkeys(scale_samples.METRICS), "undefined": ""}
    assert columns(None, "a") == columns(quality, "b")
    assert in_words(quality) == "; samples: SWD 0.250, diversity 0.500, RMSE to the training image 0.125"
    assert in_words(ScaleQuality({"a": {"swd": 0.25, "diversity": Undefined("one sample")}}, {}, 1.0)) == ""
    assert in_words(None) == ""
