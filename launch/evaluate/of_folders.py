"""Generated images against real ones, both as files: image by image where names match, and all against all.

A generated image belongs to the real one whose id its name begins with, as launch.sample names samples:
scan_0003.png, scan_0003_t1.nii.gz, or an entry of scan.npy. Values of arrays and NIfTI are the real image's own, which
[-1, 1] is fitted to as training does; pictures of 8 bits are 0 to 255.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from launch.evaluate import image_metrics as metrics
from launch.evaluate.evaluation_file import Evaluation, Metrics
from launch.evaluate.image_metrics import Inception, Subject
from launch.evaluate.set_metrics import DEFINITIONS, Names, SetFeatures, features_of_set
from launch.images import image_folders, readers
from launch.images.channels import file_word
from launch.images.image_folders import Entry
from launch.images.image_ids import unique_ids
from singan.errors import UserError
from singan.model.pyramid import resize_to
from singan.source_image import default_channels
from singan.value_map import ValueMap, fit, volume_map

NOT_KNOWN = -1  # the start scale of images that lie in no folder start_00, start_01 ...
MIN_SPAN = 0.02  # of the real values' range; what spans less is in other units
NUMBER = re.compile(r"(.+)_\d{4,}")  # as launch.samples.writers names a sample


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What of two folders is compared with what.

    Attributes:
      real: entries by id.
      generated: by start scale, entries of the samples of each id; '' for those that belong to no real image.
      layout: as launch.images.readers.read takes it.
    """

    real: Mapping[str, Entry]
    generated: Mapping[int, Mapping[str, list[Entry]]]
    layout: str

    @property
    def summary(self) -> str:
        """One line on what was found."""
        samples = [entry for by_id in self.generated.values() for some in by_id.values() for entry in some]
        alone = sum(len(by_id.get("", ())) for by_id in self.generated.values())
        named = f"{len(samples) - alone} of them named after one" if alone else "all named after one"
        return f"{len(self.real)} real and {len(samples)} generated image(s), {named}"

    def settings(self, families: Sequence[str], inception: Inception | None) -> dict[str, Any]:
        """Returns all that the numbers depend on; the folders' contents by digests."""
        samples = [entry for by_id in self.generated.values() for some in by_id.values() for entry in some]
        counts = [len(some) for by_id in self.generated.values() for some in by_id.values()]
        return {
            "num_samples": max(counts),
            "seed": None,
            "finest_scale": None,
            "inception": inception.name if inception and "inception" in families else None,
            "metrics": [*families, *metrics.ALWAYS],
            "layout": self.layout,
            "real": image_folders.digest(self.real.values()).hex()[:32],
            "generated": image_folders.digest(samples).hex()[:32],
        }

    def evaluate(
        self, evaluation: Evaluation, families: Sequence[str], inception: Inception | None, log: Callable[[str], None]
    ) -> None:
        """Measures what `evaluation` lacks; the file is written as it grows, and at the end.

        Raises:
          UserError: a file cannot be read, or the two folders' images have different channels or values.
        """
        evaluation.define({**metrics.DEFINITIONS, **DEFINITIONS})
        every = [entry for by_id in self.generated.values() for some in by_id.values() for entry in some]
        # Stacks lie as their source is stored, pictures as launch.sample turns them.
        reader = _Reader(self.layout, upright=all(entry.index is None for entry in every))
        of_sets = inception if "inception" in families else None
        real_set: SetFeatures | None = None
        common: ValueMap | None = None
        try:
            for scale, by_id in sorted(self.generated.items()):
                for name, entries in by_id.items():
                    if name and evaluation.missing([name], scale):
                        evaluation.add(name, scale, self._measure(reader, name, entries, families, inception, log))
                some = [entry for entries in by_id.values() for entry in entries]
                sources = [entry.source for entry in some]
                if evaluation.has_pooled(sources, scale):
                    continue
                if real_set is None:
                    common = reader.common_map([*self.real.values()], pictures=reader.is_picture(some[0]))
                    real_set = features_of_set(self._real_images(reader, common), of_sets)
                drawn = reader.generated_images(some, common, real_set.channels)
                evaluation.add_pooled(sources, scale, real_set.compare(features_of_set(drawn, of_sets)))
        finally:
            if evaluation.images or evaluation.pooled:
                evaluation.write()

    def _real_images(self, reader: "_Reader", common: ValueMap | None) -> Iterator[tuple[np.ndarray, Names]]:
        """Yields the real images; those that samples are smaller versions of at the samples' size."""
        like = {name: entries[0] for by_id in self.generated.values() for name, entries in by_id.items()}
        for name, (image, channels) in zip(self.real, reader.real_images(self.real.values(), common), strict=True):
            size = reader.pixels(like[name])[0].shape[:2] if name in like else image.shape[:2]
            yield resize_to(image, size) if _made_smaller(size, image.shape[:2]) else image, channels

    def _measure(
        self,
        reader: "_Reader",
        name: str,
        entries: Sequence[Entry],
        families: Sequence[str],
        inception: Inception | None,
        log: Callable[[str], None],
    ) -> Metrics:
        image, channels, value_map = reader.real_image(self.real[name])
        drawn = [reader.mapped(entry, value_map, channels) for entry in entries]
        if len(sizes := sorted({sample.shape[:2] for sample in drawn})) > 1:
            shown = ", ".join(f"{height}x{width}" for height, width in sizes[:3])
            raise UserError(f"the generated images of {name} differ in size ({shown}): bring them to one size")
        samples = np.stack(drawn)
        if _made_smaller(samples.shape[1:3], image.shape[:2]):
            height, width = samples.shape[1:3]
            reader.note_once(f"note: real images are resized to their samples' size: {name} to {height}x{width}", log)
            image = resize_to(image, (height, width))
        return metrics.measure(samples, image, Subject(channels, value_map.background_levels), families, inception)


def compare(real: str, generated: str, layout: str, log: Callable[[str], None]) -> Comparison:
    """Returns what two folders hold, brought together.

    Raises:
      UserError: a folder is missing or holds no image.
    """
    samples = image_folders.list_entries(generated, "generated")
    words = image_folders.words_of(samples)
    entries = image_folders.list_entries(real, "real", words)
    by_id = dict(zip(unique_ids([_file_name(entry) for entry in entries]), entries, strict=True))
    known = {name.casefold(): name for name in by_id}
    grouped: dict[int, dict[str, list[Entry]]] = {}
    for entry in samples:
        scale = NOT_KNOWN if entry.start_scale is None else entry.start_scale
        grouped.setdefault(scale, {}).setdefault(_owner(entry, known), []).append(entry)
    if alone := [entry for by_id in grouped.values() for entry in by_id.get("", ())]:
        log(
            f"note: {len(alone)} of {len(samples)} generated images bear no real one's name, {alone[0].source} first:"
            " they are compared with all real images together"
        )
    return Comparison(by_id, grouped, layout)


def _owner(entry: Entry, known: Mapping[str, str]) -> str:
    """Returns the id of the real image that a generated one is named after, '' for none."""
    (stem,) = unique_ids([_file_name(entry)])
    numbered = NUMBER.fullmatch(stem)
    names = [numbered[1] if numbered else stem, stem]
    if entry.start_scale is None:
        names.reverse()
    return next((known[name.casefold()] for name in names if name.casefold() in known), "")


def _file_name(entry: Entry) -> str:
    """Returns the name of an entry's file, relative to its folder, without the channel's word."""
    path = PurePosixPath(entry.source if entry.index is None else entry.source.rpartition("[")[0])
    if len(entry.words) > 1:
        return str(path).partition("_{")[0]
    stem, suffix = readers.split_suffix(path.name)
    return str(path.with_name(stem.removesuffix(f"_{entry.words[0]}") + suffix)) if entry.words else str(path)


def _made_smaller(size: tuple[int, ...], original: tuple[int, ...]) -> bool:
    """Returns whether images of `size` are an original made smaller, its proportions kept to a pixel."""
    factor = size[0] / original[0]
    return factor < 1 and abs(original[1] * factor - size[1]) <= 1


class _Reader:
    """Reads entries as float32 [H, W, C] in [-1, 1]; keeps nothing."""

    def __init__(self, layout: str, upright: bool):
        self._layout, self._upright = layout, upright
        self._noted = False

    def note_once(self, text: str, log: Callable[[str], None]) -> None:
        """Says a line that would be much the same for every image, for the first."""
        if not self._noted:
            log(text)
        self._noted = True

    def pixels(self, entry: Entry) -> tuple[np.ndarray, tuple[str, ...]]:
        """Returns an entry's own values [H, W, C], and its channels' names."""
        image = image_folders.read(entry, self._layout, self._upright)
        pixels = np.stack(image.planes, axis=-1)
        if image.channels is not None:
            return pixels, tuple(image.channels)
        return pixels, default_channels(pixels.shape[-1], pixels.dtype)

    def is_picture(self, entry: Entry) -> bool:
        """Returns whether an entry holds 8 bits, black to white."""
        return self.pixels(entry)[0].dtype == np.uint8

    def real_image(self, entry: Entry) -> tuple[np.ndarray, tuple[str, ...], ValueMap]:
        """Returns a real image by the map that is fitted to it as training does, its channels, and the map."""
        pixels, channels = self.pixels(entry)
        try:
            value_map = fit(pixels)
        except UserError as error:
            raise UserError(f"{entry.source}: {error}") from error
        return value_map.apply(pixels), channels, value_map

    def common_map(self, entries: Sequence[Entry], pictures: bool) -> ValueMap | None:
        """Returns one map for all real images, from the least to the largest of their values; None: each has its own.

        Where generated images are pictures and real ones are not, each picture shows the range of its own image.
        """
        extremes: list[np.ndarray] = []
        channels: tuple[str, ...] = ()
        for entry in entries:
            pixels, names = self.pixels(entry)
            if extremes and len(names) != len(channels):
                text = f"{len(channels)} and {len(names)} channels"
                raise UserError(f"--real: images of {text}, such as {entry.source}: give each kind a folder of its own")
            channels = names
            extremes.append(np.stack([pixels.min((0, 1)), pixels.max((0, 1))]))
        least, most = np.min(extremes, axis=(0, 1)), np.max(extremes, axis=(0, 1))
        if pictures and least.dtype != np.uint8:
            return None
        return fit(np.stack([least, most])[None], background="none")

    def real_images(self, entries: Iterable[Entry], common: ValueMap | None) -> Iterator[tuple[np.ndarray, Names]]:
        """Yields real images with their channels, by the common map or each by its own."""
        for entry in entries:
            if common is None:
                yield self.real_image(entry)[:2]
            else:
                pixels, channels = self.pixels(entry)
                yield common.apply(pixels), channels

    def generated_images(
        self, entries: Iterable[Entry], common: ValueMap | None, channels: Names
    ) -> Iterator[tuple[np.ndarray, Names]]:
        """Yields generated images, with the real ones' channels."""
        for entry in entries:
            yield self.mapped(entry, common, channels), channels

    def mapped(self, entry: Entry, value_map: ValueMap | None, channels: Names) -> np.ndarray:
        """Returns a generated image by the map of the real one, whose channels it must have; pictures by 0 to 255."""
        pixels, names = self.pixels(entry)
        if len(names) != len(channels):
            raise UserError(
                f"{entry.source} has {len(names)} channels ({', '.join(names)}), but real images have {len(channels)}"
                f" ({', '.join(channels)}): give both the same"
            )
        words, wanted = ([file_word(name).casefold() for name in each] for each in (names, channels))
        if sorted(words) == sorted(wanted):  # channels that are files of their own come in the order of their names
            pixels = pixels[..., [words.index(word) for word in wanted]]
        elif len(entry.words) > 1:
            raise UserError(
                f"{entry.source} has the channels {', '.join(names)}, but real images have {', '.join(channels)}:"
                " name both alike"
            )
        if pixels.dtype == np.uint8:
            return volume_map([(0.0, 255.0)] * len(channels), np.uint8, "fixed").apply(pixels)
        if value_map is None:
            raise UserError(f"{entry.source} holds {pixels.dtype} where other generated images are pictures of 8 bits")
        span, known = float(np.ptp(pixels)), float(max(np.subtract(value_map.high, value_map.low)))
        if 0 < span < MIN_SPAN * known:
            raise UserError(
                f"{entry.source} holds values from {pixels.min():.4g} to {pixels.max():.4g}, where real images have"
                f" {min(value_map.low):.4g} to {max(value_map.high):.4g}: bring both to the same values"
            )
        return value_map.apply(pixels)
