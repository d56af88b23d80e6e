"""Translation by injection: which cases there are, how they are scored, and the whole command."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest

from datasets.brats import make_dummy_data as brats
from datasets.build import build
from experiments.modality_translation import cases, config, scores
from experiments.modality_translation.translation import subject
from launch.configs import load_config
from launch.images.find import load_images
from singan.config import parse
from singan.errors import UserError
from singan.metrics.values import Undefined
from singan.model.pyramid import make_pyramid
from singan.parallel.cohort import image_mesh
from singan.storage.finished_scale import image_padding
from singan.storage.run import load_run
from singan.storage.run_record import claim_workdir
from singan.storage.workdir import ImageRecord, Workdir
from singan.training import trainer
from singan.training.observer import Repair
from singan.training.scale_run import TrainingImage
from singan.value_map import ValueMap

ROOT = Path(__file__).resolve().parents[2]
OWN, OTHER = "BraTS2021_00002", "BraTS2021_00000"
SHAPE = (40, 36, 24)
MRI = ImageRecord(
    "slice", "made", (9, 9, 3), ("t1", "t1ce", "flair"), ValueMap((0.0,) * 3, (9.0,) * 3, (0.0,) * 3, "int16"), ""
)


class Quiet(Repair):
    """An observer that says nothing and lets no warning pass."""

    def __init__(self): ...

    def warn(self, text):
        raise AssertionError(text)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Two patients whose FLAIR follows from T1."""
    root = tmp_path_factory.mktemp("prepared")
    for seed, name in enumerate((OTHER, OWN)):
        arrays = brats.volumes(seed, (2,), SHAPE)
        arrays["flair"] = arrays["t1"] // 2
        brats.write_patient(root / "in" / name, name, arrays)
    build("brats", root / "in", data_dir=root)
    return root


@pytest.fixture(scope="module")
def workdir(data_dir, tmp_path_factory):
    """A run of two scales on one slice, barely trained."""
    made = parse(
        {
            "data": {
                "source": "tfds:brats/slices",
                "path": str(data_dir),
                "ids": (f"{OWN}_z012",),
                "channels": ("t1", "t2", "flair"),
            },
            "pyramid": {"min_size": 12, "max_size": 16, "ratio": 0.5},
            "network": {"width": 4, "num_layers": 2},
            "train": {"steps_per_scale": 4, "chunk": 2},
        }
    )
    images, mesh = load_images(made.data), image_mesh(jax.devices()[:1])
    path = Workdir(tmp_path_factory.mktemp("run"))
    claim_workdir(path, made, images, mesh)
    cohort = [TrainingImage(image.id, image.pixels, image_padding(made, image.value_map)) for image in images]
    pyramid = make_pyramid(*images[0].pixels.shape[:2], made.pyramid, str(made.method.resize_border))
    trainer.train(made, cohort, pyramid, path, Quiet(), mesh, "direct")
    return path.path


@pytest.fixture
def run(workdir):
    return load_run(workdir)


# --- cases


def test_neighbours_are_slices_of_the_same_patient_and_others_of_another(run, data_dir):
    beside = cases.neighbours(run, run.ids[0], str(data_dir), [1, 3, 40])
    assert [case.name[-3:] for case in beside] == ["011", "013", "009", "015"]
    assert {case.record.details["patient"] for case in beside} == {OWN}
    (other,) = cases.others(run, run.ids[0], str(data_dir), 3)
    assert (other.name, other.kind, other.present) == (f"{OTHER}_z012", "other", (True,) * 3)
    assert cases.matched(run, beside[0], "auto") is beside[0]
    brought = cases.matched(run, other, "auto").pixels
    empty = run.record(run.ids[0]).value_map.background_levels
    here, there = subject(other.pixels, empty), subject(run.pixels(run.ids[0]), empty)
    for moment in (np.mean, np.std):
        wanted = moment(run.pixels(run.ids[0])[there], axis=0)
        np.testing.assert_allclose(moment(brought[here], axis=0), wanted, atol=0.03)  # but for what is clipped
    np.testing.assert_array_equal(brought[~here], other.pixels[~here])


def test_files_are_read_by_the_names_of_their_channels(run, tmp_path):
    name, record = run.ids[0], run.record(run.ids[0])
    values = record.value_map.invert(run.pixels(name), as_stored=True)
    np.savez(tmp_path / "all.npz", image=values[..., [1, 2, 0]], channels=np.array(["T2w", "FLAIR", "t1n"]))
    np.savez(tmp_path / "some.npz", image=values[..., [2, 0]], channels=np.array(["flair", "t1"]))
    np.save(tmp_path / "unnamed.npy", values[..., :2])
    np.save(tmp_path / "floats.npy", ((run.pixels(name) + 1) / 2))
    unknown = [(1,), (2,)]
    whole, floats, some = cases.files(
        run, name, [str(tmp_path / f) for f in ("all.npz", "floats.npy", "some.npz")], unknown
    )
    np.testing.assert_array_equal(whole.pixels, run.pixels(name))
    np.testing.assert_allclose(floats.pixels, run.pixels(name), atol=1e-6)
    assert some.present == (True, False, True)
    np.testing.assert_array_equal(some.pixels[..., [0, 2]], run.pixels(name)[..., [0, 2]])
    assert np.isnan(some.pixels[..., 1]).all()
    (unnamed,) = cases.files(run, name, [str(tmp_path / "unnamed.npy")], [(2,)])
    assert unnamed.present == (True, True, False)
    with pytest.raises(UserError, match="2 channels without names"):
        cases.files(run, name, [str(tmp_path / "unnamed.npy")], unknown)
    with pytest.raises(UserError, match="is no image file"):
        cases.files(run, name, [str(tmp_path / "nowhere.npy")], unknown)


def test_what_is_unknown_is_said_by_channel_group_or_several_at_once():
    assert cases.unknown_channels(MRI, []) == {"t1": (0,), "t1ce": (1,), "flair": (2,)}
    assert cases.unknown_channels(MRI, ["t1ce+flair", "t1"]) == {"t1ce+flair": (1, 2), "t1": (0,)}
    names = ("red", "green", "blue", "class_a", "class_b")
    masks = {"class": {"kind": "one_hot", "channels": [3, 4]}}
    map5 = ValueMap((0.0,) * 5, (9.0,) * 5, (0.0,) * 5, "uint8")
    patch = dataclasses.replace(MRI, channels=names, value_map=map5, details={"masks": masks})
    assert cases.unknown_channels(patch, []) == {"class": (3, 4)}
    assert cases.unknown_channels(patch, ["rgb"]) == {"rgb": (0, 1, 2)}
    with pytest.raises(UserError, match="leaves no channel that is known"):
        cases.unknown_channels(patch, ["rgb+class"])
    with pytest.raises(UserError, match="'flare' is no channel of this run"):
        cases.unknown_channels(MRI, ["flare"])


# --- scores


def test_scores_are_those_of_the_definitions():
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, (24, 20)).astype(np.float32)
    inside = np.zeros((24, 20), bool)
    inside[4:20, 4:16] = True
    off = np.where(inside, truth + np.float32(0.2), 5)
    found = scores.score(off, truth, inside, "")
    assert found["psnr"] == pytest.approx(20, abs=1e-4)  # 10 log10(4 / 0.04)
    # Of planes that differ by a constant, structure is 1 and luminance alone counts (Wang 2004, equation 6).
    flat = np.full_like(truth, 0.25)
    luminance = (2 * 0.25 * 0.5 + 0.02**2) / (0.25**2 + 0.5**2 + 0.02**2)
    assert scores.score(flat * 2, flat, inside, "")["ssim"] == pytest.approx(luminance, abs=1e-6)
    same = scores.score(truth, truth, inside, "")
    assert isinstance(same["psnr"], Undefined)
    assert same["ssim"] == pytest.approx(1)
    half = np.where(np.arange(20) < 10, 1.0, -1.0) * np.ones((24, 1))
    quarter = np.where(np.arange(20) < 5, 1.0, -1.0) * np.ones((24, 1))
    assert scores.score(half, quarter, inside, "binary") == {"dice": pytest.approx(2 * 5 / 15)}
    assert scores.score(half * 0.5 - 0.2, quarter, inside, "instance") == {"dice": pytest.approx(2 * 5 / 15)}


def test_the_verdict_names_the_better_one_whichever_it_is():
    about = {"image": "a", "kind": "neighbour", "unknown": "t1", "channel": "t1"}
    rows = [
        {**about, "case": case, "method": method, "psnr": value + case, "ssim": None}
        for case in (0, 1)
        for method, value in (("mean", 10.0), ("copy", 14.0), ("start 1", 12.0), ("start 2", 13.0))
    ]
    (line,) = scores.verdicts(rows, ["mean", "copy"])
    assert line.endswith("pyramid 13.500 (start 2) against 14.500 (copy): worse by 1.000")
    table = scores.tables(rows, ["mean", "copy", "start 1", "start 2"]).splitlines()
    assert table[0] == "PSNR in dB, * the best"
    assert len(table) == 5
    assert all("14.0" in line or "15.0" in line or "14.5" in line for line in table[2:])
    assert len({len(line.rstrip()) for line in table[2:]}) == 1
    (line,) = scores.verdicts([row for row in rows if row["method"] != "copy"], ["mean"])
    assert line.endswith("better by 3.000")


# --- the command


def command(*given):
    line = [sys.executable, "-m", "experiments.modality_translation.translate", *map(str, given)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.processes
@pytest.mark.slow
def test_translate_scores_every_method_and_writes_slices_where_they_lay(data_dir, workdir, tmp_path):
    given = [f"--workdir={workdir}", f"--data={data_dir}", "--neighbours=1", "--others=1", "--format=nifti"]
    result = command(*given, "--unknown=flair,t1+t2", "--start_scales=1,2", f"--out={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "scales [2] are left out" in result.stderr
    assert "6 translations at start scale(s) 1" in result.stdout
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    kept = json.loads((tmp_path / "scores.json").read_text())
    assert len(rows) == len(kept["rows"]) == 3 * (1 + 2) * 5
    assert {row["method"] for row in rows} == {"mean", "matched", "smoothed", "copy", "start 1"}
    assert all(line in result.stdout for line in kept["verdicts"])
    # FLAIR is half of T1 everywhere: matching intensities finds it, a mean or a copy of noise does not.
    psnr = {(r["case"], r["method"]): float(r["psnr"]) for r in rows if r["unknown"] == "flair"}
    for case in {case for case, _ in psnr}:
        assert psnr[case, "matched"] > psnr[case, "mean"] > psnr[case, "copy"]
    assert {path.name for path in tmp_path.glob("*.png")} == {f"{OWN}_z012_no_flair.png", f"{OWN}_z012_no_t1_t2.png"}
    source = nibabel.load(data_dir / "in" / OWN / f"{OWN}_t1.nii.gz")
    written = nibabel.load(tmp_path / "start_01" / f"{OWN}_z011_no_flair_0000_t1.nii.gz")
    np.testing.assert_array_equal(
        np.asarray(written.dataobj)[..., 0], np.clip(np.asarray(source.dataobj)[..., 11], 0, None)
    )
    assert (tmp_path / "start_01" / f"{OTHER}_z012_no_t1_t2_0000_flair.nii.gz").is_file()


@pytest.mark.processes
def test_one_line_says_what_to_do(workdir, tmp_path):
    result = command(f"--workdir={workdir}", f"--out={tmp_path / 'out'}")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: there is nothing to translate: give --data=DATA_DIR")
    assert not (tmp_path / "out").exists()


def test_the_configs_are_valid():
    sizes = {}
    for variant, source in (("", 240), ("small", 240), ("nuclei", 256), ("nuclei,small", 256)):
        made = load_config(config.get_config(variant))
        sizes[variant] = len(make_pyramid(source, source, made.pyramid, str(made.method.resize_border)))
    assert sizes == {"": 10, "small": 5, "nuclei": 10, "nuclei,small": 6}
    with pytest.raises(ValueError, match="there is no variant 'smal'"):
        config.get_config("smal")
