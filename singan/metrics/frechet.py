"""Fréchet distance between Gaussians of features: of two images' feature maps (SIFID), of two sets of images (FID).

    d^2 = |mean_1 - mean_2|^2 + Tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

Sources: Dowson and Landau 1982; FID: Heusel et al. 2017, eq. 6; SIFID: Shaham et al. 2019 (SinGAN), section 3. The
score is the *squared* distance, here as there. Its unit is that of a squared feature. Covariances divide by n - 1, as
numpy.cov does.

The product C_1 C_2 is never formed and no root of a matrix that is not symmetric is taken, so nothing complex can
appear: with C_i = F_i^T F_i, Tr (C_1 C_2)^(1/2) is the sum of the singular values of F_1 F_2^T.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.errors import UserError
from singan.shapes import Array, Float

_FEW = "the covariance of features needs at least 2 feature vectors, not {}: {}"


def map_frechet(real: Float[Array, "h w d"], sample: Float[Array, "hh ww d"]) -> Float[Array, ""]:
    """Returns the SIFID of two feature maps: d^2 between the Gaussians of their feature vectors, one per position.

    Float32, on the device; the maps may differ in size. At least 0; equal maps give 0 (to 1e-6 of the variance), maps
    that differ in the order of their positions too. With fewer positions than d the covariances have no full rank: the
    value is still defined, but grows as positions become fewer. NaN where a feature is not finite.

    Raises:
      UserError: a map has fewer than 2 positions (seen from its shape).
    """
    mean, factor = _gaussian(real)
    sample_mean, sample_factor = _gaussian(sample)
    # The rotation that brings the factors closest together. |F_1 - R F_2|^2 is the trace term, and unlike the
    # difference of traces it does not cancel where the images are nearly the same.
    left, _, right = jnp.linalg.svd(_product(factor, sample_factor.T), full_matrices=False)
    gap = factor - _product(_product(left, right), sample_factor)
    return jnp.sum(jnp.square(mean - sample_mean)) + jnp.sum(jnp.square(gap))


def single_image_frechet(real: Float[Array, "h w d"], samples: Float[Array, "n hh ww d"]) -> Float[Array, "n"]:
    """Returns the SIFID of each sample's feature map against the one real image's: see `map_frechet`.

    The paper's figure for an image is the mean over its samples.
    """
    return lax.map(lambda sample: map_frechet(real, sample), samples)


@dataclasses.dataclass(frozen=True)
class FeatureStatistics:
    """Mean and covariance of feature vectors that came in any number of batches, float64 on the host.

    Attributes:
      count: number of vectors.
      mean: [d].
      scatter: [d, d], sum of the outer products of (vector - mean).
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """[d, d], divided by count - 1. Raises UserError where count is below 2."""
        if self.count < 2:
            raise UserError(_FEW.format(self.count, "give more images"))
        return self.scatter / (self.count - 1)


def no_features(d: int) -> FeatureStatistics:
    """Returns the statistics of no vectors of length d, to which batches are added."""
    return FeatureStatistics(0, np.zeros(d), np.zeros((d, d)))


def add_features(statistics: FeatureStatistics, features: Float[Array, "n d"]) -> FeatureStatistics:
    """Returns the statistics with a batch of vectors added; how vectors are split into batches makes no difference.

    Source: Chan, Golub and LeVeque 1983 (no squares of large means, so nothing cancels).

    Raises:
      UserError: a feature is not finite.
    """
    vectors = _finite(features)
    if not len(vectors):
        return statistics
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    count = statistics.count + len(vectors)
    shift = mean - statistics.mean
    scatter = statistics.scatter + centred.T @ centred
    scatter += np.outer(shift, shift) * (statistics.count * len(vectors) / count)
    return FeatureStatistics(count, statistics.mean + shift * (len(vectors) / count), scatter)


def frechet_distance(real: FeatureStatistics, generated: FeatureStatistics) -> float:
    """Returns d^2 between the Gaussians of two sets of feature vectors: FID when they are 2048-d Inception features.

    Float64. At least 0; equal statistics give 0 (to 1e-12 of the variance). About 10 s for 2048-d on two cores. With
    d or fewer vectors it is defined but biased upwards, see `shortfall`.

    Raises:
      UserError: a set has fewer than 2 vectors.
    """
    return gaussian_frechet(real.mean, real.covariance, generated.mean, generated.covariance)


def feature_frechet(real: Float[Array, "n d"], generated: Float[Array, "m d"]) -> float:
    """Returns `frechet_distance` of two arrays of feature vectors; the same value, fast where there are few vectors.

    The centred vectors themselves are factors of the covariances, so that [n, m] and not [d, d] is decomposed.

    Raises:
      UserError: an array has fewer than 2 vectors, or a feature is not finite.
    """
    if min(len(real), len(generated)) >= real.shape[1]:
        return frechet_distance(*(add_features(no_features(real.shape[1]), part) for part in (real, generated)))
    means, factors = [], []
    for part in (real, generated):
        if len(part) < 2:
            raise UserError(_FEW.format(len(part), "give more images"))
        vectors = _finite(part)
        means.append(vectors.mean(axis=0))
        factors.append((vectors - means[-1]) / np.sqrt(len(vectors) - 1))
    return _distance(means, factors)


def gaussian_frechet(
    mean_1: np.ndarray, covariance_1: np.ndarray, mean_2: np.ndarray, covariance_2: np.ndarray
) -> float:
    """Returns d^2 between N(mean_1, covariance_1) and N(mean_2, covariance_2), float64; covariances may be singular."""
    return _distance((mean_1, mean_2), [_root(covariance) for covariance in (covariance_1, covariance_2)])


def shortfall(count: int, d: int) -> str:
    """Returns why `count` feature vectors are too few for a d-dimensional Fréchet distance, '' where they are not.

    The covariance of n vectors has rank n - 1 at most. From d vectors down it is singular, and the distance between two
    sets of ONE distribution is far above 0; it must not be compared with figures of other numbers of images.
    """
    if count < 2:
        return f"undefined: {count} of the 2 feature vectors that a covariance needs at least"
    if count <= d:
        return f"biased upwards: {count} feature vectors for {d} dimensions; compare only at equal numbers, prefer KID"
    return ""


def _gaussian(features: Float[Array, "h w d"]) -> tuple[Float[Array, "d"], Float[Array, "d d"]]:
    """Returns the mean of a map's vectors and a factor F of their covariance, F^T F."""
    vectors = features.reshape(-1, features.shape[-1])
    if len(vectors) < 2:
        raise UserError(_FEW.format(len(vectors), f"use larger images (this map has {features.shape[:2]} positions)"))
    mean = jnp.mean(vectors, axis=0)
    centred = vectors - mean
    values, axes = jnp.linalg.eigh(_product(centred.T, centred) / (len(vectors) - 1))
    return mean, jnp.sqrt(jnp.maximum(values, 0))[:, None] * axes.T


def _product(a: Float[Array, "i j"], b: Float[Array, "j k"]) -> Float[Array, "i k"]:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, axes = np.linalg.eigh(np.asarray(covariance, np.float64))
    return np.sqrt(np.maximum(values, 0))[:, None] * axes.T


def _distance(means, factors) -> float:
    cross = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    traces = sum(np.square(factor).sum() for factor in factors)
    return float(max(np.square(np.subtract(*means)).sum() + traces - 2 * cross, 0.0))


def _finite(features: Float[Array, "n d"]) -> np.ndarray:
    vectors = np.asarray(features, np.float64)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise UserError(f"feature vector {bad[0]} of {len(vectors)} is not finite: look at the image it comes from")
    return vectors
