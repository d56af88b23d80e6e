"""Which images a study shows, in which order, under which names; and the key that says what they were.

The choice follows from the seed and the files' names. Order, sides and item names follow from the files' contents too,
so that a reader who knows this code and guesses the seed still cannot work out what is real.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from launch.images import image_folders
from launch.images.channels import channel_groups
from launch.images.image_folders import Entry
from launch.reader_study.match_images import MatchedImages
from singan.errors import UserError

KEY_FORMAT = "medisingan-reader-study-key-1"
MODES = ("single", "pairs")
ANSWERS: Mapping[str, tuple[str, str]] = {"single": ("real", "generated"), "pairs": ("left", "right")}

Mode = Literal["single", "pairs"]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The images of a study: the first `main` of each kind are scored, the others are for practice.

    Attributes:
      real, generated: equally many; of a pair, both have the same place.
      main: how many of each are scored.
    """

    real: list[Entry]
    generated: list[Entry]
    main: int


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """What a reader sees at once.

    Attributes:
      id: eight hexadecimal digits that mean nothing.
      images: uint16 [C, H, W]: one, or the left and the right one.
      groups: which of the study's channel groups they hold.
      answer: 'real' or 'generated'; of a pair, the side of the real one, 'left' or 'right'.
      practice: whether it is shown first, with feedback, and not scored.
      real, generated: their sources, '' where there is none.
      start_scale: of the generated image, None where there is none or it is not known.
    """

    id: str
    images: tuple[np.ndarray, ...]
    groups: tuple[int, ...]
    answer: str
    practice: bool
    real: str
    generated: str
    start_scale: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """A study before it is written.

    Attributes:
      id: twelve hexadecimal digits; the same files and settings give the same.
      items: practice first, in the order in which they are shown.
      groups: the pictures that show an image's channels, {name: channel numbers} (launch.images.channels).
      levels: of each channel.
    """

    id: str
    mode: Mode
    items: list[Item]
    groups: dict[str, list[int]]
    levels: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image."""
        return self.items[0].images[0].shape[1:]


def choose(
    real: Sequence[Entry], generated: Sequence[Entry], mode: Mode, num_items: int, practice: int, seed: int
) -> Choice:
    """Returns a seeded choice, start scales in equal shares as far as there are images of each.

    Args:
      num_items: how many items are scored; 0 takes as many as there are images for.
      practice: how many items come before them.

    Raises:
      UserError: there are too few images, or, of single images, an odd number of items.
    """
    per_item = 2 if mode == "single" else 1  # items made from one real and one generated image
    for flag, count in (("num_items", num_items), ("practice", practice)):
        if count % per_item:
            raise UserError(f"--{flag}={count} must be even: half of the images shown are real")
    extra, there = practice // per_item, min(len(real), len(generated))
    main = num_items // per_item or there - extra
    if main < 1 or main + extra > there:
        raise UserError(
            f"{main + extra if num_items else extra + 1} real and as many generated images are needed"
            f" ({practice} practice items among them), but there are {len(real)} and {len(generated)}:"
            " give more images, or lower --num_items or --practice"
        )
    names = repr([entry.source for entry in (*real, *generated)])
    rng = np.random.default_rng(_number(names.encode("utf-8", "surrogatepass"), seed))
    shuffled = [real[i] for i in rng.permutation(len(real))]
    by_scale: dict[int, list[Entry]] = {}
    for i in rng.permutation(len(generated)):
        scale = generated[i].start_scale
        by_scale.setdefault(-1 if scale is None else scale, []).append(generated[i])
    rounds = max(map(len, by_scale.values()))
    in_turn = [held[i] for i in range(rounds) for _, held in sorted(by_scale.items()) if i < len(held)]
    return Choice(shuffled[: main + extra], in_turn[: main + extra], main)


def digest(choice: Choice, settings: Mapping[str, Any]) -> bytes:
    """Returns what order and names are drawn from: a SHA-256 of the chosen files' contents and the settings."""
    files = image_folders.digest(choice.real) + image_folders.digest(choice.generated)
    return hashlib.sha256(files + json.dumps(dict(settings), sort_keys=True).encode()).digest()


def arrange(choice: Choice, images: MatchedImages, mode: Mode, secret: bytes, split_channels: bool = False) -> Study:
    """Returns the study: balanced, in an order drawn from `secret`.

    Of single images, real and generated ones are equally many in each half of the study; of pairs, the real image is
    on the left as often as on the right.

    Args:
      choice: the entries that `images` were read from.
      secret: as `digest` makes it.
      split_channels: show one channel group of each image, all groups equally often and alike for both kinds.
    """
    rng = np.random.default_rng(_number(secret))
    groups = channel_groups(images.channels)
    every = tuple(range(len(groups)))
    scales = len({entry.start_scale for entry in choice.generated})
    shown = [((i // scales) % len(groups),) if split_channels else every for i in range(len(choice.real))]
    planes = [[c for group in held for c in list(groups.values())[group]] for held in shown]
    real = [image[held] for image, held in zip(images.real, planes, strict=True)]
    generated = [image[held] for image, held in zip(images.generated, planes, strict=True)]
    order = [(place, True) for place in _order(range(choice.main, len(real)), mode, rng)]
    order += [(place, False) for place in _order(range(choice.main), mode, rng)]
    items = []
    for (i, answer), practice in order:
        left_first = (real[i], generated[i]) if answer == "left" else (generated[i], real[i])
        with_real, with_generated = answer != "generated", answer != "real"
        items.append(
            Item(
                id=rng.bytes(4).hex(),
                images=left_first if mode == "pairs" else (real[i] if with_real else generated[i],),
                groups=shown[i],
                answer=answer,
                practice=practice,
                real=choice.real[i].source if with_real else "",
                generated=choice.generated[i].source if with_generated else "",
                start_scale=choice.generated[i].start_scale if with_generated else None,
            )
        )
    assert len({item.id for item in items}) == len(items)
    study_id = hashlib.sha256(b"study" + secret).hexdigest()[:12]
    return Study(study_id, mode, items, groups, images.levels)


def key_of(study: Study, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the key file holds: for each item what it was, in the order shown."""
    names = list(study.groups)
    return {
        "format": KEY_FORMAT,
        "study": study.id,
        "mode": study.mode,
        "settings": dict(settings),
        "items": [
            {
                "id": item.id,
                "answer": item.answer,
                "practice": item.practice,
                "modality": "+".join(names[group] for group in item.groups),
                "start_scale": item.start_scale,
                "real": item.real,
                "generated": item.generated,
            }
            for item in study.items
        ],
    }


def _order(places: range, mode: Mode, rng: np.random.Generator) -> list[tuple[int, str]]:
    """Returns (place in the choice, answer) of each item, in the order shown."""
    if mode == "pairs":
        sides = rng.permutation([ANSWERS["pairs"][i % 2] for i in range(len(places))])
        return [(place, str(side)) for place, side in zip(rng.permutation(places).tolist(), sides, strict=True)]
    middle = len(places) // 2
    result: list[tuple[int, str]] = []
    for part in (places[:middle], places[middle:]):
        both = [(place, answer) for answer in ANSWERS["single"] for place in part]
        result += [both[i] for i in rng.permutation(len(both))]
    return result


def _number(data: bytes, seed: int = 0) -> int:
    return int.from_bytes(hashlib.sha256(data + seed.to_bytes(8, "little")).digest(), "little")
