"""Tumours over a background: feathered as sharply as in their own brain, blended by gradients."""

import numpy as np
import pytest

from experiments.tumour_insertion import blending
from experiments.tumour_insertion.blending import Feather
from singan.metrics.seams import contour_step, signed_distance


def disc(size=48, radius=10.0):
    rows, columns = np.indices((size, size)) - size / 2 + 0.5
    return np.hypot(rows, columns) < radius


def test_a_feather_is_half_at_its_edge_and_ends_with_the_brain():
    mask, brain = disc(), np.ones((48, 48), bool)
    weights = blending.feather_weights(mask, brain, Feather(2.0, 1.5))
    distance = np.abs(np.hypot(*(np.indices((48, 48)) - 23.5)) - 11.5)
    assert weights[distance < 0.25] == pytest.approx(0.5, abs=0.15)
    assert weights[24, 24] > 0.999
    brain[:, 36:] = False
    assert not blending.feather_weights(mask, brain, Feather(2.0, 1.5))[:, 36:].any()
    known = mask.copy()
    values = np.random.default_rng(0).uniform(size=(48, 48, 1))
    filled = blending.extended(values, known)
    np.testing.assert_array_equal(filled[mask], values[mask])
    assert np.isin(filled, values[mask]).all()


def test_the_feather_is_as_sharp_as_the_donor_s_own_tumour_is():
    mask, everywhere = disc(), np.ones((48, 48), bool)
    noise = np.random.default_rng(1).normal(0, 0.02, (2, 48, 48, 1))
    distance = signed_distance(mask)[..., None]
    donor = 0.5 / (1 + np.exp(distance / 1.5)) + noise[0]
    background = -0.3 + noise[1]
    own = contour_step(donor, mask)
    feather = blending.choose_feather(background, donor, mask, everywhere, donor, own, blending.choices())
    made = blending.mix(background, donor, blending.feather_weights(mask, everywhere, feather))
    assert contour_step(made, mask) == pytest.approx(own, rel=0.1)
    naive = blending.mix(background, donor, mask)
    assert contour_step(naive, mask) > 2 * own
    kept = blending.contrast_kept(made, naive, background, mask)
    assert kept >= min(0.9, blending.contrast_kept(donor, naive, background, mask)) - 1e-9
    assert blending.choices(2.0, 1.0) == [Feather(2.0, 1.0)]


def test_poisson_blending_takes_the_donor_s_gradients_and_the_background_s_values_around():
    rng = np.random.default_rng(0)
    mask, donor = disc(), rng.uniform(size=(48, 48, 2))
    made = blending.poisson(donor + 0.25, donor, mask)
    np.testing.assert_allclose(made, donor + 0.25, atol=1e-9)  # only an offset, which the border gives
    rows = np.indices((48, 48))[0][..., None] / 48.0
    made = blending.poisson(rows, np.zeros((48, 48, 1)), mask)
    np.testing.assert_allclose(made, rows, atol=1e-9)  # without gradients of its own: harmonic, as a plane is
