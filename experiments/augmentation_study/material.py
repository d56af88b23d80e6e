"""All that segmenters are made from: patches, splits, and the synthetic pairs, drawn or inserted."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jax.sharding import Mesh

from experiments.augmentation_study import inserted
from experiments.augmentation_study import synthetic as drawing
from experiments.augmentation_study.conditions import Condition, Source
from experiments.augmentation_study.pairs import FOLD, Pair, cut, kept_apart, load_pairs
from experiments.augmentation_study.patients import Known
from experiments.augmentation_study.segmenters import Job, RowsOf
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.splits import Split, draw_splits, used
from experiments.augmentation_study.synthetic import Bank
from singan.config import DataConfig
from singan.errors import UserError
from singan.storage import workdir as records
from singan.storage.run import load_run
from singan.storage.workdir import Workdir, pixel_digest

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """The real patches.

    Attributes:
      pairs: all patches by id.
      trained: ids of those that some seed trains on.
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
        held_out = " or ".join(map(str, sorted({len(split.test_patients) for split in self.splits})))
        word = f"{self.kept_apart}s"
        of = f"{word} (PanNuke names no patients)" if self.kept_apart == FOLD else word
        smaller = f", made {study.reduce} times smaller" if study.reduce > 1 else ""
        return [
            f"{self.images} image(s) of {len(patients)} {of}, cut into {len(self.pairs)} patches of"
            f" {study.patch}x{study.patch} pixels{smaller}",
            f"{len(self.splits)} seeds; each tests on {held_out} of the {word}, draws its training patches from the"
            " others, and starts the segmenter anew",
            f"segmenters: {study.steps} steps of {study.batch} patches each, whatever they are trained on; U-Net of"
            f" width {study.width}",
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Synthetic:
    """The synthetic pairs, and a fingerprint of them and of the real ones."""

    bank: Bank
    rows_of: RowsOf
    fingerprint: str


def gather(data: DataConfig, study: Study, log: Log) -> Material:
    """Returns the real patches and the splits. Raises UserError for what cannot be studied."""
    images = load_pairs(data, study)
    patches, empty = cut(images, study)
    held_out: list[Pair] = []
    if study.test_path:
        others = load_pairs(data, study, study.test_path)
        held_out, more = cut(others, study)
        images, empty = [*images, *others], empty + more
        if same := {pair.id for pair in patches} & {pair.id for pair in held_out}:
            raise UserError(f"{sorted(same)[0]} is a name in both folders: rename the files of one")
    if empty:
        log(f"note: {empty} patches are left out, less than 1 % of which is to be segmented")
    splits = draw_splits(patches, held_out, study)
    pairs = {pair.id: pair for pair in (*patches, *held_out)}
    return Material(pairs, splits, used(splits, study), len(images), kept_apart(data, study))


def there(wanted: Sequence[int], scales: int, log: Log) -> list[int]:
    """Returns the start scales that a pyramid has. Raises UserError where it has none of them."""
    kept = [scale for scale in wanted if scale < scales]
    if not kept:
        raise UserError(f"--study.start_scales={','.join(map(str, wanted))}: the SinGANs have scales 0 to {scales - 1}")
    if len(kept) < len(wanted):
        log(f"note: start scales {sorted({*wanted} - {*kept})} are left out: the SinGANs have 0 to {scales - 1}")
    return kept


def synthetic(
    data: DataConfig,
    real: Material,
    jobs: Sequence[Job],
    study: Study,
    root: Path,
    mesh: Mesh,
    stop: Callable[[], bool],
    log: Log,
) -> Synthetic | None:
    """Returns the synthetic pairs that the jobs need, drawn where they are not yet; None where a stop was asked for."""
    bank = Bank(real.pairs, root / "synthetic", study)
    digests = [pixel_digest(real.pairs[name].pixels) for name in sorted(real.pairs)]
    digests += [pixel_digest(real.pairs[name].instances) for name in sorted(real.pairs)]
    if study.inserted:
        paths = [data.path, *([study.test_path] if study.test_path else [])]
        known = Known(data, study.patient, paths, {pair.patient for pair in real.pairs.values()})
        composites = inserted.load(study, next(iter(real.pairs.values())), known)
        digests += [pixel_digest(one.images) + pixel_digest(one.targets) for one in composites]
        digests += [f"{one.donor}/{one.patient}" for one in composites]  # they decide which of them are shown

        def rows_of(condition: Condition, split: Split, ids: Sequence[str]) -> dict[str, list[int]]:
            return inserted.rows(bank, composites, condition, split, ids)

    else:
        run = load_run(root / "singan", warn=lambda text: log(f"warning: {text}"))
        wanted: dict[Source, set[str]] = {}
        for job in jobs:
            for source in job.condition.sources:
                wanted.setdefault(source, set()).update(job.split.order[: job.size])
        for source, ids in wanted.items():
            if stop():
                return None
            drawing.draw(run, source, sorted(ids), study, root / "synthetic" / source.name, mesh, log)
        digests += [scale.fingerprint for scale in run.scales]

        def rows_of(condition: Condition, split: Split, ids: Sequence[str]) -> dict[str, list[int]]:
            return {s.name: bank.synthetic(s, ids, condition.decoding) for s in condition.sources}

    return Synthetic(bank, rows_of, hashlib.blake2b("".join(digests).encode(), digest_size=12).hexdigest())


def training_facts(root: Path, study: Study, start_scales: Sequence[int]) -> list[str]:
    """Returns lines that say how the synthetic pairs were made.

    Args:
      start_scales: those of study.start_scales that were used.
    """
    if study.inserted:
        return ["synthetic: tumours inserted by experiments.tumour_insertion"]
    workdir = Workdir(root / "singan")
    config = records.read_config(workdir)
    count = len(records.read_images(workdir))
    sizes = " and ".join(f"{size:g}" for size in study.sizes)
    scales = ", ".join(map(str, start_scales))
    return [
        f"{count} SinGANs, one for each patch and its mask, {config.train.steps_per_scale} steps a scale,"
        f" {config.network.width} channels at scale 0",
        f"synthetic: {study.samples} pairs of each patch, start scale ({scales}) and size ({sizes} times a patch)",
    ]
