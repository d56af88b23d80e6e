"""Makes small folds in the layout of PanNuke, for tests and to try the commands without the data.

    python -m datasets.pannuke.make_dummy_data --out=DIR

Every patch is a coloured gradient with discs as nuclei; nothing of it comes from PanNuke.
"""

import pathlib

import numpy as np
from absl import app, flags

TISSUES = ("Breast", "Colon", "Adrenal_gland", "HeadNeck", "Bile-duct")


def patches(seed: int, count: int = 4, size: int = 256) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images [count, size, size, 3] float64, masks [count, size, size, 6] float64 and types [count] strings.

    The last patch has no nuclei. Ids have gaps, and the same ids come back in other channels.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    images = np.empty((count, size, size, 3))
    masks = np.zeros((count, size, size, 6))
    for patch in range(count):
        ramp = (rows + columns) / (2 * size)
        images[patch] = np.floor(80 + 150 * ramp[..., None] * random.uniform(0.5, 1, 3))
        nuclei = 0 if patch == count - 1 else 6
        for nucleus in range(nuclei):
            # One to a cell of a 3x3 grid, so that they do not touch.
            centre = (np.array([nucleus // 3, nucleus % 3]) + random.uniform(0.4, 0.6, 2)) * size / 3
            disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (size / 12) ** 2
            masks[patch, disc, nucleus % 5] = 3 + 2 * (nucleus // 5)
            images[patch, disc] = (90, 40, 120)
        masks[patch, ..., 5] = masks[patch, ..., :5].max(-1) == 0
    return images, masks, np.array([TISSUES[index % len(TISSUES)] for index in range(count)])


def write_fold(out: pathlib.Path, number: int, images: np.ndarray, masks: np.ndarray, types: np.ndarray) -> None:
    """Writes `Fold N/images/foldN/images.npy`, `types.npy` beside it and `Fold N/masks/foldN/masks.npy` below `out`."""
    folder = out / f"Fold {number}"
    (folder / "images" / f"fold{number}").mkdir(parents=True, exist_ok=True)
    (folder / "masks" / f"fold{number}").mkdir(parents=True, exist_ok=True)
    np.save(folder / "images" / f"fold{number}" / "images.npy", images)
    np.save(folder / "images" / f"fold{number}" / "types.npy", types)
    np.save(folder / "masks" / f"fold{number}" / "masks.npy", masks)


def write_folds(out: pathlib.Path, count: int = 4, size: int = 256) -> None:
    """Writes folds 1 to 3 of `count` patches of `size` x `size` pixels below `out`."""
    for number in (1, 2, 3):
        write_fold(out, number, *patches(number, count, size))


def main(argv):
    """Runs the command."""
    del argv
    write_folds(pathlib.Path(flags.FLAGS.out))


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Folder to write into.", required=True)
    app.run(main)
