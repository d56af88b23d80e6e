"""A run whose records are lost, damaged or replaced is known by its weights: mended where they agree, else refused."""

import dataclasses
import inspect
import json
import shutil
from typing import Any

import jax
import pytest

import singan.config
from launch.compare import load
from launch.images.find import load_images
from singan import legacy_defaults
from singan.config import Config, default_mapping, flatten, parse, to_mapping, with_legacy_defaults
from singan.errors import UserError
from singan.parallel.cohort import image_mesh
from singan.storage import workdir as records
from singan.storage.checkpoints import ScaleCheckpoints
from singan.storage.origin import origin_of, origin_of_pixels
from singan.storage.run_record import claim_workdir, record_of
from singan.storage.workdir import Workdir
from tests.launch.old_workdir_test import OLD
from tests.launch.train.train_test import Commands, assert_refused, contents, done, picture, save_png
from tests.singan.storage.checkpoints_test import IDS, tree

RECORDS = ("config.json", "images.json")


def make_config(**keys):
    return parse({"data": {"num_crops": 2, "crop_size": 17}, "tracking": {"wandb": "off"}, **keys})


def claim(path, config=None, images=None):
    config = config or make_config()
    return claim_workdir(Workdir(path), config, images or load_images(config.data), image_mesh(jax.devices()[:1]))


def trained(path, done=True, says=True, config=None):
    """A workdir with weights of scale 0 and a state of scale 1; says: whether they say what they were trained from."""
    record, workdir = claim(path, config), Workdir(path)
    origin = {"trained_from": record.origin.digest} if says else {}
    for scale, kind in enumerate(("weights", "state")):
        with ScaleCheckpoints(workdir.checkpoints(scale), pytest.fail) as checkpoints:
            sums = checkpoints.save(10, tree(), IDS, {"kind": kind, **origin})
    if done:
        records.write_done(workdir, 0, sums, {}, origin.get("trained_from", ""))
    return path


def lose(path, way):
    if way == "missing":
        path.unlink()
    elif way == "emptied":
        path.write_bytes(b"")
    else:
        path.write_bytes(path.read_bytes().replace(b"e", b"f", 3))


@pytest.mark.parametrize("way", ["missing", "emptied", "changed"])
@pytest.mark.parametrize("names", [("config.json",), ("images.json",), RECORDS])
def test_lost_records_are_written_anew_where_all_weights_agree(tmp_path, capsys, names, way):
    trained(tmp_path)
    before = contents(tmp_path)
    for name in names:
        lose(tmp_path / name, way)
    claim(tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(names)
    for line, name in zip(said, names, strict=True):
        assert line.startswith(f"warning: {tmp_path / name} is ")
        assert line.endswith("written anew, as all that is trained here is of this configuration and these images")
    after = contents(tmp_path)
    assert {n: data for n, data in after.items() if n != "run.json"} == {
        n: data for n, data in before.items() if n != "run.json"
    }


@pytest.mark.parametrize("gone", [(), ("config.json",), RECORDS, (*RECORDS, "run.json", "images", "scales/00/DONE")])
@pytest.mark.parametrize("left", ["scales/00/checkpoints", "scales/00/trained_from.json", "scales/01/checkpoints"])
def test_another_training_is_refused_whatever_is_missing(tmp_path, gone, left):
    trained(tmp_path)
    for name in ("scales/00/checkpoints", "scales/00/DONE", "scales/00/trained_from.json", "scales/01/checkpoints"):
        if name != left:  # any one of those that say it is enough
            path = tmp_path / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in gone:
        if (tmp_path / name).exists():
            shutil.rmtree(tmp_path / name) if (tmp_path / name).is_dir() else (tmp_path / name).unlink()
    before = contents(tmp_path)
    other_images = load_images(make_config(data={"num_crops": 2, "crop_size": 18}).data)
    with pytest.raises(UserError, match="another configuration"):
        claim(tmp_path, make_config(seed=99))
    with pytest.raises(UserError, match="other images"):
        claim(tmp_path, make_config(), other_images)
    assert contents(tmp_path) == before
    claim(tmp_path)


def test_records_that_were_replaced_are_refused_by_the_training_and_by_readers(tmp_path):
    trained(tmp_path)
    records.write_config(Workdir(tmp_path), make_config(seed=99))
    before = contents(tmp_path)
    match = r"scales/00 was trained with another configuration or on other images"
    with pytest.raises(UserError, match=match):
        claim(tmp_path, make_config(seed=99))
    with pytest.raises(UserError, match=match):
        load.load([str(tmp_path)])
    assert contents(tmp_path) == before


@pytest.mark.parametrize("way", ["missing", "emptied", "changed"])
def test_an_earlier_versions_weights_need_the_configuration(tmp_path, way):
    trained(tmp_path, says=False)
    claim(tmp_path)  # config.json decides
    with pytest.raises(UserError, match="seed: 0 -> 99"):
        claim(tmp_path, make_config(seed=99))
    lose(tmp_path / "config.json", way)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"config\.json is .*of an earlier version, does not say .*from a copy"):
        claim(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("way", ["missing", "emptied"])
def test_an_earlier_versions_images_are_known_by_their_pixels(tmp_path, way):
    trained(tmp_path, says=False)
    before = (tmp_path / "images.json").read_bytes()
    lose(tmp_path / "images.json", way)
    claim(tmp_path)
    assert (tmp_path / "images.json").read_bytes() == before
    lose(tmp_path / "images.json", way)
    kept = contents(tmp_path)
    other = [dataclasses.replace(image, pixels=-image.pixels) for image in load_images(make_config().data)]
    with pytest.raises(UserError, match=r"images\.json is .*of an earlier version, does not say"):
        claim(tmp_path, images=other)
    assert contents(tmp_path) == kept


@pytest.mark.parametrize("way", ["missing", "emptied"])
def test_a_run_without_weights_starts_afresh(tmp_path, way, capsys):
    claim(tmp_path)
    lose(tmp_path / "config.json", way)
    claim(tmp_path, make_config(seed=3))
    assert records.read_config(Workdir(tmp_path)).seed == 3
    assert capsys.readouterr().err == ""


def test_no_message_tells_to_delete_a_record(tmp_path):
    claim(tmp_path)
    reads = (records.read_config, records.read_images, records.read_run)
    for read, name in zip(reads, (*RECORDS, "run.json"), strict=True):
        lose(tmp_path / name, "emptied")
        with pytest.raises(UserError, match=rf"{name} is damaged: .*; bring it back from a copy") as error:
            read(Workdir(tmp_path))
        assert "delete" not in str(error.value)


def test_the_origin_is_of_what_decides_on_the_weights():
    images = {"a": "1", "b": "2"}
    of = lambda images=images, **keys: origin_of_pixels(make_config(**keys), images).digest  # noqa: E731
    assert of() == of(images={"b": "2", "a": "1"}) == of(tracking={"name": "x"}) == of(train={"group_size": 3})
    found = [of(), of(seed=1), of(preset="reference"), of(images={"a": "1", "b": "3"}), of({"a": "1"})]
    assert len(set(found)) == len(found)


def in_other_units(images):
    """The same pixels of a source whose values are twice as large."""
    return [
        dataclasses.replace(
            image, value_map=dataclasses.replace(image.value_map, high=tuple(2 * v for v in image.value_map.high))
        )
        for image in images
    ]


@pytest.mark.parametrize("gone", ["", "images.json", "images.json and images"])
def test_the_same_pixels_in_other_units_are_another_origin(tmp_path, gone):
    trained(tmp_path)
    images = load_images(make_config().data)
    for name in filter(None, gone.split(" and ")):
        shutil.rmtree(tmp_path / name) if (tmp_path / name).is_dir() else (tmp_path / name).unlink()
    before = contents(tmp_path)
    with pytest.raises(UserError, match="other images"):
        claim(tmp_path, images=in_other_units(images))
    assert contents(tmp_path) == before
    claim(tmp_path, images=images)
    records.write_images(Workdir(tmp_path), [record_of(image) for image in in_other_units(images)])
    with pytest.raises(UserError, match="on other images than this run's"):
        load.load([str(tmp_path)])


def test_an_origin_is_the_same_once_it_is_stored_and_rules_are_notes(tmp_path):
    claim(tmp_path)
    rows = [record_of(image) for image in load_images(make_config().data)]
    without = dataclasses.replace(rows[0].value_map, rules=())
    origin = origin_of(make_config(), rows)
    assert origin_of(make_config(), records.read_images(Workdir(tmp_path))) == origin
    assert origin_of(make_config(), [dataclasses.replace(rows[0], value_map=without), *rows[1:]]) == origin


def test_weights_that_say_the_origin_without_value_maps_are_accepted(tmp_path, capsys):
    """As the first version that had origins wrote them."""
    record, workdir = claim(tmp_path), Workdir(tmp_path)
    with ScaleCheckpoints(workdir.checkpoints(0), pytest.fail) as checkpoints:
        sums = checkpoints.save(10, tree(), IDS, {"kind": "weights", "trained_from": record.origin.pixels_alone})
    records.write_done(workdir, 0, sums, {}, record.origin.pixels_alone)
    for name in ((), ("config.json",), ("images.json",), RECORDS):
        for one in name:
            (tmp_path / one).unlink()
        claim(tmp_path)
    assert capsys.readouterr().err.count("written anew") == 4
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="another configuration"):
        claim(tmp_path, make_config(seed=99))


@pytest.mark.parametrize("says", [True, False])
def test_a_run_json_that_is_missing_is_told_and_its_form_taken_from_the_checkpoints(tmp_path, capsys, says):
    record, workdir = claim(tmp_path), Workdir(tmp_path)
    form = {"device": "a card", "form": "gathered"}
    with ScaleCheckpoints(workdir.checkpoints(0), pytest.fail) as checkpoints:
        about = {"kind": "state", "trained_from": record.origin.digest, **({"convolution": form} if says else {})}
        checkpoints.save(10, tree(), IDS, about)
    workdir.run.unlink()
    again = claim(tmp_path)
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {tmp_path / 'run.json'} is missing: written anew under a new id")
    assert (said.count("\n"), "delete" in said) == (1, False)
    content = records.read_run(workdir)
    assert content.get("convolution") == (form if says else None)
    assert (content["lost"], len(content["starts"])) == ("what it said of earlier starts", 1)
    assert content["id"] == again.id != record.id


def test_every_key_has_a_legacy_default():
    """A key that is added must say what runs without it were trained with."""
    assert set(legacy_defaults.LEGACY_DEFAULTS) == set(flatten(default_mapping()))
    changed = {"preset": "corrected", "tracking": {"wandb": "offline", "job_type": ""}}  # by later versions
    assert parse(with_legacy_defaults({})) == parse(changed)


def changed_defaults(monkeypatch):
    """Another default of an existing key of each kind, as a later version may have it."""
    for cls, name, value in (
        (singan.config.TrainConfig, "critic_updates", 1),
        (singan.config.PyramidConfig, "min_size", 19),
        (Config, "preset", "reference"),
    ):
        made: Any = inspect.unwrap(cls.__init__)  # under what checks the types of arguments in tests
        names, defaults = made.__code__.co_varnames[1 : made.__code__.co_argcount], list(made.__defaults__)
        defaults[names.index(name) - len(names)] = value
        monkeypatch.setattr(made, "__defaults__", tuple(defaults))


def test_a_run_without_a_key_keeps_its_value_when_the_default_changes(tmp_path, monkeypatch):
    workdir, old = Workdir(tmp_path), make_config(preset="corrected")
    trained(tmp_path, config=old)
    stored = to_mapping(old)
    del stored["train"]["critic_updates"], stored["pyramid"]["min_size"], stored["preset"]
    records._write(workdir.config, stored)
    before = origin_of_pixels(old, {"a": "1"})
    changed_defaults(monkeypatch)
    assert (make_config().train.critic_updates, make_config().preset) == (1, "reference")
    assert records.read_config(workdir) == old
    assert origin_of_pixels(records.read_config(workdir), {"a": "1"}) == before
    assert load.load([str(tmp_path)])[0].config == flatten(to_mapping(old))
    with pytest.raises(
        UserError, match=r"'corrected' -> 'reference'; pyramid.min_size: 25 -> 19\): .*preset=corrected"
    ):
        claim(tmp_path)
    claim(tmp_path, old)  # as it was: it goes on
    assert records.read_config(workdir) == old


def test_a_workdir_of_format_1_without_keys_keeps_its_values(tmp_path, monkeypatch):
    shutil.copytree(OLD, tmp_path / "run")
    content = json.loads((tmp_path / "run/config.json").read_text())
    whole = records.read_config(Workdir(tmp_path / "run"))
    for key, value in flatten(content).items():
        group, _, leaf = key.rpartition(".")
        if legacy_defaults.LEGACY_DEFAULTS.get(key, ...) == value:
            del (content[group] if group else content)[leaf]
    assert "critic_updates" not in content["train"]
    (tmp_path / "run/config.json").write_text(json.dumps(content))
    changed_defaults(monkeypatch)
    assert records.read_config(Workdir(tmp_path / "run")) == whole


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


@pytest.mark.processes
@pytest.mark.slow
def test_the_commands_refuse_another_training_and_mend_their_own(commands, tmp_path):
    whole, workdir = commands.finished_run(), tmp_path / "run"
    shutil.copytree(whole, workdir)
    for name in (*RECORDS, "images"):
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = contents(workdir)
    assert_refused(commands.train(workdir, "--config.seed=99"), "scales/00 was trained with another configuration")
    save_png(tmp_path / "others/left.png", picture(7))
    save_png(tmp_path / "others/right.png", picture(8))
    result = commands.train(workdir, f"--config.data.path={tmp_path / 'others'}")
    assert_refused(result, "scales/00 was trained with another configuration or on other images")
    assert contents(workdir) == before
    result = commands.train(workdir)
    assert (result.returncode, result.stderr.count("written anew")) == (0, 2), result.stderr
    assert done(workdir) == done(whole)
    assert (workdir / "images.json").read_bytes() == (whole / "images.json").read_bytes()

    records.write_config(Workdir(workdir), parse({**to_mapping(records.read_config(Workdir(whole))), "seed": 99}))
    before = contents(workdir)
    for command, flags in (("sample", ["--num_samples=1"]), ("evaluate", ["--num_samples=1"])):
        result = commands.run(command, f"--workdir={workdir}", f"--out={tmp_path / 'out'}", *flags)
        assert_refused(result, "was trained with another configuration or on other images")
    assert_refused(commands.run("compare", str(workdir), str(whole)), "was trained with another configuration")
    assert contents(workdir) == before
