"""New layouts of annotated ones: ids and classes are exact, objects keep apart, and the seed decides all."""

import numpy as np
import pytest

from singan.errors import UserError
from singan.model.encodings import encode
from singan.model.layouts import Layout, Rule, label_layout, layout_of, permute


def discs(size=64, count=12, seed=0, radius=4):
    """A layout of discs that do not touch, every third of class 2."""
    rng, objects = np.random.default_rng(seed), np.zeros((size, size), np.int32)
    rows, columns = np.mgrid[:size, :size]
    number = 0
    while number < count:
        row, column = rng.integers(radius + 1, size - radius - 1, 2)
        disc = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        if not objects[(rows - row) ** 2 + (columns - column) ** 2 <= (radius + 2) ** 2].any():
            number += 1
            objects[disc] = 10 * number  # ids need not follow one another
    kinds = np.where(objects // 10 % 3 == 0, 2, 1)
    return layout_of(objects, kinds)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_new_layout_has_as_many_objects_of_each_class_in_other_places():
    source = discs()
    made = permute([source], rng())
    assert sorted(np.unique(made.objects)) == list(range(13))
    assert sorted(made.class_of_each().values()) == sorted(source.class_of_each().values())
    assert ((made.objects > 0) == (made.classes > 0)).all()
    assert ((made.objects > 0) & (source.objects > 0)).mean() < 0.5 * (source.objects > 0).mean()
    for number in range(1, 13):
        assert len(np.unique(made.classes[made.objects == number])) == 1
    areas = np.bincount(made.objects.ravel())[1:]
    assert areas.max() <= 1.3 * 1.21 * np.bincount(source.objects.ravel())[10]


def test_the_seed_decides_all():
    source = discs()
    a, b, c = (permute([source], rng(seed)).objects for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_objects_keep_apart_unless_they_may_overlap():
    source = discs(count=30, size=80)
    apart = permute([source], rng(3), Rule(gap=2)).objects
    for number in range(1, apart.max() + 1):
        rows, columns = np.nonzero(apart == number)
        for row, column in zip(rows, columns, strict=True):
            around = apart[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
            assert set(np.unique(around)) <= {0, number}
    dense = permute([source], rng(3), Rule(density=4.0, overlap=True))
    assert (dense.objects > 0).mean() > 0.5
    assert dense.count == dense.objects.max()  # those that are covered are not counted


@pytest.mark.parametrize("density", [0.5, 1.0, 1.5])
def test_density_and_size_are_as_asked(density):
    made = permute([discs()], rng(), Rule(density=density), (96, 64))
    assert made.objects.shape == (96, 64)
    assert made.count == round(12 * 1.5 * density)


def test_a_mix_of_classes_is_as_asked_and_an_unknown_class_is_refused():
    kinds = list(permute([discs()], rng(), Rule(mix={1: 0.25, 2: 0.75})).class_of_each().values())
    assert kinds.count(2) == 9
    with pytest.raises(UserError, match="class 3"):
        permute([discs()], rng(), Rule(mix={3: 1.0}))
    with pytest.raises(UserError, match="no object"):
        permute([Layout(np.zeros((9, 9), np.int32), np.zeros((9, 9), np.uint8))], rng())


def test_objects_that_the_border_cuts_are_no_donors_where_there_are_whole_ones():
    objects = np.zeros((40, 40), np.int32)
    objects[:20, 0:3] = 1  # a long one that the border cuts
    objects[20:26, 20:26] = 2
    made = permute([layout_of(objects)], rng(), Rule(turn=False, scale=(1.0, 1.0)))
    assert made.count == 3  # the long one counts as 60 / 36 of the other
    assert np.bincount(made.objects.ravel())[1:].max() <= 36


def test_parts_of_a_tumour_stay_together_and_inside_its_region():
    labels = np.zeros((60, 60), np.uint8)
    labels[30:42, 30:40] = 2
    labels[34:38, 33:37] = 1
    region = np.zeros((60, 60), bool)
    region[10:50, 5:55] = True
    region[20:40, 10:14] = False  # a ventricle
    source = label_layout(labels, region)
    for seed in range(10):
        made = permute([source], rng(seed))
        assert made.count == 1
        assert not (made.objects > 0)[~region].any()
        assert set(np.unique(made.classes)) == {0, 1, 2}
        assert (made.classes[made.objects > 0] > 0).all()


def test_what_fits_nowhere_is_made_smaller_or_left_out():
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 1
    narrow = np.zeros((40, 40), bool)
    narrow[5:20, 5:20] = True
    made = permute([label_layout(labels, narrow)], rng(), Rule(scale=(1.0, 1.0)))
    assert 0 < (made.objects > 0).sum() < 225
    assert permute([label_layout(labels, np.zeros((40, 40), bool))], rng()).count == 0


def test_a_mask_becomes_its_pieces_and_ids_stay_as_they_are():
    mask = np.zeros((20, 20), np.uint8)
    mask[2:5, 2:5] = mask[10:14, 10:14] = 255
    assert layout_of(mask).count == 2
    ids = np.where(mask > 0, np.arange(20)[:, None] // 10 + 7, 0)
    assert list(layout_of(ids).class_of_each()) == [7, 8]


def test_resizing_keeps_ids_exact():
    source = discs()
    assert set(np.unique(source.resized((31, 45)).objects)) <= set(np.unique(source.objects))
    np.testing.assert_array_equal(source.resized((128, 128)).objects[::2, ::2], source.objects)


def test_given_channels_say_what_the_layout_says():
    layout = discs()
    drawn = encode(layout, ("binary", "boundary", "instance", "class", "region"), 2)
    inside = layout.objects > 0
    assert drawn.shape == (64, 64, 6)
    np.testing.assert_array_equal(drawn[..., 0], 255 * inside)
    assert (drawn[..., 1] <= drawn[..., 0]).all()
    assert 0 < (drawn[..., 1] > 0).sum() < inside.sum()
    np.testing.assert_array_equal(drawn[..., 2] > 0, inside)
    np.testing.assert_array_equal(drawn[..., 3:5].argmax(-1)[inside] + 1, layout.classes[inside])
    assert (drawn[..., 5] == 255).all()


def test_touching_objects_have_a_boundary_between_them():
    objects = np.zeros((12, 12), np.int32)
    objects[3:9, 2:6], objects[3:9, 6:10] = 1, 2
    boundary = encode(layout_of(objects), ("boundary",), 1)[..., 0]
    assert (boundary[3:9, 5:7] == 255).all()
    assert (boundary[4:8, 3:5] == 0).all()
