import dataclasses
import json
import re

import pytest

from singan.config import CHOICES, PRESETS, Config, MethodConfig, default_mapping, flatten, nearest, parse, to_mapping
from singan.config_checks import AT_LEAST_ONE
from singan.errors import UserError
from singan.resuming import RESUMABLE_KEYS, resume_differences


def nested(key, value):
    """{'train': {'chunk': 3}} from 'train.chunk', 3."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def of_preset(config):
    """The values of the keys that a preset decides on."""
    flat = flatten(to_mapping(config))
    return {key: flat[key] for key in PRESETS["corrected"]}


def test_the_defaults_parse_to_the_papers_values_and_the_tuned_preset():
    config = parse(default_mapping())
    assert config == parse({})
    assert of_preset(config) == PRESETS["tuned"]
    train = config.train
    assert (train.steps_per_scale, train.critic_updates, train.generator_updates) == (2000, 3, 1)
    assert (train.critic_learning_rate, train.generator_learning_rate) == (1e-3, 1e-3)
    assert (train.adam_b1, train.adam_b2, train.learning_rate_decay, train.decay_at) == (0.5, 0.999, 0.1, 0.8)
    assert (train.gradient_penalty_weight, train.reconstruction_weight, train.noise_weight) == (0.1, 30, 0.1)
    assert (config.pyramid.min_size, config.pyramid.max_size, config.pyramid.ratio) == (25, 250, 0.75)
    assert (config.network.width, config.network.num_layers, config.network.max_width) == (32, 5, 128)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_fill_in_what_is_not_given(preset):
    assert of_preset(parse({"preset": preset})) == PRESETS[preset]
    mixed = parse(
        {
            "preset": preset,
            "method": {"padding": "zero", "resize_border": None},
            "train": {"generator_updates": 2, "patch_weight": None},
        }
    )
    assert of_preset(mixed) == {**PRESETS[preset], "method.padding": "zero", "train.generator_updates": 2}


def test_the_default_preset_resumes_no_run_of_another():
    assert parse({}).preset == "tuned"
    old, new = (to_mapping(parse({"preset": name})) for name in ("corrected", "tuned"))
    assert "preset: 'corrected' -> 'tuned'" in resume_differences(old, new)


def test_every_key_that_may_be_none_is_of_every_preset():
    keys = {key for key, value in flatten(default_mapping()).items() if value is None}
    assert all(set(preset) == keys for preset in PRESETS.values())


def test_the_first_two_presets_differ_in_every_key_of_the_method():
    corrected, reference = PRESETS["corrected"], PRESETS["reference"]
    names = [f"method.{field.name}" for field in dataclasses.fields(MethodConfig)]
    assert all(corrected[name] != reference[name] for name in names)
    for name in names:
        if name in CHOICES:
            more = {"uint8_rescaled", "uint8_rescaled_before_crop"}  # which are of imported runs alone
            assert {corrected[name], reference[name]} == set(CHOICES[name]) - more


def test_the_schedules_number_of_scales_is_filled_in():
    assert default_mapping()["train"]["schedule"] == "sequential"
    assert parse({}).pyramid.num_scales == 0
    concurrent = parse({"train": {"schedule": "concurrent"}})
    assert concurrent.pyramid.num_scales == 6
    assert (concurrent.train.concurrent_scales, concurrent.train.concurrent_learning_rate) == (3, 0.1)
    assert parse(to_mapping(concurrent)) == concurrent
    for schedule in CHOICES["train.schedule"]:
        assert parse({"pyramid": {"num_scales": 8}, "train": {"schedule": schedule}}).pyramid.num_scales == 8
    assert [text.split(":")[0] for text in resume_differences(to_mapping(parse({})), to_mapping(concurrent))] == [
        "pyramid.num_scales",
        "train.schedule",
    ]


def test_config_json_holds_what_is_parsed_again():
    given = {"preset": "reference", "data": {"channels": ["t1", "t2"], "value_range": [0, 1000], "background": 0}}
    config = parse(given)
    assert config.data.channels == ("t1", "t2")
    assert config.data.value_range == (0.0, 1000.0)
    assert parse(json.loads(json.dumps(to_mapping(config)))) == config


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.steps_per_scales", "steps_per_scale"),
        ("trian", "train"),
        ("pyramid.minsize", "min_size"),
        ("sed", "seed"),
    ],
)
def test_an_unknown_key_is_named_and_the_nearest_suggested(key, meant):
    with pytest.raises(
        UserError, match=rf"^config\.{re.escape(key)} is not a config key \(did you mean '{meant}'\?\)$"
    ):
        parse(nested(key, 1))


def test_nothing_is_suggested_where_nothing_is_near():
    assert nearest("qqq", ["steps", "chunk"]) == ""
    with pytest.raises(UserError, match=r"^config\.train\.zzz is not a config key$"):
        parse(nested("train.zzz", 1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.chunk", 2.0),
        ("train.chunk", "10"),
        ("train.chunk", True),
        ("train.chunk", None),
        ("seed", [1]),
        ("train.noise_weight", "0.1"),
        ("train.noise_weight", False),
        ("data.group_by_shape", 1),
        ("data.path", 3),
        ("data.channels", "t1"),
        ("data.channels", [1, 2]),
        ("method.normalized_conv_bias", "yes"),
    ],
)
def test_a_value_of_the_wrong_type_names_its_key(key, value):
    with pytest.raises(UserError, match=rf"^config\.{re.escape(key)}=.* must be of type"):
        parse(nested(key, value))


def test_a_group_must_be_a_group_and_a_pair_a_pair():
    with pytest.raises(UserError, match=r"^config\.train must be a group of keys"):
        parse({"train": 3})
    with pytest.raises(UserError, match=r"^config\.data\.value_range=.* must have 2 values"):
        parse(nested("data.value_range", [0, 1, 2]))


def test_whole_numbers_do_for_floats():
    assert parse(nested("train.reconstruction_weight", 100)).train.reconstruction_weight == 100.0


@pytest.mark.parametrize("key", CHOICES)
def test_a_value_that_is_no_choice_names_the_choices(key):
    wrong = CHOICES[key][0] + "x"
    with pytest.raises(UserError, match=rf"^config\.{re.escape(key)}='{wrong}' is not one of .*did you mean"):
        parse(nested(key, wrong))


@pytest.mark.parametrize("key", AT_LEAST_ONE)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_are_at_least_one(key, value):
    with pytest.raises(UserError, match=rf"^config\.{re.escape(key)}={value} must be at least 1"):
        parse(nested(key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.group_size", -1),
        ("data.max_images", -1),
        ("seed", -1),
        ("seed", 2**32),
        ("train.critic_learning_rate", 0),
        ("train.generator_learning_rate", -1.0),
        ("train.generator_learning_rate", float("nan")),
        ("train.learning_rate_decay", 0),
        ("train.gradient_penalty_weight", -0.1),
        ("train.reconstruction_weight", float("nan")),
        ("train.noise_weight", -1),
        ("train.adam_b1", 1),
        ("train.adam_b2", -0.1),
        ("train.decay_at", 0),
        ("train.decay_at", 1.1),
        ("pyramid.ratio", 1),
        ("pyramid.ratio", 0),
        ("pyramid.num_scales", 1),
        ("pyramid.num_scales", -6),
        ("train.concurrent_learning_rate", -0.1),
        ("network.num_layers", 1),
    ],
)
def test_a_value_out_of_range_names_its_key(key, value):
    with pytest.raises(UserError, match=rf"^config\.{re.escape(key)}="):
        parse(nested(key, value))


@pytest.mark.parametrize("key", ["train.critic_learning_rate", "train.reconstruction_weight", "train.noise_weight"])
def test_infinite_numbers_are_refused(key):
    with pytest.raises(UserError, match=rf"^config\.{re.escape(key)}="):
        parse(nested(key, float("inf")))


def test_the_coarsest_scale_must_hold_the_critics_window():
    with pytest.raises(UserError, match=r"^config\.pyramid\.min_size=10 .* 11 pixels"):
        parse(nested("pyramid.min_size", 10))
    assert parse({"pyramid": {"min_size": 7}, "network": {"num_layers": 3}})
    assert parse({"seed": 2**32 - 1, "train": {"decay_at": 1, "adam_b1": 0}})


def changed(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return (*value, "new") if isinstance(value, tuple) else f"{value}x"


@pytest.mark.parametrize("key", sorted(flatten(to_mapping(Config()))))
def test_only_the_listed_keys_may_change_on_resume(key):
    old = to_mapping(parse({}))
    flat = flatten(old)
    new = json.loads(json.dumps(old))
    *groups, last = key.split(".")
    target = new
    for group in groups:
        target = target[group]
    target[last] = changed(flat[key])
    named = ("train.checkpoint_every", "train.group_size", "train.compile_ahead", "data.path", "data.masks")
    may = key.startswith("tracking.") or key in named
    assert resume_differences(old, new) == ([] if may else [f"{key}: {flat[key]!r} -> {changed(flat[key])!r}"])


def test_the_resumable_keys_exist():
    flat = flatten(default_mapping())
    for key in RESUMABLE_KEYS:
        assert key in flat or any(name.startswith(key[:-1]) for name in flat)


def test_a_key_that_one_side_lacks_has_its_legacy_default_and_lists_equal_tuples():
    old, new = to_mapping(parse({})), to_mapping(parse({"train": {"chunk": 7}}))
    del old["train"]["chunk"]
    assert resume_differences(old, new) == ["train.chunk: 100 -> 7"]
    assert resume_differences({"data": {"channels": ["a"]}}, {"data": {"channels": ("a",)}}) == []


def test_a_change_of_preset_is_told_alone_and_with_what_presets_do_not_decide():
    old = to_mapping(parse({"preset": "corrected", "train": {"steps_per_scale": 10}}))
    new = to_mapping(parse({"preset": "tuned"}))
    assert resume_differences(old, new) == ["preset: 'corrected' -> 'tuned'", "train.steps_per_scale: 10 -> 2000"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"train": {"step_shares": (1.0, 0.0)}}, r"step_shares=\(1.0, 0.0\): each must be above 0 and at most 100"),
        ({"train": {"crop_size": 10}}, "crop_size=10 is below the critic's receptive field of 11 pixels"),
        ({"train": {"recipe": "quick"}}, "recipe='quick' is not one of full, fast"),
        ({"preset": "reference", "train": {"recipe": "fast"}}, "recipe='fast': config.preset=reference trains as"),
    ],
)
def test_what_a_recipe_cannot_be_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        parse(given)
