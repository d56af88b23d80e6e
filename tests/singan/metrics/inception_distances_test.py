import jax
import numpy as np
import pytest

from singan.errors import UserError
from singan.metrics.frechet import feature_frechet
from singan.metrics.inception import resized, variable_shapes
from singan.metrics.inception_distances import DEFINITIONS, inception_distance, set_distances, set_features
from singan.metrics.kernel_distance import kernel_distance
from singan.metrics.values import Undefined
from tests.singan.metrics.textures import damaged, texture


@pytest.fixture(scope="module")
def variables():
    """Random weights that keep the size of the activations."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:3])), leaf.shape).astype(np.float32)
        return np.full(leaf.shape, 1 if path[-1].key in ("scale", "var") else 0, np.float32)

    return jax.tree_util.tree_map_with_path(fill, variable_shapes())


def test_every_figure_names_layer_and_channels(variables):
    image = texture(0, 32, 40, 4)
    samples = np.stack([image, texture(1, 32, 40, 4)])
    rows = inception_distance(samples, image, variables, ["mask", "red", "green", "blue"])
    titles = ("red+green+blue", "mask")
    assert list(rows[0]) == [f"sifid_{layer}/{title}" for layer in (64, 192) for title in titles]
    assert {name.partition("/")[0] for name in rows[0]} <= set(DEFINITIONS)
    for name, other in rows[1].items():
        assert 0 <= rows[0][name] < 1e-4 * other


def test_damage_is_seen_monotonically_even_by_random_weights(variables):
    image = texture(3, 48, 48, 3)
    for kind, images in damaged(image).items():
        rows = inception_distance(images, image, variables, ["red", "green", "blue"], layers=(64,))
        values = [row["sifid_64/red+green+blue"] for row in rows]
        assert values == sorted(values), kind


def test_images_too_small_for_a_layer_have_a_reason(variables):
    image = texture(0, 30, 40, 1)
    (row,) = inception_distance(image[None], image, variables, ["T1"])
    assert row["sifid_64/T1"] == pytest.approx(0, abs=1e-4)
    assert isinstance(row["sifid_192/T1"], Undefined)
    assert "31 pixels that layer 192 needs" in row["sifid_192/T1"].reason
    with pytest.raises(UserError, match="NaN"):
        inception_distance(np.full((1, 30, 40, 1), np.nan), image, variables, ["T1"])


def test_sets_of_images_of_different_sizes_have_features(variables):
    images = [texture(number, 20 + 10 * number, 30, 2) for number in range(3)]
    features = set_features(iter(images), variables, ["T1", "T2"], batch=2)
    assert {title: part.shape for title, part in features.items()} == {"T1": (3, 2048), "T2": (3, 2048)}
    # Neither its place in a batch nor its neighbours matter to an image, nor whether it was resized before.
    again = np.asarray(resized(images[2][None]))[0]
    for title, alone in set_features([again], variables, ["T1", "T2"], batch=2).items():
        np.testing.assert_allclose(features[title][2], alone[0], rtol=1e-3, atol=1e-4)
    assert np.abs(features["T1"] - features["T2"]).max() > 0.1
    assert set_features([], variables, ["T1", "T2"]) == {}
    with pytest.raises(UserError, match=r"image 1 has shape \(20, 30\), not \[H, W, 2\]"):
        set_features([images[0], images[0][..., 0]], variables, ["T1", "T2"])
    with pytest.raises(UserError, match="image 0 holds values that are not numbers"):
        set_features([images[0] * np.inf], variables, ["T1", "T2"])


def test_fid_and_kid_are_those_of_the_features():
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(12, 2048)), rng.normal(0.1, 1.1, (9, 2048))
    real, generated = real.astype(np.float32), generated.astype(np.float32)
    values = set_distances({"a": real, "b": real}, {"a": generated, "b": generated[:1]})
    assert list(values) == ["fid/a", "kid/a", "fid/b", "kid/b"]
    assert {name.partition("/")[0] for name in values} <= set(DEFINITIONS)
    assert values["fid/a"] == feature_frechet(real, generated)
    assert values["kid/a"] == kernel_distance(real, generated).value
    assert values["fid/b"] == values["kid/b"] == Undefined("12 training and 1 generated images: both need 2 at least")
    assert set_distances({"a": real}, {"a": real})["fid/a"] == pytest.approx(0, abs=1e-6)
