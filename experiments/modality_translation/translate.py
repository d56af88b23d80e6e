"""Makes the channels that an image lacks from those it has, with the pyramid of another one; says how well that works.

python -m experiments.modality_translation.translate --workdir=runs/tr --data=DATA --out=translated
python -m experiments.modality_translation.translate --workdir=runs/mine --inputs=patient.npz --unknown=flair --out=made

Prints PSNR and SSIM, or Dice for masks, of each start scale beside three plain guesses; writes scores.csv, scores.json,
a comparison picture for each image and what was made.
"""

import sys

from experiments.modality_translation import cases, scores, translated, translation
from experiments.modality_translation.cases import Case
from launch import cli, runtime, selection
from launch import command_flags as flags
from launch.images.channels import file_word
from launch.samples import pictures, writers
from singan import files
from singan.errors import UserError
from singan.storage.run import Run, load_run
from singan.text import print_warning

WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=DIR, the directory of a trained run.", required=True)
OUT = flags.DEFINE_string("out", None, "give --out=DIR, where all is written.", required=True)
IMAGES = flags.DEFINE_list("images", [], "Ids of the pyramids; all of the run where not given.")
DATA = flags.DEFINE_string("data", "", "DATA_DIR of datasets.build: cases are --neighbours and --others there.")
NEIGHBOURS = flags.DEFINE_list("neighbours", ["1", "2", "5", "10"], "Slices above and below each training image.")
OTHERS = flags.DEFINE_integer("others", 2, "Cases of other patients, or other patches, for each image.", lower_bound=0)
INPUTS = flags.DEFINE_list("inputs", [], "Image files or globs: with all channels, or without the unknown ones.")
UNKNOWN = flags.DEFINE_list("unknown", [], "Channels to be unknown, one after another; a+b are both at once.")
START_SCALES = flags.DEFINE_list("start_scales", ["1", "2", "3", "5", "7", "9"], "Scales at which the guess enters.")
GUESS = flags.DEFINE_enum("guess", "matched", list(translation.GUESSES), "What enters for the unknown channels.")
NOISE = flags.DEFINE_enum(
    "noise", "none", list(translation.NOISES), "; ".join(f"{k}: {v}" for k, v in translation.NOISES.items())
)
MATCH = flags.DEFINE_enum(
    "match", "auto", list(cases.MATCHES), "; ".join(f"{k}: {v}" for k, v in cases.MATCHES.items())
)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1, "Results of each case and start scale.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise.", lower_bound=0, upper_bound=2**32 - 1)
FORMAT = flags.DEFINE_enum("format", "png", ["png", "npy", "nifti"], "Of the results, as of launch.sample.")


def main(argv: list[str]) -> int:
    del argv
    mesh = runtime.start_jax(len(IMAGES.value) or 64)
    run = load_run(WORKDIR.value, warn=print_warning)
    ids = selection.chosen_images(run, IMAGES.value)
    scales = selection.chosen_scales(run, START_SCALES.value, least=1)
    unknown = cases.unknown_channels(run.images[0], UNKNOWN.value)
    matched = [cases.matched(run, case, MATCH.value) for name in ids for case in _cases(run, name, unknown)]
    if not matched:
        raise UserError("there is nothing to translate: give --data=DATA_DIR with more slices, or --inputs=FILES")
    writers.check_format(FORMAT.value, [case.record for case in matched])
    made = translated.translate_all(
        run, matched, unknown, scales, GUESS.value, NOISE.value, NUM_SAMPLES.value, SEED.value, mesh
    )
    out = files.make_directory(OUT.value)
    for one in made:
        translated.write_files(one, out, FORMAT.value)
    for name in ids:
        for what in unknown:
            if some := [one for one in made if one.case.image_id == name and one.unknown[0] == what]:
                picture = pictures.encode_png(translated.comparison(run, some))
                files.write_bytes(out / f"{name}_no_{file_word(what)}.png", picture)
    _report(run, made, scales)
    print(f"{len(made)} translations at start scale(s) {', '.join(map(str, scales))} are in {out}")
    return 0


def _cases(run: Run, name: str, unknown: dict[str, tuple[int, ...]]) -> list[Case]:
    listed = cases.files(run, name, INPUTS.value, list(unknown.values())) if INPUTS.value else []
    if DATA.value:
        try:
            offsets = [int(text) for text in NEIGHBOURS.value]
        except ValueError:
            raise UserError(f"--neighbours={','.join(NEIGHBOURS.value)} must be whole numbers, such as 1,2,5") from None
        listed += cases.neighbours(run, name, DATA.value, offsets)
        others = cases.others(run, name, DATA.value, OTHERS.value)
        if len(others) < OTHERS.value:
            print(f"note: {DATA.value} has {len(others)} other(s) for {name}", file=sys.stderr)
        listed += others
    return listed


def _report(run: Run, made: list[translated.Translated], scales: list[int]) -> None:
    rows = [row for one in made for row in translated.scored(run, one)]
    about = {"guess": GUESS.value, "noise": NOISE.value, "match": MATCH.value, "seed": SEED.value}
    verdicts = scores.verdicts(rows, list(translation.GUESSES))
    translated.write_csv(files.make_directory(OUT.value) / "scores.csv", rows)
    files.write_json(
        files.make_directory(OUT.value) / "scores.json",
        {**about, "definitions": scores.DEFINITIONS, "verdicts": verdicts, "rows": rows},
    )
    if rows:
        print(scores.tables(rows, [*translation.GUESSES, *(f"start {scale}" for scale in scales)]))
        print("\nmeans over the cases, the best start scale against the best plain guess:")
        print("\n".join(verdicts), end="\n\n")


if __name__ == "__main__":
    cli.run(main)
