"""Data cards: what their numbers say of copies and of new images, what they hold, and the commands that write them."""

import dataclasses
import json

import numpy as np
import pytest

from launch.data_card import measure as measuring
from launch.data_card import read_samples, write
from launch.data_card.measure import Collector, measure
from launch.samples import writers
from singan.errors import UserError
from tests.launch.train.train_test import Commands, assert_refused, contents


def textured(number: int, size: int = 24) -> np.ndarray:
    """A smooth random image [size, size, 2] in [-1, 1], unlike any other number's."""
    coarse = np.random.default_rng(number).uniform(-1, 1, (size // 2, size // 2, 2))
    return coarse.repeat(2, 0).repeat(2, 1).astype(np.float32)


def with_digests(run):
    """Returns a run whose scales name their weights, as those read from a workdir do."""
    scales = [dataclasses.replace(scale, digests=dict.fromkeys(scale.ids, "0" * 32)) for scale in run.scales]
    return dataclasses.replace(run, scales=tuple(scales))


@pytest.fixture(scope="module")
def real():
    return {"a": textured(1), "b": textured(2)}


def test_copies_are_near_copies_and_are_warned_of(real):
    copies = {name: np.stack([image] * 3) for name, image in real.items()}
    found = measure(copies, real)
    assert found["measured"] == {"images": 2, "samples_of_each": 3, "samples": 6}
    assert found["fidelity"]["swd"]["mean"] == 0
    assert found["diversity"]["diversity"]["mean"] == 0
    distance = found["distance"]
    assert distance["near_copy"]["mean"] == 1
    assert (distance["near_copies"], distance["judged"]) == (6, 6)
    assert distance["nearest_patch"]["mean"] == 0
    assert distance["nearer_than_real"]["mean"] == 1
    warned = " ".join(write.warnings(found))
    assert "100% of the samples judged are near-copies" in warned
    assert "hardly differ" in warned


def test_other_images_are_no_copies_and_as_far_as_real_ones_are(real):
    """Samples of `a` that are `b` lie as far from `a` as the two real images do."""
    found = measure({"a": real["b"][None].repeat(2, 0)}, real)
    distance = found["distance"]
    assert distance["near_copy"]["mean"] == 0
    rmse = float(np.sqrt(np.mean(np.square(real["a"] - real["b"]))))
    assert distance["rmse"]["mean"] == pytest.approx(rmse, rel=1e-5)
    assert distance["real_rmse"]["mean"] == pytest.approx(rmse, rel=1e-5)
    assert distance["nearest_patch"]["mean"] == pytest.approx(distance["real_nearest_patch"]["mean"], rel=1e-5)
    assert [row["sample"] for row in distance["per_sample"]] == [0, 1]
    assert not any("near-copies" in text for text in write.warnings(found))


def test_a_smoothed_copy_is_a_near_copy_though_few_of_its_patches_are_near():
    rows, columns = np.indices((24, 24))
    smooth = (0.8 * np.sin(rows * 2 * np.pi / 6) * np.cos(columns * 2 * np.pi / 6))[..., None].astype(np.float32)
    image = np.clip(smooth + np.random.default_rng(0).normal(0, 0.15, smooth.shape), -1, 1).astype(np.float32)
    found = measure({"a": smooth[None]}, {"a": image})["distance"]
    assert found["copied"]["mean"] < measuring.COPIED
    assert found["near_copy"]["mean"] == 1


def test_one_real_image_has_no_other_to_compare_with_and_that_is_said(real):
    found = measure({"a": real["b"][None]}, {"a": real["a"]})
    assert "one training image only" in found["distance"]["real_rmse"]["undefined"]
    assert "one training image only" in found["distance"]["nearer_than_real"]["undefined"]
    assert "undefined" in found["diversity"]["diversity"]  # of one sample
    assert found["distance"]["near_copy"]["mean"] == 0


def test_plain_images_cannot_be_judged():
    plain = np.zeros((2, 24, 24, 1), np.float32)
    found = measure({"a": plain}, {"a": plain[0]})
    assert "undefined" in found["distance"]["near_copy"]
    assert "could not be judged" in write.warnings(found)[0]


def test_only_a_part_of_large_sets_is_kept():
    ids = [f"image{number:02d}" for number in range(20)]
    kept = measuring.measured_ids(ids)
    assert len(kept) == measuring.MAX_IMAGES
    assert {"image00", "image19"} <= set(kept)
    collector = Collector(ids)
    pixels = np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype(np.float32)
    for first in (0, 6, 12):
        collector.add(["image00", "image01"], first, [pixels + first, pixels])
    assert set(collector.samples) == {"image00"} | ({"image01"} & set(kept))
    assert np.array_equal(collector.samples["image00"], np.concatenate([pixels, pixels[:2] + 6]))


def test_a_card_says_what_the_set_is_without_time_or_path(random_run, tmp_path):
    run = with_digests(random_run(images=2))
    samples = {name: run.finest(name)[None].repeat(2, 0) for name in run.ids}
    drawn = {"start_scale": 1, "size": (1.0, 1.5), "seed": 3}
    card = write.make_card(run, write.settings_of(run, **drawn), samples, 10, "CC BY 4.0")
    assert card["source"]["licence"] == "CC BY 4.0"
    assert [row["id"] for row in card["source"]["images"]] == list(run.ids)
    assert card["training"]["images"] == 2
    assert card["settings"]["start_scale"] == 1
    assert card["distance"]["near_copy"]["mean"] == 1
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        write.write_card(folder, card)
    page = (tmp_path / "one/DATA_CARD.md").read_text()
    assert (tmp_path / "two/DATA_CARD.md").read_text() == page
    assert json.loads((tmp_path / "one/data_card.json").read_text())["samples"] == 10
    for words in ("CC BY 4.0", "Near-copies: 4 of 4", "| size | 1 x 1.5 |", "Measured on 4 of 10 samples", "Limits"):
        assert words in page
    assert str(tmp_path) not in page + (tmp_path / "one/data_card.json").read_text()


def test_the_settings_digest_knows_training_from_tracking(random_run):
    run, other = with_digests(random_run(images=1)), with_digests(random_run(images=1, steps_per_scale=20))
    one, two = write.settings_of(run), write.settings_of(other)
    assert one["config_digest"] != two["config_digest"]
    assert one["config_digest"] == write.settings_of(run)["config_digest"]


@pytest.mark.parametrize("form", ["npy", "png"])
def test_written_samples_are_read_back_as_they_were_drawn(random_run, tmp_path, form):
    run = random_run(images=2)
    folder = tmp_path / "start_01"
    folder.mkdir()
    drawn = np.random.default_rng(0).uniform(-1, 1, (2, 3, *run.finest("image0").shape)).astype(np.float32)
    with writers.open_writer(form, folder, run.images, 3, 1) as writer:
        writer.add(run.ids, 0, drawn)
    assert read_samples.sets_in(tmp_path) == {folder: 1}
    found = read_samples.read_samples(folder, run)
    assert (found.total, found.owners, found.channels) == (6, list(run.ids), [0, 1])
    for name, pixels in zip(run.ids, drawn, strict=True):
        assert np.abs(found.samples[name] - pixels).max() <= (1e-5 if form == "npy" else 1 / 127)


def test_samples_of_another_run_are_refused(random_run, tmp_path):
    (tmp_path / "samples").mkdir()
    np.save(tmp_path / "samples/stranger.npy", np.zeros((2, 17, 15, 2), np.float32))
    with pytest.raises(UserError, match="holds no sample of"):
        read_samples.read_samples(tmp_path / "samples", random_run(images=1))
    with pytest.raises(UserError, match="is no folder"):
        read_samples.sets_in(tmp_path / "nowhere")


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


@pytest.mark.processes
def test_sampling_writes_a_card_that_the_command_writes_again(commands, tmp_path):
    flags = [f"--workdir={commands.finished_run()}", "--num_samples=3", "--format=npy", f"--out={tmp_path / 'out'}"]
    result = commands.run("sample", *flags, "--licence=CC0")
    assert result.returncode == 0, result.stderr
    before = contents(tmp_path / "out")
    assert {"start_00/DATA_CARD.md", "start_00/data_card.json"} < set(before)
    result = commands.run("data_card", flags[0], f"--samples={tmp_path / 'out'}", "--licence=CC0")
    assert result.returncode == 0, result.stderr
    assert "start_00: SWD" in result.stdout
    first, again = (json.loads(text) for text in (before["start_00/data_card.json"], read_card(tmp_path / "out")))
    assert first["settings"] == again["settings"]
    assert first["source"] == again["source"]
    assert again["distance"]["rmse"]["mean"] == pytest.approx(first["distance"]["rmse"]["mean"], abs=1e-4)
    result = commands.run("sample", *flags[:3], "--nocard", f"--out={tmp_path / 'bare'}")
    assert result.returncode == 0, result.stderr
    assert sorted(contents(tmp_path / "bare")) == ["start_00/left.npy", "start_00/right.npy"]
    result = commands.run("data_card", flags[0], f"--samples={tmp_path / 'nowhere'}")
    assert_refused(result, "is no folder")


def read_card(out) -> str:
    return (out / "start_00/data_card.json").read_text()
