"""What the samples of a conditional run are to show, from a command's flags: new layouts, the image's own, or files."""

import dataclasses
from pathlib import Path

from launch.images import conditions, readers
from launch.text import printable
from singan.errors import UserError
from singan.model.layouts import Layout, Rule
from singan.sampling.samples import LayoutSource, permuted
from singan.storage.run import Run

PERMUTE, SOURCE = "permute", "source"


@dataclasses.dataclass(frozen=True)
class GivenLayouts:
    """Where layouts come from.

    Attributes:
      source: None where sampling itself decides (singan.sampling.samples.draw).
      about: one line for a data card; '' where the run is not conditional.
    """

    source: LayoutSource | None
    about: str


def given_layouts(run: Run, masks: str, rule: Rule, seed: int, size: tuple[float, float], scale: int) -> GivenLayouts:
    """Returns what `--masks` asks for: 'permute', 'source', a folder of label maps, or '' for what suits the scale.

    Raises:
      UserError: the run is not conditional, or the folder holds no label maps of the right size.
    """
    if not run.spec.condition:
        if masks or rule != Rule():
            raise UserError(
                f"--masks, --density and --overlap are for runs that are given masks, and {run.workdir.path} is not:"
                " leave them out, or train with config.data.condition"
            )
        return GivenLayouts(None, "")
    if scale and (masks not in ("", SOURCE) or size != (1.0, 1.0)):
        raise UserError(
            f"what is coarser than start scale {scale} is the training image's, and so are size and layout: use"
            " --start_scale=0, or leave --masks and --size out"
        )
    if masks == SOURCE or (not masks and scale > 0):
        return GivenLayouts(None if scale else lambda name, number: run.layout(name), "those of the training images")
    if masks in ("", PERMUTE):
        about = "objects of the training image, moved, turned, mirrored and scaled to free places"
        about += f"; density {rule.density:g} of the image's{', overlapping' if rule.overlap else ''}"
        return GivenLayouts(permuted(run, seed, size, rule), about)
    if rule != Rule():
        raise UserError("--density and --overlap are for new layouts: leave them out beside --masks=FOLDER")
    return GivenLayouts(_from_folder(run, masks, size), "given as files")


def _from_folder(run: Run, masks: str, size: tuple[float, float]) -> LayoutSource:
    folder = Path(masks).expanduser()
    paths = sorted(path for path in folder.iterdir() if readers.is_image(path)) if folder.is_dir() else []
    if not paths:
        raise UserError(
            f"--masks={printable(masks)} is neither permute nor source, nor a folder of label maps, which are read from"
            f" {' '.join(readers.SUFFIXES)}"
        )
    labels, grid = "seg" in run.config.data.condition, run.spec.pyramid.scaled(*size).source
    classes, layouts = run.images[0].condition_classes, []
    for path in paths:
        word = printable(path.name)
        layout = conditions.read_layout(readers.read(path, word), word, labels)
        if layout.objects.shape != grid:
            raise UserError(
                f"{word} is of {'x'.join(map(str, layout.objects.shape))} pixels, a sample's layout of"
                f" {'x'.join(map(str, grid))} (the training image's times --size): draw it at that size"
            )
        if layout.classes.max() > classes:
            raise UserError(f"{word} has class {layout.classes.max()}, the run has {classes}")
        layouts.append(layout)

    def numbered(name: str, number: int) -> Layout:
        given = layouts[number % len(layouts)]
        region = run.layout(name).region if "region" in run.config.data.condition else None
        return dataclasses.replace(given, region=region) if region is not None and region.shape == grid else given

    return numbered
