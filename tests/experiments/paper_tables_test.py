"""The quality table: what its sentences make of numbers, what it refuses, and the command with real trainings."""

import csv
import dataclasses
import json
import os
import subprocess
import sys

import pytest

from experiments.paper_tables.sentences import answer, answers, in_short
from experiments.paper_tables.variants import check_images, make_plan
from experiments.paper_tables.writing import csv_text, notes, quality_rows
from experiments.reporting.results import Quality, pair, read_quality
from launch.configs import default_config
from launch.run_record import record_of
from singan.errors import UserError
from singan.storage import workdir as records
from singan.storage.workdir import Workdir
from tests.launch.train.train_test import CONFIG, ROOT, assert_refused, picture, save_png

VARIANTS = ["corrected", "reference", "concurrent", "gpnn"]


def quality(scale=0, **values):
    """A variant's numbers: metric=[one for each image], or metric='the reason why there is none'."""
    made = Quality()
    for metric, numbers in values.items():
        if isinstance(numbers, str):
            made.miss(scale, metric, numbers)
        else:
            for place, value in enumerate(numbers):
                made.add(scale, metric, (f"image{place}", 0), {"mean": value})
    return made


def asked(first, second, metric="swd"):
    return answer("a", "b", {"a": first, "b": second}, 0, metric)


# What the numbers say


def test_closer_on_every_image_at_higher_diversity_is_a_yes():
    first, second = quality(swd=[1.0, 2.0, 3.0], diversity=[0.5] * 3), quality(swd=[2.0, 3.1, 3.9], diversity=[0.4] * 3)
    found = asked(first, second)
    assert found.word == "yes"
    # Differences -1, -1.1, -0.9: mean -1, deviation 0.1, t(2, 97.5 %) = 4.3027.
    assert (
        "a is clearly closer than b (2.00 against 3.00, difference −1.00, 95 % interval −1.25 to −0.752" in found.text
    )
    assert "lower in 3 of 3 pairs" in found.text
    assert "diversity is higher (0.500 against 0.400" in found.text


def test_closer_in_the_mean_alone_is_said_so():
    second = quality(swd=[2.0, 2.0, 2.0], diversity=[0.4] * 3)
    found = asked(quality(swd=[0.5, 2.1, 2.1], diversity=[0.4] * 3), second)
    assert found.word == "in the mean"
    assert "a is in the mean, not clearly, closer than b" in found.text
    assert "lower in 1 of 3 pairs" in found.text
    assert "diversity is equal" in found.text


@pytest.mark.parametrize(("diversity", "word", "said"), [(0.96, "yes", "equal"), (0.94, "no", "lower")])
def test_what_is_closer_at_less_diversity_does_not_beat(diversity, word, said):
    first = quality(swd=[1.0, 1.0], diversity=[diversity] * 2)
    found = asked(first, quality(swd=[2.0, 2.0], diversity=[1.0] * 2))
    assert (found.word, "clearly closer" in found.text) == (word, True)
    assert f"diversity is {said}" in found.text


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([2.0, 3.0], "exactly as close as"),
        ([1.0, 4.0], "in the mean as close as"),
        ([2.5, 3.5], "clearly farther than"),
        ([2.0, 4.0], "in the mean, not clearly, farther than"),
    ],
)
def test_ties_and_losses_are_a_no(numbers, said):
    found = asked(quality(swd=numbers, diversity=[1, 1]), quality(swd=[2.0, 3.0], diversity=[1, 1]))
    assert found.word == "no"
    assert f"a is {said} b" in found.text


def test_one_image_has_no_interval_and_decides_nothing_clearly():
    found = asked(quality(swd=[1.0], diversity=[1.0]), quality(swd=[2.0], diversity=[1.0]))
    assert found.word == "in the mean"
    assert "on the one image, which has no interval, closer" in found.text
    assert "95 %" not in found.text


@pytest.mark.parametrize("missing", ["swd", "diversity"])
def test_a_value_that_is_missing_leaves_the_question_open_and_says_why(missing):
    first = quality(**{"swd": [1.0], "diversity": [1.0], missing: "one sample alone"})
    found = asked(first, quality(swd=[2.0], diversity=[1.0]))
    assert found.word == "undecided"
    assert f"{missing} has no value (one sample alone)" in found.text


def test_images_that_one_of_both_lost_are_not_compared():
    first, second = quality(swd=[1.0, 9.0]), Quality()
    second.add(0, "swd", ("image0", 0), {"mean": 2.0})
    found = pair(first.of(0, "swd"), second.of(0, "swd"))
    assert found is not None
    assert (found.first, found.second, found.pairs, found.low) == (1.0, 2.0, 1, None)
    assert pair({}, second.of(0, "swd")) is None


def test_seeds_are_pairs_of_their_own_but_images_make_the_interval():
    first = {("x", 0): 1.0, ("x", 1): 3.0, ("y", 0): 2.0, ("y", 1): 2.0}
    found = pair(first, dict.fromkeys(first, 2.5))
    assert found is not None
    assert (found.lower, found.higher, found.pairs) == (3, 1, 4)
    assert (found.difference, found.low, found.high) == (-0.5, -0.5, -0.5)  # both images' means are 2


def test_all_answers_in_one_sentence():
    first, second = (quality(swd=[v] * 2, random_sifid=[v, v + 1], diversity=[1.0] * 2) for v in (1.0, 2.0))
    for of in (first, second):
        of.miss(1, "swd", "none")
        of.miss(1, "random_sifid", "none")
    found = answers("a", "b", {"a": first, "b": second}, [0, 1], ["25x25 pixels", "31x31 pixels"])
    assert [one.word for one in found] == ["yes", "yes", "undecided", "undecided"]
    assert found[0].text.startswith("Start scale 0 (25x25 pixels), by SWD: yes. ")
    assert in_short("a", "b", found).endswith(
        "Of 2 start scales, by SWD: 1 yes, 1 undecided; by random-feature SIFID: 1 yes, 1 undecided."
    )


# The table


def test_means_are_over_images_and_a_missing_value_has_its_reason_beside_it(tmp_path):
    entry = {"mean": 1.0, "p10": 0.0, "p90": 2.0, "count": 3}
    content = {"images": {"x": {"0": {"swd": entry, "ms_ssim": {"undefined": "too small"}}}}}
    (tmp_path / "0.json").write_text(json.dumps(content))
    content["images"]["x"]["0"]["swd"] = {**entry, "mean": 3.0}
    content["images"]["y"] = {"0": {"swd": {**entry, "mean": 5.0}}}
    (tmp_path / "1.json").write_text(json.dumps(content))
    found = read_quality({seed: tmp_path / f"{seed}.json" for seed in (0, 1, 2)}, ["x", "y"], [0])
    summary = found.summary(0, "swd")
    assert {key: summary[key] for key in ("mean", "images")} == {"mean": 3.5, "images": 2}  # of x 2, of y 5
    assert (summary["p10"], summary["p90"]) == pytest.approx((2.3, 4.7))
    assert summary["note"] == "y diverged (seed 0); not trained (seed 2): see its log"
    assert found.summary(0, "ms_ssim")["undefined"].startswith("too small; y diverged")
    rows = quality_rows({"a": found}, 0, {"a": ((25, 25),)})
    assert rows[1][:3] == ["a", "25x25", "3.50 [2.3–4.7]*"]
    assert rows[1][5] == "–"
    assert any("ms_ssim" in line and "too small" in line for line in notes({"a": found}, [0]))
    lines = list(csv.DictReader(csv_text({"a": found}, {"a": None}, [0], {"a": ((25, 25),)}).splitlines()))
    assert lines[0]["mean"] == "3.5"
    assert {line["metric"] for line in lines if not line["mean"]} >= {"ms_ssim", "copied"}
    assert all(line["mean"] or line["note"] for line in lines)


# What is compared


def planned(root="ROOT", variants=VARIANTS, seeds=("0",), start_scales=("0",), **changes):
    base = default_config()
    with base.unlocked():
        base.update_from_flattened_dict({"data.num_crops": 2, "pyramid.max_size": 48, **changes})
    return make_plan("config.py", base.to_dict(), {}, str(root), variants, list(seeds), list(start_scales))


def test_variants_differ_in_what_they_are_named_after_alone():
    plan = planned(seeds=("0", "7"), start_scales=("2", "9", "0"), preset="reference")
    assert plan.sweep is not None
    configs = {run.name: run.config for run in plan.sweep.runs}
    assert set(configs) == {f"{name}_seed{seed}" for name in VARIANTS[:-1] for seed in (0, 7)}
    plain = {
        name: dataclasses.replace(
            config,
            preset="",
            method=configs["corrected_seed0"].method,
            pyramid=dataclasses.replace(config.pyramid, num_scales=0),
            train=dataclasses.replace(config.train, schedule="sequential"),
            tracking=dataclasses.replace(config.tracking, name=""),
            seed=0,
        )
        for name, config in configs.items()
    }
    assert len(set(plain.values())) == 1
    assert [configs[f"{name}_seed7"].preset for name in VARIANTS[:-1]] == ["corrected", "reference", "corrected"]
    # As many scales, of as many steps: the concurrent schedule would have six.
    assert {len(pyramid) for pyramid in plan.pyramids.values()} == {4}
    assert (plan.start_scales, plan.left_out) == ((0, 2), (9,))
    assert plan.pyramids["gpnn"].border == "mirror"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": ["corected"]}, "--variants: 'corected' is none of .*mean 'corrected'"),
        ({"start_scales": ("7",)}, "--start_scales=7: these pyramids have scales 0 to 3"),
        ({"start_scales": ("one",)}, "--start_scales=one must be whole numbers"),
        ({"seeds": ("-1",)}, "--seeds=-1 must be whole numbers"),
        ({"pyramid.min_size": 6, "network.num_layers": 2}, "smaller than a patch of 7"),
        ({"data.group_by_shape": True}, "crop the images to one shape"),
    ],
)
def test_bad_wishes_are_refused_before_anything_is_trained(changes, said):
    with pytest.raises(UserError, match=said):
        planned(**changes)


def test_a_run_of_other_images_is_never_put_into_the_table(tmp_path):
    plan = planned(tmp_path)
    assert plan.sweep is not None
    workdir = Workdir(tmp_path / "reference_seed0")
    workdir.path.mkdir()
    records.write_images(workdir, [record_of(image) for image in plan.images])
    records.write_config(workdir, plan.sweep.runs[1].config)
    check_images(plan)
    with pytest.raises(UserError, match="reference_seed0 was trained on other images"):
        check_images(planned(tmp_path, **{"data.crop_size": 90}))


# The command


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    root = tmp_path_factory.mktemp("tables")
    (root / "config.py").write_text(CONFIG.replace("steps_per_scale = 60", "steps_per_scale = 10"))
    for seed, name in enumerate(("left", "right")):
        save_png(root / "images" / f"{name}.png", picture(seed))

    def run(*flags):
        given = [f"--config={root / 'config.py'}", f"--config.data.path={root / 'images'}", f"--workdir={root / 'all'}"]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(root / "compiled")}
        words = [sys.executable, "-m", "experiments.paper_tables.run", *given, "--num_samples=3", *flags]
        return subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return root, run


@pytest.mark.processes
def test_one_command_trains_measures_and_writes_and_does_nothing_twice(command):
    root, run = command
    flags = ("--variants=corrected,gpnn", "--start_scales=0,5")
    result = run(*flags)
    assert result.returncode == 0, result.stderr
    assert "1 training, 1 to do" in result.stdout
    assert "start scales [5] are left out" in result.stderr
    tables = root / "all" / "tables"
    content = json.loads((tables / "table.json").read_text())
    assert content["settings"]["images"] == ["left", "right"]
    for variant in ("corrected", "gpnn"):
        entries = content["quality"][variant]["0"]
        assert set(entries) <= set(content["definitions"])
        assert entries["swd"]["images"] == entries["diversity"]["images"] == 2
        assert all("mean" in entry or entry["undefined"] for entry in entries.values())
        own = json.loads((root / "all" / f"{variant}_seed0" / "evaluation.json").read_text())
        assert entries["swd"]["mean"] == pytest.approx(own["cohort"]["0"]["swd"]["mean"])
    assert content["training"]["gpnn"] is None
    assert content["training"]["corrected"]["seconds_per_image"] > 0
    assert len(content["training"]["corrected"]["amplitudes"]) == 2
    said = [one["text"] for asked in content["says"] for one in asked["answers"]]
    assert len(said) == 2  # measures
    page = (tables / "table.md").read_text()
    assert all(text in page and text in result.stdout for text in said)
    assert (tables / "samples_start_00.png").is_file()

    watched = [*root.glob("all/*/evaluation.json"), *root.glob("all/*/run.json"), *root.glob("all/*/start_*/*.npy")]
    before = {path: path.stat().st_mtime_ns for path in watched}
    assert len(before) == 2 + 1 + 2
    pages = {path.name: path.read_bytes() for path in tables.iterdir()}
    again = run(*flags)
    assert again.returncode == 0, again.stderr
    assert "to do" not in again.stdout
    assert {path: path.stat().st_mtime_ns for path in watched} == before
    assert {path.name: path.read_bytes() for path in tables.iterdir()} == pages


@pytest.mark.processes
def test_a_setting_that_the_variants_set_is_refused_in_a_line(command):
    _, run = command
    assert_refused(run("--config.preset=reference"), "--config.preset is what the sweep varies")
