"""Layouts: which object lies where in an image, with exact ids and classes; new ones made of annotated ones.

NumPy and SciPy alone; whatever is random comes from the generator that is handed in. A layout made here takes some
milliseconds, so that a training has a pool of them and a segmenter a new one for every image.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from singan.errors import UserError

TRIES = 400  # random places that an object is tried at before all free places are computed
POINTS = 24  # of an object's pixels that are looked at first
SHRINK, SMALLEST = 0.85, 0.4  # factor by which an object that fits nowhere is made smaller, and the last one tried
EIGHT = np.ones((3, 3), bool)  # pixels that meet at a corner are connected


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Where objects lie.

    Attributes:
      objects: int32 [H, W], an object's id at its pixels, 0 elsewhere.
      classes: uint8 [H, W], the class of each pixel of an object from 1 on, 0 elsewhere. A nucleus has one class, a
        tumour may have several.
      region: bool [H, W], where objects may lie, such as brain without ventricles; None: everywhere, also cut by the
        border.
    """

    objects: np.ndarray
    classes: np.ndarray
    region: np.ndarray | None = None

    @functools.cached_property
    def cut_out(self) -> "list[CutOut]":
        """The objects, each cut out with its bounding box, ids in rising order."""
        return _cut_out(self)

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(np.unique(self.objects[self.objects > 0]))

    def class_of_each(self) -> dict[int, int]:
        """Returns {id: the class of most of its pixels}, ids in rising order."""
        inside = self.objects > 0
        ids, places = np.unique(self.objects[inside], return_inverse=True)
        votes = np.zeros((len(ids), int(self.classes.max(initial=0)) + 1), np.int64)
        np.add.at(votes, (places, self.classes[inside]), 1)
        return {int(one): int(kind) for one, kind in zip(ids, votes.argmax(1), strict=True)}

    def resized(self, size: tuple[int, int]) -> "Layout":
        """Returns the layout at another size [h, w], each pixel that of the nearest; ids and classes stay exact."""
        if self.objects.shape == tuple(size):
            return self
        index = (
            np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int)
            for new, old in zip(size, self.objects.shape, strict=True)
        )
        at = np.ix_(*index)
        return Layout(self.objects[at], self.classes[at], None if self.region is None else self.region[at])


@dataclasses.dataclass(frozen=True)
class Rule:
    """How new layouts are made of annotated ones.

    Attributes:
      density: how much of the image objects cover, in multiples of the source's.
      scale: the least and the largest factor of an object's size.
      gap: pixels that stay free between two objects; 0 lets them touch.
      overlap: whether a new object may cover others.
      turn: whether objects are mirrored and rotated by any angle.
      mix: {class: share}; None: that of the source.
    """

    density: float = 1.0
    scale: tuple[float, float] = (0.9, 1.1)
    gap: int = 1
    overlap: bool = False
    turn: bool = True
    mix: Mapping[int, float] | None = None


POOL_DENSITY = (0.7, 1.3)  # of a pool's layouts, evenly: a generator that is to be asked for more must have seen more


@dataclasses.dataclass(frozen=True, eq=False)
class CutOut:
    """One object of a layout."""

    mask: np.ndarray  # bool [h, w]
    classes: np.ndarray  # uint8 [h, w]
    kind: int  # the class of most of its pixels
    whole: bool  # not cut by the image's border


def layout_of(values: np.ndarray, kinds: np.ndarray | None = None, region: np.ndarray | None = None) -> Layout:
    """Returns the layout that an annotation shows.

    Args:
      values: [H, W] whole numbers, an id for each object and 0 elsewhere. Where only one number is above 0, it is a
        mask, and its connected pieces are the objects.
      kinds: [H, W], the class of each pixel; None: all are of class 1.
      region: bool [H, W], as in Layout.
    """
    objects = np.asarray(values).astype(np.int32)
    if len(np.unique(objects[objects > 0])) == 1:
        objects = _pieces(objects > 0)
    inside = objects > 0
    classes = np.where(inside, 1 if kinds is None else kinds, 0).astype(np.uint8)
    return Layout(objects, np.where(inside & (classes == 0), 1, classes).astype(np.uint8), region)


def label_layout(labels: np.ndarray, region: np.ndarray | None = None) -> Layout:
    """Returns the layout of a label map [H, W], such as a tumour's parts: objects are its connected pieces."""
    return Layout(_pieces(labels > 0), labels.astype(np.uint8), region)


def permute(
    sources: Sequence[Layout], rng: np.random.Generator, rule: Rule | None = None, size: tuple[int, int] | None = None
) -> Layout:
    """Returns a new layout: objects of annotated ones, moved, turned, mirrored and scaled to free places.

    They cover as much as the sources' do, times the density, with the classes in the same shares. An object that the
    border of its source cuts is used only where its class has no whole one. Without a region, a new object's centre
    lies in the image, and the border may cut it; with a region, all of it lies inside. What fits nowhere is made
    smaller, and left out where it still does not fit. Ids are 1, 2, ... without gaps.

    Args:
      sources: one or several annotated layouts; the first one's region holds.
      size: (height, width) of the new one; None: the first source's, which a region demands.

    Raises:
      UserError: the sources have no object, or a class is asked for that none of them has.
    """
    rule, region = rule or Rule(), sources[0].region
    shape = tuple(size or sources[0].objects.shape)
    assert region is None or region.shape == shape
    objects = [one for source in sources for one in source.cut_out]
    if not objects:
        raise UserError("the annotation holds no object: there is nothing to place")
    area = sum(source.objects.size for source in sources)
    chosen = _choose(objects, rule, shape[0] * shape[1] / area, rng)
    # What of an object may lie beyond the border: a turned one is at most its diagonal long.
    margin = 3 + rule.gap + int(max(np.hypot(*one.mask.shape) for one in chosen) * max(rule.scale)) if chosen else 0
    blocked = np.pad(np.zeros(shape, bool) if region is None else ~region, margin, constant_values=region is not None)
    ids, classes = (np.zeros(blocked.shape, dtype) for dtype in (np.int32, np.uint8))
    number = 0
    # The largest ones first: they have the fewest places.
    for one in sorted(chosen, key=lambda one: -int(one.mask.sum())):
        placed = _place(one, blocked, shape, margin, rule, rng)
        if placed is None:
            continue
        number += 1
        (top, left), mask, kinds = placed
        at = np.s_[top : top + mask.shape[0], left : left + mask.shape[1]]
        ids[at][mask], classes[at][mask] = number, kinds[mask]
        if not rule.overlap:
            _block(blocked, mask, top, left, rule.gap)
    inner = np.s_[margin : margin + shape[0], margin : margin + shape[1]]
    return Layout(_without_gaps(ids[inner]), classes[inner].copy(), region)


def _pieces(mask: np.ndarray) -> np.ndarray:
    pieces: Any = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, EIGHT, output=pieces)
    return pieces


def _without_gaps(objects: np.ndarray) -> np.ndarray:
    """Returns ids 1, 2, ... in the order of those there are: some may be covered by others, or beyond the border."""
    there = np.bincount(objects.ravel()) > 0
    there[0] = False
    return np.where(there, np.cumsum(there), 0).astype(np.int32)[objects]


def _cut_out(layout: Layout) -> list[CutOut]:
    result = []
    height, width = layout.objects.shape
    kinds = layout.class_of_each()
    ids = np.array([0, *kinds])
    places = ndimage.find_objects(np.searchsorted(ids, layout.objects).astype(np.int32))
    for (one, kind), box in zip(kinds.items(), places, strict=True):
        rows, columns = box
        whole = rows.start > 0 and rows.stop < height and columns.start > 0 and columns.stop < width
        mask = layout.objects[box] == one
        result.append(CutOut(mask, np.where(mask, layout.classes[box], 0), kind, whole))
    return result


def _choose(objects: Sequence[CutOut], rule: Rule, larger: float, rng: np.random.Generator) -> list[CutOut]:
    """Returns the objects to place, for an image `larger` times as large as the sources together."""
    by_class: dict[int, list[CutOut]] = {}
    for one in objects:
        by_class.setdefault(one.kind, []).append(one)
    donors = {kind: [one for one in some if one.whole] or some for kind, some in by_class.items()}
    # In whole objects: what the border cuts counts as the part of one that it shows.
    shares = {
        kind: sum(one.mask.sum() for one in some) / np.mean([one.mask.sum() for one in donors[kind]])
        for kind, some in by_class.items()
    }
    wanted = sum(shares.values()) * larger
    shares = dict(rule.mix) if rule.mix is not None else shares
    if missing := sorted(set(shares) - set(by_class)):
        raise UserError(f"no object of class {missing[0]} is annotated: classes {sorted(by_class)} are")
    total = sum(shares.values())
    exact = np.array([share * wanted * rule.density / total for share in shares.values()])
    counts = np.floor(exact).astype(int)
    rest = round(exact.sum()) - counts.sum()
    # What is left goes by chance, a class with a larger remainder being the likelier: rare ones are not lost.
    remainders = exact - counts
    if rest > 0:
        some = rng.choice(
            len(exact), min(rest, np.count_nonzero(remainders)), replace=False, p=remainders / remainders.sum()
        )
        counts[some] += 1
    chosen = []
    for kind, count in zip(shares, counts, strict=True):
        chosen += [donors[kind][i] for i in rng.integers(len(donors[kind]), size=count)]
    return chosen


def _place(
    one: CutOut, blocked: np.ndarray, shape: tuple[int, ...], margin: int, rule: Rule, rng: np.random.Generator
) -> tuple[tuple[int, int], np.ndarray, np.ndarray] | None:
    angle = rng.uniform(0, 360) if rule.turn else 0.0
    flip, factor = bool(rule.turn and rng.random() < 0.5), rng.uniform(*rule.scale)
    from scipy import signal  # here and not above: it takes a while, and what only reads a workdir needs none of it

    while factor >= SMALLEST * rule.scale[0]:
        mask, kinds = _turned(one, angle, flip, factor)
        corner = margin - np.array(mask.shape) // 2
        if mask.any():
            for row, column in _likely(mask, blocked, rng.integers(shape, size=(TRIES, 2)) + corner):
                if not (blocked[row : row + mask.shape[0], column : column + mask.shape[1]] & mask).any():
                    return (int(row), int(column)), mask, kinds
            free = signal.fftconvolve(blocked.astype(np.float32), mask[::-1, ::-1].astype(np.float32), "valid") < 0.5
            window = free[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]
            places = np.flatnonzero(window)
            if len(places):
                row, column = np.unravel_index(places[rng.integers(len(places))], window.shape) + corner
                return (int(row), int(column)), mask, kinds
        factor *= SHRINK
    return None


def _likely(mask: np.ndarray, blocked: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Returns the corners [n, 2] at which none of some of the mask's pixels is blocked: most of the others' are."""
    rows, columns = np.nonzero(mask)
    some = np.linspace(0, len(rows) - 1, POINTS).astype(int)
    hit = blocked[corners[:, :1] + rows[some], corners[:, 1:] + columns[some]]
    return corners[~hit.any(1)]


def _turned(one: CutOut, angle: float, flip: bool, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns mask and classes of an object, mirrored, rotated by degrees and scaled, cut to its bounding box."""
    centre = (np.array(one.mask.shape) - 1) / 2
    half = np.ceil(np.hypot(*one.mask.shape) / 2 * factor) + 1
    turn = np.deg2rad(angle)
    back = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    back = (np.diag([-1.0, 1.0]) @ back if flip else back) / factor
    where = {"matrix": back, "offset": centre - back @ [half, half], "output_shape": (int(2 * half + 1),) * 2}
    mask = ndimage.affine_transform(one.mask.astype(np.float32), order=1, **where) > 0.5
    box = ndimage.find_objects(mask.astype(np.uint8))
    mask = mask[box[0]] if box else mask
    if one.classes.max() == one.kind and (one.classes[one.mask] == one.kind).all():
        return mask, np.where(mask, one.kind, 0).astype(np.uint8)
    kinds = ndimage.affine_transform(one.classes, order=0, **where)
    kinds = kinds[box[0]] if box else kinds
    return mask, np.where(mask, np.where(kinds > 0, kinds, one.kind), 0).astype(np.uint8)


def _block(blocked: np.ndarray, mask: np.ndarray, top: int, left: int, gap: int) -> None:
    height, width = mask.shape
    for down, right in itertools.product(range(-gap, gap + 1), repeat=2):
        blocked[top + down : top + down + height, left + right : left + right + width] |= mask
