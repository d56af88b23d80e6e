"""Configurations: every key with values of every kind, from a config file and from flags."""

from pathlib import Path
from typing import Any

from absl import flags
from hypothesis import strategies as st
from ml_collections import config_flags

from launch import cli
from launch.configs import load_config
from singan import files
from singan.config import default_mapping, flatten, parse, to_mapping
from singan.errors import UserError
from singan.model.pyramid import make_pyramid
from singan.model.spec import make_spec
from tests.fuzz import strategies
from tests.fuzz.areas import Area

DEFAULTS = flatten(default_mapping())
CONFIG = "from launch.configs import default_config as get_config\n"
keys = st.one_of(st.sampled_from(strategies.KEYS), st.sampled_from(["train.chnk", "trian.chunk", "", "seed.x", "data"]))


def like(key: str) -> st.SearchStrategy[Any]:
    """Returns odd values of the type that a key has: what a check of types lets through."""
    default = DEFAULTS.get(key)
    of_type = {int: strategies.integers, float: strategies.floats, bool: st.booleans(), str: strategies.text}
    return of_type.get(type(default), st.lists(strategies.text, max_size=2).map(tuple))


@st.composite
def mappings(draw) -> dict[str, Any]:
    """Nested mappings with one to three keys of odd values; rarely something else in a group's place."""
    mapping: dict[str, Any] = {}
    for key in draw(st.lists(keys, min_size=1, max_size=3)):
        *groups, last = key.split(".")
        inner = mapping
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                break
        else:
            inner[last] = draw(st.one_of(strategies.values, like(key), like(key)))
    return mapping


def use_mapping(mapping: dict[str, Any], folder: Path) -> None:
    config = load_config(mapping)
    pyramid = make_pyramid(64, 48, config.pyramid, str(config.method.resize_border))
    make_spec(config, pyramid, 3, "direct").at(len(pyramid) - 1)
    files.write_json(folder / "config.json", to_mapping(config))
    assert parse(files.read_json(folder / "config.json")) == config


flag_texts = st.tuples(keys, st.one_of(strategies.text, strategies.scalars.map(str)))


def use_flags(given: list[tuple[str, str]], folder: Path) -> None:
    """As launch.cli parses them, with flags of its own."""
    (folder / "config.py").write_text(CONFIG)
    argv = ["x", f"--config={folder / 'config.py'}", *(f"--config.{key}={text}" for key, text in given)]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    values["config"].parser = cli.ConfigFile()
    try:
        left = values(argv)
    except Exception as error:
        raise UserError(cli._flag_error(error, argv)) from error
    assert left == ["x"]
    use_mapping(values["config"].value.to_dict(), folder)


AREAS = [
    Area("config values", mappings(), use_mapping, 150, 600),
    Area("config flags", st.lists(flag_texts, min_size=1, max_size=2), use_flags, 60, 250),
]
