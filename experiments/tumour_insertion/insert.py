"""Puts tumours of other patients into the healthy slices that a run was trained on, and measures how they fit in.

python -m experiments.tumour_insertion.insert --workdir=runs/healthy --tumours=DATA --format=nifti --out=inserted

Writes figures 2a and 2b of the paper for each tumour; the naive, feathered and Poisson-blended composites, and what the
pyramid makes of the feathered ones from each start scale, with their segmentations; insertions.json. Prints how all of
them compare with the donors' tumours in their own brains, and which to train on.
"""

import sys

from experiments.tumour_insertion import blending, compositing, donors, inserted, matching, outputs, scores
from experiments.tumour_insertion.compositing import Choice, Insertion, Skipped
from experiments.tumour_insertion.inserted import Harmonisation
from launch import cli, runtime, selection
from launch import command_flags as flags
from launch.samples import writers
from singan import files
from singan.errors import UserError
from singan.sampling.masks import HARMONIZE, MaskRule
from singan.storage.run import Run, load_run

TUMOURS_HELP = "give --tumours=DATA_DIR of datasets.build brats, or npz files of slices, folders of them, globs."
WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=DIR, a run trained on healthy slices.", required=True)
OUT = flags.DEFINE_string("out", None, "give --out=DIR, where all is written.", required=True)
TUMOURS = flags.DEFINE_list("tumours", None, TUMOURS_HELP, required=True)
IMAGES = flags.DEFINE_list("images", [], "Ids of the backgrounds; all of the run where not given.")
START_SCALES = flags.DEFINE_list("start_scales", ["1", "2", "3", "5", "7", "9"], "Scales at which composites enter.")
PER_BACKGROUND = flags.DEFINE_integer("per_background", 4, "Tumours for each background.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of choice, place and noise.", lower_bound=0, upper_bound=2**32 - 1)
FORMAT = flags.DEFINE_enum("format", "png", list(outputs.FORMATS), "; ".join(map(": ".join, outputs.FORMATS.items())))
FINE_TUNE = flags.DEFINE_integer(
    "fine_tune_steps", 0, "Train the finest scale that much further on each composite.", lower_bound=0
)
SCALE = flags.DEFINE_list("scale", ["0.8", "1.2"], "Least and largest size, in multiples of the donor's.")
MARGIN = flags.DEFINE_float("margin", 3, "Pixels between a tumour and the brain's border.", lower_bound=0)
MIN_TUMOUR = flags.DEFINE_integer("min_tumour", 100, "Pixels that a donor's tumour must have.", lower_bound=1)
MATCH = flags.DEFINE_enum("match", "auto", list(matching.RULES), "How intensities are matched; see matching.py.")
SAME_PATIENT = flags.DEFINE_boolean("allow_same_patient", False, "Take tumours of the background's own patient too.")
DILATION = flags.DEFINE_float(
    "mask_dilation", HARMONIZE.dilation, "Pixels of 250 around a tumour that may change.", lower_bound=0
)
FIRST = flags.DEFINE_enum("first", "feather", list(blending.METHODS), "The composite that the pyramid starts from.")
FEATHER = flags.DEFINE_float(
    "feather", None, "Pixels of the feather's width; chosen for each tumour where not given.", lower_bound=0.1
)
FEATHER_EDGE = flags.DEFINE_float(
    "feather_edge", None, "Pixels outside the tumour at which it has half faded out; chosen where not given."
)
REGION = flags.DEFINE_enum(
    "region", "ring", list(inserted.REGIONS), "Where the pyramid is used: in a ring at the contour, or on the whole."
)
BLUR = flags.DEFINE_float("mask_blur", HARMONIZE.blur, "Width of the blend within these, pixels of 250.", lower_bound=0)


def main(argv: list[str]) -> int:
    del argv
    mesh = runtime.start_jax(len(IMAGES.value) or 64)
    run = load_run(WORKDIR.value, warn=lambda text: print(f"warning: {text}", file=sys.stderr))
    compositing.check_run(run)
    images = selection.chosen_images(run, IMAGES.value)
    scales = selection.chosen_scales(run, START_SCALES.value, least=1)
    writers.check_format(FORMAT.value, [run.record(name) for name in images])
    candidates = donors.find_candidates(TUMOURS.value, run.images[0].channels, MIN_TUMOUR.value)
    choice = Choice(
        PER_BACKGROUND.value,
        SEED.value,
        compositing.sizes(SCALE.value),
        MARGIN.value,
        MATCH.value,
        SAME_PATIENT.value,
        FEATHER.value,
        FEATHER_EDGE.value,
    )
    insertions, skipped = _draw(run, images, candidates, choice)
    # Nothing outside the dilated mask changes: what is not tumour is to be the background's own voxels.
    rule = MaskRule(DILATION.value, BLUR.value, within=True)
    how = Harmonisation(scales, FIRST.value, rule, REGION.value, FINE_TUNE.value)
    out = files.make_directory(OUT.value)
    rows = inserted.harmonize_and_write(run, insertions, how, out, FORMAT.value, SEED.value, mesh, _log)
    results = [result for row in rows for result in row["results"]]
    by_method = {scores.OWN: [row[scores.OWN] for row in rows]}
    for result in results:
        by_method.setdefault(result["method"], []).append(result)
    use = scores.best(by_method, FIRST.value)
    about = {
        "seed": SEED.value,
        "match": MATCH.value,
        "first": FIRST.value,
        "region": REGION.value,
        "mask": {"dilation": rule.dilation, "blur": rule.blur, "within": rule.within},
        "fine_tune_steps": FINE_TUNE.value,
        "use": use,
        "means": {method: scores.means(scored) for method, scored in by_method.items()},
    }
    lost = [vars(one) for one in skipped]
    files.write_json(out / "insertions.json", {**about, "insertions": rows, "skipped": lost})
    print(scores.table(by_method))
    for line in scores.warnings(by_method):
        print(f"warning: {line}", file=sys.stderr)
    beaten = "no start scale beats it" if use == FIRST.value else f"it beats {FIRST.value}"
    count = len({one.record.id for one in insertions})
    print(f"{len(insertions)} tumours in {count} background(s): see {out}; train on {use}/ ({beaten})")
    return 0


def _draw(run: Run, images: list[str], candidates: list[donors.Candidate], choice: Choice):
    insertions: list[Insertion] = []
    skipped: list[Skipped] = []
    for image_id in images:
        for placed in compositing.draw(run, image_id, candidates, choice):
            if isinstance(placed, Insertion):
                insertions.append(placed)
            else:
                skipped.append(placed)
    if not insertions:
        raise UserError(f"no tumour could be put into any background; {_line(skipped[0])}")
    for one in skipped:
        _log(f"note: {_line(one)}")
    lacking = sorted({c for one in insertions for c in outputs.describe(one)["channels_of_background"]})
    if lacking:
        _log(f"note: some donors have no {', '.join(lacking)}: there the composite is the background")
    return insertions, skipped


def _line(one: Skipped) -> str:
    about = f"of {one.donor} fits into" if one.donor else "is put into"
    return f"no tumour {about} {one.background}: {one.reason}"


def _log(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
