"""Random numbers that are part of a metric's definition: the same in every version and on every platform."""

import math

import numpy as np


def fixed_normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns float64 [*shape] of mean 0 and variance 1, nearly normal: the sum of twelve uniform numbers, centred.

    Made of the raw words of Philox by integer sums, since neither NumPy's distributions nor JAX's are promised to stay
    the same from version to version, and logarithms differ in their last bit from platform to platform.
    """
    count = math.prod(shape)
    words = np.random.Philox(key=seed).random_raw(3 * count)
    parts = (words[:, None] >> np.arange(0, 64, 16, dtype=np.uint64)) & np.uint64(0xFFFF)
    sums = parts.astype(np.int64).reshape(count, 12).sum(axis=1)
    return ((sums - 6 * 0xFFFF) / 0x10000).reshape(shape)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Returns float64 rows [r, k] made orthonormal in groups of up to k, by Gram-Schmidt; every row has length 1."""
    out = np.empty_like(rows, np.float64)
    for i, row in enumerate(rows):
        group = out[i - i % rows.shape[1] : i]
        for _ in range(2):  # once more takes out what rounding left
            row = row - group.T @ (group @ row)
        out[i] = row / math.sqrt(float(row @ row))
    return out
