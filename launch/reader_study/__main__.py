"""A reader study: one static page that asks people which images are real, and the scores of what they send back.

python -m launch.reader_study make --real=FOLDER --generated=samples --out=study.html
python -m launch.reader_study score answers-*.json --key=study.key.json --out=scores
"""

import sys
from pathlib import Path
from typing import Any

from launch import cli
from launch import command_flags as flags
from launch.images import image_folders
from launch.reader_study import answers, design, giveaways, match_images, page, plot, results
from singan import files
from singan.errors import UserError

OUT = flags.DEFINE_string("out", None, "give --out=study.html to make, --out=DIR to score.", required=True)
REAL = flags.DEFINE_string("real", "", "make: the folder of real images.")
GENERATED = flags.DEFINE_string("generated", "", "make: the folder of samples, as launch.sample writes them.")
MODE = flags.DEFINE_enum("mode", "single", design.MODES, "make: one image at a time, or pairs of which one is real.")
NUM_ITEMS = flags.DEFINE_integer("num_items", 0, "make: images or pairs that are scored; 0: all.", lower_bound=0)
PRACTICE = flags.DEFINE_integer("practice", 4, "make: items before them, with feedback, not scored.", lower_bound=0)
TIME_LIMIT = flags.DEFINE_float("time_limit", 0, "make: seconds that an image is shown; 0: no limit.", lower_bound=0)
TITLE = flags.DEFINE_string("title", "Real or synthetic?", "make: the heading that readers see.")
CHANNELS = flags.DEFINE_list("channels", [], "make: channels to show, such as rgb or t1,flair; all where not given.")
SPLIT = flags.DEFINE_boolean("split_channels", False, "make: show one channel of each image, all equally often.")
FIT = flags.DEFINE_enum(
    "fit", "refuse", match_images.FITS, "make: of unequal sizes, the middle, or resized to the least."
)
SCALING = flags.DEFINE_enum(
    "scaling", "common", match_images.SCALINGS, "make: one range of values, or each image's own."
)
LAYOUT = flags.DEFINE_enum("layout", "auto", ("auto", "hwc", "chw"), "make: which axis of an array holds channels.")
KEY = flags.DEFINE_string("key", "", "score: the key file that make has written.")
SEED = flags.DEFINE_integer("seed", 0, "Of the choice and order; of the bootstrap.", lower_bound=0, upper_bound=2**63)


def main(argv: list[str]) -> int:
    command, given = (argv[1] if len(argv) > 1 else ""), argv[2:]
    if command == "score":
        return score(given)
    if command != "make" or given:
        what = f"not {given[0]!r}: it takes flags only" if command == "make" else f"not {command!r}" if command else ""
        raise UserError(f"write make or score after launch.reader_study{', ' * bool(what)}{what}")
    return make()


def make() -> int:
    """Writes the page and, beside it, its key."""
    if not REAL.value or not GENERATED.value:
        raise UserError("give --real=FOLDER with real images and --generated=FOLDER with samples of launch.sample")
    out = Path(OUT.value)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out={OUT.value} must end in .html: make writes a page")
    samples = image_folders.list_entries(GENERATED.value, "generated", CHANNELS.value)
    real = image_folders.list_entries(REAL.value, "real", CHANNELS.value or image_folders.words_of(samples))
    mode: Any = MODE.value
    choice = design.choose(real, samples, mode, NUM_ITEMS.value, PRACTICE.value, SEED.value)
    names = ("mode", "num_items", "practice", "time_limit", "channels", "split_channels", "fit", "scaling", "seed")
    settings = {name: flags.FLAGS[name].value for name in names}
    secret = design.digest(choice, settings)
    stored = any(entry.index is not None for entry in choice.generated)  # samples as npy lie as their source is stored
    shown, drawn = (
        [image_folders.read(entry, LAYOUT.value, upright=not stored) for entry in side]
        for side in (choice.real, choice.generated)
    )
    images = match_images.match_images(
        shown, drawn, CHANNELS.value, FIT.value, SCALING.value, int.from_bytes(secret[:8], "big")
    )
    study = design.arrange(choice, images, mode, secret, SPLIT.value)
    text, key_path = page.build(study, TITLE.value, TIME_LIMIT.value), out.with_suffix(".key.json")
    if key_path.exists() and answers.read_key(key_path).study != study.id:
        raise UserError(f"{key_path} is the key of another study, whose answers need it: choose another --out")
    files.make_directory(out.parent)
    files.write_json(key_path, design.key_of(study, settings))
    files.write_text(out, text)
    per_item = "pairs" if mode == "pairs" else "images, half of them real"
    scales = sorted({e.start_scale for e in choice.generated[: choice.main] if e.start_scale is not None})
    giveaway_report = "\n".join(giveaways.report(images.real, images.generated))
    print(
        f"study {study.id}: {sum(not item.practice for item in study.items)} {per_item}, {PRACTICE.value} for practice;"
        f" {study.size[0]}x{study.size[1]} pixels of {', '.join(study.groups)}"
        f"{f'; start scales {scales}' if scales else ''}; {images.note}, {max(images.levels)} levels\n"
        f"{giveaway_report}\n"
        f"{out}: {len(text) / 2**20:.1f} MiB, for the readers; it opens without a server and sends nothing\n"
        f"{key_path}: the truth. Keep it to yourself: who has it can read off every answer\n"
        f"score: python -m launch.reader_study score answers-{study.id}-*.json --key={key_path} --out=DIR"
    )
    return 0


def score(given: list[str]) -> int:
    """Writes scores.json, scores.csv and scores.png, and prints the table."""
    if not KEY.value:
        raise UserError("--key is needed: the file ending in .key.json that make has written beside the page")
    if not given:
        raise UserError("give the readers' files: score answers-*.json --key=study.key.json --out=DIR")
    key = answers.read_key(KEY.value)
    readers = answers.read_answers(given, key)
    if not any(reader.answers for reader in readers):
        raise UserError("nothing was answered in any of the files: there is nothing to score")
    for reader in readers:
        if len(reader.answers) < len(key.items):
            count = f"{len(reader.answers)} of {len(key.items)}"
            what = "scored on these" if reader.answers else "left out"
            print(f"note: {reader.name} has answered {count}: {what}", file=sys.stderr)
    scores = results.summarise(key, [reader for reader in readers if reader.answers], SEED.value)
    out = files.make_directory(OUT.value)
    files.write_json(out / "scores.json", scores)
    files.write_text(out / "scores.csv", results.csv_text(scores))
    files.write_bytes(out / "scores.png", plot.draw(scores))
    print(results.table(scores))
    print(f"\nscores.json, scores.csv and scores.png are in {out}")
    return 0


if __name__ == "__main__":
    cli.run(main, positional=True)
