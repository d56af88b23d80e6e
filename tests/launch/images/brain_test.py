"""Where the brain lies in a slice, and where fluid does."""

import numpy as np

from launch.images.brain import brain_mask, fluid_mask


def test_the_brain_is_the_largest_piece_filled_and_eroded():
    outside = np.ones((20, 30), bool)
    outside[0:12, 4:16] = False
    outside[4:6, 8:10] = True  # a ventricle
    outside[14:16, 20:24] = False  # an eye
    outside[12, 16] = False  # meets the brain at a corner
    expected = np.zeros_like(outside)
    expected[0:12, 4:16] = True
    np.testing.assert_array_equal(brain_mask(outside, 0), expected)
    expected[:] = False
    expected[2:10, 6:14] = True  # what lies beyond the image is not brain either
    np.testing.assert_array_equal(brain_mask(outside, 2), expected)
    assert not brain_mask(np.ones((5, 5), bool), 1).any()


def test_fluid_is_dark_in_flair_and_in_t1_where_there_is_no_flair():
    brain = np.ones((40, 40), bool)
    signal = np.full((40, 40, 2), 100.0)
    signal[5:15, 5:15, 0], signal[20:30, 5:15, 1], signal[35, 35] = 50, 50, 10
    tumour = np.zeros((40, 40), bool)
    fluid = fluid_mask(signal, ("T2w", "t2f"), brain, tumour)
    assert fluid[21:29, 6:14].all()
    assert not fluid[5:15, 5:15].any()
    assert not fluid[35, 35]  # a speck
    assert fluid_mask(signal, ("t1n", "t2f"), brain, tumour, specks=True)[35, 35]
    assert fluid_mask(signal, ("T1", "t2"), brain, tumour)[6:14, 6:14].all()
    assert not fluid_mask(signal, ("t1ce", "t2"), brain, tumour).any()
    assert not fluid_mask(signal, ("t1", "t2"), ~brain, tumour).any()
