"""The real tiles of a study and its splits."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from experiments.augmentation_study.pairs import FOLD, Pair, cut, kept_apart, load_pairs
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.splits import Split, draw_splits
from singan.config import DataConfig
from singan.errors import UserError

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """The real tiles.

    Attributes:
      pairs: all tiles by id.
      trained: ids of those that some segmenter of a number of tiles trains on: each has one pyramid.
      images: number of images that were cut.
      kept_apart: the word for what is: pairs.PATIENT or pairs.FOLD.
    """

    pairs: Mapping[str, Pair]
    splits: Sequence[Split]
    trained: Sequence[str]
    images: int
    kept_apart: str

    def facts(self, study: Study) -> list[str]:
        """Returns lines that say what the study is of."""
        patients = {pair.patient for pair in self.pairs.values()}
        word = f"{self.kept_apart}s"
        of = f"{word} (PanNuke names no patients)" if self.kept_apart == FOLD else word
        smaller = f", made {study.reduce} times smaller" if study.reduce > 1 else ""
        folds = len({split.fold for split in self.splits})
        tested = {self.pairs[name].patient for split in self.splits for name in split.test}
        least, most = (f({len(split.order) for split in self.splits}) for f in (min, max))
        how = f"{len(tested)} held-back {word} test every seed" if study.test_path else f"{folds} folds test each once"
        return [
            f"{self.images} image(s) of {len(patients)} {of}, cut into {len(self.pairs)} tiles of"
            f" {study.tile}x{study.tile} pixels{smaller}",
            f"{study.seeds} seeds; {how}; of the others {study.validation} tune the decoding, and {least} to {most}"
            " tiles are there to train on",
            f"segmenters: {study.steps} steps of {study.batch} crops of {study.crop} pixels, whatever they are trained"
            f" on; U-Net of width {study.width}",
        ]


def gather(data: DataConfig, study: Study, log: Log) -> Material:
    """Returns the real tiles and the splits. Raises UserError for what cannot be studied."""
    images = load_pairs(data, study)
    if study.also:
        known = {pair.patient for pair in images}
        more = load_pairs(data, study, study.also)
        images += (new := [pair for pair in more if pair.patient not in known])
        log(
            f"note: {len(more) - len(new)} of {len(more)} images of --study.also are of patients that are there already"
        )
    tiles, empty = cut(images, study)
    held_out: list[Pair] = []
    if study.test_path:
        others = load_pairs(data, study, study.test_path)
        held_out, of_others = cut(others, study)
        images, empty = [*images, *others], empty + of_others
    every = [*tiles, *held_out]
    if len(pairs := {pair.id: pair for pair in every}) < len(every):
        twice = next(pair.id for pair in every if pairs[pair.id] is not pair)
        raise UserError(f"{twice} is a name in two folders: rename the files of one")
    if empty:
        log(f"note: {empty} tiles are left out, less than 1 % of which is to be segmented")
    splits = draw_splits(tiles, held_out, study)
    most = max(study.train_sizes)
    trained = sorted({name for split in splits for name in split.order[:most]})
    return Material(pairs, splits, trained, len(images), kept_apart(data, study))
