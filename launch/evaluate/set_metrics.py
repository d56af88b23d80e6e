"""Two sets of images of any sizes, all against all: Fréchet distance, and how various and how new the generated are.

On the fixed random features of singan/metrics/random_features.py, averaged over an image: what it looks like on the
whole, not where. With Inception weights also FID and KID.
"""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from launch.evaluate import evaluation_file
from launch.evaluate import image_metrics as metrics
from launch.evaluate.evaluation_file import Metrics
from launch.evaluate.image_metrics import Inception, Subject
from singan.errors import UserError
from singan.metrics.frechet import feature_frechet, shortfall
from singan.metrics.random_features import DIMENSIONS, random_features
from singan.metrics.values import Undefined, Value

Names: TypeAlias = tuple[str, ...]
DEFINITIONS = {
    "random_frechet": "squared Fréchet distance between the sets of all real and all generated images, each image the"
    " mean of its features on a fixed random convolutional network (64-d), after FID; in squared features of [-1, 1]"
    " images; 0 for equal sets; compare at equal numbers of images only",
    "feature_spread": "root mean squared distance of generated images' mean features from their centre, divided by that"
    " of the real ones; 1 for equal sets, 0 where all generated images look alike",
    "nearest_real_ratio": "distance of a generated image's mean features to the nearest real image's, divided by the"
    " mean distance of real images to their nearest other real one; 0 for copies, 1 for what is as new as another"
    " real image",
}
BATCH = 16  # images that are held at the same time
ONE_REAL = Undefined("one real image alone has no other to compare distances with: give two or more")

_mean_features = jax.jit(lambda image: jnp.mean(random_features(image[None])[0], axis=(0, 1)))


@dataclasses.dataclass(frozen=True, eq=False)
class SetFeatures:
    """Features of a set of images.

    Attributes:
      channels: names.
      random: [n, 64], or why there are none.
      inception: by what Inception looked at, [n, 2048]; {} without weights.
    """

    channels: Names
    random: np.ndarray | Undefined
    inception: dict[str, np.ndarray]

    def compare(self, generated: "SetFeatures") -> Metrics:
        """Returns the entries of a set of generated images against this one, of real images."""
        a, b = self.random, generated.random
        if isinstance(a, Undefined) or isinstance(b, Undefined):
            missing: Value = a if isinstance(a, Undefined) else Undefined(str(getattr(b, "reason", "")))
            entries = evaluation_file.single_entries(dict.fromkeys(DEFINITIONS, missing), 0)
        else:
            entries = _of_images(evaluation_file.single_entries(_of_sets(a, b), len(b)))
            rows: list[dict[str, Value]] = [{"nearest_real_ratio": value} for value in _nearest(a, b)]
            entries |= _of_images(evaluation_file.entries(rows))
            if (note := shortfall(min(len(a), len(b)), DIMENSIONS)) and "mean" in entries["random_frechet"]:
                entries["random_frechet"]["note"] = note.removesuffix(", prefer KID")
        if self.inception:
            count = max(map(len, generated.inception.values()))
            entries |= metrics.set_entries([self.inception], [generated.inception], count)
        return entries


def features_of_set(images: Iterable[tuple[np.ndarray, Names]], inception: Inception | None) -> SetFeatures:
    """Returns the features of images [H, W, C] in [-1, 1], a few of which are held at a time.

    Raises:
      UserError: an image is not what Inception takes.
    """
    vectors: list[np.ndarray] = []
    parts: list[dict[str, np.ndarray]] = []
    missing: Undefined | None = None
    channels: Names = ()
    stream = iter(images)
    while some := list(itertools.islice(stream, BATCH)):
        channels = some[0][1]
        for image, _ in some:
            try:
                vectors.append(np.asarray(_mean_features(image), np.float64))
            except UserError as error:
                missing = missing or Undefined(str(error))
        if inception is not None:
            subject = Subject(channels, (None,) * len(channels))
            parts.append(metrics.features((image for image, _ in some), subject, inception))
    joined = {title: np.concatenate([part[title] for part in parts]) for title in parts[0]} if parts else {}
    return SetFeatures(channels, missing or np.array(vectors), joined)


def _of_sets(real: np.ndarray, generated: np.ndarray) -> dict[str, Value]:
    if min(len(real), len(generated)) < 2:
        few = Undefined(f"{len(real)} real and {len(generated)} generated images: both need 2 at least")
        return {"random_frechet": few, "feature_spread": few}
    spread, real_spread = (float(np.sqrt(part.var(0).sum())) for part in (generated, real))
    alike = Undefined("all real images look alike: there is no spread to compare with")
    return {
        "random_frechet": feature_frechet(real, generated),
        "feature_spread": spread / real_spread if real_spread else alike,
    }


def _nearest(real: np.ndarray, generated: np.ndarray) -> list[Value]:
    if len(real) < 2:
        return [ONE_REAL] * len(generated)
    among = _distances(real, real)
    np.fill_diagonal(among, np.inf)
    baseline = float(among.min(1).mean())
    if not baseline:
        return [Undefined("every real image has its like among the real ones")] * len(generated)
    return [float(value) for value in _distances(generated, real).min(1) / baseline]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([np.sqrt(np.square(row - b).sum(1)) for row in a])


def _of_images(entries: Metrics) -> Metrics:
    """Returns entries whose values stand for images of a set, not for samples of one image."""
    return {
        name: {("images" if key == "count" else key): value for key, value in entry.items()}
        for name, entry in entries.items()
    }
