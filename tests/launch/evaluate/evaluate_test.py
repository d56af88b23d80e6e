"""python -m launch.evaluate: the file's contract, what copies give, what a second call computes, and bad folders."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from launch.evaluate import image_metrics as metrics
from launch.evaluate import of_folders, of_run, set_metrics
from launch.evaluate.evaluation_file import Evaluation, entries
from launch.evaluate.image_metrics import Subject
from singan.errors import UserError
from singan.metrics.values import Undefined
from singan.parallel.cohort import image_mesh
from tests.launch.train.train_test import STEPS, Commands, assert_refused, contents, rows, save_npy, save_png

SETTINGS = {"num_samples": 3, "seed": 0, "finest_scale": 1, "inception": None}


def strict(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def texture(seed, side=24, channels=3):
    """A smooth random image, uint8."""
    coarse = np.random.default_rng(seed).integers(20, 235, (side // 4, side // 4, channels))
    return coarse.repeat(4, 0).repeat(4, 1).astype(np.uint8)


def assert_contract(content):
    """evaluation.json as others read it: every entry is a number with its spread, or says why it is none."""
    assert content["format"] == 1
    scales = {str(scale) for scale in content["settings"]["start_scales"]}
    assert set(content["cohort"]) == scales
    assert {scale for image in content["images"].values() for scale in image} <= scales
    for counted, tables in (
        ("count", [table for image in content["images"].values() for table in image.values()]),
        ("images", content["cohort"].values()),
    ):
        for table in tables:
            assert {"diversity", "rmse", "nearest_patch_ratio"} <= set(table) or "random_frechet" in table
            for name, entry in table.items():
                assert name in content["definitions"] or name.split("/")[0] in content["definitions"]
                if "undefined" in entry:
                    assert entry["undefined"]
                    continue
                assert entry["p10"] <= entry["p90"]
                assert {"mean", "p10", "p90", counted} <= set(entry)
                assert entry[counted] >= 1


# evaluation.json


def test_the_cohort_is_summed_up_over_images_and_the_reason_stays(tmp_path):
    found = Evaluation(tmp_path / "e.json", SETTINGS, pytest.fail)
    found.define({"swd": "one", "rmse": "two", "unused": "three"})
    for name, values in (("a", [1.0, 3.0]), ("b", [5.0, 7.0]), ("c", [Undefined("too small")] * 2)):
        found.add(name, 0, entries([{"swd": value, "rmse": Undefined("other size")} for value in values]))
    found.write()
    content = strict(found.path)
    assert content["images"]["a"]["0"]["swd"] == {"mean": 2.0, "p10": 1.2, "p90": 2.8, "count": 2}
    assert content["cohort"]["0"] == {
        "swd": {"mean": 4.0, "p10": pytest.approx(2.4), "p90": pytest.approx(5.6), "images": 2},
        "rmse": {"undefined": "other size"},
    }
    assert content["definitions"] == {"swd": "one", "rmse": "two"}
    assert content["settings"] == {**SETTINGS, "start_scales": [0]}


def test_a_file_of_the_same_settings_is_gone_on_with_and_any_other_is_begun_anew(tmp_path):
    path, said = tmp_path / "e.json", []
    first = Evaluation(path, SETTINGS, said.append)
    first.add("a", 2, entries([{"swd": 1.0}]))
    first.add_pooled(["a"], 2, {"fid/red": {"mean": 1.0, "p10": 1.0, "p90": 1.0, "images": 1}})
    first.write()
    same = Evaluation(path, SETTINGS, said.append)
    assert same.missing(["b", "a"], 2) == ["b"]
    assert same.missing(["a"], 1) == ["a"]
    assert same.has_pooled(["a"], 2)
    assert not same.has_pooled(["a", "b"], 2)
    assert same.cohort() == first.cohort()
    assert said == []
    other = Evaluation(path, {**SETTINGS, "seed": 1, "num_samples": 9}, said.append)
    assert other.missing(["a"], 2) == ["a"]
    assert "another num_samples, seed: it is begun anew" in said.pop()
    path.write_text("{")
    assert Evaluation(path, SETTINGS, said.append).images == {}
    assert "cannot be used" in said.pop()


def test_what_a_metric_gives_is_finite_or_refused():
    with pytest.raises(UserError, match="swd is not a finite number"):
        entries([{"swd": float("nan")}])


@pytest.mark.parametrize(("scales", "expected"), [(1, [0]), (2, [0]), (5, [0, 1, 2, 3]), (9, [0, 2, 5, 7])])
def test_start_scales_that_are_not_asked_for_are_few(scales, expected):
    assert of_run.default_scales(scales) == expected


# Which metrics


def test_copies_are_at_distance_0_without_diversity_and_copied(random_image):
    image = np.tile(random_image(3, 2), (2, 2, 1))[:32, :28] + np.random.default_rng(0).normal(0, 0.05, (32, 28, 2))
    image = np.clip(image, -1, 1).astype(np.float32)
    subject = Subject(("t1", "t2"), (-1.0, None))
    found = metrics.measure(np.stack([image] * 3), image, subject, [*metrics.FAMILIES], None)
    zeros = ("swd", "swd/1", "rmse", "nearest_patch", "diversity", "histogram_distance", "mutual_information_gap/t1-t2")
    assert {name: found[name]["mean"] for name in zeros} == dict.fromkeys(zeros, 0)
    assert found["random_sifid"]["mean"] < 1e-5
    assert found["copied"]["mean"] == 1
    assert found["diversity"]["count"] == found["swd"]["count"] == 3
    assert not any("undefined" in entry for name, entry in found.items() if name.startswith("mutual"))


def test_nuclei_are_measured_where_channels_show_them_and_copies_have_the_sources():
    side = 32
    image = np.full((side, side, 4), 0.8, np.float32)
    image[..., 3] = -1
    for row, column in ((4, 4), (4, 20), (20, 12)):
        image[row : row + 8, column : column + 8] = (-0.2, -0.6, 0.2, 1)
    masks = {"binary": {"kind": "binary", "channels": [3], "min_area": 16, "default_class": 1}}
    subject = Subject(("red", "green", "blue", "binary"), (None,) * 4, masks)
    found = metrics.measure(np.stack([image, image]), image, subject, ["nuclei"], None)
    assert found["nuclei"]["mean"] == 3
    assert found["nuclei_ratio"]["mean"] == found["valid"]["mean"] == found["agreement"]["mean"] == 1
    assert found["area_distance"]["mean"] == 0
    assert found["class_distance"] == {"undefined": "no classes were given"}
    assert not {"swd", "mutual_information"} & set(found)
    assert {"diversity", "rmse", "copied"} <= set(found)  # never left out


def test_colours_and_masks_are_no_modalities():
    assert Subject(("red", "green", "blue"), (-1.0,) * 3).modalities == []
    assert Subject(("t1", "t2"), (None, None)).modalities == []
    assert Subject(("t1", "t2", "seg_1"), (-1.0, None, -1.0), {"seg": {"channels": [2]}}).modalities == [0, 1]


def test_equal_sets_are_at_distance_0_and_as_various_and_a_single_image_is_undefined():
    images = [(texture(seed) / np.float32(127.5) - 1, ("r", "g", "b")) for seed in range(4)]
    real = set_metrics.features_of_set(images, None)
    found = real.compare(set_metrics.features_of_set(images[::-1], None))
    assert found["random_frechet"]["mean"] < 1e-9
    assert "compare only at equal numbers" in found["random_frechet"]["note"]
    assert found["feature_spread"]["mean"] == pytest.approx(1)
    assert found["nearest_real_ratio"]["mean"] == pytest.approx(0, abs=1e-9)
    assert found["nearest_real_ratio"]["images"] == 4
    alike = real.compare(set_metrics.features_of_set(images[:1] * 3, None))
    assert alike["feature_spread"]["mean"] < 1e-6
    one = real.compare(set_metrics.features_of_set(images[:1], None))
    assert "both need 2 at least" in one["random_frechet"]["undefined"]


# A run


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


@pytest.fixture(scope="session")
def evaluated(commands, tmp_path_factory):
    """A finished run of two images, one of which was evaluated first, and then the other; and what the second said."""
    workdir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(commands.finished_run(), workdir)
    flags = [f"--workdir={workdir}", "--num_samples=3", "--start_scales=0,1", "--inception_weights=none"]
    first = commands.run("evaluate", *flags, "--images=left")
    assert first.returncode == 0, first.stderr
    before = strict(workdir / "evaluation.json")
    second = commands.run("evaluate", *flags)
    assert second.returncode == 0, second.stderr
    return workdir, flags, before, second


@pytest.mark.processes
def test_a_run_is_measured_per_image_and_start_scale_and_only_what_is_missing(evaluated):
    workdir, _, before, second = evaluated
    content = strict(workdir / "evaluation.json")
    assert_contract(content)
    assert content["settings"]["start_scales"] == [0, 1]
    assert set(before["images"]) == {"left"}
    assert set(content["images"]) == {"left", "right"}
    assert content["images"]["left"] == before["images"]["left"]
    assert "start scale 0: 1 of 2 images are measured already" in second.stderr
    coarse, fine = (content["cohort"][scale] for scale in ("0", "1"))
    assert coarse["diversity"]["mean"] > fine["diversity"]["mean"] > 0
    assert coarse["rmse"]["images"] == 2
    header, *lines = [line.split() for line in second.stdout.splitlines()[:3]]
    assert header == ["start", "scale", "swd", "random_sifid", "diversity", "rmse", "nearest_patch_ratio", "copied"]
    assert [line[0] for line in lines] == ["0", "1"]
    assert lines[0][3] == f"{coarse['diversity']['mean']:.4g}"
    assert str(workdir / "evaluation.json") in second.stdout


@pytest.mark.processes
def test_rows_summary_and_a_table_tell_the_same_and_a_third_call_changes_nothing(commands, evaluated):
    workdir, flags, _, _ = evaluated
    content = strict(workdir / "evaluation.json")
    trained = rows(commands.finished_run())
    told = rows(workdir)[len(trained) :]
    assert rows(workdir)[: len(trained)] == trained
    assert [row["global_step"] for row in told] == [2 * STEPS] * 2  # one for each call that found something
    swd = content["cohort"]["0"]["swd"]["mean"]
    assert told[1]["evaluation/start_00/swd"] == swd
    assert strict(workdir / "summary.json")["evaluation/start_00/swd"] == swd
    table = strict(workdir / "tables/evaluation.json")
    assert [row["image"] for row in table] == ["left", "right"]
    assert table[1]["start_01/rmse"] == content["images"]["right"]["1"]["rmse"]["mean"]
    before = contents(workdir)
    assert commands.run("evaluate", *flags).returncode == 0
    assert contents(workdir) == before


def test_an_image_whose_samples_are_broken_has_a_reason_and_stops_no_other(random_run, tmp_path):
    run = random_run(images=2)
    run.scales[-1].weights["trained"].amplitude[1] = np.nan
    found = Evaluation(tmp_path / "e.json", {**SETTINGS, "num_samples": 2}, pytest.fail)
    of_run.evaluate(run, found, run.ids, [0], 64, image_mesh(jax.devices()[:1]), ["swd"], None, [].append)
    content = strict(found.path)
    assert_contract(content)
    assert set(map(str, content["images"]["image1"]["0"].values())) == {f"{{'undefined': '{metrics.NOT_FINITE}'}}"}
    assert content["cohort"]["0"]["swd"]["images"] == 1


@pytest.mark.processes
@pytest.mark.slow
def test_one_sample_has_no_diversity_and_other_settings_begin_anew(commands, evaluated, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(evaluated[0], workdir)
    result = commands.run(
        "evaluate", f"--workdir={workdir}", "--num_samples=1", "--start_scale=1", "--inception_weights=none"
    )
    assert result.returncode == 0, result.stderr
    assert "made with another num_samples: it is begun anew" in result.stderr
    assert "diversity has no value: one sample alone has no diversity" in result.stdout
    content = strict(workdir / "evaluation.json")
    assert_contract(content)
    assert content["settings"]["start_scales"] == [1]
    assert content["cohort"]["1"]["diversity"]["undefined"].startswith("one sample")
    # A training that goes on from a finished run finds its rows and its end as they were.
    assert commands.train(workdir).returncode == 0


@pytest.mark.processes
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--real=a"], ("give --workdir=DIR", "--generated=FOLDER")),
        (["--workdir=RUN", "--metrics=fid"], ("--metrics: 'fid' is none of swd",)),
        (["--workdir=RUN", "--inception_weights=no.pth"], ("no file of Inception weights at no.pth",)),
        (["--workdir=RUN", "--start_scales=5"], ("--start_scales=5: this can only start at scales",)),
    ],
)
def test_bad_flags_are_refused(commands, flags, words):
    given = [flag.replace("RUN", str(commands.finished_run())) for flag in flags]
    assert_refused(commands.run("evaluate", *given), *words)
    assert not (commands.finished_run() / "evaluation.json").exists()


# Folders


def compared(real, generated, tmp_path, said=None):
    say = (said if said is not None else []).append
    comparison = of_folders.compare(str(real), str(generated), "auto", say)
    found = Evaluation(tmp_path / "e.json", comparison.settings(["swd"], None), pytest.fail)
    comparison.evaluate(found, ["swd"], None, say)
    content = strict(found.path)
    assert_contract(content)
    return comparison, content


def test_samples_are_found_by_their_names_and_copies_are_at_distance_0(tmp_path):
    for name, seed in (("a", 0), ("b_0001", 1)):
        save_png(tmp_path / f"real/{name}.png", texture(seed))
        for number in range(2):
            save_png(tmp_path / f"samples/start_01/{name}_{number:04d}.png", texture(seed))
        save_png(tmp_path / f"samples/start_01/{name}_grid.png", texture(9))
    comparison, content = compared(tmp_path / "real", tmp_path / "samples", tmp_path)
    assert comparison.summary == "2 real and 4 generated image(s), all named after one"
    assert set(content["images"]) == {"a", "b_0001"}
    cohort = content["cohort"]["1"]
    assert [cohort[name]["mean"] for name in ("swd", "rmse", "diversity")] == [0, 0, 0]
    assert cohort["nearest_real_ratio"]["mean"] == pytest.approx(0, abs=1e-9)


def test_arrays_in_the_sources_values_match_their_real_image_and_a_smaller_size_is_said(tmp_path):
    real = texture(0, 32, 1).astype(np.int16) * 8
    save_npy(tmp_path / "real/scan.npy", real)
    samples = real.reshape(16, 2, 16, 2, 1).mean((1, 3))[None].repeat(2, 0).astype(np.float32)
    save_npy(tmp_path / "samples/start_00/scan.npy", samples)
    said = []
    _, content = compared(tmp_path / "real", tmp_path / "samples", tmp_path, said)
    assert said == ["note: real images are resized to their samples' size: scan to 16x16"]
    assert content["images"]["scan"]["0"]["rmse"]["mean"] < 0.1
    assert "both need 2 at least" in content["cohort"]["0"]["random_frechet"]["undefined"]


def test_channels_that_are_files_are_brought_into_the_real_images_order(tmp_path):
    real = np.concatenate([texture(0, channels=1), texture(1, channels=1)], -1)
    (tmp_path / "real").mkdir()
    np.savez(tmp_path / "real/scan.npz", image=real, channels=["t2", "T1"])
    for channel, name in enumerate(("t2", "T1")):
        save_png(tmp_path / f"samples/start_00/scan_0000_{name}.png", real[..., channel])
    _, content = compared(tmp_path / "real", tmp_path / "samples", tmp_path)
    assert content["images"]["scan"]["0"]["rmse"]["mean"] == 0
    (tmp_path / "samples/start_00/scan_0000_T1.png").rename(tmp_path / "samples/start_00/scan_0000_flair.png")
    (tmp_path / "e.json").unlink()
    with pytest.raises(UserError, match="has the channels flair, t2, but real images have t2, T1"):
        compared(tmp_path / "real", tmp_path / "samples", tmp_path)


def test_names_that_say_nothing_are_compared_all_with_all(tmp_path):
    for number in range(3):
        save_png(tmp_path / f"real/{number}.png", texture(number))
        save_png(tmp_path / f"other/x{number}.png", texture(number + 3, 20 + 4 * number))
    said = []
    comparison, content = compared(tmp_path / "real", tmp_path / "other", tmp_path, said)
    assert "0 of them named after one" in comparison.summary
    assert "3 of 3 generated images bear no real one's name" in said[0]
    assert content["images"] == {}
    assert content["cohort"]["-1"]["random_frechet"]["mean"] > 0


@pytest.mark.parametrize(
    ("real", "generated", "words"),
    [
        ({}, {"a.png": texture(0)}, "--real=.* holds no image"),
        ({"a.png": texture(0)}, {}, "--generated=.* holds no image"),
        ({"a.png": texture(0)}, {"a.npy": np.full((20, 20, 3), np.nan)}, "a.npy.*holds NaN or infinite values"),
        ({"a.png": texture(0)}, {"a_0000.npy": texture(0, channels=2)}, "a_0000.npy has 2 channels .* have 3"),
        ({"a.png": texture(0)}, {"a_0000.npy": texture(0) / 255}, "values from 0.* bring both to the same values"),
        ({"a.png": texture(0) * 0}, {"a_0000.png": texture(0)}, "a.png: holds the same value at every pixel"),
        (
            {"a.png": texture(0)},
            {"a_0000.png": texture(0), "a_0001.png": texture(0, 20)},
            r"generated images of a differ in size \(20x20, 24x24\)",
        ),
    ],
)
def test_bad_folders_are_refused_in_words(tmp_path, real, generated, words):
    for folder, files in (("real", real), ("generated", generated)):
        (tmp_path / folder).mkdir()
        for name, pixels in files.items():
            if name.endswith("npy"):
                save_npy(tmp_path / folder / name, pixels)
            else:
                Image.fromarray(pixels).save(tmp_path / folder / name)
    with pytest.raises(UserError, match=words):
        compared(tmp_path / "real", tmp_path / "generated", tmp_path)
    assert not (tmp_path / "e.json").exists()


@pytest.mark.processes
def test_the_command_compares_folders_and_keeps_what_it_knows(commands, tmp_path):
    save_png(tmp_path / "real/a.png", texture(0)[..., 0])
    save_png(tmp_path / "samples/start_00/a_0000.png", texture(1)[..., 0])
    flags = [f"--real={tmp_path / 'real'}", f"--generated={tmp_path / 'samples'}", "--inception_weights=none"]
    for _ in range(2):
        result = commands.run("evaluate", *flags, f"--out={tmp_path / 'new/e.json'}")
        assert result.returncode == 0, result.stderr
        content = strict(tmp_path / "new/e.json")
        assert content["images"]["a"]["0"]["swd"]["count"] == 1
        assert "diversity has no value: one sample alone" in result.stdout
    assert_refused(commands.run("evaluate", *flags, "--num_samples=2"), "--num_samples belongs to --workdir")
