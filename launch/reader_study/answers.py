"""Reading the key and the readers' files: everything in them may be damaged, of another study, or given twice."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.reader_study.design import ANSWERS, KEY_FORMAT, Mode
from launch.text import printable
from singan.errors import UserError

ANSWERS_FORMAT = "medisingan-reader-study-answers-1"
CONFIDENCES = range(1, 6)
READER = re.compile(r"[A-Za-z0-9._-]{1,40}")


@dataclasses.dataclass(frozen=True)
class KeyItem:
    """What an item was: as launch.reader_study.design.Item."""

    answer: str
    modality: str
    start_scale: int | None


@dataclasses.dataclass(frozen=True)
class Key:
    """The truth of a study: its scored items in the order shown."""

    study: str
    mode: Mode
    items: Mapping[str, KeyItem]


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
      answer: one of ANSWERS of the mode.
      confidence: 1 (a guess) to 5 (certain).
      seconds: how long the reader took.
    """

    answer: str
    confidence: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Reader:
    """What one reader sent back: answers by item, and years of experience where given."""

    name: str
    answers: Mapping[str, Answer]
    experience_years: float | None = None


def read_key(path: str | os.PathLike) -> Key:
    """Returns the key that `make` wrote.

    Raises:
      UserError: the file is missing, damaged, or no key.
    """
    name, content = _read(path)
    if content.get("format") == ANSWERS_FORMAT:
        raise UserError(f"--key={name} holds a reader's answers: give the file that ends in .key.json")
    try:
        if content["format"] != KEY_FORMAT or content["mode"] not in ANSWERS:
            raise KeyError("format")
        items = {
            item["id"]: KeyItem(item["answer"], str(item["modality"]), item["start_scale"])
            for item in content["items"]
            if not item["practice"]
        }
        if not items or any(item.answer not in ANSWERS[content["mode"]] for item in items.values()):
            raise KeyError("items")
        return Key(str(content["study"]), content["mode"], items)
    except (KeyError, TypeError) as error:
        raise UserError(f"--key={name} is no key of a reader study, or a damaged one") from error


def read_answers(paths: Sequence[str | os.PathLike], key: Key) -> list[Reader]:
    """Returns the readers, sorted by name; those who have answered nothing too.

    Raises:
      UserError: a file is missing, damaged or of another study, or two are of one reader.
    """
    readers: dict[str, tuple[Reader, str]] = {}
    for path in paths:
        name, content = _read(path)
        reader = _reader(name, content, key)
        if reader.name.casefold() in readers:
            other = readers[reader.name.casefold()][1]
            raise UserError(f"{other} and {name} are both of reader {reader.name}: give one of them")
        readers[reader.name.casefold()] = reader, name
    return [reader for _, (reader, _) in sorted(readers.items())]


def _reader(name: str, content: Mapping[str, Any], key: Key) -> Reader:
    if content.get("format") == KEY_FORMAT:
        raise UserError(f"{name} is a key, not a reader's answers: give it with --key")
    if content.get("format") != ANSWERS_FORMAT:
        raise UserError(f"{name} holds no answers of a reader study: take it out")
    if content.get("study") != key.study:
        raise UserError(
            f"{name} has answers to study {printable(str(content.get('study'))[:40])}, the key is of study {key.study}:"
            " give the key that belongs to them"
        )
    reader, years = content.get("reader"), content.get("experience_years")
    if not isinstance(reader, str) or not READER.fullmatch(reader):
        raise UserError(f"{name} is damaged: it names no reader")
    if years is not None and not _is_number(years):
        raise UserError(f"{name} is damaged: experience_years is no number")
    given = content.get("answers")
    if not isinstance(given, list):
        raise UserError(f"{name} is damaged: it has no list of answers")
    answers: dict[str, Answer] = {}
    for number, row in enumerate(given, start=1):
        try:
            item, answer, confidence, time = (row[k] for k in ("item", "answer", "confidence", "milliseconds"))
            fine = answer in ANSWERS[key.mode] and confidence in CONFIDENCES and _is_number(time) and time >= 0
        except (KeyError, TypeError):
            item, fine = None, False
        if not fine or not isinstance(item, str):
            raise UserError(f"{name} is damaged: answer {number} is none of this study's")
        if item not in key.items:
            raise UserError(f"{name} is damaged: answer {number} is to an item that the study does not have")
        if item in answers:
            raise UserError(f"{name} is damaged: answer {number} is to an item that was answered before")
        answers[item] = Answer(answer, int(confidence), time / 1000)
    return Reader(reader, answers, years)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _read(path: str | os.PathLike) -> tuple[str, Mapping[str, Any]]:
    """Returns what to call the file, and the object it holds."""
    name = printable(os.fspath(path))
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{name} does not exist") from error
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is damaged: not JSON ({error}): ask for the file again") from error
    if not isinstance(content, dict):
        raise UserError(f"{name} holds no answers of a reader study: take it out")
    return name, content
