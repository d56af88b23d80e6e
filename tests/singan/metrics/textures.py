"""Images that metrics are tried on, and what is done to them."""

import numpy as np
from scipy.ndimage import gaussian_filter


def texture(number: int, height: int, width: int, channels: int) -> np.ndarray:
    """A random texture with detail at several scales, float32 [height, width, channels] in [-1, 1]."""
    rng = np.random.default_rng([number, channels])
    noise = rng.normal(size=(height, width, channels))
    layers = [gaussian_filter(noise, (sigma, sigma, 0)) * sigma for sigma in (0.7, 2, 5)]
    mixed = sum(layers) @ (np.eye(channels) + 0.5)
    return np.clip(mixed / mixed.std() / 2.5, -1, 1).astype(np.float32)


def blurred(image: np.ndarray) -> np.ndarray:
    """More and more blur: [4, h, w, c]."""
    return np.stack([gaussian_filter(image, (sigma, sigma, 0)) for sigma in (0.5, 0.75, 1, 2)])


def noisy(image: np.ndarray) -> np.ndarray:
    """More and more noise: [4, h, w, c]."""
    noise = np.random.default_rng(0).normal(size=image.shape)
    return np.stack([np.clip(image + sigma * noise, -1, 1) for sigma in (0.03, 0.06, 0.12, 0.25)]).astype(np.float32)


def shuffled(image: np.ndarray, size: int = 16) -> np.ndarray:
    """More and more of the blocks of size x size pixels change places, at last all: [4, h, w, c]."""
    height, width, channels = image.shape
    rows, columns = height // size, width // size
    blocks = image[: rows * size, : columns * size].reshape(rows, size, columns, size, channels).swapaxes(1, 2)
    blocks = blocks.reshape(-1, size, size, channels)
    order = np.random.default_rng(1).permutation(len(blocks))
    results = []
    for share in (0.25, 0.5, 0.75, 1):
        moved = order[: round(share * len(blocks))]
        mixed = blocks.copy()
        mixed[moved] = blocks[np.roll(moved, 1)]
        result = image.copy()
        whole = mixed.reshape(rows, columns, size, size, channels).swapaxes(1, 2)
        result[: rows * size, : columns * size] = whole.reshape(rows * size, columns * size, channels)
        results.append(result)
    return np.stack(results)


def damaged(image: np.ndarray) -> dict[str, np.ndarray]:
    """{kind: images, each further from `image` than the one before}."""
    return {"blur": blurred(image), "noise": noisy(image), "blocks": shuffled(image)}
