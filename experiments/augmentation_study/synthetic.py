"""Synthetic pairs: sets of samples kept as files, and what they are as patches with their targets."""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.augmentation_study.conditions import Source
from experiments.augmentation_study.pairs import Pair
from experiments.augmentation_study.scores import has_stain, stain_of
from experiments.augmentation_study.settings import Study
from launch.data_card import measure, write
from launch.images import mask_channels
from singan import files
from singan.errors import UserError
from singan.metrics.nuclei import separability
from singan.metrics.values import Undefined
from singan.model.noise import image_key_data
from singan.sampling import samples as sampling
from singan.sampling.style import match_style
from singan.storage.run import Run

BATCH = 64  # samples in one device call
MADE_FROM, CARD = "made_from.json", "data_card.json"
DETERMINING = ("weights_digest", "start_scale", "size", "seed", "style", "samples_of_each")  # what samples depend on
Log = Callable[[str], None]


def draw(run: Run, source: Source, ids: Sequence[str], study: Study, folder: Path, mesh: Mesh, log: Log) -> None:
    """Writes FOLDER/<id>.npy, uint8 [samples, h, w, C + 1], of the patches that have none yet, and a data card.

    What was drawn otherwise, as by other weights or in another number, is drawn anew.

    Raises:
      UserError: the SinGAN of a patch has diverged.
    """
    files.make_directory(folder)
    settings = _settings(run, source, study)
    _keep_equal(folder, settings)
    missing = [name for name in ids if not (folder / f"{name}.npy").is_file()]
    if lost := [name for name in missing if name not in run.ids]:
        raise UserError(f"the SinGAN of {lost[0]} has diverged: take the patch out, or train with a lower rate")
    if not missing and all((folder / name).is_file() for name in write.NAMES):
        return
    log(f"{source.name}: {study.samples} pairs of each of {len(missing)} patches")
    size = (source.size, source.size)
    count = study.samples
    parts: dict[str, list[np.ndarray]] = {}
    drawn = sampling.draw(run, missing, count, source.start_scale, size, 0, BATCH, mesh) if missing else ()
    for batch in drawn:
        for name, pixels in zip(batch.ids, batch.pixels, strict=True):
            parts.setdefault(name, []).append(_styled(run, name, pixels, study.style) if source.styled else pixels)
            if batch.first + len(pixels) == count:
                whole = np.concatenate(parts.pop(name))
                values = np.clip(np.rint((whole + 1) * 127.5), 0, 255).astype(np.uint8)
                files.write_npy(folder / f"{name}.npy", values)
    _write_card(run, settings, sorted(path.stem for path in folder.glob("*.npy")), study, folder)


def _settings(run: Run, source: Source, study: Study) -> dict[str, Any]:
    return write.settings_of(
        run,
        training_seed=run.config.seed,
        start_scale=source.start_scale,
        size=(source.size, source.size),
        seed=0,
        style=study.style if source.styled else 0.0,
        samples_of_each=study.samples,
    )


def _keep_equal(folder: Path, settings: Mapping[str, Any]) -> None:
    """Removes the samples of a folder that were not drawn with these settings, and says in it with which the next are.

    Whole folders say so in their data card; made_from.json does from the first sample on.
    """
    wanted = files.plain({key: settings[key] for key in DETERMINING})
    drawn = None
    for name in (MADE_FROM, CARD):
        if drawn is None and (folder / name).is_file():
            content = files.read_json(folder / name)
            drawn = {key: content.get("settings", {}).get(key) for key in DETERMINING}
    if drawn != wanted:
        for path in [folder / name for name in write.NAMES] + sorted(folder.glob("*.npy")):
            files.remove(path)
    if drawn != wanted or not (folder / MADE_FROM).is_file():
        files.write_json(folder / MADE_FROM, {"settings": wanted})


def _write_card(run: Run, settings: Mapping[str, Any], ids: Sequence[str], study: Study, folder: Path) -> None:
    kept = measure.measured_ids([name for name in ids if name in run.ids])
    samples = {
        name: np.load(folder / f"{name}.npy")[: measure.MAX_SAMPLES].astype(np.float32) / 127.5 - 1 for name in kept
    }
    measured = measure.measure(samples, measure.real_images(run, samples))
    total = len(ids) * study.samples
    write.write_card(folder, write.card_of(run, settings, measured, total, study.licence, has_masks=True))


def _styled(run: Run, name: str, samples: np.ndarray, strength: float) -> np.ndarray:
    """Returns samples with the texture of their patch in all channels but the mask's."""
    key = jax.random.wrap_key_data(jnp.asarray(image_key_data(0, name)), impl="threefry2x32")
    channels = range(samples.shape[-1] - 1)
    return np.asarray(match_style(samples, run.finest(name), key, channels=channels, strength=strength))


def patches_of(
    samples: np.ndarray, pair: Pair, source: Source, decoding: str, study: Study
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the samples of one patch as images uint8 [n, p, p, C] and targets uint8 [n, p, p] (255 = foreground).

    Larger samples are cut to a patch, each somewhere else. `decoding` is one of conditions.DECODINGS; 'agreeing' keeps
    half of the samples (at least one).

    Args:
      samples: uint8 [n, h, w, C + 1].
    """
    channel = samples[..., -1].astype(np.float32) / 127.5 - 1
    if decoding == "soft":
        full = 1.0 if study.task == "nuclei" else 2.0  # a nucleus' edge is drawn at 0, a tumour at 1
        targets = np.rint(np.clip((channel + 1) / full, 0, 1) * 255).astype(np.uint8)
    else:
        least = mask_channels.min_area(pair.instances)
        targets = np.stack([_decoded(one, least, study) for one in channel])
    images = samples[..., :-1]
    if decoding == "agreeing" and has_stain(pair):
        kept = _agreeing(images, targets)
        images, targets = images[kept], targets[kept]
    rng = np.random.default_rng([zlib.crc32(pair.id.encode()), source.start_scale])
    corners = rng.integers(0, np.array(images.shape[1:3]) - study.patch + 1, (len(images), 2))
    parts = [np.s_[n, y : y + study.patch, x : x + study.patch] for n, (y, x) in enumerate(corners)]
    return np.stack([images[part] for part in parts]), np.stack([targets[part] for part in parts])


def _decoded(channel: np.ndarray, least: int, study: Study) -> np.ndarray:
    if study.task == "nuclei":
        decoded = mask_channels.decode_instances(channel, least) > 0
    else:
        decoded = mask_channels.decode_binary(channel)
    return decoded.astype(np.uint8) * np.uint8(255)


def _agreeing(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the indices of the half whose masks agree best with the stain; those without nuclei come last."""
    agreement = []
    for image, target in zip(images, targets, strict=True):
        value = separability(stain_of(image), target > 0)
        agreement.append(0.0 if isinstance(value, Undefined) else value)
    order = np.argsort(-np.array(agreement), kind="stable")
    return np.sort(order[: max(1, len(order) // 2)])


class Bank:
    """Rows of images and targets that batches are taken from: real patches, and synthetic ones as asked for."""

    def __init__(self, pairs: Mapping[str, Pair], folder: Path, study: Study):
        self._pairs, self._folder, self._study = pairs, folder, study
        self._images: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []
        self._rows: dict[tuple[str, ...], list[int]] = {}

    def real(self, ids: Sequence[str]) -> list[int]:
        """Returns the rows of real patches."""
        rows = []
        for name in ids:
            if ("", name) not in self._rows:
                pair = self._pairs[name]
                target = (pair.instances > 0).astype(np.uint8) * np.uint8(255)
                self._add(("", name), pair.pixels[None], target[None])
            rows += self._rows["", name]
        return rows

    def synthetic(self, source: Source, ids: Sequence[str], decoding: str) -> list[int]:
        """Returns the rows of the synthetic pairs of some patches."""
        rows = []
        for name in ids:
            key = (source.name, name, decoding)
            if key not in self._rows:
                samples = np.load(self._folder / source.name / f"{name}.npy")
                self._add(key, *patches_of(samples, self._pairs[name], source, decoding, self._study))
            rows += self._rows[key]
        return rows

    def inserted(self, key: str, images: np.ndarray, targets: np.ndarray) -> list[int]:
        """Returns the row of a pair that came from elsewhere: images uint8 [n, p, p, C], targets [n, p, p]."""
        if ("inserted", key) not in self._rows:
            self._add(("inserted", key), images, targets)
        return self._rows["inserted", key]

    def take(self, rows: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns images [m, p, p, C] and targets [m, p, p] of the rows."""
        chosen = list(rows)
        return np.stack([self._images[row] for row in chosen]), np.stack([self._targets[row] for row in chosen])

    def _add(self, key: tuple[str, ...], images: np.ndarray, targets: np.ndarray) -> None:
        first = len(self._images)
        self._images += list(images)
        self._targets += list(targets)
        self._rows[key] = list(range(first, len(self._images)))
