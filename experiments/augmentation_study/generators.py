"""What makes pairs of image and instance map from source tiles. A new one is a class with an entry in `generators`."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from jax.sharding import Mesh

from experiments.augmentation_study import singans
from experiments.augmentation_study.pairs import Pair
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.splits import Split
from experiments.baselines import mixing
from experiments.baselines.generator import generate
from launch.images import mask_channels
from launch.sweep.plan import Sweep
from singan.errors import UserError
from singan.model.pyramid import Pyramid
from singan.sampling import samples as sampling
from singan.sampling.pairs import Pairs
from singan.storage.run import Run, load_run

Made = tuple[np.ndarray, np.ndarray]  # image uint8 [H, W, C], instances int32 [H, W]; sides as the tiles'
PASTED = 0.5  # nuclei that copy-paste adds, in multiples of those that a tile has
START_SCALES = {"stacked": (0, 1), "near_copies": (2,)}  # of SinGAN pairs; 0 draws new places, 2 all but copies
BATCH = 16  # samples in one device call
GPNN_SAMPLES = 4  # of each tile in a pool: they take far longer than a SinGAN's


class Generator(Protocol):
    """Makes pairs."""

    def prepare(self, seconds: float) -> bool:
        """Does what is needed once, such as training, for about so long; returns whether all is there."""
        ...

    def fingerprint(self) -> str:
        """Returns what its pairs depend on besides tiles, number and seed; before `prepare` anything."""
        ...

    def pairs(self, tiles: Sequence[Pair], n: int, seed: int, split: Split) -> list[Made]:
        """Returns n pairs made from these tiles and nothing else; equal arguments give equal pairs.

        Args:
          split: what is trained and tested on; most have no use for it.
        """
        ...


class Mixing:
    """Pairs of real tiles mixed by one of experiments.baselines.mixing."""

    def __init__(self, name: str):
        self._name = name

    def prepare(self, seconds: float) -> bool:
        return True

    def fingerprint(self) -> str:
        return f"{self._name} {PASTED}"

    def pairs(self, tiles: Sequence[Pair], n: int, seed: int, split: Split) -> list[Made]:
        rng = np.random.default_rng([seed, len(tiles)])
        real = [(tile.pixels, tile.instances) for tile in tiles]
        made = []
        for _ in range(n):
            first, second = (real[i] for i in rng.integers(len(real), size=2))
            if self._name == "copy_paste":
                count = max(1, round(PASTED * len(np.unique(first[1]))))
                made.append(mixing.copy_paste(first[0], first[1], real, rng, count))
                continue
            if self._name == "tumor_cp":
                made.append(mixing.tumor_cp(first, real, rng))
                continue
            turned = _turned(second[0], second[1], int(rng.integers(8)))
            mix = mixing.cutmix if self._name == "cutmix" else mixing.carvemix
            made.append(mix(first, turned, rng))
        return made


class Singans:
    """Pairs of SinGANs of the tiles, one cohort of which trains once for all conditions."""

    def __init__(self, sweep: Sweep, study: Study, mesh: Mesh):
        self._sweep, self._study, self._mesh = sweep, study, mesh
        self._run: Run | None = None

    def prepare(self, seconds: float) -> bool:
        return singans.train(self._sweep, seconds)

    def fingerprint(self) -> str:
        if not singans.is_trained(self._sweep):
            return "not trained"
        return f"{self.words()} {[scale.fingerprint for scale in self.loaded([]).scales]}"

    def words(self) -> str:
        """Returns what else its pairs depend on."""
        return ""

    def loaded(self, tiles: Sequence[Pair]) -> Run:
        """Returns the run. Raises UserError where the SinGAN of a tile is not usable."""
        self._run = self._run or load_run(singans.workdir_of(self._sweep))
        if lost := [tile.id for tile in tiles if tile.id not in self._run.ids]:
            raise UserError(f"the SinGAN of {lost[0]} has diverged: take the tile out, or train with a lower rate")
        return self._run


class Stacked(Singans):
    """Pairs of SinGANs that know a tile and, as a further channel, its mask."""

    def __init__(self, start_scales: Sequence[int], sweep: Sweep, study: Study, mesh: Mesh):
        super().__init__(sweep, study, mesh)
        self._wanted = start_scales

    def words(self) -> str:
        return str(self._scales())

    def pairs(self, tiles: Sequence[Pair], n: int, seed: int, split: Split) -> list[Made]:
        run, scales = self.loaded(tiles), self._scales()
        ids = [tile.id for tile in tiles]
        each = -(-n // (len(ids) * len(scales)))
        least = {tile.id: mask_channels.min_area(tile.instances) for tile in tiles}
        made = []
        for scale in scales:
            for batch in sampling.draw(run, ids, each, scale, (1.0, 1.0), seed, BATCH, self._mesh):
                for name, samples in zip(batch.ids, batch.pixels, strict=True):
                    made += [_decoded(sample, least[name], self._study) for sample in samples]
        order = np.random.default_rng(seed).permutation(len(made))
        return [made[i] for i in order[:n]]

    def _scales(self) -> list[int]:
        """Returns the start scales that small pyramids have, too."""
        return sorted({min(scale, len(self.loaded([]).scales) - 1) for scale in self._wanted})


class Conditional(Singans):
    """Pairs of SinGANs that are given the mask: nuclei of a tile at new places, and an image that shows them."""

    def pairs(self, tiles: Sequence[Pair], n: int, seed: int, split: Split) -> list[Made]:
        run = self.loaded(tiles)
        drawn = Pairs(run, min(n, BATCH), seed, [tile.id for tile in tiles], mesh=self._mesh)
        made: list[Made] = []
        for batch in drawn.numbered(iter(range(-(-n // min(n, BATCH))))):
            images = np.clip(np.rint(batch["image"]), 0, 255).astype(np.uint8)
            made += zip(images, batch["objects"], strict=True)
        return made[:n]


class Gpnn:
    """Pairs of GPNN (experiments.baselines.generator): patches of a tile and its mask rearranged, without training."""

    def __init__(self, pyramid: Pyramid, study: Study):
        self._pyramid, self._study = pyramid, study

    def prepare(self, seconds: float) -> bool:
        return True

    def fingerprint(self) -> str:
        return f"gpnn {self._pyramid}"

    def pairs(self, tiles: Sequence[Pair], n: int, seed: int, split: Split) -> list[Made]:
        made = []
        for number, tile in enumerate(tiles):
            count = n // len(tiles) + (number < n % len(tiles))
            if count:
                image = singans.with_mask(tile, self._study).astype(np.float32) / 127.5 - 1
                drawn = generate(image, self._pyramid, seed, count, image_id=tile.id)
                least = mask_channels.min_area(tile.instances)
                made += [_decoded(sample, least, self._study) for sample in drawn]
        return made


def generators(
    study: Study, sweeps: Mapping[str, Sweep], pyramid: Pyramid, mesh: Mesh, inserted: Generator | None
) -> Mapping[str, Generator]:
    """Returns what can make pairs for a study, by name, in the order of the table.

    Args:
      sweeps: the cohorts of SinGANs, by the generator that needs them.
    """
    nuclei = study.task == "nuclei"
    made: dict[str, Generator] = {}
    for name in ("copy_paste", "cutmix") if nuclei else ("carvemix", "tumor_cp", "cutmix"):
        made[name] = Mixing(name)
    made["stacked"] = Stacked(START_SCALES["stacked"], sweeps["stacked"], study, mesh)
    if "conditional" in sweeps:
        made["conditional"] = Conditional(sweeps["conditional"], study, mesh)
    made["gpnn"] = Gpnn(pyramid, study)
    made["near_copies"] = Stacked(START_SCALES["near_copies"], sweeps["near_copies"], study, mesh)
    if inserted is not None:
        made["inserted"] = inserted
    return made


def pool_size(name: str, study: Study) -> int:
    """Returns how many pairs a pool holds for each tile."""
    return min(GPNN_SAMPLES, study.samples) if name == "gpnn" else study.samples


def _decoded(sample: np.ndarray, least: int, study: Study) -> Made:
    """Returns a sample [h, w, C + 1] in [-1, 1] as a pair."""
    image = np.clip(np.rint((sample[..., :-1] + 1) * 127.5), 0, 255).astype(np.uint8)
    if study.task == "nuclei":
        return image, mask_channels.decode_instances(sample[..., -1], least)
    return image, mask_channels.decode_binary(sample[..., -1]).astype(np.int32)


def _turned(image: np.ndarray, instances: np.ndarray, number: int) -> Made:
    """Returns a square pair turned by one of the eight symmetries."""
    image, instances = (np.rot90(each, number % 4) for each in (image, instances))
    return (image[::-1], instances[::-1]) if number >= 4 else (image, instances)
