"""Methods compared at equal diversity: what is read off curves, what is refused, and the command itself."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from experiments.sample_quality import report
from experiments.sample_quality.curves import MEASURED
from experiments.sample_quality.frontier import Curve, compare, curves_of
from experiments.sample_quality.variants import GPNN, VARIANTS, make_plan, run_name
from launch.configs import default_config
from singan.errors import UserError
from tests.launch.train.train_test import CONFIG, ROOT, assert_refused, picture, save_png


def curve(diversity, swd, temperatures=(0.5, 1.0, 2.0)):
    return Curve(temperatures, {"diversity": diversity, "swd": swd})


# Equal diversity


def test_a_distance_is_read_off_between_two_temperatures():
    one = curve((0.2, 0.4, 0.5), (0.01, 0.03, 0.07))
    assert one.at_diversity(0.3, "swd") == pytest.approx(0.02)
    assert one.at_diversity(0.475, "swd") == pytest.approx(0.06)
    assert one.temperature_at(0.475) == pytest.approx(1.75)
    assert one.at_diversity(0.2, "swd") == 0.01
    assert one.at_temperature(1.0, "swd") == 0.03
    assert one.at_temperature(0.7, "swd") is None


def test_nothing_is_read_off_beyond_a_curves_ends():
    one = curve((0.2, 0.4, 0.5), (0.01, 0.03, 0.07))
    assert one.at_diversity(0.51, "swd") is None
    assert one.at_diversity(0.19, "swd") is None
    assert one.temperature_at(0.6) is None


def test_a_ratio_is_of_images_and_says_where_the_diversity_is_not_reached():
    peer = {
        ("a", 0): curve((0.3,), (0.04,), (1.0,)),
        ("a", 1): curve((0.3,), (0.04,), (1.0,)),
        ("b", 0): curve((0.3,), (0.04,), (1.0,)),
        ("c", 0): curve((0.9,), (0.04,), (1.0,)),
        ("d", 0): curve((0.3,), (0.04,), (1.0,)),
    }
    ours = {key: curve((0.2, 0.4, 0.5), (0.01, 0.03, 0.07)) for key in peer if key[0] != "d"}  # 0.02 at 0.3
    ours["a", 1] = curve((0.2, 0.4, 0.5), (0.07, 0.09, 0.1))  # 0.08
    found = compare(ours, peer, "swd")
    assert found is not None
    assert found.each == pytest.approx({("a", 0): 0.5, ("a", 1): 2.0, ("b", 0): 0.5})
    assert found.missed == (("c", 0),)
    # Of a the geometric mean is 1, of b 0.5: logarithms 0 and -0.693, deviation 0.490, t(1, 97.5 %) = 12.7.
    assert (found.median, found.mean) == pytest.approx((0.5**0.5, 0.5**0.5))
    half = 12.7062 * (np.log(2) / 2**0.5) / 2**0.5
    assert (found.low, found.high) == pytest.approx((0.5**0.5 * np.exp(-half), 0.5**0.5 * np.exp(half)), rel=1e-3)
    assert compare({}, peer, "swd") is None


def test_rows_become_curves_in_the_order_of_their_temperatures():
    row = lambda t, swd: {"image": "a", "start_scale": 1, "temperature": t, "swd": swd, "diversity": t / 2}  # noqa: E731
    found = curves_of([row(2.0, 0.2), row(0.5, 0.1), {**row(1.0, 0), "swd": 0.15}], ("swd", "diversity"))
    assert list(found) == [("a", 1)]
    assert found["a", 1].temperatures == (0.5, 1.0, 2.0)
    assert found["a", 1].values["swd"] == (0.1, 0.15, 0.2)


def test_at_one_temperature_the_diversities_themselves_are_compared():
    ours = {("a", 0): Curve((0.5, 1.0), {"diversity": (0.2, 0.6), "swd": (0.1, 0.3)})}
    theirs = {("a", 0): Curve((1.0,), {"diversity": (0.4,), "swd": (0.2,)})}
    drawn = [compare(ours, theirs, metric, at_temperature=1.0) for metric in ("diversity", "swd")]
    assert [ratio.mean for ratio in drawn if ratio] == pytest.approx([1.5, 1.5])
    ratio = compare(ours, theirs, "swd")
    assert ratio is not None
    assert ratio.mean == pytest.approx(1.0)


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    curve = Curve((0.5, 1.0), dict.fromkeys(MEASURED, (0.25, 0.5)))
    curves = {"tuned": {0: {("a", 0): curve, ("b", 3): curve}, 2: {("a", 0): curve}}}
    (tmp_path / "table.csv").write_text(report.csv_text(curves))
    assert report.read_csv(tmp_path / "table.csv") == curves
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"other.csv is no table.csv of this study"):
        report.read_csv(tmp_path / "other.csv")


# What is compared

SMALL = {"pyramid.min_size": 11}


def planned(root="ROOT", variants=("corrected", "updates", GPNN), seeds=("0",), images=(), **changes):
    base = default_config()
    with base.unlocked():
        base.update_from_flattened_dict({"data.num_crops": 2, "pyramid.max_size": 48, **changes})
    return make_plan("config.py", base.to_dict(), {}, str(root), list(variants), list(seeds), list(images))


def test_each_file_is_trained_by_itself_with_what_the_variant_sets(tmp_path):
    np.save(tmp_path / "four.npy", np.random.default_rng(0).random((60, 52, 4)))
    save_png(tmp_path / "colours.png", picture(0))
    plan = planned(images=(tmp_path / "four.npy", tmp_path / "colours.png"), seeds=("0", "7"), **SMALL)
    assert plan.sweep is not None
    assert [group.images[0].pixels.shape[-1] for group in plan.groups] == [4, 1]
    assert {run.name for run in plan.sweep.runs} == {
        f"{name}_{file}_seed{seed}"
        for name in ("corrected", "updates")
        for file in ("four", "colours")
        for seed in (0, 7)
    }
    run = plan.run("updates", plan.groups[0], 7)
    assert run is not None
    assert (run.config.train.generator_updates, run.config.preset, run.config.seed) == (1, "reference", 7)
    assert run.config.data.path == str(tmp_path / "four.npy")
    assert plan.run(GPNN, plan.groups[0], 7) is None
    assert run_name(GPNN, plan.groups[1], 0) == "gpnn_colours_seed0"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": ["corected"]}, "--variants: 'corected' is none of .*mean 'corrected'"),
        ({"seeds": ("-1",)}, "--seeds=-1 must be whole numbers"),
        ({"data.group_by_shape": True}, "give the images one by one"),
        ({"images": ("missing.png",)}, "missing.png"),
    ],
)
def test_bad_wishes_are_refused_before_anything_is_trained(changes, said):
    with pytest.raises(UserError, match=said):
        planned(**changes)


def test_two_files_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        save_png(tmp_path / folder / "same.png", picture(0))
    with pytest.raises(UserError, match="two files are called 'same'"):
        planned(images=(tmp_path / "a/same.png", tmp_path / "b/same.png"), **SMALL)


def test_every_variant_is_a_configuration():
    plan = planned(variants=[*VARIANTS])
    assert plan.sweep is not None
    assert len({run.config for run in plan.sweep.runs}) == len(VARIANTS)


# The command


@pytest.mark.slow
@pytest.mark.processes
def test_one_command_trains_measures_and_writes_and_does_nothing_twice(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG.replace("steps_per_scale = 60", "steps_per_scale = 10"))
    for seed, name in enumerate(("left", "right")):
        save_png(tmp_path / "images" / f"{name}.png", picture(seed))

    def run(*flags):
        images = ",".join(str(tmp_path / "images" / f"{name}.png") for name in ("left", "right"))
        given = [f"--config={tmp_path / 'config.py'}", f"--images={images}", f"--workdir={tmp_path / 'all'}"]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
        words = [sys.executable, "-m", "experiments.sample_quality.run", *given, "--num_samples=3", *flags]
        return subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False
        )

    flags = ("--variants=corrected,gpnn", "--start_scales=0,5", "--temperatures=0.5,1")
    result = run(*flags)
    assert result.returncode == 0, result.stderr
    assert "2 trainings, 2 to do" in result.stdout
    tables = tmp_path / "all" / "tables"
    lines = list(csv.DictReader((tables / "table.csv").read_text().splitlines()))
    keys = {(line["variant"], line["image"], line["temperature"]) for line in lines}
    assert keys == {(v, i, t) for v in ("corrected", "gpnn") for i in ("left", "right") for t in ("0.5", "1.0")}
    assert all(line[metric] for line in lines for metric in MEASURED)
    kept = json.loads((tmp_path / "all" / "measured" / "corrected_left_seed0.json").read_text())
    assert [row["temperature"] for row in kept["rows"]] == [0.5, 1.0]
    assert (tables / "table.md").read_text() in result.stdout
    pictures = {path.name for path in tables.glob("*.png")}
    assert pictures == {"frontier_start_00.png", *(f"sheet_{i}_start_00_intensity.png" for i in ("left", "right"))}

    watched = [*tmp_path.glob("all/measured/*.json"), *tmp_path.glob("all/*/run.json")]
    before = {path: path.stat().st_mtime_ns for path in watched}
    assert len(before) == 4 + 2
    pages = {path.name: path.read_bytes() for path in tables.iterdir()}
    again = run(*flags)
    assert again.returncode == 0, again.stderr
    assert "to do" not in again.stdout
    assert {path: path.stat().st_mtime_ns for path in watched} == before
    assert {path.name: path.read_bytes() for path in tables.iterdir()} == pages

    shown = run("--variants=", f"--earlier={tables / 'table.csv'}", "--start_scales=0", f"--out={tmp_path / 'shown'}")
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "shown" / "table.csv").read_text() == (tables / "table.csv").read_text()
    assert_refused(run("--variants="), "--variants names none")
    assert_refused(run("--config.preset=reference"), "--config.preset is what the sweep varies")
    assert_refused(run("--temperatures=warm"), "--temperatures=warm must be numbers")
