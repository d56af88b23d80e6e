import jax
import numpy as np
import pytest

from experiments.modality_translation import translation
from experiments.modality_translation.translation import GUESSES, NOISES, Partial, fill, guess, subject, translate
from singan.errors import UserError
from singan.model.generation import run_trained, upsample_to_next_scale
from singan.model.noise import Purpose, image_key_data, noise_map, scale_key
from singan.parallel.cohort import image_mesh
from singan.sampling import manipulation
from singan.sampling.manipulation import Input

pytestmark = pytest.mark.usefixtures("compiled_quickly_and_once")

CPU = image_mesh(jax.devices("cpu")[:1])


def partial(random_image, known, image_id="image0", number=7):
    return Partial(image_id, f"input{number}", random_image(number, len(known)), None, tuple(known))


@pytest.mark.parametrize("known", [(True, False), (False, True, False), (True, False, True, True)])
def test_known_channels_are_held_at_every_scale_and_leave_as_they_came(random_run, random_image, known):
    run = random_run(1, len(known), 2)
    one = partial(random_image, known)
    spec, kept = run.spec.at(3), np.array(known)
    (made,) = translate(run, [one], 2, num_samples=2, seed=3, mesh=CPU)
    assert made.shape == (2, 17, 15, len(known))
    assert made.dtype == np.float32
    level = spec.pyramid.level(one.pixels, 3)
    for sample in made:
        np.testing.assert_array_equal(sample[..., kept], level[..., kept])
    assert np.abs(made[0] - made[1])[..., ~kept].max() > 0.001

    trained = jax.tree.map(lambda leaf: leaf[0], run.trained(["image0"]))
    padding = run.padding(["image0"])[0]
    key = jax.random.fold_in(scale_key(image_key_data(3, "image0"), 2, 0, Purpose.SAMPLE), 1)
    image = spec.pyramid.level(one.pixels, 1)[None]
    for scale in (2, 3):
        here = spec.at(scale)
        noise = np.where(kept, 0, noise_map(here, jax.random.fold_in(key, scale)))
        image = np.array(run_trained(here, trained[scale], noise, upsample_to_next_scale(here, image), padding))
        image[..., kept] = spec.pyramid.level(one.pixels, scale)[..., kept]
    np.testing.assert_allclose(made[1], np.clip(image[0], -1, 1), atol=2e-5)


def test_with_nothing_known_it_is_plain_injection(random_run, random_image):
    run = random_run(2, 3, 2)
    inputs = [partial(random_image, (False,) * 3, f"image{i}", i + 4) for i in range(2)]
    injected = manipulation.inject(run, inputs, 2, 2, seed=5, mesh=CPU)
    for noise in ("unknown", "all"):
        for made, expected in zip(translate(run, inputs, 2, 2, 5, noise, CPU), injected, strict=True):
            np.testing.assert_allclose(made, expected, atol=2e-6)


def test_a_result_does_not_depend_on_its_company(random_run, random_image):
    run = random_run(2, 2, 2)
    partials = [partial(random_image, (i % 2 == 0, i > 4), f"image{i % 2}", i) for i in (3, 4, 5)]
    together = translate(run, partials, 3, 2, mesh=CPU)
    split = translate(run, partials, 3, 2, mesh=CPU, batch=1)
    spread = translate(run, partials, 3, 2, mesh=image_mesh(jax.devices("cpu")[:2]))
    for one, *results in zip(partials, together, split, spread, strict=True):
        (alone,) = translate(run, [one], 3, 2, mesh=CPU)
        for result in results:
            np.testing.assert_array_equal(alone, result)


def test_noise_can_be_left_out(random_run, random_image):
    run = random_run(1, 2, 2)
    one = partial(random_image, (True, False))
    made = {noise: translate(run, [one], 2, 2, noise=noise, mesh=CPU)[0] for noise in NOISES}
    np.testing.assert_array_equal(*made["none"])
    for name in ("all", "unknown"):
        assert np.abs(made[name][0] - made["none"][0])[..., 1].max() > 0.001
    assert np.abs(made["all"] - made["unknown"]).max() > 0.001


def test_what_the_guess_holds_below_the_start_scale_is_all_that_matters_of_it(random_run, random_image):
    run = random_run(1, 2, 2)
    one = partial(random_image, (True, False))
    other = Partial("image0", "other", one.pixels * [1, 0] - [0, 0.5], None, (True, False))
    first, second = translate(run, [one, other], 2, mesh=CPU)
    assert np.abs(first - second)[..., 1].max() > 0.001
    np.testing.assert_array_equal(first[..., 0], second[..., 0])


# --- guesses


def images():
    """A training image and a new one: a disk on black, channel 1 a function of channel 0, channel 2 everywhere."""
    rows, columns = np.mgrid[:24, :20]
    made = []
    for seed, centre in ((0, 11), (1, 13)):
        inside = (rows - centre) ** 2 + (columns - 10) ** 2 < 64
        first = np.where(inside, np.random.default_rng(seed).uniform(-0.9, 1, inside.shape), -1)
        third = np.random.default_rng(seed + 5).uniform(-1, 1, inside.shape)
        made.append((np.stack([first, np.where(inside, first**2 / 2, -1), third], -1).astype(np.float32), inside))
    return made


BACKGROUND = (-1.0, -1.0, None)


def test_matched_finds_what_depends_on_the_known_channels_alone():
    (training, _), (new, inside) = images()
    blank = new * np.float32([1, 0, 1])
    known = (True, False, False)
    made = guess("matched", training, blank, known, BACKGROUND)
    np.testing.assert_array_equal(made[..., 0], new[..., 0])
    np.testing.assert_array_equal(made[..., 1][~inside], np.float32(-1))
    assert np.sqrt(np.mean(np.square(made - new)[inside][:, 1])) < 0.06
    mean = guess("mean", training, blank, known, BACKGROUND)
    assert np.sqrt(np.mean(np.square(mean - new)[inside][:, 1])) > 0.12
    assert abs(made[..., 2][~inside] - training[training[..., 0] > -1][:, 2].mean()).max() < 1e-6


def test_matched_is_the_mean_over_the_nearest_pixels():
    (training, _), (new, _) = images()
    known = (True, False, True)
    made = guess("matched", training, new, (True, False, True), (None, -1.0, None))
    flat, place = training.reshape(-1, 3), (9, 7)
    count = int(np.ceil(np.sqrt(len(flat))))
    distances = np.linalg.norm((flat - new[place])[:, np.array(known)], axis=1)
    np.testing.assert_allclose(made[place][1], flat[np.argsort(distances)[:count], 1].mean(), atol=1e-6)


def test_smoothed_takes_the_places_around_into_account_and_nothing_outside():
    rng = np.random.default_rng(3)
    inside = np.zeros((64, 64), bool)
    inside[10:50, 12:52] = True
    known = np.where(inside, 0.5 + rng.normal(0, 0.2, inside.shape), -1).clip(-1, 1)
    noisy = np.stack([known, np.where(inside, rng.uniform(-0.5, 0.5, inside.shape), -1)], -1).astype(np.float32)
    plain = guess("matched", noisy, noisy, (True, False), (-1.0, -1.0))
    made = guess("smoothed", noisy, noisy, (True, False), (-1.0, -1.0))
    np.testing.assert_array_equal(made[~inside], plain[~inside])
    np.testing.assert_array_equal(made[..., 0], plain[..., 0])
    edge = np.zeros_like(inside)
    edge[10, 12:52] = True
    for place in (inside, edge):
        assert made[place][:, 1].std() < 0.6 * plain[place][:, 1].std()
        assert abs(made[place][:, 1].mean() - plain[place][:, 1].mean()) < 0.02  # -1 from outside would pull it down


def test_the_other_guesses():
    (training, inside), (new, here) = images()
    known = (False, True, True)
    copied = guess("copy", training, new, known, BACKGROUND)
    np.testing.assert_array_equal(copied, np.concatenate([training[..., :1], new[..., 1:]], -1))
    mean = guess("mean", training, new, known, BACKGROUND)
    np.testing.assert_allclose(mean[here][:, 0], training[inside][:, 0].mean(), atol=1e-6)
    np.testing.assert_array_equal(mean[..., 0][~here], np.float32(-1))
    with pytest.raises(UserError, match="guess by 'mean' or 'copy'"):
        guess("matched", training, new, (False,) * 3, BACKGROUND)
    with pytest.raises(UserError, match="choose among mean, matched, smoothed, copy"):
        guess("nearest", training, new, known, BACKGROUND)


def test_the_subject_is_what_is_not_background():
    (training, inside), _ = images()
    np.testing.assert_array_equal(subject(training, BACKGROUND), inside)
    assert subject(training, (None, None, None)).all()


def test_an_image_is_filled_at_its_pyramid_s_size_whatever_its_unknown_channels_hold(random_run, random_image):
    run = random_run(1, 2, 2)
    given = Input("image0", "small", random_image(3)[:12, :12])
    for rule in GUESSES:
        one = fill(run, given, (True, False), rule)
        assert one.pixels.shape == (17, 15, 2)
        assert np.isfinite(one.pixels).all()
        blank = Input("image0", "small", given.pixels * np.float32([1, np.nan]))
        np.testing.assert_array_equal(fill(run, blank, (True, False), rule).pixels, one.pixels)


def test_what_cannot_be_done_is_said(random_run, random_image):
    run = random_run(1, 2, 2)
    one = partial(random_image, (True, False))
    for scale in (0, 4):
        with pytest.raises(UserError, match=rf"injected at a scale of 1 to 3, not at {scale}"):
            translation.translate(run, [one], scale, mesh=CPU)
    with pytest.raises(UserError, match="choose among all, unknown, none"):
        translate(run, [one], 1, noise="some", mesh=CPU)
    with pytest.raises(UserError, match="3 channels, 3 of them said to be known or not; image0 was trained on 2"):
        translate(run, [partial(random_image, (True, False, True))], 1, mesh=CPU)
    with pytest.raises(UserError, match="2 channels, 1 of them"):
        fill(run, one, (True,))
