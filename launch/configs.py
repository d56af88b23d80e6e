"""Configs between the command line and singan: a ConfigDict that flags can override, and the Config made from it.

An experiment's config.py starts from `default_config()` and changes what it needs; `--config.data.background=0` on the
command line overrides it; `load_config` turns the result into a checked singan.config.Config.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from singan import config as singan_config
from singan import secrets
from singan.errors import UserError


def default_config() -> Any:  # a ConfigDict, whose fields a type checker cannot know
    """Returns the defaults as a ConfigDict whose every field can be overridden by a flag.

    Fields that may be None are typed placeholders; fields of several types or of tuples take any literal
    (`--config.data.channels=t1,t2`, `--config.data.background=none`, `--config.data.value_range=0,4095`).
    """
    return config_dict.ConfigDict(_with_references(singan_config.Config, singan_config.default_mapping()))


def load_config(config: Any) -> singan_config.Config:
    """Returns the Config that `--config` and its overrides describe.

    Args:
      config: FLAGS.config: a ConfigDict, or another mapping.

    Raises:
      UserError: no config, or one that singan.config.parse refuses, or that holds a password.
    """
    if config is None:
        raise UserError("--config gave no config: give --config=FILE whose get_config() returns one")
    mapping = config.to_dict() if hasattr(config, "to_dict") else config
    if not isinstance(mapping, Mapping):
        raise UserError(f"--config must give a ConfigDict, not {type(config).__name__}: see get_config()")
    config = singan_config.parse(_parse_literals(singan_config.Config, mapping))
    secrets.check_config(singan_config.to_mapping(config))
    return config


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _takes_any_literal(kinds: tuple[Any, ...]) -> bool:
    return any(typing.get_origin(kind) is tuple for kind in kinds)


def _with_references(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, hint in typing.get_type_hints(cls).items():
        kinds = _kinds(hint)
        if dataclasses.is_dataclass(hint):
            fields[key] = _with_references(hint, values[key])
        elif types.NoneType in kinds and not _takes_any_literal(kinds):
            (kind,) = set(kinds) - {types.NoneType}
            fields[key] = config_dict.placeholder(kind)
        elif _takes_any_literal(kinds):
            # A field of type object takes a tuple, a number or a word, from config.py as well as from a flag.
            fields[key] = config_dict.FieldReference(values[key], field_type=object)
        else:
            fields[key] = values[key]
    return fields


def _parse_literals(cls: Any, mapping: Mapping[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    parsed: dict[str, Any] = {}
    for key, value in mapping.items():
        hint = hints.get(key)  # keys that are not known are left for singan.config.parse to refuse
        kinds = _kinds(hint)
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            parsed[key] = _parse_literals(hint, value)
        elif hint is not None and _takes_any_literal(kinds):
            parsed[key] = _literal(value, kinds)
        else:
            parsed[key] = value
    return parsed


def _literal(value: Any, kinds: tuple[Any, ...]) -> Any:
    """Returns a flag's value as one of `kinds`, or as it is where it fits none (`parse` then says so)."""
    if value is None and str in kinds:
        return "none"  # --config.data.background=None
    tuples: list[Any] = [kind for kind in kinds if typing.get_origin(kind) is tuple]
    item: Any = typing.get_args(tuples[0])[0] if tuples else None
    one_is_a_tuple = float not in kinds and bool(tuples) and typing.get_args(tuples[0])[-1] is Ellipsis
    if isinstance(value, str):
        words = [word.strip() for word in value.strip("()[] ").split(",") if word.strip()]
        if item is str:
            return tuple(words)
        numbers = [_number(word) for word in words]
        if None in numbers or (not words and str in kinds):
            return value
        return tuple(numbers) if "," in value or one_is_a_tuple else numbers[0]
    if item is str and not isinstance(value, list | tuple | bool):
        return (str(value),)  # --config.data.channels=1
    if isinstance(value, int | float) and one_is_a_tuple:
        return (float(value),)  # --config.train.step_shares=0.5
    if item and isinstance(value, list | tuple):
        try:
            return tuple(item(part) for part in value)
        except (TypeError, ValueError):
            return value
    return value


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
