"""Writes the study's images, as png.

python -m experiments.precision.images --out=runs/precision_images
"""

from experiments.precision.pieces import SIDE, pieces
from launch import cli
from launch import command_flags as flags
from launch.samples import pictures
from singan import files

OUT = flags.DEFINE_string("out", None, "give --out=FOLDER, where the images are written.", required=True)


def main(argv: list[str]) -> int:
    del argv
    out = files.make_directory(OUT.value)
    images = pieces()
    for name, pixels in images.items():
        files.write_bytes(out / f"{name}.png", pictures.encode_png(pixels))
    print(f"{len(images)} images of {SIDE}x{SIDE} pixels are in {out}")
    return 0


if __name__ == "__main__":
    cli.run(main)
