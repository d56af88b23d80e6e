"""Trains one segmenter, tunes its decoding on validation patients, and scores it on the patients of its fold."""

import dataclasses
import functools
import io
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.augmentation_study.augmentation import crop, stack_of, stacked
from experiments.augmentation_study.conditions import Condition
from experiments.augmentation_study.decoding import Decoding, by_threshold, decode, tune, tune_threshold
from experiments.augmentation_study.generators import Generator, Made, pool_size
from experiments.augmentation_study.network import programs
from experiments.augmentation_study.pairs import Pair
from experiments.augmentation_study.scores import score
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.splits import Split
from singan import files

Scores = dict[str, dict[str, float]]


class Pools:
    """Pairs that are drawn once for each tile and kept in ROOT/pools, whoever trains on them."""

    def __init__(self, folder: Path, study: Study, generators: Mapping[str, Generator]):
        self._folder, self._study, self._generators = folder, study, generators

    def pairs(self, name: str, tiles: Sequence[Pair], split: Split) -> list[Made]:
        """Returns the pairs of a generator for some tiles, drawn where they are not yet."""
        made: list[Made] = []
        for tile in tiles:
            path = self._folder / name / f"{tile.id}.npz"
            made_from = f"{self._generators[name].fingerprint()} {pool_size(name, self._study)}"
            if not path.is_file() or _text(path, "made_from") != made_from:
                before = time.process_time()
                drawn = self._generators[name].pairs([tile], pool_size(name, self._study), _seed(tile.id), split)
                images, instances = (np.stack(each) for each in zip(*drawn, strict=True))
                spent = time.process_time() - before
                files.make_directory(path.parent)
                buffer = io.BytesIO()
                np.savez(buffer, images=images, instances=instances, made_from=made_from, cpu_seconds=spent)
                files.write_bytes(path, buffer.getvalue())
            with np.load(path, allow_pickle=False) as kept:
                made += list(zip(kept["images"], kept["instances"], strict=True))
        return made

    def count(self, name: str) -> int:
        """Returns of how many tiles the pairs of a generator are kept."""
        return len(list((self._folder / name).glob("*.npz")))

    def cpu_seconds(self, name: str) -> float:
        """Returns what drawing the kept pools of a generator took."""
        return sum(float(_text(path, "cpu_seconds")) for path in sorted((self._folder / name).glob("*.npz")))


class Batches:
    """The crops that one segmenter is shown."""

    def __init__(
        self,
        condition: Condition,
        tiles: Sequence[Pair],
        split: Split,
        study: Study,
        generators: Mapping[str, Generator],
        pools: Pools,
    ):
        self._condition, self._tiles, self._split, self._study = condition, tiles, split, study
        self._generators, self._pools = generators, pools
        self._seed = [split.seed, split.fold, len(tiles), zlib.crc32(condition.name.encode())]
        self._rng = np.random.default_rng(self._seed)
        self._real = [stack_of(tile, study) for tile in tiles]
        self._stacks: list[np.ndarray] = []
        self.cpu_seconds = 0.0  # spent on making pairs

    def next(self, number: int) -> np.ndarray:
        """Returns float32 [batch, crop, crop, C + 2] for a step; those that are made come first."""
        study, condition = self._study, self._condition
        made = min(max(round(study.batch * condition.share), 1), study.batch - 1) if condition.generator else 0
        made = study.batch if condition.share == 1 else made
        if made and (not self._stacks or (condition.fresh and number % study.refresh == 0)):
            before = time.process_time()
            self._stacks = [stacked(*pair, study.task == "nuclei") for pair in self._make(number, made)]
            self.cpu_seconds += time.process_time() - before
        sources = [self._stacks] * made + [self._real] * (study.batch - made)
        chosen = [source[self._rng.integers(len(source))] for source in sources]
        return np.stack([crop(one, study.crop, condition.augmented, self._rng) for one in chosen])

    def _make(self, number: int, made: int) -> list[Made]:
        """Returns the pool, or as many fresh pairs as there are tiles' worth of crops until the next are made."""
        condition, study = self._condition, self._study
        if not condition.fresh:
            return self._pools.pairs(condition.generator, self._tiles, self._split)
        crops_in_tile = max((study.tile // study.crop) ** 2, 1)
        count = max(study.refresh * made // crops_in_tile, 1)
        seed = int(np.random.default_rng([*self._seed, number]).integers(2**31))
        return self._generators[condition.generator].pairs(self._tiles, count, seed, self._split)


class Trainer:
    """Trains segmenters of one study, whose programs are compiled once."""

    def __init__(self, study: Study, tiles: Mapping[str, Pair], generators: Mapping[str, Generator], pools: Pools):
        self._study, self._tiles, self._generators, self._pools = study, tiles, generators, pools
        self._start, self._step, self._predict = programs(study)

    def train(self, condition: Condition, size: int, split: Split, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """Returns what is kept of a segmenter: its scores by patient, its decoding and CPU seconds; None if stopped."""
        before = time.process_time()
        tiles = [self._tiles[name] for name in split.train(size)]
        fitted = self.fit(condition, tiles, split, stop)
        if fitted is None:
            return None
        segmenter, in_pairs = fitted
        scores = segmenter.score([self._tiles[name] for name in split.test])
        spent = time.process_time() - before
        return {
            "patients": scores,
            "decoding": segmenter.how._asdict(),
            "cpu_seconds": {"pairs": in_pairs, "training": spent - in_pairs},
        }

    def fit(
        self, condition: Condition, tiles: Sequence[Pair], split: Split, stop: Callable[[], bool]
    ) -> "tuple[Segmenter, float] | None":
        """Returns a segmenter trained on tiles, and the CPU seconds of making its pairs; None if stopped."""
        study = self._study
        batches = Batches(condition, tiles, split, study, self._generators, self._pools)
        channels = tiles[0].pixels.shape[-1]
        # The same start for every condition of a seed and fold.
        key = jax.random.fold_in(jax.random.key(split.seed), split.fold)
        state = self._start(key, np.zeros((1, 16, 16, channels), np.float32))
        for number in range(study.steps):
            if number % study.refresh == 0:
                jax.block_until_ready(state)  # a CPU is given one program at a time: a generator may run the next
                if stop():
                    return None
            crops = batches.next(number)
            state, _ = self._step(state, crops[..., :channels], crops[..., channels:])
        nuclei = study.task == "nuclei"
        segmenter = Segmenter(functools.partial(self._predict, state), nuclei)
        validation = [self._tiles[name] for name in split.validation]
        how = tune([segmenter.predict(pair) for pair in validation], validation, nuclei)
        return dataclasses.replace(segmenter, how=how), batches.cpu_seconds


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """A trained network, and how instances are read from what it predicts."""

    predictor: Callable[[Any], Any]
    nuclei: bool
    how: Decoding = dataclasses.field(default_factory=Decoding)

    def predict(self, pair: Pair) -> np.ndarray:
        """Returns float32 [H, W, 2], inside and distance."""
        return np.asarray(self.predictor(pair.pixels[None].astype(np.float32) / 255))[0]

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """Returns the metrics of each patient."""
        return score([decode(self.predict(pair), self.how, self.nuclei) for pair in pairs], pairs, self.nuclei)


def thresholds(split: Split, tiles: Mapping[str, Pair], tuned: bool) -> dict[str, Any]:
    """Returns what is kept of Otsu's threshold on the stain for a fold."""
    before = time.process_time()
    test = [tiles[name] for name in split.test]
    sigma = tune_threshold([tiles[name] for name in split.validation]) if tuned else 0.0
    scores = score([by_threshold(pair, sigma, filled=tuned) for pair in test], test, True)
    spent = {"pairs": 0.0, "training": time.process_time() - before}
    return {"patients": scores, "decoding": {"sigma": sigma}, "cpu_seconds": spent}


def _seed(name: str) -> int:
    return zlib.crc32(name.encode()) % 2**31


def _text(path: Path, key: str) -> str:
    with np.load(path, allow_pickle=False) as kept:
        return str(kept[key])
