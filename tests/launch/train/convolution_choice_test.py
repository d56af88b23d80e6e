"""The convolution's form of a run: chosen once, recorded, and taken again."""

from typing import Any

import jax
import pytest

from launch.train import convolution_choice
from launch.train.convolution_choice import conv_impl_of_run
from singan import files
from singan.config import parse
from singan.model.pyramid import make_pyramid
from singan.parallel.cohort import image_mesh
from singan.storage.origin import Origin
from singan.storage.run_record import RunRecord
from singan.storage.workdir import Workdir


class Gpu:
    platform, device_kind = "gpu", "a card"


class TwoGpus:
    size = 2

    class devices:
        flat = (Gpu(),)


Mesh: Any = TwoGpus


class SomeCohort:
    """What a cohort's form depends on."""

    generated = 2  # channels

    def __init__(self, path, images, side=17):
        path.mkdir(exist_ok=True)
        self.workdir, self.rows, self.pyramid = Workdir(path), [None] * images, make_pyramid(side, side, CONFIG.pyramid)


def record_of(run_id, **content):
    return RunRecord(run_id, content, Origin((), ""))


def some_cohort(path, images, side=17) -> Any:
    return SomeCohort(path, images, side)


CONFIG = parse({"pyramid": {"min_size": 11, "max_size": 17}, "network": {"width": 4}})


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """The images of each timing that is made; 'grouped' is the fastest."""
    asked = []

    def times(spec, images):
        asked.append(images)
        return [{"form": form, "ms_per_image": 1.0} for form in ("grouped", "shifted")]

    monkeypatch.setattr(convolution_choice, "time_conv_impls", times)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asked


def test_a_cpu_has_its_form_and_run_json_says_so(timed, tmp_path):
    record = record_of("id")
    assert conv_impl_of_run(record, CONFIG, some_cohort(tmp_path, 4), image_mesh(jax.devices()[:1])) == "direct"
    assert files.read_json(Workdir(tmp_path).run)["convolution"]["form"] == "direct"
    assert timed == []


def test_a_gpu_times_the_forms_once_for_all_runs(timed, tmp_path):
    for name in ("a", "b"):
        some, record = some_cohort(tmp_path / name, 7), record_of(name)
        assert conv_impl_of_run(record, CONFIG, some, Mesh) == "grouped"
        content = files.read_json(some.workdir.run)["convolution"]
        assert (content["device"], content["form"]) == ("a card", "grouped")
        assert [row["form"] for row in content["times"]] == ["grouped", "shifted"]
    assert timed == [4]  # images of a device
    conv_impl_of_run(record_of("c"), CONFIG, some_cohort(tmp_path / "c", 7, 15), Mesh)
    assert timed == [4, 4]  # another size is another question


def test_a_run_that_goes_on_keeps_its_form_on_a_device_of_the_same_kind(timed, tmp_path):
    record = record_of("id", convolution={"device": "a card", "form": "gathered"})
    assert conv_impl_of_run(record, CONFIG, some_cohort(tmp_path, 4), Mesh) == "gathered"
    record.content["convolution"]["device"] = "another card"
    assert conv_impl_of_run(record, CONFIG, some_cohort(tmp_path, 4), Mesh) == "grouped"


def test_a_damaged_cache_is_measured_again(timed, tmp_path):
    path = tmp_path / "cache/medisingan/forms.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert conv_impl_of_run(record_of("id"), CONFIG, some_cohort(tmp_path, 4), Mesh) == "grouped"
    assert timed == [2]
